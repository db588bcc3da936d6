//! What was learned of each upstream and model about token usage: whether it reports usage, whether it rejects
//! `stream_options`, and how many tokens its bytes and frames are. Bounded; entries that are not used are dropped.

use std::sync::Arc;
use std::time::Duration;

use super::recent_map::RecentMap;

/// Half of how many upstreams and models are remembered.
const GENERATION: usize = 1_000;

/// For how long an upstream that refused to be asked is not asked again: it may be updated.
const REFUSAL: Duration = Duration::from_secs(3_600);

/// For how long an upstream is not asked that failed with the wish and without it: that told nothing of the wish, and a failing
/// upstream is not to be sent each request twice.
const PAUSE: Duration = Duration::from_secs(30);

/// Bytes of a JSON body a prompt token, and tokens a frame, until they are learned.
const BYTES_PER_TOKEN: f64 = 4.0;
const TOKENS_PER_FRAME: f64 = 1.0;

/// The least and most that is learned of either: one odd answer must not spoil what follows.
const RATIO_MIN: f64 = 0.05;
const RATIO_MAX: f64 = 1_000.0;

/// Weight of the newest answer.
const WEIGHT: f64 = 0.1;

/// An upstream, and the model that was asked for there; empty where none was named.
pub type Key = (Arc<str>, Arc<str>);

/// What one answer taught.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lesson {
    /// The whole answer came: had the upstream reported its usage, it would be here.
    pub whole: bool,
    /// As reported, not counted.
    pub input: Option<u64>,
    pub output: Option<u64>,
    /// Of the request's body.
    pub body_bytes: u64,
    /// Frames that carried tokens.
    pub token_frames: u64,
}

/// What all upstreams do. Bounded.
#[derive(Debug)]
pub struct LearnedUsage(RecentMap<Key, Learned>);

/// Whether an answer with this status may refuse nothing but being asked for usage. Who may not ask at all, asks too much, or
/// is to come back later, is told so by other words.
pub fn may_refuse_the_wish(status: u16, retry_after: bool) -> bool {
    match status {
        401 | 402 | 407 | 408 | 413 | 429 | 529 => false,
        503 => !retry_after,
        status => status >= 400,
    }
}

/// Whether an upstream that failed without the wish too, with this status or with none, fails whatever it is asked. A request
/// that is refused as such says that of itself alone.
pub fn fails_without_the_wish(status: Option<u16>) -> bool {
    !matches!(status, Some(400 | 422))
}

#[derive(Debug, Clone, Copy)]
struct Learned {
    reports: bool,
    asking: Asking,
    bytes_per_token: f64,
    tokens_per_frame: f64,
}

/// What came of asking for usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    Untried,
    Taken,
    /// Until this time.
    Refused(Duration),
    /// It failed all the same, and is not asked until this time.
    Paused(Duration),
}

/// Whether to ask for usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    Ask,
    /// The upstream may refuse: then the request is sent again without.
    TryToAsk,
    DoNotAsk,
}

impl Default for LearnedUsage {
    fn default() -> Self {
        Self(RecentMap::new(GENERATION))
    }
}

impl Default for Learned {
    fn default() -> Self {
        Self {
            reports: false,
            asking: Asking::Untried,
            bytes_per_token: BYTES_PER_TOKEN,
            tokens_per_frame: TOKENS_PER_FRAME,
        }
    }
}

impl LearnedUsage {
    /// Whether answers of `key` report their usage, so that they need not be counted.
    pub fn reports(&self, key: &Key) -> bool {
        self.of(key).reports
    }

    /// Whether to ask `key` for its usage at `now`; any clock will do, so long as it is always the same.
    pub fn advice(&self, key: &Key, now: Duration) -> Advice {
        match self.of(key).asking {
            Asking::Taken => Advice::Ask,
            Asking::Refused(until) | Asking::Paused(until) if now < until => Advice::DoNotAsk,
            Asking::Untried | Asking::Refused(_) | Asking::Paused(_) => Advice::TryToAsk,
        }
    }

    /// The upstream answered though it was asked.
    pub fn took(&mut self, key: &Key) {
        self.entry(key).asking = Asking::Taken;
    }

    /// The upstream refused at `now`, and answered when it was not asked.
    pub fn refused(&mut self, key: &Key, now: Duration) {
        self.entry(key).asking = Asking::Refused(now + REFUSAL);
    }

    /// The upstream failed at `now` with `stream_options` and without. No effect if its behaviour is known by now.
    pub fn failed_anyway(&mut self, key: &Key, now: Duration) {
        let learned = self.entry(key);
        match learned.asking {
            Asking::Taken => {}
            Asking::Refused(until) if now < until => {}
            Asking::Untried | Asking::Refused(_) | Asking::Paused(_) => learned.asking = Asking::Paused(now + PAUSE),
        }
    }

    /// An answer is over.
    pub fn learn(&mut self, key: &Key, lesson: &Lesson) {
        let learned = self.entry(key);
        if let Some(input) = lesson.input.filter(|input| *input > 0 && lesson.body_bytes > 0) {
            approach(&mut learned.bytes_per_token, lesson.body_bytes as f64 / input as f64);
        }
        match lesson.output {
            Some(output) if lesson.whole => {
                learned.reports = true;
                if output > 0 && lesson.token_frames > 0 {
                    approach(&mut learned.tokens_per_frame, output as f64 / lesson.token_frames as f64);
                }
            }
            None if lesson.whole => learned.reports = false,
            _ => {}
        }
    }

