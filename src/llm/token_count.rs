//! Counts tokens where nobody reports them: of a prompt before it is sent, of an answer while it passes.
//!
//! OpenAI's, Qwen's and Mistral's models are counted with their own tokenizers. Other vendors publish none, or under licences
//! that bind whoever ships them, so their texts are counted with `o200k_base`: off by a tenth to a third, mostly too few for
//! Claude, and for languages that a vendor's vocabulary covers better or worse. What an upstream reports always takes precedence.

mod answer;
mod prompt;
mod runs;

use std::sync::atomic::{AtomicU8, Ordering};

pub use answer::AnswerCounter;
pub(super) use answer::AnswerTexts;
pub use prompt::{PROMPT_MAX, PromptCount, PromptSize, count_prompt};

/// A vocabulary that texts are counted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// GPT-4o and everything newer; in its place for other vendors' models.
    O200k,
    /// GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
    /// Qwen from 1.5 to 3, QwQ and QVQ.
    Qwen,
    /// Mistral's models since Nemo: Tekken.
    Tekken,
}

/// Whether a vocabulary is there.
const ABSENT: u8 = 0;
const LOADING: u8 = 1;
const LOADED: u8 = 2;

impl Encoding {
    /// The vocabulary of `model`, whatever stands before it: `openai/gpt-4o`, `ft:gpt-4o:team`.
    pub fn of_model(model: &str) -> Self {
        const OLD: [&str; 5] = ["gpt-4-", "gpt-3.5", "gpt-35", "text-embedding-", "davinci-002"];
        let name = model.rsplit('/').next().unwrap_or(model);
        let name = name.strip_prefix("ft:").unwrap_or(name);
        let is_old = name == "gpt-4" || name.starts_with("gpt-4:") || OLD.iter().any(|old| name.starts_with(old));
        if is_old {
            return Self::Cl100k;
        }
        let name = name.get(..name.floor_char_boundary(NAME_MAX)).unwrap_or_default();
        // Nearly every name is told by this: all that follow have the one or the other.
        let bytes = name.as_bytes();
        let is_other = bytes.iter().any(|byte| byte.eq_ignore_ascii_case(&b'q'))
            || bytes.windows(4).any(|part| part.eq_ignore_ascii_case(b"tral"));
        if !is_other {
            return Self::O200k;
        }
        let name = name.to_ascii_lowercase();
        let is_any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        // The first Qwen, and those after 3, have other vocabularies.
        if is_any(&["qwen1.5", "qwen2", "qwen-2", "qwen3", "qwen-3", "distill-qwen", "qwq-", "qvq-"])
            && !is_any(&["qwen3.", "qwen-3."])
        {
            return Self::Qwen;
        }
        let is_small = is_any(&["ministral", "pixtral", "magistral", "devstral", "voxtral"]);
        let is_tekken = is_small || is_any(&["mistral-nemo", "mistral-small", "mistral-medium", "mistral-large"]);
        if is_tekken { Self::Tekken } else { Self::O200k }
    }

    /// How many tokens `text` is. A byte costs about the same whatever the text: of a long run without a word boundary only
    /// the beginning is counted, and the rest goes by its bytes.
    pub fn count(self, text: &str) -> u64 {
        let (mut count, mut from) = (0_u64, 0);
        while let Some(long) = runs::next_long(text, from) {
            let before = text.get(from..long.start).unwrap_or_default();
            let run = text.get(long.clone()).unwrap_or_default();
            let sample = runs::sample(run);
            let tokens = runs::tokens(run, sample, self.count_whole(sample));
            count = count.saturating_add(self.count_whole(before)).saturating_add(tokens);
            from = long.end;
        }
        count.saturating_add(self.count_whole(text.get(from..).unwrap_or_default()))
    }

    fn count_whole(self, text: &str) -> u64 {
        // It is embedded, and loaded by the first who asks.
        tiktoken::get_encoding(self.name()).map_or(0, |tokenizer| tokenizer.count(text) as u64)
    }

