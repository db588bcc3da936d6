//! One replica's part in a canary that its fleet judges: what it has to tell the judge, and what it has heard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::link::{Link, NoAnswer};
use super::outbox::{Batch, Outbox};
use super::store::Fields;
use crate::config::canary::Canary;
use crate::policy::canary::{Command, Decision, FirstAttempt, Fold, Id, Judge, Rank, Sample};

/// After an outage a replica that had rolled back by itself waits so long for the judge to read what it saw.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// A replica's part in one canary.
pub(in crate::proxy) struct Seat {
    /// What the canary is called in the fleet's store.
    pub(super) key: String,
    outbox: Mutex<Outbox>,
    heard: Mutex<Heard>,
    /// What is known where this replica judges. Held over questions to the store: its owner is the one task that takes part.
    pub(super) judging: tokio::sync::Mutex<Option<Judging>>,
    /// How many replicas there are, at least 1.
    members: AtomicU64,
    /// Commits that were refused, since another had judged meanwhile.
    pub(super) refused: AtomicU64,
}

/// A judge with all that it has taken in.
pub(super) struct Judging {
    /// By how many commits it was made.
    pub(super) version: u64,
    pub(super) fold: Fold,
}

/// What a replica has heard of its fleet.
pub(super) struct Heard {
    /// Of the last state that is known, of the fleet or kept over a restart.
    pub(super) rank: Option<Rank>,
    /// That state, for a store that has lost it.
    pub(super) fields: Fields,
    pub(super) reach: Reach,
    /// Who judged when that was last looked at; empty: nobody.
    pub(super) judge: String,
    /// What a person asked for while the store was away.
    pub(super) wanted: Option<Command>,
    /// It had rolled back by itself, and follows again once the judge has read this.
    pub(super) rejoins_after: Option<(Id, Instant)>,
    /// Decisions of a commit of which it is not known whether it was taken, and the version that it makes.
    pub(super) untold: Option<(u64, Vec<Decision>)>,
    /// Where the last batch is that was told.
    last_told: Option<Id>,
    /// The state in the store cannot be read, and that was said.
    pub(super) has_complained: bool,
}

/// Whether a replica hears of its fleet.
pub(super) enum Reach {
    /// Not yet.
    Joining,
    Together,
    /// Not for a while.
    Apart(Box<Apart>),
}

/// A judge of this replica's own requests.
pub(super) struct Apart {
    pub(super) plan: Canary,
    /// `None`: it has rolled back, or there is nothing to compare.
    pub(super) judge: Option<Judge>,
    pub(super) has_rolled_back: bool,
}

impl Seat {
    pub(in crate::proxy) fn new(key: String) -> Self {
        Self {
            key,
            outbox: Mutex::default(),
            heard: Mutex::new(Heard {
                rank: None,
                fields: Fields::new(),
                reach: Reach::Joining,
                judge: String::new(),
                wanted: None,
                rejoins_after: None,
                untold: None,
                last_told: None,
                has_complained: false,
            }),
            judging: tokio::sync::Mutex::default(),
            members: AtomicU64::new(1),
            refused: AtomicU64::new(0),
        }
    }

    /// How far the rollout had come before this start, for a store that knows of none; what it knows counts more. The same judge again;
    /// `None`: the store is known already.
    pub(in crate::proxy) fn restore(&self, version: u64, judge: Judge, plan: &Canary) -> Option<Judge> {
        let mut heard = self.heard();
        if !matches!(heard.reach, Reach::Joining) {
            return None;
        }
        let share = judge.share(plan);
        let fields: Fields = Fold::of(judge).fields(plan, true).into_iter().collect();
        let again = Fold::read(&fields)?.judge;
        (heard.rank, heard.fields) = (Some(Rank { version, share }), fields);
        Some(again)
    }

    /// How often the state that is known was committed.
    pub(in crate::proxy) fn version(&self) -> u64 {
        self.heard().rank.map_or(0, |rank| rank.version)
    }

    /// What the number of a replica's request stands for among all of the fleet's.
    pub(in crate::proxy) fn number(&self, own: u64) -> u64 {
        own.saturating_mul(self.members.load(Ordering::Relaxed))
    }

    pub(super) fn set_members(&self, members: usize) {
        self.members.store(members.max(1) as u64, Ordering::Relaxed);
    }

    /// Keeps what the judge is to be told of a request.
    pub(in crate::proxy) fn put(&self, sample: Sample, attempt: FirstAttempt, now: Duration) {
        // What was assigned before anything was known of the fleet is compared with nothing.
        if sample.epoch > 0 {
            self.outbox().put(sample, attempt, now);
        }
    }

    /// Requests that the judge was not told of, since it could not be for too long.
    pub(in crate::proxy) fn dropped(&self) -> u64 {
        self.outbox().dropped
    }

    /// Commits that were refused, since another had judged meanwhile.
    pub(in crate::proxy) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// All that waits to be told.
    pub(super) fn waiting(&self, now: Duration) -> Vec<Batch> {
        self.outbox().waiting(now)
    }

    /// Tells the judge all that waits.
    pub(super) async fn tell(&self, link: &Link, now: Duration) -> Result<(), NoAnswer> {
        let batches = self.waiting(now);
        let Some(last) = batches.last() else { return Ok(()) };
        let id = link.send(&self.key, &batches).await?;
        self.outbox().told(last.number);
        self.heard().last_told = Some(id);
        Ok(())
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    /// The store answers.
    pub(super) fn hears(&mut self) {
        let before = std::mem::replace(&mut self.reach, Reach::Together);
        if matches!(before, Reach::Apart(apart) if apart.has_rolled_back) {
            self.rejoins_after = self.last_told.map(|last| (last, Instant::now()));
        }
    }

    /// The judge has read up to `cursor`, as the last state says: who rolled back by itself may follow again.
    pub(super) fn reads(&mut self, cursor: Id) {
        self.rejoins_after =
            self.rejoins_after.filter(|(last, since)| cursor < *last && since.elapsed() < HEARD_WITHIN);
    }

    /// Whether this replica gives the canary nothing, whatever the fleet does.
    pub(super) fn withdraws(&self) -> bool {
        let has_rolled_back = matches!(&self.reach, Reach::Apart(apart) if apart.has_rolled_back);
        has_rolled_back || self.rejoins_after.is_some() || self.wanted == Some(Command::RollBack)
    }
}
