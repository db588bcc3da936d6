//! The program's own log, on stderr: what happened to the process, never to a single request. Records of the `log` crate
//! (pingora's) come through the same way. A line inside a span carries its `trace_id`.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::trace::SdkTracer;
use tracing::dispatcher::WeakDispatch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::ids;
use super::json::{self, Json};
use super::queue::{Dropped, Pace, Queue};

/// How lines look, those of the access log included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a person at a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged where `RUST_LOG` says nothing. The exporter's own complaints are summed up by ours.
const DEFAULT_FILTER: &str = "info,opentelemetry=error";

/// A line is written as soon as it comes; what waits while stderr is stuck is bounded.
const PACE: Pace = Pace { capacity: 1_024, batch: 1, linger: Duration::ZERO };

/// The log as long as it is written; its owner flushes it.
#[derive(Debug)]
pub struct Log {
    lines: Queue<String>,
}

impl Log {
    /// Lines that were lost because stderr was stuck.
    pub fn dropped(&self) -> &Dropped {
        self.lines.dropped()
    }

    /// Waits until all lines so far are written, at most for `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.lines.flush(timeout)
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log cannot be set up: the system gives no thread: {0}")]
    Thread(io::Error),
    #[error("the log is set up twice: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the log of the process on stderr, once. With a `tracer` the program's own spans are exported too.
/// `RUST_LOG` filters, but other crates never say more than [`allowed`].
///
/// # Errors
/// When there is one already, or the system gives no thread.
pub fn init(format: Format, tracer: Option<SdkTracer>) -> Result<Log, LogError> {
    let colour = format == Format::Human && io::stderr().is_terminal();
    let lines = start(io::stderr()).map_err(LogError::Thread)?;
    let filter = std::env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    tracing_subscriber::registry()
        .with(filter_fn(allowed))
        .with(EnvFilter::builder().parse_lossy(filter.as_deref().unwrap_or(DEFAULT_FILTER)))
        .with(tracer.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer)))
        .with(LogLayer { format, colour, lines: lines.clone(), dispatch: OnceLock::new() })
        .try_init()?;
    Ok(Log { lines })
}

/// What may be logged at all, whatever the filter says. Other crates print headers, paths and queries when they are asked
/// for details: they may warn, and at most tell what they do.
fn allowed(metadata: &Metadata<'_>) -> bool {
    let quiet = ["pingora", "opentelemetry", "h2", "hyper", "rustls", "reqwest", "tonic", "tower", "notify", "mio"];
    let target = metadata.target();
    if target.starts_with("streamgauge") || target == BRIDGED {
        true
    } else if quiet.iter().any(|quiet| target.starts_with(quiet)) {
        *metadata.level() <= Level::WARN
    } else {
        *metadata.level() <= Level::INFO
    }
}

/// The target under which `tracing-log` registers its call sites; a record's own target is judged apart.
const BRIDGED: &str = "log";

/// The thread that writes lines.
fn start(mut sink: impl io::Write + Send + 'static) -> io::Result<Queue<String>> {
    Queue::spawn("log", PACE, move |lost| {
        move |lines: &mut Vec<String>| {
            for line in lines.drain(..) {
                if sink.write_all(line.as_bytes()).is_err() {
                    lost.add(1);
                }
            }
            let _ = sink.flush();
        }
    })
}

/// Turns events into lines.
struct LogLayer {
    format: Format,
    colour: bool,
    lines: Queue<String>,
    /// For the trace of a span, which the tracing layer knows.
    dispatch: OnceLock<WeakDispatch>,
}

/// The fields of a span, kept for the lines inside it.
struct SpanFields(Fields);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(SpanFields(fields));
    }

    fn on_record(&self, id: &Id, values: &Values<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(&mut fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if let Some(of_span) = span.extensions().get::<SpanFields>() {
                    fields.inherit(&of_span.0);
                }
            }
        }
        if !fields.has("trace_id")
            && let Some(span) = context.event_span(event)
            && let Some(trace_id) = self.trace_id(&span.id())
        {
            fields.push("trace_id", Text::Plain(trace_id));
        }
        let target = fields.take("log.target").unwrap_or_else(|| event.metadata().target().to_owned());
        fields.list.retain(|(name, _)| !name.starts_with("log."));
        let line = match self.format {
            Format::Json => json_line(SystemTime::now(), *event.metadata().level(), &target, fields),
            Format::Human => human_line(SystemTime::now(), *event.metadata().level(), fields, self.colour),
        };
        self.lines.send(line);
    }
}

impl LogLayer {
    /// The trace that the tracing layer gave a span; nothing where spans are not exported.
    fn trace_id(&self, span: &Id) -> Option<String> {
        let dispatch = self.dispatch.get()?.upgrade()?;
        let context = tracing_opentelemetry::get_otel_context(span, &dispatch)?;
        let trace_id = u128::from_be_bytes(context.span().span_context().trace_id().to_bytes());
        (trace_id != 0).then(|| ids::hex(trace_id, &mut [0; 32]).to_owned())
    }
}

/// Fields by name, in the order they came.
#[derive(Default)]
struct Fields {
    list: Vec<(&'static str, Text)>,
}

/// A value as it is to be written.
#[derive(Clone)]
enum Text {
    Plain(String),
    /// A number or a truth value: no quotes in JSON.
    Bare(String),
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Bare(text) => text,
        }
    }
}

impl Fields {
    /// Sets a field. The later of two values of a name counts.
    fn push(&mut self, name: &'static str, text: Text) {
        match self.list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = text,
            None => self.list.push((name, text)),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(known, _)| *known == name)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.list.iter().position(|(known, _)| *known == name)?;
        Some(self.list.remove(at).1.as_str().to_owned())
    }

    /// Takes over what a surrounding span tells; what stands nearer counts.
    fn inherit(&mut self, outer: &Self) {
        for (name, text) in &outer.list {
            if !self.has(name) {
                self.list.push((name, text.clone()));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field.name(), Text::Plain(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), Text::Plain(value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field.name(), Text::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), Text::Bare(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), Text::Bare(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        self.push(field.name(), if value.is_finite() { Text::Bare(text) } else { Text::Plain(text) });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), Text::Bare(value.to_string()));
    }
}

fn json_line(now: SystemTime, level: Level, target: &str, mut fields: Fields) -> String {
    let mut out = String::with_capacity(256);
    let mut line = Json::object(&mut out);
    line.time("timestamp", now);
    line.text("level", level_word(level));
    line.text_if("event", fields.take("event").as_deref());
    line.text("target", target);
    line.text_if("message", fields.take("message").as_deref());
    for (name, text) in &fields.list {
        match text {
            Text::Plain(text) => line.text(name, text),
            Text::Bare(text) => line.bare(name, text),
        }
    }
    line.end();
    out.push('\n');
    out
}

/// `12:34:56 WARN message key=value …`.
fn human_line(now: SystemTime, level: Level, mut fields: Fields, colour: bool) -> String {
    let mut out = String::with_capacity(160);
    json::clock(&mut out, now);
    let paint = match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        _ => "\x1b[2m",
    };
    let (on, off) = if colour { (paint, "\x1b[0m") } else { ("", "") };
    let _ = write!(out, " {on}{level:<5}{off} ");
    json::plain(&fields.take("message").unwrap_or_default(), &mut out);
    // The machine's word for it says nothing new to a person.
    fields.take("event");
    for (name, text) in &fields.list {
        let _ = write!(out, " {on}{name}={off}");
        json::plain(text.as_str(), &mut out);
    }
    out.push('\n');
    out
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