    /// What the `tiktoken` crate calls it.
    fn name(self) -> &'static str {
        match self {
            Self::O200k => "o200k_base",
            Self::Cl100k => "cl100k_base",
            Self::Qwen => "qwen2",
            Self::Tekken => "mistral_v3",
        }
    }

    /// Loads the vocabulary, which the first count would wait for: 0.14 s and 24 MB for OpenAI's larger one, less for the others.
    pub fn prepare(self) {
        self.count("");
        self.state().store(LOADED, Ordering::Relaxed);
    }

    /// Whether the vocabulary is loaded, so that nobody waits for it. Who never counts does without it.
    pub fn is_ready(self) -> bool {
        self.state().load(Ordering::Relaxed) == LOADED
    }

    /// Whether the vocabulary is to be loaded by whoever asks: true once.
    pub fn is_wanted(self) -> bool {
        self.state().compare_exchange(ABSENT, LOADING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn state(self) -> &'static AtomicU8 {
        static STATES: [AtomicU8; 4] = [const { AtomicU8::new(ABSENT) }; 4];
        let [o200k, cl100k, qwen, tekken] = &STATES;
        match self {
            Self::O200k => o200k,
            Self::Cl100k => cl100k,
            Self::Qwen => qwen,
            Self::Tekken => tekken,
        }
    }
}

/// Longer names are no model's that is known here.
const NAME_MAX: usize = 128;

/// Text waits for this many bytes before it is counted: words are counted whole though they come in pieces.
const PENDING_MAX: usize = 1 << 10;

/// While the vocabulary is not loaded, this many bytes wait for it: nobody may ever ask how many tokens they are. What
/// comes after them is taken to be like them.
const UNREADY_MAX: usize = 16 << 10;

/// Of a text that comes in one piece this many bytes are counted, and the rest is taken to be like them.
const PIECE_MAX: usize = 32 << 10;

/// Counts a text that comes in pieces, in constant memory.
#[derive(Debug)]
struct TextCounter {
    encoding: Encoding,
    counted: u64,
    /// The end of the text so far; less than [`PENDING_MAX`] bytes between two pieces once the vocabulary is loaded, and
    /// [`UNREADY_MAX`] before.
    pending: String,
    /// Bytes that came after `pending` and were not kept.
    passed_over: u64,
}

impl TextCounter {
    fn new(encoding: Encoding) -> Self {
        Self { encoding, counted: 0, pending: String::new(), passed_over: 0 }
    }

    fn push(&mut self, text: &str) {
        self.take(text, self.encoding.is_ready());
    }

    fn take(&mut self, text: &str, is_ready: bool) {
        if self.pending.len() + text.len() < PENDING_MAX {
            self.pending.push_str(text);
            return;
        }
        if !is_ready {
            return self.wait(text);
        }
        if self.passed_over > 0 {
            self.counted = self.total();
            self.pending.clear();
            self.passed_over = 0;
        }
        let taken = std::mem::take(&mut self.pending);
        let joined = if taken.is_empty() { text.to_owned() } else { taken + text };
        let (whole, rest) = joined.split_at_checked(word_boundary(&joined)).unwrap_or((&joined, ""));
        self.counted = self.counted.saturating_add(count_sampled(self.encoding, whole));
        self.pending = rest.to_owned();
    }

    /// Keeps what fits, and the number of bytes that do not.
    fn wait(&mut self, text: &str) {
        let room = UNREADY_MAX.saturating_sub(self.pending.len());
        // What came after a gap cannot be joined to what came before it.
        let room = if self.passed_over > 0 { 0 } else { text.floor_char_boundary(room) };
        let (kept, rest) = text.split_at_checked(room).unwrap_or(("", text));
        self.pending.push_str(kept);
        self.passed_over += rest.len() as u64;
    }

    /// All tokens so far.
    fn total(&self) -> u64 {
        let pending = self.encoding.count(&self.pending);
        let like_them = runs::scaled(pending, self.pending.len() as u64, self.passed_over);
        self.counted.saturating_add(pending).saturating_add(like_them)
    }

    /// About how many tokens so far, without looking at the text that waits.
    fn roughly(&self) -> u64 {
        self.counted.saturating_add((self.pending.len() as u64 + self.passed_over) / 4)
    }
}

/// Where a text can be cut without cutting a token: before the last space between two words, or, where none is near the
/// end, at the end.
fn word_boundary(text: &str) -> usize {
    let bytes = text.as_bytes();
    let near = bytes.len().saturating_sub(PENDING_MAX / 2);
    let spaces = memchr::memrchr_iter(b' ', bytes.get(near..).unwrap_or_default()).map(|at| near + at);
    spaces.into_iter().find(|at| is_boundary(text, *at)).unwrap_or(bytes.len())
}

