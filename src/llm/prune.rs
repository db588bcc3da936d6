//! One JSON value of any length, cut down to its skeleton while it passes: pictures, sound and long texts become their
//! first bytes, and long lists their first items, while what tells of tokens, models and errors stays. In bounded memory.

use memchr::memchr2;

/// Most bytes kept of one string; of a number far less.
const STRING_MAX: usize = 512;
const SCALAR_MAX: usize = 64;
const KEY_MAX: usize = 64;

/// Most bytes kept of all that a container has, by its depth; the outermost first.
const KEPT: [usize; 3] = [64 << 10, 16 << 10, 8 << 10];
const KEPT_DEEPER: usize = 4 << 10;

/// No more is kept of anything beyond this.
const KEPT_MAX: usize = 128 << 10;

/// Containers nested deeper are left out: nothing that is read stands there.
const DEPTH_MAX: usize = 24;

/// Keys that are kept though their container is full: what readers look for, and the way there.
const WANTED: [&[u8]; 22] = [
    b"usage",
    b"usageMetadata",
    b"usage_metadata",
    b"meta",
    b"metrics",
    b"iterations",
    b"model",
    b"modelVersion",
    b"id",
    b"type",
    b"object",
    b"status",
    b"error",
    b"response",
    b"message",
    b"finish_reason",
    b"finishReason",
    b"stop_reason",
    b"stopReason",
    b"incomplete_details",
    b"done",
    b"eval_count",
];

/// Cuts one JSON value down. It does not check the value: of what is no JSON it makes no JSON.
#[derive(Debug, Default)]
pub(super) struct Pruner {
    kept: Vec<u8>,
    levels: Vec<Level>,
    /// How deep the bytes are inside a container that is left out.
    left_out: usize,
    token: Token,
    /// The token at hand goes into `kept`.
    keeps_token: bool,
    /// Bytes kept of the token at hand.
    token_len: usize,
    /// Nothing more of it is kept: it has its share.
    is_cut: bool,
    /// Digits that the code of an escape still needs.
    digits: usize,
    /// The last byte was a backslash inside a string.
    escaped: bool,
    key: Key,
    /// The outermost container has ended.
    ended: bool,
}

/// A container that is open, and kept.
#[derive(Debug)]
struct Level {
    is_object: bool,
    /// How long `kept` may become before the rest of the container is left out.
    until: usize,
    /// It has an item already.
    filled: bool,
}

/// What the bytes are inside of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Token {
    #[default]
    None,
    Key,
    Text,
    Scalar,
}

/// The key of the value that comes, as it is written.
#[derive(Debug, Default)]
struct Key {
    bytes: Vec<u8>,
    has_come: bool,
}

impl Key {
    fn is_too_long(&self) -> bool {
        self.bytes.len() > KEY_MAX
    }
}

impl Pruner {
    /// Takes the next bytes of the value.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            let taken = match self.token {
                Token::Key | Token::Text => self.in_string(rest),
                Token::Scalar => self.in_scalar(rest),
                Token::None => {
                    self.between(*first);
                    // A scalar's first byte is its own.
                    usize::from(self.token != Token::Scalar)
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// The skeleton. `None` where the value was no object or array, or has not ended.
    pub(super) fn skeleton(&self) -> Option<&[u8]> {
        self.ended.then_some(self.kept.as_slice())
    }

    /// An object or array began and did not end.
    pub(super) fn is_half(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Bytes that are held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.kept.capacity() + self.key.bytes.capacity() + self.levels.capacity() * size_of::<Level>()
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'"' if self.left_out == 0 && self.awaits_key() => {
                self.key = Key::default();
                self.token = Token::Key;
                self.token_len = 0;
                self.is_cut = false;
            }
            b'"' => {
                self.begin(Token::Text);
                self.keep(b"\"");
                self.token_len = 0;
            }
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(byte),
            byte if is_of_scalar(byte) => self.begin(Token::Scalar),
            // Commas, colons and spaces; what belongs nowhere is passed over.
            _ => {}
        }
    }

    fn awaits_key(&self) -> bool {
        self.levels.last().is_some_and(|level| level.is_object) && !self.key.has_come
    }

    fn begin(&mut self, token: Token) {
        self.keeps_token = self.left_out == 0 && !self.levels.is_empty() && self.takes_value().is_some();
        self.token = token;
        self.token_len = 0;
        self.is_cut = false;
    }

