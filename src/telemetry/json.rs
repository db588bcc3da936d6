//! Writes JSON straight into a buffer: a log line a request is worth more speed than a tree of values has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest text that is written, in bytes; what is longer is cut and ends in `…`.
const TEXT_MAX: usize = 2_048;

/// Longest text in a line for people, in bytes.
const PLAIN_MAX: usize = 512;

/// An object or array under construction. Close it with [`Json::end`].
pub(crate) struct Json<'a> {
    out: &'a mut String,
    close: char,
    first: bool,
}

impl<'a> Json<'a> {
    pub(crate) fn object(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, close: '}', first: true }
    }

    /// How long what was written so far is, in bytes, with all that stands before it.
    pub(crate) fn length(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn end(self) {
        self.out.push(self.close);
    }

    /// A member with a text. `key` needs no escapes: all keys are our own words.
    pub(crate) fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        quoted(self.out, value);
    }

    pub(crate) fn text_if(&mut self, key: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    pub(crate) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        integer(self.out, value);
    }

    pub(crate) fn number_if(&mut self, key: &'static str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(key, value);
        }
    }

    pub(crate) fn truth_if(&mut self, key: &'static str, value: Option<bool>) {
        if let Some(value) = value {
            self.bare(key, if value { "true" } else { "false" });
        }
    }

    /// A member that is written as JSON already: a number or a truth value.
    pub(crate) fn bare(&mut self, key: &'static str, value: &str) {
        self.key(key);
        self.out.push_str(value);
    }

    /// In seconds, to the microsecond.
    pub(crate) fn seconds(&mut self, key: &'static str, value: Duration) {
        self.key(key);
        seconds(self.out, value, 6);
    }

    pub(crate) fn seconds_if(&mut self, key: &'static str, value: Option<Duration>) {
        if let Some(value) = value {
            self.seconds(key, value);
        }
    }

    pub(crate) fn time(&mut self, key: &'static str, value: SystemTime) {
        self.key(key);
        self.out.push('"');
        rfc3339(self.out, value);
        self.out.push('"');
    }

    pub(crate) fn nested(&mut self, key: &'static str) -> Json<'_> {
        self.key(key);
        Json::object(self.out)
    }

    pub(crate) fn array(&mut self, key: &'static str) -> Json<'_> {
        self.key(key);
        self.out.push('[');
        Json { out: self.out, close: ']', first: true }
    }

    /// A member as `write` puts it.
    pub(crate) fn raw(&mut self, key: &'static str, write: impl FnOnce(&mut String)) {
        self.key(key);
        write(self.out);
    }

    /// The next element of an array: an object.
    pub(crate) fn element(&mut self) -> Json<'_> {
        self.separate();
        Json::object(self.out)
    }

    /// The next element of an array: a text.
    pub(crate) fn element_text(&mut self, value: &str) {
        self.separate();
        quoted(self.out, value);
    }

    /// The next element of an array, as `write` puts it.
    pub(crate) fn element_raw(&mut self, write: impl FnOnce(&mut String)) {
        self.separate();
        write(self.out);
    }

    fn key(&mut self, key: &str) {
        self.separate();
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    fn separate(&mut self) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
    }
}

/// `value` as a JSON string. Runs without anything to escape are copied whole.
pub(crate) fn quoted(out: &mut String, value: &str) {
    let (value, cut) = bounded(value, TEXT_MAX);
    out.push('"');
    if is_plain(value) {
        out.push_str(value);
    } else {
        escaped(out, value);
    }
    if cut {
        out.push('…');
    }
    out.push('"');
}

/// Whether a text goes into JSON as it is. Looks at all of it whatever comes, so that the compiler takes many bytes at once.
fn is_plain(value: &str) -> bool {
    value.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != 0x7f) & (byte != b'"') & (byte != b'\\'))
}

fn escaped(out: &mut String, value: &str) {
    let mut copied = 0;
    for (at, byte) in value.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f | 0x7f => "",
            _ => continue,
        };
        out.push_str(value.get(copied..at).unwrap_or_default());
        copied = at + 1;
        if escape.is_empty() {
            out.push_str("\\u00");
            out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            out.push(char::from_digit(u32::from(byte & 0xf), 16).unwrap_or('0'));
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(value.get(copied..).unwrap_or_default());
}

/// At most `limit` bytes of `value`, at a character's end, and whether that is not all of it.
pub(crate) fn bounded(value: &str, limit: usize) -> (&str, bool) {
    if value.len() <= limit {
        (value, false)
    } else {
        (value.get(..value.floor_char_boundary(limit)).unwrap_or_default(), true)
    }
}

