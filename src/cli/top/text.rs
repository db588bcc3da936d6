//! Words and numbers for a terminal.

use serde_json::Value;

/// Takes out of all texts what could move the cursor, change colours or turn the direction of writing: clients send them.
pub(super) fn make_plain(value: &mut Value) {
    match value {
        Value::String(text) if text.contains(is_harmful) => *text = text.replace(is_harmful, "\u{fffd}"),
        Value::Array(values) => values.iter_mut().for_each(make_plain),
        Value::Object(members) => members.values_mut().for_each(make_plain),
        _ => {}
    }
}

fn is_harmful(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whose a row is, in the view of a fleet, as short as tells replicas apart.
pub(super) fn whose(replica: &str) -> String {
    format!("@{}", replica.chars().take(8).collect::<String>())
}

/// `35 ms`, `3.12 s`, `2:05 min`; a dash for nothing.
pub(super) fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".to_owned(),
        Some(s) if s < 0.009_95 => format!("{:.1} ms", s * 1e3),
        Some(s) if s < 0.999_5 => format!("{:.0} ms", s * 1e3),
        Some(s) if s < 10.0 => format!("{s:.2} s"),
        Some(s) if s < 120.0 => format!("{s:.1} s"),
        Some(s) => format!("{}:{:02} min", (s / 60.0) as u64, (s % 60.0) as u64),
    }
}

/// `999`, `12.3 k`, `4.5 M`.
pub(super) fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{:.1} k", number as f64 / 1e3),
        _ => format!("{:.1} M", number as f64 / 1e6),
    }
}

/// `client_blocked` as people write it.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_are_short() {
        let times = [0.000_4, 0.035, 0.9996, 3.117, 59.94, 125.4].map(|seconds| time(Some(seconds)));
        assert_eq!(times, ["0.4 ms", "35 ms", "1.00 s", "3.12 s", "59.9 s", "2:05 min"]);
        assert_eq!([9_999, 12_345, 4_500_000].map(count), ["9999", "12.3 k", "4.5 M"]);
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        let mut value = serde_json::json!({ "a": ["x\u{1b}[2Jy", { "b": "\u{202e}z\n" }], "c": 1 });
        make_plain(&mut value);
        assert_eq!(value, serde_json::json!({ "a": ["x\u{fffd}[2Jy", { "b": "\u{fffd}z\u{fffd}" }], "c": 1 }));
    }
}