    /// Whether the value that begins is kept: then what stands before it is written, and where its room ends is told.
    fn takes_value(&mut self) -> Option<usize> {
        let key = std::mem::take(&mut self.key);
        let room = KEPT.get(self.levels.len()).copied().unwrap_or(KEPT_DEEPER);
        let len = self.kept.len();
        let Some(level) = self.levels.last_mut() else {
            // Only the first of several values is read, and only a container.
            return (!self.ended).then_some(len + room);
        };
        let is_wanted = WANTED.contains(&key.bytes.as_slice()) && len < KEPT_MAX;
        if len >= level.until && !is_wanted || level.is_object && (!key.has_come || key.is_too_long()) {
            return None;
        }
        let until = if is_wanted { len + room } else { level.until.min(len + room) };
        if std::mem::replace(&mut level.filled, true) {
            self.kept.push(b',');
        }
        if level.is_object {
            self.kept.push(b'"');
            self.kept.extend_from_slice(&key.bytes);
            self.kept.extend_from_slice(b"\":");
        }
        Some(until)
    }

    fn open(&mut self, byte: u8) {
        if self.left_out > 0 || self.levels.len() >= DEPTH_MAX {
            self.key = Key::default();
            self.left_out += 1;
            return;
        }
        match self.takes_value() {
            Some(until) => {
                self.kept.push(byte);
                self.levels.push(Level { is_object: byte == b'{', until, filled: false });
            }
            None => self.left_out = 1,
        }
    }

    fn close(&mut self, byte: u8) {
        if self.left_out > 0 {
            self.left_out -= 1;
        } else if self.levels.pop().is_some() {
            self.key = Key::default();
            self.kept.push(byte);
            self.ended = self.levels.is_empty();
        }
    }

    /// How many of these bytes belong to the string that is open, its closing quote included.
    fn in_string(&mut self, bytes: &[u8]) -> usize {
        if std::mem::take(&mut self.escaped) {
            self.digits = if bytes.first() == Some(&b'u') { 4 } else { 0 };
            self.keep(bytes.get(..1).unwrap_or_default());
            return 1;
        }
        let end = memchr2(b'"', b'\\', bytes);
        self.keep_text(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default());
        let Some(at) = end else { return bytes.len() };
        if bytes.get(at) == Some(&b'\\') {
            self.is_cut |= self.token_len >= STRING_MAX;
            self.keep(b"\\");
            self.escaped = true;
            return at + 1;
        }
        if self.token == Token::Key {
            self.key.has_come = true;
        } else {
            self.is_cut = false;
            self.keep(b"\"");
        }
        self.token = Token::None;
        at + 1
    }

    /// Keeps what there is room for; never half an escape or half a character.
    fn keep_text(&mut self, text: &[u8]) {
        let digits = self.digits.min(text.len());
        self.digits -= digits;
        let room = STRING_MAX.saturating_sub(self.token_len).max(digits);
        let mut end = room.min(text.len());
        while text.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end += 1;
        }
        self.keep(text.get(..end).unwrap_or_default());
        self.is_cut |= end < text.len();
    }

    fn in_scalar(&mut self, bytes: &[u8]) -> usize {
        let end = bytes.iter().position(|byte| !is_of_scalar(*byte));
        let piece = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        let room = SCALAR_MAX.saturating_sub(self.token_len).min(piece.len());
        self.keep(piece.get(..room).unwrap_or_default());
        if end.is_some() {
            self.token = Token::None;
        }
        piece.len()
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.token == Token::Key {
            let room = (KEY_MAX + 1).saturating_sub(self.key.bytes.len()).min(bytes.len());
            self.key.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
        } else if self.keeps_token && !self.is_cut {
            self.kept.extend_from_slice(bytes);
            self.token_len += bytes.len();
        }
    }
}

