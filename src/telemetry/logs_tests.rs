use std::sync::{Arc, Mutex, mpsc};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::Value;

use super::*;

/// A sink that keeps what it gets.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that `work` logs, with everything allowed through that may be.
fn logged(format: Format, tracer: Option<SdkTracer>, work: impl FnOnce()) -> String {
    let kept = Kept::default();
    let lines = start(kept.clone()).unwrap();
    let subscriber = tracing_subscriber::registry()
        .with(filter_fn(allowed))
        .with(EnvFilter::new("trace"))
        .with(tracer.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer)))
        .with(LogLayer { format, colour: false, lines: lines.clone(), dispatch: OnceLock::new() });
    tracing::subscriber::with_default(subscriber, work);
    assert!(lines.flush(Duration::from_secs(20)));
    String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
}

fn json(work: impl FnOnce()) -> Vec<Value> {
    logged(Format::Json, None, work).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_event_is_one_json_line() {
    let lines = json(|| {
        let error = io::Error::other("broken\npipe");
        tracing::warn!(event = "x.failed", count = 3_u64, share = 0.5, not = f64::NAN, ok = false, %error, path = ?"a\"b", "it failed");
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    for (name, value) in [
        ("level", Value::from("warn")),
        ("event", "x.failed".into()),
        ("message", "it failed".into()),
        ("count", 3.into()),
        ("share", 0.5.into()),
        ("not", "NaN".into()),
        ("ok", false.into()),
        ("error", "broken\npipe".into()),
        ("path", "\"a\\\"b\"".into()),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(line["target"].as_str().unwrap().starts_with("streamgauge"));
}

#[test]
fn a_person_reads_the_message_first() {
    let text = logged(Format::Human, None, || {
        tracing::info!(event = "config.reloaded", generation = 2, "configuration reloaded");
        tracing::error!(path = "/x\u{1b}[2J\r\nforged", "broken");
    });
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        lines,
        ["INFO  configuration reloaded generation=2", "ERROR broken path=/x\u{fffd}[2J\u{fffd}\u{fffd}forged"]
    );
}

#[test]
fn lines_tell_the_spans_they_are_in() {
    let lines = json(|| {
        let outer = tracing::info_span!("request", trace_id = "abc", request_id = tracing::field::Empty, n = 1);
        outer.record("request_id", "r1");
        let _outer = outer.entered();
        let _inner = tracing::info_span!("attempt", n = 2).entered();
        tracing::info!("inside");
    });
    assert_eq!((&lines[0]["trace_id"], &lines[0]["request_id"]), (&"abc".into(), &"r1".into()));
    assert_eq!(lines[0]["n"], 2, "the inner span counts");
}

#[test]
fn lines_inside_an_exported_span_have_its_trace() {
    let provider = SdkTracerProvider::builder().build();
    let text = logged(Format::Json, Some(provider.tracer("test")), || {
        tracing::info!("outside");
        let _span = tracing::info_span!("reload").entered();
        tracing::info!("one");
        tracing::info!("two");
    });
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0].get("trace_id").is_none());
    let trace_id = lines[1]["trace_id"].as_str().unwrap();
    assert_eq!(trace_id.len(), 32);
    assert_eq!(lines[2]["trace_id"], trace_id);
}

#[test]
fn other_crates_may_warn_and_not_chat() {
    let lines = json(|| {
        tracing::debug!(target: "streamgauge::proxy", "ours");
        tracing::warn!(target: "pingora_proxy::proxy_h1", "theirs, a warning");
        tracing::info!(target: "pingora_core::server", "CANARY");
        tracing::trace!(target: "h2::codec", "CANARY");
        tracing::info!(target: "hyper_util::client", "CANARY");
        tracing::info!(target: "somebody", "theirs, information");
        tracing::debug!(target: "somebody", "CANARY");
    });
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["ours", "theirs, a warning", "theirs, information"]);
}

/// The one test that sets up the log of this process: it bridges the `log` crate for all.
#[test]
fn records_of_the_log_crate_come_through_with_their_own_target() {
    let log = init(Format::Json, None).unwrap();
    assert!(matches!(init(Format::Json, None), Err(LogError::Twice(_))));
    let lines = json(|| {
        log::warn!(target: "pingora_proxy", "a warning");
        log::info!(target: "pingora_core::server", "CANARY");
        log::debug!(target: "h2", "CANARY");
        log::info!(target: "somebody", "information");
    });
    let read: Vec<_> =
        lines.iter().map(|line| (line["target"].as_str().unwrap(), line["message"].as_str().unwrap())).collect();
    assert_eq!(read, [("pingora_proxy", "a warning"), ("somebody", "information")]);
    assert!(lines.iter().all(|line| line.get("log.module_path").is_none()));
    assert!(log.flush(Duration::from_secs(20)));
    assert_eq!(log.dropped().get(), 0);
}

#[test]
fn a_stuck_stderr_stops_nobody() {
    struct Stuck(mpsc::Sender<()>, mpsc::Receiver<()>);
    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let ((entered, inside), (release, blocked)) = (mpsc::channel(), mpsc::channel());
    let lines = start(Stuck(entered, blocked)).unwrap();
    lines.send("first".into());
    inside.recv_timeout(Duration::from_secs(20)).unwrap();
    (0..PACE.capacity + 5).for_each(|_| lines.send("more".into()));
    assert_eq!(lines.dropped().get(), 5);
    drop(release);
    assert!(lines.flush(Duration::from_secs(20)));
}
