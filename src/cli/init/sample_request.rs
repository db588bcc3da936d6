//! A request that an app is likely to answer with a stream, made of its OpenAPI description.

use std::cell::Cell;

use serde_json::{Map, Value, json};

/// How deep a body is built. Deeper values are left empty.
const DEPTH_MAX: usize = 6;

/// Most values of a body.
const VALUES_MAX: usize = 200;

/// Longest body that is proposed, in bytes; a longer one is left for its author to write.
const BODY_MAX: usize = 1_000;

/// Longest path, in bytes.
const PATH_MAX: usize = 200;

/// Words in the path of an operation that streams, the likeliest first.
const LIKELY: [&str; 5] = ["chat", "stream", "completion", "generate", "ask"];

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sample {
    Get {
        path: String,
    },
    /// `None`: its description has no JSON body.
    Post {
        path: String,
        body: Option<Value>,
    },
}

/// The most promising operation of the description; `None` where none can be typed.
pub(super) fn of(description: &Value) -> Option<Sample> {
    let paths = description.get("paths")?.as_object()?;
    let operations = paths.iter().filter(|(path, _)| is_plain(path)).flat_map(|(path, methods)| {
        ["post", "get"].into_iter().filter_map(move |method| Some((path, method, methods.get(method)?)))
    });
    // The first of equal ones.
    let ranked = operations.filter_map(|(path, method, operation)| {
        let body = if method == "post" { body_of(operation, description) } else { None };
        let rank = (likelihood(path, operation)?, body.is_none(), method != "get");
        let path = path.clone();
        Some((rank, if method == "post" { Sample::Post { path, body } } else { Sample::Get { path } }))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, sample)| sample)
}

/// Lower is likelier; `None`: it is no stream, as far as can be told.
fn likelihood(path: &str, operation: &Value) -> Option<usize> {
    let path = path.to_ascii_lowercase();
    let word = LIKELY.iter().position(|word| path.contains(word));
    if streams(operation) { Some(word.unwrap_or(LIKELY.len())) } else { word.map(|word| LIKELY.len() + 1 + word) }
}

fn streams(operation: &Value) -> bool {
    let answers = operation.get("responses").and_then(Value::as_object);
    let kinds = answers.into_iter().flat_map(Map::values).filter_map(|answer| answer.get("content")?.as_object());
    kinds.flat_map(Map::keys).any(|kind| kind.starts_with("text/event-stream") || kind.contains("ndjson"))
}

/// A path that can be typed into a shell as it is, without parameters.
fn is_plain(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.".contains(&byte);
    path.starts_with('/') && path.len() <= PATH_MAX && path.bytes().all(plain)
}

fn body_of(operation: &Value, description: &Value) -> Option<Value> {
    let content = operation.pointer("/requestBody/content/application~1json")?;
    let given = content.get("example").cloned();
    let body = given.unwrap_or_else(|| {
        let builder = Builder { description, left: Cell::new(VALUES_MAX) };
        builder.value(content.get("schema").unwrap_or(&Value::Null), 0)
    });
    Some(if body.to_string().len() > BODY_MAX { json!({}) } else { body })
}

/// Builds values that fit a schema, with no more than it asks for.
struct Builder<'a> {
    description: &'a Value,
    /// Values that may still be built.
    left: Cell<usize>,
}

