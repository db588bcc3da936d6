use serde_json::{Value, json};

use super::*;
use crate::config::load::tests::{env, files, parsed, whole_example};
use crate::config::secret::MASK;
use crate::config::{Settings, parse, schema};

fn shown(settings: &Settings) -> Value {
    serde_json::to_value(settings).unwrap()
}

#[test]
fn what_a_url_may_hide_is_left_out() {
    let cases = [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("https://me:pa@ss@otel.example/v1?token=x#y", "https://otel.example/v1"),
        ("https://otel.example/a@b", "https://otel.example/a@b"),
    ];
    for (url, shown) in cases {
        assert_eq!(PlainUrl(url).to_string(), shown);
    }
}

/// Where each key stands that takes one of several words: its table in the schema, the file around it, and its place in what
/// is shown.
const WORDS: [(&str, &str, &str, &str); 12] = [
    ("ServerTable", "continue_traces", "[server]", "/server"),
    ("TelemetryTable", "otlp_protocol", "[telemetry]", "/telemetry"),
    ("TelemetryTable", "signals", "[telemetry]", "/telemetry"),
    ("JwtTable", "algorithms", "[identity.jwt]\njwks_file = \"jwks.json\"", "/identity/jwt"),
    ("UpstreamTable", "ask_usage", "[[upstream]]\nurl = \"http://a\"", "/upstream/0"),
    ("UpstreamTable", "protocol", "[[upstream]]\nurl = \"http://a\"", "/upstream/0"),
    ("RouteTable", "sticky", "[[route]]", "/route/0"),
    ("RouteTable", "failover", "[[route]]", "/route/0"),
    ("RouteTable", "kind", "[[route]]", "/route/0"),
    ("LimitTable", "key", "[[limit]]\nname = \"l\"\nconcurrent = 1", "/limit/0"),
    ("LimitTable", "on_exhausted", "[[limit]]\nname = \"l\"\nconcurrent = 1", "/limit/0"),
    ("LimitsTable", "on_failure", "[limits]", "/limits"),
];

/// The words that a property takes, itself or in a list.
fn words(property: &Value) -> Vec<String> {
    let property = property.get("items").unwrap_or(property);
    let listed = |key: &str| property[key].as_array().cloned().unwrap_or_default();
    let described = listed("oneOf");
    let described = described.iter().flat_map(|choice| {
        let several = choice["enum"].as_array().cloned().unwrap_or_default();
        choice.get("const").cloned().into_iter().chain(several)
    });
    listed("enum").into_iter().chain(described).filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

#[test]
fn each_word_is_shown_as_the_file_takes_it() {
    let schema = schema();
    let tables = schema["$defs"].as_object().unwrap();
    let is_of_words = |property: &&Value| !words(property).is_empty();
    let keys: usize = tables
        .values()
        .map(|table| table["properties"].as_object().unwrap().values().filter(is_of_words).count())
        .sum();
    assert_eq!(keys, WORDS.len(), "each key that takes words is looked at here");
    for (table, key, header, place) in WORDS {
        let property = &schema["$defs"][table]["properties"][key];
        let words = words(property);
        assert!(words.len() > 1, "{table}.{key}: {property}");
        for word in words {
            let is_list = property.get("items").is_some();
            let source = if word.starts_with("HS") {
                header.replace("jwks_file = \"jwks.json\"", "secret_env = \"JWT\"")
            } else {
                header.to_owned()
            };
            let value = if is_list { format!("[\"{word}\"]") } else { format!("\"{word}\"") };
            let upstream = if table == "UpstreamTable" { "" } else { "[[upstream]]\nurl = \"http://a\"" };
            let text = format!("{source}\n{key} = {value}\n{upstream}\n");
            let secret = |name: &str| if name == "JWT" { Some("s".repeat(32)) } else { env(name) };
            let settings =
                parse(&text, "conf/test.toml", &secret, &files).unwrap_or_else(|told| panic!("{text}\n{told}"));
            let expected = if is_list { json!([word]) } else { json!(word) };
            assert_eq!(shown(&settings).pointer(&format!("{place}/{key}")), Some(&expected), "{text}");
        }
    }
}

/// Without what is masked or absent.
fn unmasked(shown: &Value) -> Value {
    match shown {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null() && **value != MASK);
            kept.map(|(key, value)| (key.clone(), unmasked(value))).collect()
        }
        Value::Array(items) => items.iter().map(unmasked).collect(),
        other => other.clone(),
    }
}

