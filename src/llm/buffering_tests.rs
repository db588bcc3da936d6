use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What happens on a stream, in microseconds.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Waiting for the upstream, then a read with so many token frames.
    Read(u64, u64),
    /// The client takes so long for the bytes.
    Write(u64),
}

use Step::{Read, Write};

/// Plays a stream; every read is followed by a write of 20 µs unless the steps say another.
fn held(steps: &[Step]) -> bool {
    let (mut detector, mut now) = (BufferingDetector::default(), Duration::ZERO);
    for (number, step) in steps.iter().enumerate() {
        let took = match step {
            Read(waited, frames) => {
                now += Duration::from_micros(*waited);
                detector.read(*frames, now);
                if matches!(steps.get(number + 1), Some(Write(_))) { continue } else { 20 }
            }
            Write(took) => *took,
        };
        let from = now;
        now += Duration::from_micros(took);
        detector.wrote(from, now);
    }
    detector.are_held()
}

const SECOND: u64 = 1_000_000;

#[test]
fn an_answer_that_comes_at_once_after_a_silence_was_held() {
    assert!(held(&[Read(2 * SECOND, 40)]));
    assert!(held(&[Read(2 * SECOND, 20), Read(5, 20), Read(100, 1)]), "over several reads");
    assert!(held(&[Read(SECOND, 0), Read(SECOND, 40)]), "preambles and pings are no tokens");
    assert!(held(&[Read(300_000, 1), Read(2 * SECOND, 40)]), "the first token went ahead");
}

#[test]
fn an_answer_that_comes_in_bursts_was_held() {
    assert!(held(&[Read(SECOND, 40); 5]));
    assert!(held(&[Read(SECOND, 40), Read(SECOND, 35), Read(SECOND, 12), Read(SECOND, 3)]), "what is left comes last");
}

#[test]
fn a_model_that_is_fast_holds_nothing() {
    assert!(!held(&[Read(2 * SECOND, 1), Read(1_000, 1), Read(400, 1), Read(500, 1)].repeat(30)));
    assert!(!held(&[Read(100_000, 500)]), "a cached answer comes at once, but without a silence");
    let mut fast = vec![Read(2 * SECOND, 1)];
    fast.extend([Read(400, 1); 500]);
    assert!(!held(&fast), "2,500 tokens a second after a long prefill");
}

#[test]
fn several_tokens_a_step_are_no_burst() {
    assert!(!held(&[Read(300_000, 5); 50]));
}

#[test]
fn few_frames_tell_nothing() {
    assert!(!held(&[]));
    assert!(!held(&[Read(5 * SECOND, 1)]), "one frame with many tokens");
    assert!(!held(&[Read(5 * SECOND, 7)]));
}

#[test]
fn a_burst_at_the_end_is_none_of_the_stream() {
    let mut steps = vec![Read(SECOND, 1)];
    steps.extend([Read(20_000, 1); 4]);
    steps.push(Read(SECOND, 200));
    assert!(!held(&steps));
}

#[test]
fn what_queued_for_a_slow_reader_does_not_count() {
    // A token every 20 ms, and a client that stops reading for two seconds again and again.
    let mut steps = vec![Read(SECOND, 1)];
    for _ in 0..10 {
        steps.extend([Write(2 * SECOND), Read(0, 100), Write(20), Read(0, 60), Read(20_000, 1), Read(20_000, 1)]);
    }
    assert!(!held(&steps));
    assert!(!held(&[Read(SECOND, 1), Write(2 * SECOND), Read(0, 400)]));
    // One that was held and read slowly is found by what came after real silences.
    let slow = [Read(SECOND, 50), Write(30_000), Read(10, 30), Write(30_000)].repeat(4);
    assert!(held(&slow));
}

#[test]
fn time_for_the_clients_bytes_is_no_silence() {
    // Our own keep-alive comment, sent to a client that takes two seconds for it.
    assert!(!held(&[Read(100_000, 0), Write(2 * SECOND), Read(100_000, 40)]));
    assert!(held(&[Read(100_000, 0), Write(50), Read(300_000, 40)]), "a comment does not hide a silence");
}

proptest! {
    /// Whatever the pace: a stream whose frames come one a read, each waited for, was not held.
    #[test]
    fn one_frame_a_read_is_never_held(waits in vec(300_u64..3_000_000, 0..300)) {
        let steps: Vec<_> = waits.into_iter().map(|wait| Read(wait, 1)).collect();
        prop_assert!(!held(&steps));
    }

    /// Without a long wait for the upstream there is no burst, whatever comes in one read and however slow the client is.
    #[test]
    fn without_silence_nothing_is_held(steps in vec(prop_oneof![
        (0_u64..240_000, 1_u64..500).prop_map(|(wait, frames)| Read(wait, frames)),
        (0_u64..5_000_000).prop_map(Write),
    ], 0..200)) {
        prop_assert!(!held(&steps));
    }

    /// A collected stream is found, however many detector and reads it comes in.
    #[test]
    fn bursts_are_held(
        detector in vec((250_000_u64..5_000_000, vec((0_u64..270, 1_u64..60), 0..5)), 1..30),
    ) {
        let mut steps = Vec::new();
        for (silence, more) in detector {
            steps.push(Read(silence, 8));
            steps.extend(more.into_iter().map(|(wait, frames)| Read(wait, frames)));
        }
        prop_assert!(held(&steps));
    }

    /// No sequence of times and numbers makes it stumble, backward clocks included.
    #[test]
    fn any_times_are_survived(events in vec((any::<bool>(), 0_u64..u64::MAX / 4, 0_u64..1_000), 0..50)) {
        let mut detector = BufferingDetector::default();
        for (reads, at, number) in events {
            let at = Duration::from_nanos(at);
            if reads { detector.read(number, at) } else { detector.wrote(at, Duration::from_nanos(number)) }
        }
        detector.are_held();
    }
}
