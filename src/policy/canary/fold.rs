//! What the judge of a fleet has taken in, and what follows: a fold over the batches that replicas have told.
//!
//! A fold is read from the fleet's store, takes in entries, and is written back if nobody wrote meanwhile: its cursor and its evidence
//! are one state. Whoever is killed, stopped or repeated on the way, the state is that of one judge that read each batch once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::decision::{Command, Decision, Refusal};
use super::facts::{FirstAttempt, Sample};
use super::judge::Judge;
use crate::config::canary::Canary;

/// Replicas whose batches are told apart; of more, those are forgotten that were heard of longest ago.
const ORIGINS: usize = 256;

/// The place of an entry in a stream: the store's time in ms, and a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(pub u64, pub u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, number) = text.split_once('-').ok_or(())?;
        Ok(Self(ms.parse().map_err(drop)?, number.parse().map_err(drop)?))
    }
}

/// One batch as it is in the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub id: Id,
    /// The replica that told it, and how many it had told by then: a batch that comes twice is counted once.
    pub origin: u64,
    pub number: u64,
    pub samples: Vec<(Sample, FirstAttempt)>,
}

impl Entry {
    /// When it was told, since 1970, by the store's clock.
    #[must_use]
    pub fn at(&self) -> Duration {
        Duration::from_millis(self.id.0)
    }
}

/// How far a state has come: of two, the higher version counts, and of equal ones that with less for the canary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rank {
    /// How often the state was committed; 0: never.
    pub version: u64,
    /// The canary's share, in percent.
    pub share: u8,
}

impl Rank {
    #[must_use]
    pub fn outranks(self, other: Self) -> bool {
        self.version > other.version || (self.version == other.version && self.share < other.share)
    }
}

/// The judge of a fleet's rollout, and what it has taken in.
#[derive(Debug)]
pub struct Fold {
    pub judge: Judge,
    /// The last entry that was taken in.
    pub cursor: Id,
    /// By replica: the number of its last batch, and when that was.
    told: BTreeMap<u64, (u64, u64)>,
}

impl Fold {
    /// A rollout of which nothing is known yet.
    #[must_use]
    pub fn start(plan: &Canary, now: Duration) -> Self {
        Self::of(Judge::start(plan, now))
    }

    /// Goes on with a judge that had judged elsewhere.
    #[must_use]
    pub fn of(judge: Judge) -> Self {
        Self { judge, cursor: Id::default(), told: BTreeMap::new() }
    }

    /// Takes in one batch; the decisions that it led to.
    pub fn take(&mut self, plan: &Canary, entry: &Entry) -> Vec<Decision> {
        self.cursor = entry.id;
        let before = self.told.get(&entry.origin).map(|(number, _)| *number);
        if before.is_some_and(|before| before >= entry.number) {
            return Vec::new();
        }
        self.told.insert(entry.origin, (entry.number, entry.id.0));
        if self.told.len() > ORIGINS
            && let Some(oldest) = self.told.iter().min_by_key(|(_, (_, at))| *at).map(|(origin, _)| *origin)
        {
            self.told.remove(&oldest);
        }
        let now = entry.at();
        let samples = entry.samples.iter();
        samples.filter_map(|(sample, attempt)| self.judge.observe(plan, *sample, attempt, now)).collect()
    }

    /// Does what a person asks for.
    ///
    /// # Errors
    /// Why that would change nothing.
    pub fn command(&mut self, plan: &Canary, command: Command, now: Duration) -> Result<Decision, Refusal> {
        self.judge.command(plan, command, now)
    }

    /// The stream began anew, in a store that has lost what was before: the first entry is the next. What comes twice is known by its number.
    pub fn rewind(&mut self) {
        self.cursor = Id::default();
    }

    /// All that there is to write, by field: what changed since the last call, or all of it.
    pub fn fields(&mut self, plan: &Canary, all: bool) -> Vec<(String, Vec<u8>)> {
        if all {
            self.judge.tell_all_shards();
        }
        let told = self.told.iter().map(|(origin, (number, at))| (format!("{origin:016x}"), (*number, *at)));
        let told: BTreeMap<String, (u64, u64)> = told.collect();
        let mut fields = vec![
            ("share".to_owned(), self.judge.share(plan).to_string().into_bytes()),
            ("epoch".to_owned(), self.judge.epoch().to_string().into_bytes()),
            ("cursor".to_owned(), self.cursor.to_string().into_bytes()),
            ("told".to_owned(), serde_json::to_vec(&told).unwrap_or_default()),
            ("judge".to_owned(), self.judge.whole().into_bytes()),
        ];
        fields.extend(self.judge.take_changed_shards());
        fields
    }

    /// What was written; without the shards, the judge knows of no user whom it has counted. `None`: that cannot have been.
    #[must_use]
    pub fn read(fields: &HashMap<String, Vec<u8>>) -> Option<Self> {
        let text = |name: &str| fields.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let judge = Judge::from_whole(text("judge")?, |shard| fields.get(shard).map(Vec::as_slice))?;
        let told: BTreeMap<String, (u64, u64)> = serde_json::from_str(text("told")?).ok()?;
        let told = told.into_iter().take(ORIGINS);
        let told = told.filter_map(|(origin, last)| Some((u64::from_str_radix(&origin, 16).ok()?, last)));
        Some(Self { judge, cursor: text("cursor")?.parse().ok()?, told: told.collect() })
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
