use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::policy::canary::{Arm, FirstToken, Kind};

const START_MS: u64 = 1_000_000_000;

fn plan() -> Canary {
    Canary {
        target: "next".into(),
        steps: vec![20, 50, 80],
        step_time: Duration::from_secs(2),
        min_requests: 20,
        alpha: 0.01,
        first_token_objective: None,
    }
}

type Fields = Vec<(String, Vec<u8>)>;

/// What is written, and by how many commits.
#[derive(Default)]
struct Store {
    version: u64,
    fields: HashMap<String, Vec<u8>>,
}

impl Store {
    /// Writes if nobody did since `version`.
    fn commit(&mut self, version: u64, fields: Vec<(String, Vec<u8>)>) -> bool {
        let is_fresh = self.version == version;
        if is_fresh {
            self.version += 1;
            self.fields.extend(fields);
        }
        is_fresh
    }

    fn read(&self) -> (u64, Fold) {
        (self.version, Fold::read(&self.fields).unwrap())
    }
}

/// A request: its user, how bad it is, and which replica told it.
type Asked = (u8, u8, u8);

/// The stream that replicas make of requests, and the state of a judge that reads it undisturbed.
fn undisturbed(asked: &[Asked]) -> (Vec<Entry>, Fold) {
    let plan = plan();
    let mut fold = Fold::start(&plan, Duration::from_millis(START_MS));
    let mut entries: Vec<Entry> = Vec::new();
    let mut numbers = [0; 3];
    for (place, batch) in asked.chunks(5).enumerate() {
        let at_ms = START_MS + 500 * (place as u64 + 1);
        let origin = batch[0].2 % 3;
        numbers[usize::from(origin)] += 1;
        let samples = batch.iter().enumerate().map(|(position, (user, how, _))| {
            let (share, epoch) = (fold.judge.share(&plan), fold.judge.epoch());
            let arm = if u16::from(*user) * 100 < u16::from(share) * 256 { Arm::Canary } else { Arm::Baseline };
            let at = Duration::from_millis(at_ms - u64::from(*how));
            let number = (place * 5 + position) as u64;
            let unit = u64::from(*user) << 56 | 7;
            let sample = Sample { arm, unit, epoch, share, at, number, origin: u64::from(origin) };
            let attempt = FirstAttempt {
                failed: Some(*how < 12),
                stalled: Some(false),
                truncated: (*how > 3).then_some(*how % 50 == 9),
                first_token: Some(FirstToken::Came(Duration::from_millis(u64::from(*how)))),
                output: Some(u64::from(*how)),
            };
            (sample, attempt)
        });
        let samples = samples.collect();
        let number = numbers[usize::from(origin)];
        let entry = Entry { id: Id(at_ms, 0), origin: u64::from(origin), number, samples };
        fold.take(&plan, &entry);
        entries.push(entry);
    }
    (entries, fold)
}

/// All that a fold knows, but floats that are only shown: they lose their last digit on the way through JSON.
fn known(fold: &mut Fold) -> Value {
    let fields = fold.fields(&plan(), true);
    let text = |name: &str| {
        let bytes = &fields.iter().find(|(field, _)| field == name).unwrap().1;
        serde_json::from_slice::<Value>(bytes).unwrap()
    };
    let mut whole = text("judge");
    whole["judge"]["tests"].take();
    for decision in whole["judge"]["decisions"].as_array_mut().unwrap() {
        decision["reason"].take();
    }
    let shards = fields.iter().filter(|(name, _)| name.starts_with("drawn:"));
    let shards: Vec<(String, Vec<u8>)> = shards.filter(|(_, users)| !users.is_empty()).cloned().collect();
    serde_json::json!({ "judge": whole, "shards": shards })
}

