use super::*;
use crate::config::load::tests::{parsed, whole_example};

#[test]
fn the_example_holds_every_key() {
    let text = whole_example();
    let mut keys = Vec::new();
    collect_keys(&schema(), &mut keys);
    assert!(keys.len() > 50, "{} keys", keys.len());
    for key in keys {
        let is_there = |at: usize| {
            text[..at].ends_with(['\n', ' ', '{', '[', '.'])
                && [" =", "]"].iter().any(|after| text[at + key.len()..].starts_with(after))
        };
        assert!(text.match_indices(&key).any(|(at, _)| is_there(at)), "the example lacks `{key}`");
    }
}

fn collect_keys(schema: &Value, keys: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                keys.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| collect_keys(value, keys));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

/// A TOML literal of a JSON scalar or list of texts.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

#[test]
fn the_schema_tells_the_real_defaults() {
    let schema = schema();
    let mut compared = 0;
    let tables = [
        ("ServerTable", "[server]", ""),
        ("CorsTable", "[cors]", "origins = [\"https://a\"]\n"),
        ("TelemetryTable", "[telemetry]", ""),
        ("IdentityTable", "[identity]", ""),
        ("JwtTable", "[identity.jwt]", "jwks_file = \"jwks.json\"\n"),
        ("UpstreamTable", "[[upstream]]", "url = \"http://h\"\n"),
        ("HealthTable", "[[upstream]]\nurl = \"http://h\"\n[upstream.health]", "path = \"/h\"\n"),
        ("AffinityTable", "[[upstream]]\nurl = \"http://h\"\n[upstream.affinity]", ""),
        ("RouteTable", "[[route]]", ""),
        ("RetriesTable", "[[route]]\n[route.retries]", ""),
        ("TimeoutsTable", "[[route]]\n[route.timeouts]", ""),
        (
            "CanaryTable",
            "[[route]]\ntargets = [{ upstream = \"h\" }, { name = \"n\", upstream = \"h\" }]\n[route.canary]",
            "target = \"n\"\n",
        ),
        ("TargetTable", "[[route]]\n[[route.targets]]", "upstream = \"h\"\n"),
    ];
    for (table, header, needed) in tables {
        let tail = if ["UpstreamTable", "HealthTable", "AffinityTable"].contains(&table) {
            ""
        } else {
            "[[upstream]]\nurl = \"http://h\"\n"
        };
        let plain = parsed(&format!("{header}\n{needed}{tail}")).unwrap();
        let properties = schema["$defs"][table]["properties"].as_object().expect(table);
        for (key, property) in properties {
            let Some(default) =
                property.get("default").filter(|d| **d != serde_json::json!([]) && **d != serde_json::json!({}))
            else {
                continue;
            };
            let written = format!("{header}\n{needed}{key} = {}\n{tail}", literal(default));
            let settings = parsed(&written).unwrap_or_else(|problems| panic!("{written}\n{problems}"));
            assert_eq!(settings, plain, "{table}.{key}");
            compared += 1;
        }
    }
    assert!(compared >= 26, "only {compared} defaults compared");
}

#[test]
fn the_schema_refuses_unknown_keys_and_requires_what_must_be() {
    let schema = schema();
    assert!(!schema.to_string().contains("null"), "TOML has no null");
    assert_eq!(schema["additionalProperties"], false);
    let tables = schema["$defs"].as_object().unwrap();
    assert!(tables.len() >= 9, "{:?}", tables.keys());
    for (name, table) in tables {
        assert_eq!(table["additionalProperties"], false, "{name}");
        for (key, property) in table["properties"].as_object().unwrap() {
            let is_clear = property.get("description").is_some() || property.get("$ref").is_some();
            let is_plain = ["cert", "key", "service_name", "otlp_protocol", "upstream"].contains(&key.as_str());
            assert!(is_clear || is_plain, "{name}.{key} has no description: {property}");
        }
    }
    assert_eq!(schema["$defs"]["TlsTable"]["required"], serde_json::json!(["cert", "key"]));
    assert_eq!(schema["$defs"]["TargetTable"]["required"], serde_json::json!(["upstream"]));
}