    /// About how many tokens a prompt in a body of so many bytes is.
    pub fn input(&self, key: &Key, body_bytes: u64) -> u64 {
        (body_bytes as f64 / self.of(key).bytes_per_token).ceil() as u64
    }

    /// About how many tokens so many frames are.
    pub fn output(&self, key: &Key, token_frames: u64) -> u64 {
        (token_frames as f64 * self.of(key).tokens_per_frame).round() as u64
    }

    fn of(&self, key: &Key) -> Learned {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn entry(&mut self, key: &Key) -> &mut Learned {
        self.0.entry(key.clone(), Learned::default)
    }
}

fn approach(ratio: &mut f64, newest: f64) {
    *ratio += WEIGHT * (newest.clamp(RATIO_MIN, RATIO_MAX) - *ratio);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(model: &str) -> Key {
        ("vllm".into(), model.into())
    }

    fn reported(input: u64, output: u64) -> Lesson {
        Lesson {
            whole: true,
            input: Some(input),
            output: Some(output),
            body_bytes: 6 * input,
            token_frames: output / 3,
        }
    }

    #[test]
    fn who_reports_is_counted_no_more_until_it_stops() {
        let mut learned_usage = LearnedUsage::default();
        assert!(!learned_usage.reports(&key("a")));
        learned_usage.learn(&key("a"), &reported(10, 30));
        assert!(learned_usage.reports(&key("a")) && !learned_usage.reports(&key("b")));
        learned_usage.learn(&key("a"), &Lesson { whole: false, ..Lesson::default() });
        assert!(learned_usage.reports(&key("a")), "what broke off says nothing");
        learned_usage.learn(&key("a"), &Lesson { whole: true, ..Lesson::default() });
        assert!(!learned_usage.reports(&key("a")));
    }

    #[test]
    fn a_refusal_is_remembered_for_a_while() {
        let (mut learned_usage, hour) = (LearnedUsage::default(), Duration::from_secs(3_600));
        let start = Duration::from_secs(7);
        assert_eq!(learned_usage.advice(&key("a"), start), Advice::TryToAsk);
        learned_usage.refused(&key("a"), start);
        assert_eq!(learned_usage.advice(&key("a"), start + hour - Duration::from_nanos(1)), Advice::DoNotAsk);
        assert_eq!(learned_usage.advice(&key("b"), start), Advice::TryToAsk);
        assert_eq!(learned_usage.advice(&key("a"), start + hour), Advice::TryToAsk);
        learned_usage.took(&key("a"));
        assert_eq!(learned_usage.advice(&key("a"), start), Advice::Ask);
    }

    #[test]
    fn who_fails_all_the_same_is_not_asked_for_a_moment() {
        let (mut learned_usage, start) = (LearnedUsage::default(), Duration::from_secs(7));
        learned_usage.failed_anyway(&key("a"), start);
        assert_eq!(learned_usage.advice(&key("a"), start + PAUSE - Duration::from_nanos(1)), Advice::DoNotAsk);
        assert_eq!(learned_usage.advice(&key("b"), start), Advice::TryToAsk);
        assert_eq!(learned_usage.advice(&key("a"), start + PAUSE), Advice::TryToAsk);
        // What another request has shown meanwhile stays.
        learned_usage.took(&key("a"));
        learned_usage.failed_anyway(&key("a"), start);
        assert_eq!(learned_usage.advice(&key("a"), start), Advice::Ask);
        learned_usage.refused(&key("a"), start);
        learned_usage.failed_anyway(&key("a"), start);
        assert_eq!(learned_usage.advice(&key("a"), start + 2 * PAUSE), Advice::DoNotAsk);
        learned_usage.failed_anyway(&key("a"), start + REFUSAL);
        assert_eq!(learned_usage.advice(&key("a"), start + REFUSAL), Advice::DoNotAsk);
        assert_eq!(learned_usage.advice(&key("a"), start + REFUSAL + PAUSE), Advice::TryToAsk);
        let tells = [None, Some(500), Some(403), Some(400), Some(422)].map(fails_without_the_wish);
        assert_eq!(tells, [true, true, true, false, false]);
    }

    #[test]
    fn most_failures_may_be_the_wishs() {
        let may = [400, 403, 404, 422, 500, 501, 503].map(|status| may_refuse_the_wish(status, false));
        assert_eq!(may, [true; 7]);
        let may = [200, 301, 401, 429, 529].map(|status| may_refuse_the_wish(status, false));
        assert_eq!(may, [false; 5]);
        assert!(!may_refuse_the_wish(503, true));
    }

    #[test]
    fn ratios_follow_what_is_reported() {
        let mut learned_usage = LearnedUsage::default();
        assert_eq!((learned_usage.input(&key("a"), 401), learned_usage.output(&key("a"), 7)), (101, 7));
        for _ in 0..100 {
            learned_usage.learn(&key("a"), &reported(100, 300));
        }
        assert_eq!((learned_usage.input(&key("a"), 600), learned_usage.output(&key("a"), 100)), (101, 300));
        learned_usage.learn(
            &key("a"),
            &Lesson { whole: true, input: Some(u64::MAX), output: Some(u64::MAX), body_bytes: 1, token_frames: 1 },
        );
        assert!(learned_usage.output(&key("a"), 1) < 200, "one odd answer spoils little");
    }

    proptest! {
        #[test]
        fn models_without_end_take_bounded_memory(models in 3_000_usize..4_000) {
            let mut learned_usage = LearnedUsage::default();
            for model in 0..models {
                learned_usage.learn(&key(&model.to_string()), &reported(1, 3));
            }
            prop_assert_eq!(learned_usage.0.get(&key("0")).is_none(), true);
        }
    }
}