/// Whether no token goes across the beginning of the space at `at`: it belongs to the word after it.
fn is_boundary(text: &str, at: usize) -> bool {
    let Some((before, after)) = text.split_at_checked(at) else { return false };
    let ends = before.chars().next_back().is_some_and(|last| !last.is_whitespace() && !last.is_control());
    ends && after.chars().nth(1).is_some_and(char::is_alphabetic)
}

/// Counts a text, of a long one its beginning.
fn count_sampled(encoding: Encoding, text: &str) -> u64 {
    let sample = text.get(..text.floor_char_boundary(PIECE_MAX)).unwrap_or_default();
    let tokens = encoding.count(sample);
    if sample.len() == text.len() {
        return tokens;
    }
    runs::scaled(tokens, sample.len() as u64, text.len() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn models_have_their_vocabulary() {
        for model in
            ["gpt-4", "gpt-4-turbo", "gpt-4-0613", "gpt-3.5-turbo", "gpt-35-turbo", "openai/gpt-4", "ft:gpt-4:x"]
        {
            assert_eq!(Encoding::of_model(model), Encoding::Cl100k, "{model}");
        }
        for model in ["gpt-4o", "gpt-4.1-mini", "gpt-5", "o3", "ft:gpt-4o:t", "llama-3", "claude-sonnet-4-5", ""] {
            assert_eq!(Encoding::of_model(model), Encoding::O200k, "{model}");
        }
    }

    #[test]
    fn families_have_their_own_vocabulary() {
        for (model, encoding) in [
            ("Qwen/Qwen2.5-72B-Instruct", Encoding::Qwen),
            ("qwen3-32b", Encoding::Qwen),
            ("deepseek-r1-distill-qwen-14b", Encoding::Qwen),
            ("deepseek-ai/DeepSeek-R1-Distill-Qwen2-7B", Encoding::Qwen),
            ("QwQ-32B", Encoding::Qwen),
            ("qwen3.5-plus", Encoding::O200k),
            ("qwen-max", Encoding::O200k),
            ("mistral-small-latest", Encoding::Tekken),
            ("mistralai/Devstral-Small-2507", Encoding::Tekken),
            ("mixtral-8x7b", Encoding::O200k),
            ("meta-llama/Llama-3.3-70B", Encoding::O200k),
            ("deepseek-chat", Encoding::O200k),
        ] {
            assert_eq!(Encoding::of_model(model), encoding, "{model}");
        }
        let long = "é".repeat(10_000);
        assert_eq!(Encoding::of_model(&long), Encoding::O200k);
    }

    #[test]
    fn a_vocabulary_is_wanted_once() {
        // No other test counts with it.
        assert!(!Encoding::Tekken.is_ready() && Encoding::Tekken.is_wanted() && !Encoding::Tekken.is_wanted());
        Encoding::Tekken.prepare();
        assert!(Encoding::Tekken.is_ready() && !Encoding::Tekken.is_wanted());
        // By mistral-common's Tekken of September 2024.
        let texts = [
            ("tiktoken is great!", 5),
            ("お誕生日おめでとう", 7),
            ("antidisestablishmentarianism", 7),
            ("水文站的水位计显示河水比平均水位高出两米，老桥下的流量正在增加。", 31),
            ("    if let Some(level) = gauge.read(&now)? {\n        levels.push((station_id, level));\n    }\n", 24),
        ];
        for (text, count) in texts {
            assert_eq!(Encoding::Tekken.count(text), count, "{text}");
        }
    }

    #[test]
    fn hostile_texts_are_counted_in_bounded_time() {
        for encoding in [Encoding::Qwen, Encoding::O200k] {
            encoding.prepare();
            for (unit, what) in [
                ("a", "one letter"),
                (" ", "spaces"),
                ("\n", "lines"),
                (" \n", "both"),
                ("é", "marks"),
                ("👨‍👩‍👧", "joined"),
            ] {
                let text = unit.repeat(PIECE_MAX / unit.len());
                let began = std::time::Instant::now();
                assert!(encoding.count(&text) > 0);
                // Quadratic time would be minutes.
                assert!(began.elapsed() < std::time::Duration::from_secs(5), "{encoding:?}: {what}");
            }
        }
    }

    #[test]
    fn known_texts_have_their_known_counts() {
        // By the vocabulary that Qwen ships with its own SDK.
        assert_eq!(Encoding::Qwen.count("お誕生日おめでとう"), 7);
        assert_eq!(Encoding::Qwen.count("antidisestablishmentarianism"), 6);
        assert_eq!(Encoding::Qwen.count("水文站的水位计显示河水比平均水位高出两米，老桥下的流量正在增加。"), 24);
        // By OpenAI's tiktoken.
        assert_eq!(Encoding::Cl100k.count("tiktoken is great!"), 6);
        assert_eq!(Encoding::O200k.count("tiktoken is great!"), 6);
        assert_eq!(Encoding::Cl100k.count("お誕生日おめでとう"), 9);
        assert_eq!(Encoding::O200k.count("お誕生日おめでとう"), 8);
        assert_eq!(Encoding::Cl100k.count("antidisestablishmentarianism"), 6);
        assert_eq!(Encoding::O200k.count(""), 0);
    }

    #[test]
    fn a_text_that_waits_for_the_vocabulary_counts_the_same() {
        let words = "water and wind, ".repeat(500);
        let mut counter = TextCounter::new(Encoding::O200k);
        for piece in words.as_bytes().chunks(100) {
            counter.take(str::from_utf8(piece).unwrap(), false);
        }
        assert_eq!((counter.counted, counter.pending.len()), (0, words.len()));
        assert_eq!(counter.total(), Encoding::O200k.count(&words));
        counter.take(&words, true);
        counter.take(&words, true);
        assert!(counter.pending.len() < PENDING_MAX);
        assert_eq!(counter.total(), Encoding::O200k.count(&words.repeat(3)));
    }

    #[test]
    fn a_long_text_that_waits_takes_no_memory() {
        let mut counter = TextCounter::new(Encoding::O200k);
        for _ in 0..10_000 {
            counter.take("water and wind, ", false);
        }
        assert!(counter.pending.capacity() <= 2 * UNREADY_MAX);
        let exact = Encoding::O200k.count(&"water and wind, ".repeat(10_000));
        assert!(counter.total().abs_diff(exact) <= exact / 1_000, "{}", counter.total());
        assert!(counter.roughly().abs_diff(exact) < exact / 10, "{} of {exact}", counter.roughly());
        // From when the vocabulary is there, all is counted.
        for _ in 0..10_000 {
            counter.take("water and wind, ", true);
        }
        assert!(counter.pending.len() < PENDING_MAX);
        assert!(counter.total().abs_diff(2 * exact) <= exact / 1_000, "{}", counter.total());
        counter.take(&"é".repeat(UNREADY_MAX), false);
        counter.take("é", false);
    }

    #[test]
    fn a_long_text_takes_neither_memory_nor_time() {
        Encoding::O200k.prepare();
        let mut counter = TextCounter::new(Encoding::O200k);
        for _ in 0..2_000 {
            counter.push("water and wind, ");
            assert!(counter.pending.len() < PENDING_MAX && counter.pending.capacity() <= 2 * PENDING_MAX);
        }
        assert_eq!(counter.total(), Encoding::O200k.count(&"water and wind, ".repeat(2_000)));
        let rough = counter.roughly();
        assert!(rough.abs_diff(counter.total()) < 200, "{rough}");

        let mut counter = TextCounter::new(Encoding::O200k);
        counter.push(&"river ".repeat(100_000));
        assert!(counter.total().abs_diff(100_000) < 1_000, "{}", counter.total());
        counter.push(&"x".repeat(1 << 20));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn words_in_any_pieces_count_the_same(
            words in prop::collection::vec("[a-zA-Z]{1,12}[,.!?]{0,2}|[0-9]{1,9}|\n\n|é|日本", 300..600),
            cuts in prop::collection::vec(1_usize..40, 1..50),
        ) {
            let text = words.join(" ");
            let mut counter = TextCounter::new(Encoding::O200k);
            let mut rest = text.as_str();
            for length in cuts.iter().cycle() {
                let (piece, tail) = rest.split_at(rest.ceil_char_boundary(*length));
                counter.push(piece);
                rest = tail;
                if rest.is_empty() { break; }
            }
            prop_assert_eq!(counter.total(), Encoding::O200k.count(&text));
            let all = Encoding::O200k.count(&text);
            for (at, _) in text.match_indices(' ').filter(|(at, _)| is_boundary(&text, *at)).step_by(17) {
                let (before, after) = text.split_at(at);
                let count = Encoding::O200k.count(before) + Encoding::O200k.count(after);
                prop_assert_eq!(count, all, "{:?}", after.get(..20));
            }
        }
    }
}