/// Whether numbers, `true`, `false` and `null` have this byte.
fn is_of_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn prune(json: &str, size: usize) -> Option<String> {
        let mut pruner = Pruner::default();
        for piece in json.as_bytes().chunks(size) {
            pruner.feed(piece);
        }
        pruner.skeleton().map(|kept| String::from_utf8(kept.to_vec()).unwrap())
    }

    fn read(json: &str, size: usize) -> Value {
        serde_json::from_str(&prune(json, size).unwrap()).unwrap()
    }

    #[test]
    fn what_is_short_stays() {
        let vectors = [
            r#"{"a":1,"b":[true,null,-1.5e3,"x\"y\\"],"c":{"d":{},"e":[]},"":"\u00e9"}"#,
            r#"[]"#,
            r#"[[{"a":[1,2]}],"b"]"#,
        ];
        for json in vectors {
            for size in 1..json.len() {
                assert_eq!(prune(json, size).as_deref(), Some(json), "in pieces of {size}");
            }
        }
        assert_eq!(prune("{ \"a\" :\n[ 1 , 2 ]\t}\r\n", 3).as_deref(), Some(r#"{"a":[1,2]}"#));
    }

    #[test]
    fn long_texts_and_lists_are_cut_and_usage_stays() {
        let picture = "A".repeat(3 << 20);
        let numbers: Vec<f64> = (0..200_000).map(f64::from).collect();
        let answer = json!({
            "object": "response",
            "output": [{"type": "image_generation_call", "result": picture}, {"text": "\u{1f30a}\n".repeat(100_000)}],
            "data": vec![json!({"embedding": numbers}); 3],
            "deep": {"a": {"b": vec!["x".repeat(500); 4_000]}},
            "usage": {"input_tokens": 9, "output_tokens_details": {"reasoning_tokens": 2}},
            "model": "m",
        });
        for size in [1_000, 65_536] {
            let kept = read(&answer.to_string(), size);
            assert_eq!(kept["usage"], answer["usage"]);
            assert_eq!(kept["model"], "m");
            assert_eq!(kept["output"][0]["type"], "image_generation_call");
            assert_eq!(kept["output"][0]["result"], "A".repeat(STRING_MAX));
            assert!(kept.to_string().len() < KEPT_MAX);
        }
    }

    #[test]
    fn usage_inside_a_full_container_stays() {
        let response = json!({
            "instructions": vec!["x".repeat(500); 1_000],
            "output": vec![json!({"content": "y".repeat(500)}); 1_000],
            "usage": {"input_tokens": 9},
            "status": "completed",
        });
        let event = json!({"more": vec!["z".repeat(500); 1_000], "response": response, "type": "response.completed"});
        let kept = read(&event.to_string(), 4_096);
        assert_eq!(kept["response"]["usage"]["input_tokens"], 9);
        assert_eq!((&kept["response"]["status"], &kept["type"]), (&json!("completed"), &json!("response.completed")));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let floods = [
            "{\"usage\":",
            "[",
            "\"",
            "{\"a\":1,\"usage\":{\"b\":\"",
            "1",
            "\\",
            "{\"usage\":{},",
            "x",
            "[1,",
            "\"a\":",
        ];
        for start in ["", "{", "[", "{\"a\":\"", "{\""] {
            for flood in floods {
                let mut pruner = Pruner::default();
                pruner.feed(start.as_bytes());
                for _ in 0..200 {
                    pruner.feed(flood.repeat(1_000).as_bytes());
                }
                assert!(pruner.held() <= 3 * KEPT_MAX, "{start} {flood}: {}", pruner.held());
            }
        }
    }

    #[test]
    fn what_is_no_whole_value_has_no_skeleton() {
        for json in ["", "1", "\"a\"", "{\"a\":1", "[{}", "]", "x"] {
            assert_eq!(prune(json, 2), None, "{json}");
        }
        assert_eq!(prune("{}{\"usage\":1}[", 2).as_deref(), Some("{}"), "the first value counts");
        let mut half = Pruner::default();
        half.feed(b"{\"a\":[1");
        assert!(half.is_half());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\\u{e9}\u{1f30a}\n]{0,600}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map("[a-z\u{e9}]{0,70}", inner, 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn the_skeleton_of_json_is_json_in_any_pieces(value in any_json(), size in 1usize..40) {
            let json = json!({ "v": value, "usage": {"input_tokens": 1} }).to_string();
            let kept = prune(&json, size);
            prop_assert_eq!(&kept, &prune(&json, json.len()));
            let kept: Value = serde_json::from_str(&kept.unwrap()).unwrap();
            prop_assert_eq!(kept["usage"]["input_tokens"].as_u64(), Some(1));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), size in 1usize..40) {
            let mut pruner = Pruner::default();
            for piece in bytes.chunks(size) {
                pruner.feed(piece);
            }
            pruner.skeleton();
        }
    }
}