/// What is shown, as it would be written: of keys only ids are shown, no condition is an empty list, and what the place of a
/// copy or a fallback has in common with a target is shown as one.
fn written(shown: &Value) -> String {
    let mut file = unmasked(shown);
    for key in file["identity"]["key"].as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("id");
        key["hash"] = json!("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
    for route in file["route"].as_array_mut().unwrap() {
        route
            .as_object_mut()
            .unwrap()
            .retain(|key, value| !["methods", "models"].contains(&&**key) || *value != json!([]));
        for place in route["fallback"].as_array_mut().unwrap() {
            place.as_object_mut().unwrap().remove("weight");
        }
        if let Some(shadow) = route["shadow"].as_object_mut() {
            let mut target = shadow.remove("target").unwrap();
            target.as_object_mut().unwrap().remove("weight");
            shadow.append(target.as_object_mut().unwrap());
        } else {
            route.as_object_mut().unwrap().remove("shadow");
        }
    }
    toml::to_string(&file).unwrap()
}

#[test]
fn what_is_shown_can_be_written_and_is_shown_so_again() {
    let text = whole_example().replace("step_time = \"10m\"", "step_time = \"1500ms\"");
    let once = shown(&parsed(&text).unwrap());
    let written = written(&once);
    assert!(written.contains("step_time = \"1500ms\"") && written.contains("continue_traces"), "{written}");
    // Paths are shown whole: they are relative to no directory any more.
    let again = parse(&written, "test.toml", &env, &files).unwrap_or_else(|told| panic!("{written}\n{told}"));
    assert_eq!(unmasked(&shown(&again)), unmasked(&once));
}

#[test]
fn no_secret_of_any_kind_is_shown() {
    const SECRET: &str = "canary-secret-that-is-32-bytes-long";
    let text = "[server]\nadmin_token_env = \"TOKEN\"\n\
        [identity.jwt]\nsecret_env = \"JWT\"\n\
        [[upstream]]\nname = \"a\"\nurl = \"http://a\"\napi_key_env = \"KEY\"\nhealth = { path = \"/h?k=canary-secret\" }\n\
        [[upstream]]\nname = \"b\"\nurl = \"http://b\"\napi_key_file = \"internal.key\"\n\
        [limits]\nredis = \"redis://u:canary-secret@r/0?p=canary-secret\"\nredis_password_env = \"REDIS\"\n\
        [[route]]\nupstream = \"a\"\nheaders = { x-tier = \"canary-secret\" }\n";
    let env = |name: &str| ["TOKEN", "JWT", "KEY", "REDIS"].contains(&name).then(|| SECRET.to_owned());
    let settings = parse(text, "conf/test.toml", &env, &files).unwrap_or_else(|told| panic!("{told}"));
    let mut shown = shown(&settings);
    assert!(!shown.to_string().contains("canary-secret"), "{shown}");
    for place in [
        "/server/admin_token",
        "/identity/jwt/secret",
        "/upstream/0/api_key",
        "/upstream/1/api_key",
        "/limits/redis_password",
        "/route/0/headers/x-tier",
    ] {
        assert_eq!(shown.pointer_mut(place).map(Value::take), Some(json!(MASK)), "{place}");
    }
    assert!(!shown.to_string().contains(MASK), "each mask was looked at: {shown}");
    assert_eq!(
        (&shown["limits"]["redis"], &shown["upstream"][0]["health"]["path"]),
        (&json!("redis://r/0"), &json!("/h"))
    );
}
