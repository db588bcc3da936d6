use proptest::prelude::*;

use super::tests::{EXAMPLE, MINIMAL, parsed, whole_example};

/// Whatever comes, it is settings or problems with a place inside the text.
#[track_caller]
fn settled(text: &str) -> bool {
    let Err(problems) = parsed(text) else { return true };
    let lines = text.lines().count() + 1;
    assert!(problems.count() > 0);
    for problem in problems.iter() {
        assert!(problem.line >= 1 && problem.line <= lines.max(1), "{problem} in {lines} lines");
        assert!(problem.column >= 1 && !problem.message.is_empty(), "{problem}");
        assert!(!problem.message.contains("canary-secret"), "a secret in: {problem}");
    }
    false
}

#[test]
fn truncation_at_any_byte_is_told() {
    let example = whole_example();
    let mut right = 0;
    let mut cuts = 0;
    for end in (0..example.len()).filter(|end| example.is_char_boundary(*end)) {
        right += u32::from(settled(&example[..end]));
        cuts += 1;
    }
    assert!(cuts > 4_000 && right < cuts / 2, "{right} of {cuts} truncations pass");
}

#[test]
fn ten_times_over_is_told() {
    for text in [EXAMPLE, MINIMAL, &whole_example()] {
        let ten = text.repeat(10);
        let problems = parsed(&ten).unwrap_err();
        assert!(problems.count() >= 9, "{problems}");
        settled(&ten);
    }
}

#[test]
fn a_thousand_wrong_keys_are_bounded() {
    let text: String = (0..1_000).map(|n| format!("[[upstream]]\nwrong_{n} = 1\n")).collect();
    let problems = parsed(&text).unwrap_err();
    assert!(problems.count() >= 100);
    assert!(problems.iter().count() <= 100);
}

#[test]
fn deep_nesting_is_told() {
    for text in [
        format!("{}a = 1\n", "a.".repeat(100_000)),
        format!("x = {}1{}\n", "[".repeat(100_000), "]".repeat(100_000)),
        format!("[{}a]\n", "upstream.".repeat(10_000)),
    ] {
        assert!(!settled(&text));
    }
}

/// Lines of a file, right and wrong, in any order and number.
fn lines() -> impl Strategy<Value = String> {
    let example: Vec<String> = whole_example().lines().map(str::to_owned).collect();
    let line = prop_oneof![
        8 => proptest::sample::select(example),
        1 => "[a-z_.\\[\\]{}=\"' 0-9#,:/*-]{0,40}",
        1 => ("[a-z_]{1,12}", prop_oneof![Just("1"), Just("true"), Just("[]"), Just("{}"), Just("\"\""), Just("-1"), Just("nan"), Just("1979-05-27")])
            .prop_map(|(key, value)| format!("{key} = {value}")),
    ];
    proptest::collection::vec(line, 0..40).prop_map(|lines| lines.join("\n"))
}

/// Every key with a value of every kind.
#[test]
fn every_key_with_every_kind_of_value() {
    let values = [
        "1",
        "-1",
        "0",
        "1.5",
        "nan",
        "true",
        "\"\"",
        "\"x\"",
        "\"*\"",
        "\"-1s\"",
        "[]",
        "[1]",
        "[[]]",
        "[\"\"]",
        "[{}]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
        "07:32:00",
        "99999999999999999999",
        "\"\\u0000\"",
        "\"\\n\"",
        "[1979-05-27]",
    ];
    let schema = crate::config::schema();
    let mut tried = 0;
    for (table, header) in [
        ("ServerTable", "[server]"),
        ("CorsTable", "[cors]"),
        ("TelemetryTable", "[telemetry]"),
        ("UpstreamTable", "[[upstream]]"),
        ("RouteTable", "[[route]]"),
        ("TargetTable", "[[route]]\n[[route.targets]]"),
        ("TimeoutsTable", "[[route]]\n[route.timeouts]"),
        ("TlsTable", "[server.tls]"),
        ("StreamTable", "[[upstream]]\n[upstream.stream]"),
    ] {
        for key in schema["$defs"][table]["properties"].as_object().expect(table).keys() {
            for value in values {
                settled(&format!("{header}\n{key} = {value}\n"));
                settled(&format!("{header}\n{key}.{key} = {value}\n"));
                tried += 1;
            }
        }
    }
    assert!(tried > 1_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_settled(text in "\\PC*") {
        settled(&text);
    }

    #[test]
    fn any_bytes_are_settled(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        settled(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn shuffled_lines_are_settled(text in lines()) {
        settled(&text);
    }

    #[test]
    fn a_changed_byte_is_settled(at in 0_usize..4_000, byte in 0x20_u8..0x7f) {
        let mut bytes = whole_example().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        settled(&String::from_utf8_lossy(&bytes));
    }
}
