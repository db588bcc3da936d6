//! The access log: one line a request on stdout, as JSON for machines or in short for a terminal. It is rendered and
//! written by a thread of its own, so that a slow or full stdout costs lines, which are counted, and never requests.
//!
//! Never a body, a credential or a query string: the record has none.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::json;
use super::log_fields::{self, level};
use super::queue::{Dropped, Pace, Queue};
use super::record::{LlmInfo, Outcome, Record};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Json,
    /// For reading along; `colour` marks how a request ended.
    Human {
        colour: bool,
    },
}

impl Style {
    /// The human style, coloured where stdout is a terminal that wants it (`NO_COLOR`).
    pub fn human() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::Human { colour }
    }
}

/// Records that wait at most: some 8 MiB.
const PACE: Pace = Pace { capacity: 4_096, batch: 256, linger: Duration::from_millis(5) };

/// Bytes after which what is rendered is written.
const WRITE_AT: usize = 64 * 1_024;

/// The sending end of the log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: Queue<Arc<Record>>,
}

impl AccessLog {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(style: Style, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Queue::spawn("access-log", PACE, move |lost| {
            let mut writer = Writer { sink, text: String::new(), lines: 0, torn: false, lost };
            move |batch: &mut Vec<Arc<Record>>| {
                let written = SystemTime::now();
                for record in batch.drain(..) {
                    render(style, &record, written, &mut writer.text);
                    writer.lines += 1;
                    if writer.text.len() >= WRITE_AT {
                        writer.write();
                    }
                }
                writer.write();
            }
        })?;
        Ok(Self { queue })
    }

    /// Hands a record over; it is dropped and counted when the queue is full.
    pub fn write(&self, record: &Arc<Record>) {
        self.queue.send(Arc::clone(record));
    }

    /// Lines that were lost.
    pub fn dropped(&self) -> &Dropped {
        self.queue.dropped()
    }

    /// Waits until all lines so far are written, at most for `timeout`; tells whether they were.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.queue.flush(timeout)
    }
}

struct Writer<S> {
    sink: S,
    text: String,
    /// How many lines `text` holds.
    lines: u64,
    /// The last write failed, perhaps inside a line.
    torn: bool,
    lost: Dropped,
}

impl<S: Write> Writer<S> {
    fn write(&mut self) {
        if self.text.is_empty() {
            return;
        }
        if self.torn {
            self.text.insert(0, '\n');
        }
        self.torn = self.sink.write_all(self.text.as_bytes()).and_then(|()| self.sink.flush()).is_err();
        if self.torn {
            self.lost.add(self.lines);
        }
        self.text.clear();
        self.lines = 0;
    }
}

/// Writes `record` as one line, its end included. `written` is when that happens.
pub fn render(style: Style, record: &Record, written: SystemTime, out: &mut String) {
    match style {
        Style::Json => log_fields::write(record, Some(written), out),
        Style::Human { colour } => render_human(record, colour, out),
    }
    out.push('\n');
}

/// `12:34:56 POST /v1/chat/completions 200 completed  ttft 0.312s  total 4.210s  100→356 tokens  gpt-4o  via fastapi`.
fn render_human(record: &Record, colour: bool, out: &mut String) {
    json::clock(out, record.started);
    for word in [&*record.request.method, &record.request.path] {
        out.push(' ');
        json::plain(word, out);
    }
    out.push(' ');
    if colour {
        out.push_str(match level(record.outcome) {
            "info" if record.outcome == Outcome::Completed => "\x1b[32m",
            "info" => "\x1b[33m",
            _ => "\x1b[31m",
        });
    }
    match record.status {
        Some(status) => json::integer(out, u64::from(status)),
        None => out.push('-'),
    }
    out.push(' ');
    out.push_str(record.outcome.as_str());
    if let Some(error) = record.error {
        out.push('(');
        out.push_str(error.as_str());
        out.push(')');
    }
    if colour {
        out.push_str("\x1b[0m");
    }
    if let Some(llm) = &record.llm {
        human_seconds("ttft", llm.reading.first_token, out);
        if llm.reading.buffered {
            out.push_str("  buffered");
        }
        human_seconds("gap", llm.reading.max_gap.filter(|_| llm.reading.slow_gap_count > 0), out);
    }
    if let Some(stream) = &record.stream {
        human_seconds("first event", stream.first_event, out);
        out.push_str("  ");
        json::integer(out, stream.events);
        out.push_str(" events");
    }
    if let Some(method) = record.rpc.as_ref().and_then(|rpc| rpc.method.as_deref()) {
        out.push_str("  ");
        json::plain(method, out);
    }
    human_seconds("total", Some(record.duration), out);
    if let Some(llm) = &record.llm {
        human_llm(llm, out);
    }
    if let Some(websocket) = &record.websocket {
        out.push_str("  ");
        json::integer(out, websocket.messages_in);
        out.push('→');
        json::integer(out, websocket.messages_out);
        out.push_str(" messages");
    }
    if let Some(served_by) = &record.served_by {
        out.push_str("  via ");
        out.push_str(&served_by.upstream);
    }
    if let Some(attempt) = record.last_asked() {
        out.push_str(" at ");
        out.push_str(&attempt.place.endpoint);
    }
    if record.attempts.len() > 1 {
        out.push_str(", attempt ");
        json::integer(out, record.attempts.len() as u64);
    }
}

fn human_seconds(word: &str, time: Option<Duration>, out: &mut String) {
    if let Some(time) = time {
        out.push_str("  ");
        out.push_str(word);
        out.push(' ');
        json::seconds(out, time, 3);
        out.push('s');
    }
}

fn human_llm(llm: &LlmInfo, out: &mut String) {
    let usage = &llm.reading.usage;
    if usage.is_known() {
        out.push_str("  ");
        for (separator, count) in [("", usage.input), ("→", usage.output)] {
            out.push_str(separator);
            match count {
                Some(count) => json::integer(out, count),
                None => out.push('?'),
            }
        }
        out.push_str(" tokens");
    }
    if let Some(model) = llm.reading.response_model.as_deref().or(llm.request.model.as_deref()) {
        out.push_str("  ");
        json::plain(model, out);
    }
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
