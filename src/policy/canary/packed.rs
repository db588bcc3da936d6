//! How a replica tells the fleet's judge of its requests: a batch of first attempts as bytes.
//!
//! The first byte is the form. Then, for each request: two bytes of flags, the share, eight bytes the unit (big-endian), and as
//! variable-length numbers the epoch, how long before the batch it was assigned in ms, its number, and where there are some
//! the first token in us and the output. Clocks of replicas differ, so no time in a batch is an absolute one.

use std::time::Duration;

use super::facts::{Arm, FirstAttempt, FirstToken, Sample};

/// The form of a batch: another is not read.
const FORM: u8 = 1;

/// Requests of a batch that are read.
const SAMPLES_MAX: usize = 1_024;

const CANARY: u16 = 1;
const FAILED: u16 = 1 << 1;
const STALLED: u16 = 1 << 3;
const TRUNCATED: u16 = 1 << 5;
const FIRST_TOKEN: u16 = 1 << 7;
const NOT_WITHIN: u16 = 1 << 8;
const OUTPUT: u16 = 1 << 9;

/// A batch that is told at `now`, by the clock that the samples' times are of.
#[must_use]
pub fn pack(samples: &[(Sample, FirstAttempt)], now: Duration) -> Vec<u8> {
    let mut bytes = vec![FORM];
    for (sample, attempt) in samples {
        bytes.extend(flags(sample, attempt).to_be_bytes());
        bytes.push(sample.share);
        bytes.extend(sample.unit.to_be_bytes());
        put(&mut bytes, sample.epoch);
        put(&mut bytes, millis(now.saturating_sub(sample.at)));
        put(&mut bytes, sample.number);
        if let Some(FirstToken::Came(after) | FirstToken::NotWithin(after)) = attempt.first_token {
            put(&mut bytes, u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
        }
        if let Some(output) = attempt.output {
            put(&mut bytes, output);
        }
    }
    bytes
}

/// What `origin` told with a batch at `told`, by the reader's clock. `None`: it is none, or one of another version.
#[must_use]
pub fn unpack(bytes: &[u8], told: Duration, origin: u64) -> Option<Vec<(Sample, FirstAttempt)>> {
    let (form, mut rest) = bytes.split_first()?;
    if *form != FORM {
        return None;
    }
    let mut samples = Vec::new();
    while !rest.is_empty() {
        if samples.len() >= SAMPLES_MAX {
            return None;
        }
        samples.push(one(&mut rest, told, origin)?);
    }
    Some(samples)
}

fn one(rest: &mut &[u8], told: Duration, origin: u64) -> Option<(Sample, FirstAttempt)> {
    let flags = u16::from_be_bytes(take(rest)?);
    let [share] = take(rest)?;
    let unit = u64::from_be_bytes(take(rest)?);
    let epoch = number(rest)?;
    let at = told.saturating_sub(Duration::from_millis(number(rest)?));
    let position = number(rest)?;
    let first_token = match (flags & FIRST_TOKEN != 0, flags & NOT_WITHIN != 0) {
        (false, _) => None,
        (true, false) => Some(FirstToken::Came(Duration::from_micros(number(rest)?))),
        (true, true) => Some(FirstToken::NotWithin(Duration::from_micros(number(rest)?))),
    };
    let output = if flags & OUTPUT != 0 { Some(number(rest)?) } else { None };
    let arm = if flags & CANARY != 0 { Arm::Canary } else { Arm::Baseline };
    if share > 100 {
        return None;
    }
    let sample = Sample { arm, unit, epoch, share, at, number: position, origin };
    let attempt = FirstAttempt {
        failed: answer(flags, FAILED),
        stalled: answer(flags, STALLED),
        truncated: answer(flags, TRUNCATED),
        first_token,
        output,
    };
    Some((sample, attempt))
}

fn flags(sample: &Sample, attempt: &FirstAttempt) -> u16 {
    let bit = |is: bool, bit: u16| if is { bit } else { 0 };
    // Two bits: whether it is known, and above it what it is.
    let answer =
        |answer: Option<bool>, known: u16| bit(answer.is_some(), known) | bit(answer == Some(true), known << 1);
    bit(sample.arm == Arm::Canary, CANARY)
        | answer(attempt.failed, FAILED)
        | answer(attempt.stalled, STALLED)
        | answer(attempt.truncated, TRUNCATED)
        | bit(attempt.first_token.is_some(), FIRST_TOKEN)
        | bit(matches!(attempt.first_token, Some(FirstToken::NotWithin(_))), NOT_WITHIN)
        | bit(attempt.output.is_some(), OUTPUT)
}

fn answer(flags: u16, known: u16) -> Option<bool> {
    (flags & known != 0).then_some(flags & (known << 1) != 0)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> impl Strategy<Value = (Sample, FirstAttempt)> {
        let times = prop_oneof![Just(None), (0..u64::MAX / 2_000).prop_map(Some)];
        let attempt = (any::<[Option<bool>; 3]>(), times, any::<bool>(), any::<Option<u64>>()).prop_map(
            |(known, token, came, output)| {
                let [failed, stalled, truncated] = known;
                let first_token = token
                    .map(Duration::from_micros)
                    .map(|after| if came { FirstToken::Came(after) } else { FirstToken::NotWithin(after) });
                FirstAttempt { failed, stalled, truncated, first_token, output }
            },
        );
        let sample = (any::<bool>(), any::<u64>(), any::<u64>(), 0..=100_u8, 0..5_000_000_u64, any::<u64>()).prop_map(
            |(is_canary, unit, epoch, share, at, number)| Sample {
                arm: if is_canary { Arm::Canary } else { Arm::Baseline },
                unit,
                epoch,
                share,
                at: Duration::from_millis(at),
                number,
                origin: 7,
            },
        );
        (sample, attempt)
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(samples in prop::collection::vec(sample(), 0..70), ahead in 0..1_000_u64) {
            // The reader's clock is ahead.
            let (now, ahead) = (Duration::from_secs(5_000), Duration::from_millis(ahead));
            let mut read = unpack(&pack(&samples, now), now + ahead, 7).unwrap();
            for (sample, _) in &mut read {
                sample.at -= ahead;
            }
            prop_assert_eq!(read, samples);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = unpack(&bytes, Duration::from_secs(1), 0);
            if let Some(first) = bytes.first_mut() {
                *first = FORM;
            }
            let _ = unpack(&bytes, Duration::from_secs(1), 0);
        }
    }

    #[test]
    fn a_batch_of_another_form_or_without_end_is_refused() {
        let none = |bytes: &[u8]| assert_eq!(unpack(bytes, Duration::ZERO, 0), None, "{bytes:?}");
        none(&[]);
        none(&[FORM + 1]);
        let sample =
            Sample { arm: Arm::Canary, unit: 1, epoch: 1, share: 50, at: Duration::ZERO, number: 0, origin: 0 };
        let whole = pack(&[(sample, FirstAttempt::FAILED)], Duration::ZERO);
        (1..whole.len()).skip(1).for_each(|end| none(&whole[..end]));
        let endless: Vec<u8> = std::iter::once(FORM).chain(whole[1..].repeat(SAMPLES_MAX + 1)).collect();
        none(&endless);
    }
}
