use std::sync::Mutex;
use std::sync::mpsc;

use opentelemetry::trace::{Span as _, SpanId, Tracer as _};

use super::*;
use crate::telemetry::record::Outcome;
use crate::telemetry::records_for_tests::{chat, ms, plain};

const LONG: Duration = Duration::from_secs(20);
const SLOW: SlowRules = SlowRules { first_token: Duration::from_secs(5), gap: Duration::from_secs(2) };

fn pace(capacity: usize) -> Pace {
    Pace { capacity, batch: 8, linger: Duration::ZERO }
}

/// A collector in this process; it waits for a word before each export where it was given somebody to listen to.
#[derive(Debug, Clone, Default)]
struct Kept {
    batches: Arc<Mutex<Vec<Vec<SpanData>>>>,
    entered: Option<mpsc::Sender<()>>,
    wait: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
    refuse: bool,
}

impl Destination for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if let (Some(entered), Some(wait)) = (&self.entered, &self.wait) {
            let _ = entered.send(());
            let _ = wait.lock().unwrap().recv();
        }
        if self.refuse {
            return Err(OTelSdkError::InternalFailure("on purpose".into()));
        }
        self.batches.lock().unwrap().push(batch);
        Ok(())
    }
}

impl Kept {
    fn spans(&self) -> Vec<SpanData> {
        self.batches.lock().unwrap().iter().flatten().cloned().collect()
    }
}

fn exporter(kept: &Kept, capacity: usize) -> SpanExporter {
    let resource = Resource::builder_empty().build();
    SpanExporter::start(kept.clone(), Driver::Thread, resource, pace(capacity), SLOW, 1.0).unwrap()
}

#[test]
fn sampled_failed_and_slow_requests_are_sent_and_others_are_not() {
    let kept = Kept::default();
    let exporter = exporter(&kept, 100);
    let send = |sampled: bool, change: fn(&mut Record)| {
        let mut record = chat("gpt-4o");
        record.trace.sampled = sampled;
        change(&mut record);
        exporter.export(&Arc::new(record));
        exporter.sender.0.flush(LONG);
        kept.batches.lock().unwrap().drain(..).flatten().count()
    };
    let slow = |record: &mut Record| record.llm.as_mut().unwrap().reading.first_token = Some(ms(900));
    assert_eq!(send(true, |_| {}), 3);
    assert_eq!(send(false, |_| {}), 0);
    assert_eq!(send(false, |record| record.outcome = Outcome::Stalled), 3);
    assert_eq!(send(true, |record| record.trace.trace_id = 0), 0, "no identity, no trace");
    assert_eq!(send(false, slow), 0);
    exporter.slow(SlowRules { first_token: ms(500), gap: ms(500) });
    assert_eq!(send(false, slow), 3, "what is slow can change while it runs");
}

#[test]
fn many_spans_are_sent_in_batches() {
    let kept = Kept::default();
    let exporter = exporter(&kept, 1_000);
    for _ in 0..100 {
        exporter.export(&Arc::new(plain()));
    }
    assert!(exporter.shutdown(LONG));
    assert_eq!(kept.spans().len(), 200);
    assert!(kept.batches.lock().unwrap().iter().all(|batch| batch.len() <= 8 + 1));
    assert_eq!(exporter.dropped().get(), 0);
    exporter.export(&Arc::new(plain()));
    assert_eq!(exporter.dropped().get(), 2, "after the end everything is lost, and counted");
}

#[test]
fn a_stuck_collector_stops_nobody_and_what_is_lost_is_counted_in_spans() {
    let ((entered, inside), (release, wait)) = (mpsc::channel(), mpsc::channel());
    let kept = Kept { entered: Some(entered), wait: Some(Arc::new(Mutex::new(wait))), ..Kept::default() };
    let exporter = exporter(&kept, 10);
    let record = Arc::new(chat("gpt-4o"));
    exporter.export(&record);
    inside.recv_timeout(LONG).unwrap();
    for _ in 0..15 {
        exporter.export(&record);
    }
    assert_eq!(exporter.dropped().get(), 5 * 3);
    assert!(!exporter.sender.0.flush(ms(20)));
    drop(release);
    assert!(exporter.shutdown(LONG));
    assert_eq!(kept.spans().len(), 11 * 3);
}

#[test]
fn a_collector_that_refuses_costs_its_spans() {
    let kept = Kept { refuse: true, ..Kept::default() };
    let exporter = exporter(&kept, 10);
    exporter.export(&Arc::new(chat("gpt-4o")));
    assert!(exporter.shutdown(LONG));
    assert_eq!(exporter.dropped().get(), 3);
}

#[test]
fn the_programs_own_spans_go_the_same_way() {
    let kept = Kept::default();
    let exporter = exporter(&kept, 10);
    let mut span = exporter.tracer().start("reload");
    span.end();
    assert!(exporter.shutdown(LONG));
    let spans = kept.spans();
    assert_eq!((spans.len(), &*spans[0].name), (1, "reload"));
    assert_ne!(spans[0].span_context.span_id(), SpanId::INVALID);
}