impl Builder<'_> {
    fn value(&self, schema: &Value, depth: usize) -> Value {
        if depth > DEPTH_MAX || self.left.get() == 0 {
            return Value::Null;
        }
        self.left.set(self.left.get() - 1);
        let reference = schema.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix('#'));
        if let Some(target) = reference.and_then(|at| self.description.pointer(at)) {
            return self.value(target, depth + 1);
        }
        let first = |list: &str| schema.get(list).and_then(Value::as_array).and_then(|list| list.first());
        let given = ["const", "example", "default"].iter().find_map(|key| schema.get(*key));
        if let Some(given) = given.or(first("examples")).or(first("enum")) {
            return given.clone();
        }
        if let Some(either) = first("anyOf").or(first("oneOf")).or(first("allOf")) {
            return self.value(either, depth + 1);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string") => json!("hello"),
            Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
            Some("boolean") => json!(true),
            Some("array") => self.list(schema, depth),
            _ => self.object(schema, depth),
        }
    }

    /// With one entry where one is asked for, and of objects: an empty conversation is refused by most apps.
    fn list(&self, schema: &Value, depth: usize) -> Value {
        let Some(items) = schema.get("items") else { return json!([]) };
        let is_asked = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0) > 0;
        let of_objects = items.get("$ref").or(items.get("properties")).is_some();
        if is_asked || of_objects { json!([self.value(items, depth + 1)]) } else { json!([]) }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let Some(properties) = schema.get("properties") else { return json!({}) };
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let property = |name: &str| Some((name.to_owned(), self.value(properties.get(name)?, depth + 1)));
        required.filter_map(property).collect::<Map<_, _>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As FastAPI describes an app: the shapes are components.
    fn described(paths: Value) -> Value {
        json!({"paths": paths, "components": {"schemas": {
            "Chat": {"type": "object", "required": ["message", "n", "mode", "turns"], "properties": {
                "message": {"type": "string"}, "n": {"type": "integer", "minimum": 2}, "mode": {"enum": ["fast", "slow"]},
                "turns": {"type": "array", "items": {"$ref": "#/components/schemas/Turn"}}, "think": {"type": "number", "default": 0.5},
            }},
            "Turn": {"type": "object", "required": ["role", "text"], "properties": {"role": {"default": "user"}, "text": {"anyOf": [{"type": "string"}, {"type": "null"}]}}},
            "Loop": {"type": "object", "required": ["next"], "properties": {"next": {"$ref": "#/components/schemas/Loop"}}},
        }}})
    }

    fn post(schema: &str) -> Value {
        json!({"post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}}}}})
    }

    #[test]
    fn a_body_has_what_the_app_asks_for() {
        let sample = of(&described(json!({"/users": post("Turn"), "/api/chat": post("Chat")}))).unwrap();
        let body = json!({"message": "hello", "n": 2, "mode": "fast", "turns": [{"role": "user", "text": "hello"}]});
        assert_eq!(sample, Sample::Post { path: "/api/chat".to_owned(), body: Some(body) });
    }

    fn body(description: &Value) -> Value {
        let Some(Sample::Post { body: Some(body), .. }) = of(description) else { panic!("a POST with a body") };
        body
    }

    #[test]
    fn of_two_that_are_as_likely_one_with_a_described_body_is_taken() {
        let bare = json!({"post": {}, "get": {}});
        let sample = of(&described(json!({"/a/chat": bare, "/b/chat": post("Turn")}))).unwrap();
        assert!(matches!(sample, Sample::Post { path, body: Some(_) } if path == "/b/chat"));
        let sample = of(&described(json!({ "/a/chat": bare }))).unwrap();
        assert_eq!(sample, Sample::Get { path: "/a/chat".to_owned() });
        let sample = of(&described(json!({ "/a/chat": {"post": {}} }))).unwrap();
        assert_eq!(sample, Sample::Post { path: "/a/chat".to_owned(), body: None });
    }

    #[test]
    fn a_declared_stream_is_the_likeliest() {
        let streaming = json!({"get": {"responses": {"200": {"content": {"text/event-stream": {}}}}}});
        let sample = of(&described(json!({"/chat": post("Chat"), "/events": streaming}))).unwrap();
        assert_eq!(sample, Sample::Get { path: "/events".to_owned() });
    }

    #[test]
    fn what_cannot_be_typed_is_not_proposed() {
        let hostile = ["/chat/{id}", "/chat'; rm -rf ~", "/chat $(id)", "chat", "/chat\n"];
        for path in hostile {
            assert_eq!(of(&described(json!({ path: post("Chat") }))), None, "{path}");
        }
        assert_eq!(of(&described(json!({ "/health": {"get": {}} }))), None);
        for none in [
            json!(null),
            json!({"paths": []}),
            json!({"paths": {"/chat": []}}),
            json!({"paths": {"/chat": {"post": 1}}}),
        ] {
            let _ = of(&none);
        }
    }

    #[test]
    fn shapes_without_an_end_and_long_ones_are_bounded() {
        assert!(body(&described(json!({"/chat": post("Loop")}))).to_string().len() < BODY_MAX);
        // Each object asks for all of the next: 30 to the sixth values.
        let names: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        let all =
            |shape: &str| names.iter().map(|name| (name.clone(), json!({ "$ref": shape }))).collect::<Map<_, _>>();
        let mut wide = described(json!({"/chat": post("Wide")}));
        wide["components"]["schemas"]["Wide"] =
            json!({"type": "object", "required": names, "properties": all("#/components/schemas/Wide")});
        assert_eq!(body(&wide), json!({}));
        let mut long = described(json!({"/chat": post("Long")}));
        long["components"]["schemas"]["Long"] = json!({"example": "x".repeat(10_000)});
        assert_eq!(body(&long), json!({}));
    }
}
