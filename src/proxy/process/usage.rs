//! The token usage of one answer: asked for where the client did not, and counted or estimated where none is reported.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use pingora::http::ResponseHeader;

use super::request_body::{Admitted, RequestBody};
use crate::config::settings::{AskUsage, Upstream};
use crate::llm::token_count::{Encoding, count_prompt};
use crate::llm::{Background, Dialect, Gauge, Reading, RequestFacts, UsageSource, usage_injection};
use crate::policy::learned_usage::{self, Advice, Key, LearnedUsage, Lesson};
use crate::proxy::limits::background_usage::BackgroundBook;

/// What upstreams do about usage. Outlives reloads.
pub(crate) struct UsageBook {
    learned_usage: Mutex<LearnedUsage>,
    began: Instant,
    /// Responses whose usage is told after their requests are over.
    pub(crate) background: BackgroundBook,
}

impl Default for UsageBook {
    fn default() -> Self {
        Self { learned_usage: Mutex::default(), began: Instant::now(), background: BackgroundBook::default() }
    }
}

impl UsageBook {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// What it takes to know the usage of one attempt's answer.
pub(crate) struct Metering {
    book: Arc<UsageBook>,
    key: Key,
    facts: Arc<RequestFacts>,
    /// The client's body, where its prompt could be counted.
    body: Option<Bytes>,
    wish: Wish,
    /// The client asked for llama.cpp's times, which come with the usage.
    wants_timings: bool,
}

/// A wish that was made for the first time, and may be what went wrong.
pub(crate) struct Doubt {
    book: Arc<UsageBook>,
    key: Key,
}

impl Doubt {
    /// The upstream answered well though it was asked.
    pub(crate) fn was_wrong(&self) {
        self.book.learned_usage.lock().took(&self.key);
    }

    /// The upstream answered well as soon as it was not asked.
    pub(crate) fn was_right(&self) {
        self.book.learned_usage.lock().refused(&self.key, self.book.now());
    }

    /// The upstream failed as well when it was not asked, with this status or without an answer.
    pub(crate) fn was_idle(&self, status: Option<u16>) {
        if learned_usage::fails_without_the_wish(status) {
            self.book.learned_usage.lock().failed_anyway(&self.key, self.book.now());
        }
    }
}

/// Whether usage was asked for on the client's behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    None,
    Added,
    /// Added for the first time: the upstream may refuse it.
    Tried,
}

impl Metering {
    /// Prepares an attempt at `upstream`; in place of `body`, that which the upstream gets is returned: with the wish for
    /// usage, unless it `asks` for nothing.
    pub(crate) fn begin(
        book: &Arc<UsageBook>,
        upstream: &Upstream,
        admitted: &Admitted,
        body: RequestBody,
        asks: bool,
    ) -> (Self, RequestBody) {
        let facts = &admitted.facts;
        let key = (Arc::clone(&upstream.name), facts.model.as_deref().unwrap_or_default().into());
        let content = &admitted.content;
        let text = content.json().filter(|_| asks).map(|text| match &body {
            RequestBody::Edited(edited) => content.text_of(edited),
            _ => text.clone(),
        });
        let (wish, body) = match text.and_then(|text| wish(book, upstream.ask_usage, &key, facts, &text)) {
            Some((wish, edited)) => (wish, RequestBody::Edited(content.with_text(edited))),
            None => (Wish::None, body),
        };
        let own = content.json().filter(|_| facts.has_countable_prompt()).cloned();
        let wants_timings = wish != Wish::None && own.as_deref().is_some_and(usage_injection::wants_timings);
        (Self { book: Arc::clone(book), key, facts: Arc::clone(facts), body: own, wish, wants_timings }, body)
    }

    /// The wish, where it is the first to this upstream and model: it may be what goes wrong.
    pub(crate) fn doubt(&self) -> Option<Doubt> {
        (self.wish == Wish::Tried).then(|| Doubt { book: Arc::clone(&self.book), key: self.key.clone() })
    }

    /// The head of an answer came.
    pub(crate) fn answered(&self, head: &mut ResponseHeader) {
        if self.wish != Wish::None && head.status.is_success() {
            // What is taken out of the body is missing from its length.
            head.remove_header(&http::header::CONTENT_LENGTH);
        }
    }

    /// Whether a usage chunk is the client's where it has llama.cpp's times in it.
    pub(crate) fn wants_timings(&self) -> bool {
        self.wants_timings
    }

    /// Whether the client must not see the usage chunk.
    pub(crate) fn wished(&self) -> bool {
        self.wish != Wish::None
    }

    /// Whether the answer's tokens must be counted as they pass: the upstream is not known to report them.
    pub(crate) fn counts(&self) -> bool {
        !self.book.learned_usage.lock().reports(&self.key)
    }

    pub(crate) fn model(&self) -> Option<&str> {
        self.facts.model.as_deref()
    }

