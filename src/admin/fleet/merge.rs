//! Makes one answer of those of all replicas: lists are put together, and each row tells its replica.

use serde_json::{Map, Value, json};

use crate::admin::pages::Page;

/// What the report of what was left out takes, in bytes.
const NOT_SHOWN_BYTES: usize = 256;

/// The lists of a view that all replicas have something of; `None`: it is of one replica alone.
pub(in crate::admin) fn lists(page: Page) -> Option<&'static [&'static str]> {
    Some(match page {
        Page::Streams => &["live", "recent", "hints", "troubles", "shadows"],
        Page::History => &["series"],
        Page::Upstreams => &["upstreams"],
        Page::Limits => &["holders", "refusing"],
        Page::Canaries => &["canaries"],
        Page::Levers => &["levers", "unserved_routes"],
        _ => return None,
    })
}

/// Of `views`, by replica, the first of which is the asked one's own: its lists with the rows of all; what else it has stays.
pub(in crate::admin) fn merged(lists: &[&str], views: Vec<(String, Value)>) -> Value {
    let mut all: Vec<(&str, Vec<Value>)> = lists.iter().map(|list| (*list, Vec::new())).collect();
    let mut own = Map::new();
    for (number, (replica, mut view)) in views.into_iter().enumerate() {
        for (list, rows) in &mut all {
            if let Some(Value::Array(of_replica)) = view.get_mut(*list).map(Value::take) {
                rows.extend(of_replica.into_iter().map(|row| told_by(&replica, row)));
            }
        }
        if let (0, Value::Object(view)) = (number, view) {
            own = view;
        }
    }
    for (list, mut rows) in all {
        sort(list, &mut rows);
        own.insert(list.to_owned(), Value::Array(rows));
    }
    Value::Object(own)
}

/// A row with its replica.
fn told_by(replica: &str, row: Value) -> Value {
    match row {
        Value::Object(mut row) => {
            row.insert("replica".to_owned(), json!(replica));
            Value::Object(row)
        }
        value => json!({ "replica": replica, "value": value }),
    }
}

/// As each replica sorts them: running requests by their start, ended ones the newest first.
fn sort(list: &str, rows: &mut [Value]) {
    let at = |row: &Value| row.get("timestamp").and_then(Value::as_str).unwrap_or_default().to_owned();
    match list {
        "live" => rows.sort_by_cached_key(at),
        "recent" | "failed" | "refused" => rows.sort_by_cached_key(|row| std::cmp::Reverse(at(row))),
        _ => {}
    }
}

/// A view in at most `most` bytes: rows are left out from the end of its longest list, and it says how many, in `not_shown`.
pub(in crate::admin) fn fit(mut view: Value, lists: &[&str], most: usize) -> Value {
    let mut surplus = view.to_string().len().saturating_sub(most);
    if surplus == 0 {
        return view;
    }
    surplus += NOT_SHOWN_BYTES;
    let rows = |list: &&str| -> Vec<usize> {
        let rows = view.get(*list).and_then(Value::as_array);
        rows.into_iter().flatten().map(|row| row.to_string().len() + 1).collect()
    };
    let mut sizes: Vec<Vec<usize>> = lists.iter().map(rows).collect();
    while surplus > 0 {
        let longest = sizes.iter_mut().max_by_key(|sizes| sizes.iter().sum::<usize>());
        let Some(size) = longest.and_then(Vec::pop) else { break };
        surplus = surplus.saturating_sub(size);
    }
    let mut not_shown = Map::new();
    for (list, kept) in lists.iter().zip(sizes) {
        if let Some(Value::Array(rows)) = view.get_mut(*list)
            && kept.len() < rows.len()
        {
            not_shown.insert((*list).to_owned(), json!(rows.len() - kept.len()));
            rows.truncate(kept.len());
        }
    }
    if let Value::Object(view) = &mut view {
        view.insert("not_shown".to_owned(), Value::Object(not_shown));
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_tell_their_replica_and_are_sorted_as_one() {
        let view =
            |at: &str, mode: &str| json!({ "mode": mode, "recent": [{ "timestamp": at }], "unserved": ["chat"] });
        let views = vec![("a".to_owned(), view("2026-01-01", "x")), ("b".to_owned(), view("2026-01-02", "y"))];
        assert_eq!(
            merged(&["recent", "unserved", "none"], views),
            json!({
                "mode": "x",
                "recent": [{ "timestamp": "2026-01-02", "replica": "b" }, { "timestamp": "2026-01-01", "replica": "a" }],
                "unserved": [{ "replica": "a", "value": "chat" }, { "replica": "b", "value": "chat" }],
                "none": [],
            })
        );
        let hostile = vec![
            ("a".to_owned(), json!({ "recent": [] })),
            ("b".to_owned(), json!({ "recent": 7 })),
            ("c".to_owned(), json!([1])),
        ];
        assert_eq!(merged(&["recent"], hostile), json!({ "recent": [] }));
    }

    #[test]
    fn what_is_too_long_loses_the_end_of_its_longest_list() {
        let rows: Vec<Value> = (0..1_000).map(|number| json!({ "number": number, "text": "x".repeat(90) })).collect();
        let view = json!({ "live": [1, 2], "recent": rows });
        let all = view.to_string().len();
        assert_eq!(fit(view.clone(), &["live", "recent"], all), view);
        let fitted = fit(view, &["live", "recent"], 10_000);
        assert!(fitted.to_string().len() <= 10_000, "{}", fitted.to_string().len());
        let kept = fitted["recent"].as_array().unwrap().len();
        assert!(kept > 70, "no more than must is left out: {kept}");
        assert_eq!(fitted["not_shown"], json!({ "recent": 1_000 - kept }));
        assert_eq!((&fitted["live"], &fitted["recent"][0]["number"]), (&json!([1, 2]), &json!(0)));
        assert_eq!(fit(json!({ "text": "x".repeat(900) }), &["live"], 10)["not_shown"], json!({}));
    }
}
