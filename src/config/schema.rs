//! The JSON Schema of the file, for editors.

use serde_json::Value;

use super::settings::File;

/// The JSON Schema (2020-12) of the configuration file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    remove_null(&mut schema);
    schema
}

/// TOML has no null: what may be absent is not required, and that is all. Takes null out of every list of types, words
/// and choices, so that editors do not offer it.
fn remove_null(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(remove_null),
        Value::Object(map) => {
            map.values_mut().for_each(remove_null);
            if map.get("default").is_some_and(|default| default.is_null() || default == "") {
                map.remove("default");
            }
            let is_null =
                |value: &Value| value.is_null() || value == "null" || value.get("type").is_some_and(|t| t == "null");
            for key in ["type", "enum", "anyOf"] {
                let Some(Value::Array(choices)) = map.get_mut(key) else { continue };
                choices.retain(|choice| !is_null(choice));
                if let ([only], true) = (choices.as_slice(), key != "enum") {
                    let only = only.clone();
                    map.remove(key);
                    match only {
                        Value::Object(fields) if key == "anyOf" => map.extend(fields),
                        only => drop(map.insert(key.to_owned(), only)),
                    }
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
