//! Edits of a JSON body by splicing its bytes: everything else stays as the client wrote it.

use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;

use super::request::lenient_json::{is_same_key, string_end};

/// `body` with `model` in place of the model that it names. `None`: it is no JSON object, or names no model. Of a key that
/// comes twice every value is replaced, and `Model` is the same key: backends differ in which of them they believe.
pub fn with_model(body: &[u8], model: &str) -> Option<Bytes> {
    let places = top_level_strings(body, "model").filter(|places| !places.is_empty())?;
    let name = Value::from(model).to_string();
    let edits = places.into_iter().map(|place| (place, name.as_bytes()));
    spliced(body, edits)
}

/// `body` with each of these places, which stand in its order, replaced by its text.
pub(super) fn spliced(body: &[u8], edits: impl Iterator<Item = (Range<usize>, impl AsRef<[u8]>)>) -> Option<Bytes> {
    const ROOM: usize = 64;
    let (mut out, mut copied) = (Vec::with_capacity(body.len() + ROOM), 0);
    for (place, text) in edits {
        out.extend_from_slice(body.get(copied..place.start)?);
        out.extend_from_slice(text.as_ref());
        copied = place.end;
    }
    out.extend_from_slice(body.get(copied..)?);
    Some(out.into())
}

/// Where the string values of `key` stand, quotes included, in a JSON object's first level.
fn top_level_strings(body: &[u8], key: &str) -> Option<Vec<Range<usize>>> {
    let mut found = Vec::new();
    let mut at = skip_space(body, 0);
    if body.get(at) != Some(&b'{') {
        return None;
    }
    at = skip_space(body, at + 1);
    while body.get(at) == Some(&b'"') {
        let name = at..string_end(body, at)?;
        at = skip_space(body, name.end);
        if body.get(at) != Some(&b':') {
            return None;
        }
        at = skip_space(body, at + 1);
        let value = at..value_end(body, at)?;
        let is_key = serde_json::from_slice::<String>(body.get(name)?).is_ok_and(|name| is_same_key(&name, key));
        if is_key && body.get(value.start) == Some(&b'"') {
            found.push(value.clone());
        }
        at = skip_space(body, value.end);
        match body.get(at) {
            Some(b',') => at = skip_space(body, at + 1),
            Some(b'}') => return Some(found),
            _ => return None,
        }
    }
    (body.get(at) == Some(&b'}')).then_some(found)
}

fn skip_space(body: &[u8], from: usize) -> usize {
    let rest = body.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The end of the value that begins at `from`. Brackets are counted, not matched: who routed the body has parsed it.
fn value_end(body: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = from;
    loop {
        match body.get(at)? {
            b'"' => at = string_end(body, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return (at > from).then_some(at),
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn spliced(body: &str, model: &str) -> Option<String> {
        with_model(body.as_bytes(), model).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn only_the_models_bytes_change() {
        let vectors = [
            (r#"{"model":"a"}"#, Some(r#"{"model":"m2"}"#)),
            (
                " {\n\t\"x\" : 1.50 ,\"model\" : \"a\\\"b\" , \"y\":[ ] }\n",
                Some(" {\n\t\"x\" : 1.50 ,\"model\" : \"m2\" , \"y\":[ ] }\n"),
            ),
            (
                r#"{"a":{"model":"in"},"b":["model",{"model":"in"}],"model":"a"}"#,
                Some(r#"{"a":{"model":"in"},"b":["model",{"model":"in"}],"model":"m2"}"#),
            ),
            (r#"{"model":"a","model":"b"}"#, Some(r#"{"model":"m2","model":"m2"}"#)),
            (r#"{"mod\u0065l":"a"}"#, Some(r#"{"mod\u0065l":"m2"}"#)),
            (r#"{"Model":"a","mOdel":"b"}"#, Some(r#"{"Model":"m2","mOdel":"m2"}"#)),
            (r#"{"x":NaN,"model":"a\ud83d"}"#, Some(r#"{"x":NaN,"model":"m2"}"#)),
            (r#"{"s":"}\\","model":"a"}"#, Some(r#"{"s":"}\\","model":"m2"}"#)),
            (r#"{"model":7}"#, None),
            (r#"{"model":null,"x":"model"}"#, None),
            ("{}", None),
            (r#"["model","a"]"#, None),
            (r#"{"model":"a""#, None),
            (r#"{"model" "a"}"#, None),
            ("", None),
        ];
        for (body, expected) in vectors {
            assert_eq!(spliced(body, "m2").as_deref(), expected, "{body}");
        }
        assert_eq!(spliced(r#"{"model":"a"}"#, "q\"\u{1}ü").as_deref(), Some("{\"model\":\"q\\\"\\u0001ü\"}"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec(("model|[a-z\"\\\\{}]{0,6}", inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// What comes out is the document with another model, and all other bytes are the client's.
        #[test]
        fn it_is_the_same_document_with_another_model(
            mut fields in proptest::collection::vec(("[a-z\"\\\\]{0,6}", any_json()), 0..6),
            old: String, new: String, at: prop::sample::Index, pretty: bool,
        ) {
            fields.retain(|(key, _)| key != "model");
            fields.insert(at.index(fields.len() + 1), ("model".to_owned(), json!(old)));
            let document = Value::Object(fields.into_iter().collect());
            let body = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
            let out = spliced(&body, &new).unwrap();
            let mut expected = document.clone();
            expected["model"] = json!(new);
            prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
            prop_assert_eq!(spliced(&out, &old).unwrap(), body);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, json in "[{}\\[\\]\",:\\\\model0-9 ]{0,60}") {
            let _ = with_model(&bytes, "m");
            let _ = with_model(json.as_bytes(), "m");
        }
    }
}