    /// Fills in what `reading`, the last of `gauge`, lacks.
    pub(crate) fn settle(&self, gauge: &Gauge, reading: &mut Reading) {
        if reading.background == Background::Running {
            // It tells when it has ended.
            return;
        }
        let body_bytes = self.body.as_ref().map_or(0, |body| body.len() as u64);
        let lesson = Lesson {
            whole: reading.normal_end && reading.token_frames > 0,
            input: reading.usage.input,
            output: reading.usage.output,
            body_bytes,
            token_frames: reading.token_frames,
        };
        // Counting may take a millisecond: the lock is free by then.
        let (input_estimate, output_estimate) = {
            let mut learned_usage = self.book.learned_usage.lock();
            learned_usage.learn(&self.key, &lesson);
            (learned_usage.input(&self.key, body_bytes), learned_usage.output(&self.key, reading.token_frames))
        };
        if self.is_settled(reading) {
            return;
        }
        let mut source = UsageSource::Reported;
        if let Some((output, from)) = self.output(gauge, output_estimate, reading) {
            reading.usage.output = Some(output);
            source = source.max(from);
        }
        if let Some((input, from)) = self.input(gauge.dialect(), input_estimate, reading) {
            reading.usage.input = Some(input);
            source = source.max(from);
        }
        reading.usage_source = if reading.usage.is_known() { source } else { UsageSource::Missing };
    }

    /// Nothing but an error came: that is no usage.
    fn is_settled(&self, reading: &Reading) -> bool {
        reading.error.is_some() && reading.token_frames == 0 && !reading.usage.is_known()
    }

    fn may_lack_output(&self, reading: &Reading) -> bool {
        let is_final = reading.normal_end || !reading.finish_reasons.is_empty();
        self.facts.writes() && !(is_final && reading.usage.output.is_some())
    }

    /// The tokens of the answer, where what was reported is not all: a stream that broke off went on after it.
    fn output(&self, gauge: &Gauge, estimate: u64, reading: &Reading) -> Option<(u64, UsageSource)> {
        let reported = reading.usage.output;
        if !self.may_lack_output(reading) {
            return None;
        }
        let (output, source) = match (gauge.counted(), gauge.counted_roughly()) {
            (Some(counted), _) if counted > 0 || reading.token_frames == 0 => (counted, UsageSource::Counted),
            (None, Some(about)) => {
                vocabulary_soon(self.model());
                (about, UsageSource::Estimated)
            }
            _ => (estimate, UsageSource::Estimated),
        };
        (reported.is_none_or(|reported| reported < output)).then_some((output, source))
    }

    fn input(&self, dialect: Dialect, estimate: u64, reading: &Reading) -> Option<(u64, UsageSource)> {
        let body = self.body.as_ref().filter(|_| reading.usage.input.is_none())?;
        let dialect = self.facts.dialect.unwrap_or(dialect);
        if !encoding_of(self.model()).is_ready() {
            vocabulary_soon(self.model());
            return Some((estimate, UsageSource::Estimated));
        }
        Some(match count_prompt(dialect, self.model(), body) {
            Some(count) if count.media == 0 => (count.tokens, UsageSource::Counted),
            Some(count) => (count.tokens, UsageSource::Estimated),
            None => (estimate, UsageSource::Estimated),
        })
    }
}

fn encoding_of(model: Option<&str>) -> Encoding {
    Encoding::of_model(model.unwrap_or_default())
}

/// Begins to load the vocabulary that `model` is counted with, where nobody has yet. No answer's end waits for it: it is
/// estimated, as `usage_source` says.
pub(crate) fn vocabulary_soon(model: Option<&str>) {
    let encoding = encoding_of(model);
    if encoding.is_wanted() {
        drop(tokio::task::spawn_blocking(move || encoding.prepare()));
    }
}

/// Loads the vocabulary that `model` is counted with, where it is not, before a limit holds tokens: off the runtime's threads,
/// for it takes 0.14 s.
pub(crate) async fn vocabulary_of(model: Option<&str>) {
    let encoding = encoding_of(model);
    if !encoding.is_ready() {
        // Where there is no thread to be had, the count itself loads it.
        let _ = tokio::task::spawn_blocking(move || encoding.prepare()).await;
    }
}

/// The body with the wish in it, where it is to be made.
fn wish(book: &UsageBook, rule: AskUsage, key: &Key, facts: &RequestFacts, body: &Bytes) -> Option<(Wish, Bytes)> {
    if facts.dialect != Some(Dialect::OpenAiChat) || facts.stream != Some(true) {
        return None;
    }
    let wish = match rule {
        AskUsage::Never => return None,
        AskUsage::Always => Wish::Added,
        AskUsage::Auto => match book.learned_usage.lock().advice(key, book.now()) {
            Advice::Ask => Wish::Added,
            Advice::TryToAsk => Wish::Tried,
            Advice::DoNotAsk => return None,
        },
    };
    Some((wish, usage_injection::with_usage(body)?))
}