/// A foreign text for a terminal: bounded, and without anything that could move the cursor, change its colours or turn the
/// direction of writing.
pub(crate) fn plain(text: &str, out: &mut String) {
    let (text, cut) = bounded(text, PLAIN_MAX);
    out.extend(text.chars().map(|character| if steers_terminals(character) { '\u{fffd}' } else { character }));
    if cut {
        out.push('…');
    }
}

/// Whether a terminal that is sent the character could move its cursor, change its colours, or turn the direction of writing.
pub(crate) fn steers_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Seconds with `digits` (at most 9) decimals, rounded.
pub(crate) fn seconds(out: &mut String, value: Duration, digits: u32) {
    let unit = 10_u64.pow(9 - digits.min(9));
    let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX - unit);
    let units = (nanos + unit / 2) / unit;
    let per_second = 1_000_000_000 / unit;
    integer(out, units / per_second);
    if digits > 0 {
        out.push('.');
        padded(out, units % per_second, digits as usize);
    }
}

/// `2026-01-31T23:59:59.123Z` as a text of its own.
pub fn timestamp(time: SystemTime) -> String {
    let mut text = String::with_capacity(24);
    rfc3339(&mut text, time);
    text
}

/// `2026-01-31T23:59:59.123Z`.
pub(crate) fn rfc3339(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    padded(out, year, 4);
    out.push('-');
    padded(out, month, 2);
    out.push('-');
    padded(out, day, 2);
    out.push('T');
    clock(out, time);
    out.push('.');
    padded(out, u64::from(since.subsec_millis()), 3);
    out.push('Z');
}

/// `23:59:59`, in UTC.
pub(crate) fn clock(out: &mut String, time: SystemTime) {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    padded(out, seconds / 3_600 % 24, 2);
    out.push(':');
    padded(out, seconds / 60 % 60, 2);
    out.push(':');
    padded(out, seconds % 60, 2);
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

pub(crate) fn integer(out: &mut String, value: u64) {
    padded(out, value, 1);
}

/// At least `width` (at most 9) decimal digits, filled with zeros.
fn padded(out: &mut String, value: u64, width: usize) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value);
    out.push_str("000000000".get(..width.saturating_sub(digits.len())).unwrap_or_default());
    out.push_str(digits);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn objects_nest() {
        let text = written(|out| {
            let mut object = Json::object(out);
            object.text("a", "x");
            object.number_if("none", None);
            let mut list = object.array("b");
            list.element_text("y");
            let mut element = list.element();
            element.truth_if("c", Some(true));
            element.end();
            list.end();
            object.nested("d").end();
            object.end();
        });
        assert_eq!(text, r#"{"a":"x","b":["y",{"c":true}],"d":{}}"#);
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(written(|out| rfc3339(out, UNIX_EPOCH + Duration::from_secs(seconds))), expected);
        }
    }

    #[test]
    fn seconds_are_rounded() {
        let at = |nanos, digits| written(|out| seconds(out, Duration::from_nanos(nanos), digits));
        assert_eq!(at(0, 6), "0.000000");
        assert_eq!(at(1_499, 6), "0.000001");
        assert_eq!(at(1_500, 6), "0.000002");
        assert_eq!(at(999_999_999, 3), "1.000");
        assert_eq!(at(61_000_000_000, 0), "61");
        assert_eq!(at(123_456_789, 9), "0.123456789");
        assert!(written(|out| seconds(out, Duration::MAX, 6)).parse::<f64>().is_ok());
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = written(|out| quoted(out, &"ä".repeat(TEXT_MAX)));
        let read: String = serde_json::from_str(&text).unwrap();
        assert_eq!(read.chars().count(), TEXT_MAX / 2 + 1);
        assert!(read.ends_with("ä…"));
    }

    proptest! {
        #[test]
        fn any_text_reads_back(value: String) {
            let text = written(|out| quoted(out, &value));
            prop_assert!(!text.bytes().any(|byte| byte < 0x20 || byte == 0x7f));
            prop_assert_eq!(serde_json::from_str::<String>(&text).unwrap(), value);
        }

        #[test]
        fn any_number_reads_back(value: u64, width in 1_usize..20) {
            prop_assert_eq!(written(|out| integer(out, value)), value.to_string());
            prop_assert_eq!(written(|out| padded(out, value, width)), format!("{value:0width$}"));
        }
    }
}