fn asked() -> impl Strategy<Value = Vec<Asked>> {
    prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 100..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Judges are killed before their commit, or sleep and then commit what they had; batches come twice.
    #[test]
    fn the_state_is_that_of_one_undisturbed_judge(
        asked in asked(),
        fates in prop::collection::vec((1_usize..6, 0_u8..4, any::<prop::sample::Index>()), 10..200),
    ) {
        let plan = plan();
        let (entries, mut expected) = undisturbed(&asked);
        // What was told twice: the copy comes some entries later, with an id of its own.
        let mut stream = entries;
        for (place, (_, _, which)) in fates.iter().enumerate().filter(|(_, (_, fate, _))| *fate == 3) {
            let copied = which.index(stream.len());
            let after = (copied + 1 + place % 3).min(stream.len());
            let number = stream[..after].iter().filter(|entry| entry.id.0 == stream[after - 1].id.0).count() as u64;
            let copy = Entry { id: Id(stream[after - 1].id.0, number), ..stream[copied].clone() };
            stream.insert(after, copy);
        }
        for place in 1..stream.len() {
            // In order, as a store has it.
            stream[place].id = stream[place].id.max(Id(stream[place - 1].id.0, stream[place - 1].id.1 + 1));
        }
        let mut store = Store::default();
        let mut first = Fold::start(&plan, Duration::from_millis(START_MS));
        prop_assert!(store.commit(0, first.fields(&plan, true)));
        let (mut version, mut judge) = store.read();
        let mut asleep: Option<(u64, Fields)> = None;
        let mut fates = fates.into_iter().cycle();
        for round in 0.. {
            let (count, fate, _) = fates.next().unwrap();
            // Some live long enough.
            let fate = if round % 4 == 3 { 2 } else { fate };
            let rest: Vec<&Entry> = stream.iter().filter(|entry| entry.id > judge.cursor).take(count).collect();
            if rest.is_empty() {
                break;
            }
            rest.into_iter().for_each(|entry| drop(judge.take(&plan, entry)));
            match fate {
                // Killed: what it took in is forgotten, and another reads what was written.
                0 => (version, judge) = store.read(),
                // It sleeps; another goes on, and then it wakes.
                1 => {
                    asleep = Some((version, judge.fields(&plan, false)));
                    (version, judge) = store.read();
                }
                _ => {
                    prop_assert!(store.commit(version, judge.fields(&plan, false)));
                    version += 1;
                    if let Some((old, fields)) = asleep.take() {
                        prop_assert!(!store.commit(old, fields), "a stale commit");
                    }
                }
            }
            if fate == 2 {
                (version, judge) = store.read();
            }
        }
        let (_, mut written) = store.read();
        let missing: Vec<&Entry> = stream.iter().filter(|entry| entry.id > written.cursor).collect();
        missing.into_iter().for_each(|entry| drop(written.take(&plan, entry)));
        prop_assert_eq!(known(&mut written), known(&mut expected));
        prop_assert_eq!(written.told.len(), expected.told.len());
    }
}

#[test]
fn rollouts_of_the_property_take_steps_and_roll_back() {
    let runs: Vec<Kind> = (0..40_u64)
        .flat_map(|run| {
            let ask = |n: u64| {
                let mixed = (n * 2_654_435_761 + run * 97) >> 3;
                let user = (mixed % 251) as u8;
                let how = (mixed / 251 % 200) as u8;
                // In half of the runs the canary's users fail.
                let how = if run % 2 == 0 && user < 51 { 5 } else { how.max(12) };
                (user, how, (n % 3) as u8)
            };
            let asked: Vec<Asked> = (0..400).map(ask).collect();
            let (_, fold) = undisturbed(&asked);
            fold.judge.report(&plan(), Duration::ZERO).decisions.into_iter().map(|decision| decision.kind)
        })
        .collect();
    assert!(runs.contains(&Kind::Step) && runs.contains(&Kind::RollBack), "{runs:?}");
}

#[test]
fn of_two_states_the_later_counts_and_of_equals_the_more_careful() {
    let rank = |version, share| Rank { version, share };
    assert!(rank(2, 50).outranks(rank(1, 0)));
    assert!(rank(2, 0).outranks(rank(2, 50)));
    assert!(!rank(2, 50).outranks(rank(2, 50)) && !rank(2, 60).outranks(rank(2, 50)));
    assert!(rank(1, 5).outranks(Rank::default()));
}

#[test]
fn what_cannot_have_been_written_is_refused() {
    let mut fold = Fold::start(&plan(), Duration::from_millis(START_MS));
    let fields: HashMap<String, Vec<u8>> = fold.fields(&plan(), true).into_iter().collect();
    assert!(Fold::read(&fields).is_some());
    let spoilt = [
        ("judge", &b"{}"[..]),
        ("judge", b"\xff"),
        ("cursor", b"never"),
        ("told", b"[]"),
        ("drawn:failed:0", b"seventeen bytes!!"),
        ("drawn:failed:0", &[0, 0, 0, 0, 0, 0, 0, 1, 90, 10, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    for (name, value) in spoilt {
        let mut fields = fields.clone();
        fields.insert(name.to_owned(), value.to_vec());
        assert!(Fold::read(&fields).is_none(), "{name}");
    }
}

#[test]
fn a_state_is_small_but_for_users_who_had_bad_answers() {
    let asked: Vec<Asked> = (0..2_000_u32).map(|n| (n as u8, (n / 7) as u8, n as u8)).collect();
    let (_, mut fold) = undisturbed(&asked);
    let _ = fold.fields(&plan(), true);
    let bytes: usize = fold.fields(&plan(), false).iter().map(|(_, value)| value.len()).sum();
    assert!(bytes < 40_000, "{bytes}");
}
