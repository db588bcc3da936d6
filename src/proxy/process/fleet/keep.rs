//! Takes part in the fleet: tells its judge of requests, follows what is committed, and judges where nobody else does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use super::link::{Link, NoAnswer};
use super::presence::{Follows, Presence};
use super::seat::{Judging, Reach, Seat};
use super::store::{Fields, For, Look};
use crate::policy::canary::{Command, Decision, Fold, Kind, Rank, Refusal, digest, together};
use crate::proxy::process::rollout::Rollout;
use crate::proxy::process::state::{Generation, Shared};

/// How often what waits is told.
const TICK: Duration = Duration::from_millis(100);

/// Ticks between two looks at what is committed.
const LOOK_TICKS: u64 = 2;

/// Ticks between two words that this replica lives, well within its lease.
const HELLO_TICKS: u64 = 20;

/// How often a command is tried while others commit.
const TRIES: usize = 5;

/// How long the answer to a command waits for all replicas to follow.
const FOLLOWED_WITHIN: Duration = Duration::from_millis(2_500);

/// What the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Who of the fleet follows a decision.
#[derive(Debug, Clone, Default)]
pub struct Followers {
    /// Replicas that do.
    pub followed: Vec<String>,
    /// Those that do not yet.
    pub missing: Vec<String>,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Undone {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(
        "the fleet's Redis does not answer, so no replica can be told; `rollback` and `pause` are done here at once"
    )]
    Away,
    #[error("the canary changes all the time: try again")]
    Contended,
}

/// How a canary of a fleet stands to this replica.
#[derive(Debug, Clone)]
pub struct InFleet {
    /// `joining`, `together` or `apart`.
    pub reach: &'static str,
    /// How often the state was committed that this replica follows.
    pub version: u64,
    /// What the canary is called in the fleet's store.
    pub key: String,
    /// The replica that judges; `None`: it is not known.
    pub judge: Option<String>,
    /// This replica judges at present.
    pub judges: bool,
    /// Replicas have different plans, so no step is taken.
    pub plans_differ: bool,
    /// Requests that the judge could not be told of.
    pub dropped: u64,
    /// Commits that were refused, since another had judged meanwhile.
    pub refused: u64,
    /// Why this replica does not do what the state says, or why no step is taken, in words.
    pub waits: Option<&'static str>,
}

impl Shared {
    /// How a canary of a fleet stands to this replica; `None`: it is of no fleet.
    pub fn canary_in_fleet(&self, rollout: &Rollout) -> Option<InFleet> {
        let seat = rollout.seat()?;
        let plans_differ = self.fleet.link().is_some_and(|link| plans_differ(&link, rollout, seat));
        let heard = seat.heard();
        let (reach, waits) = match &heard.reach {
            Reach::Joining => ("joining", Some("until the fleet's Redis answers")),
            Reach::Apart(apart) if apart.has_rolled_back => {
                ("apart", Some("at this replica, where it did harm, until the fleet's Redis answers"))
            }
            Reach::Apart(_) => ("apart", Some("until the fleet's Redis answers; harm rolls it back at this replica")),
            Reach::Together if plans_differ => {
                ("together", Some("while replicas have different plans of it; harm rolls it back"))
            }
            Reach::Together => ("together", None),
        };
        let version = heard.rank.map_or(0, |rank| rank.version);
        let judge = Some(heard.judge.clone()).filter(|judge| reach == "together" && !judge.is_empty());
        drop(heard);
        let judges = judge.as_deref() == Some(&*self.fleet.owner);
        let (key, dropped, refused) = (seat.key.clone(), seat.dropped(), seat.refused());
        Some(InFleet { reach, version, key, judge, judges, plans_differ, dropped, refused, waits })
    }

    /// Takes part in the fleet, if this process is of one. Never ends.
    pub async fn keep_fleet(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0_u64.. {
            ticks.tick().await;
            let link = self.fleet.link();
            self.around.hints.open(link.is_some());
            let Some(link) = link else {
                self.around.replicas.set(1);
                continue;
            };
            let generation = self.generation.load_full();
            if self.take_part(&link, &generation, round).await.is_err() && link.is_away() {
                let (outage, members) = (link.outages(), link.members().len());
                for (rollout, seat) in seats(&generation) {
                    rollout.go_apart(seat, outage, members, since_1970());
                }
            }
        }
    }

    /// Tells the last, and leaves the fleet. To be called after the last request.
    pub async fn leave_fleet(&self) {
        let Some(link) = self.fleet.link() else { return };
        let generation = self.generation.load_full();
        let waiting = seats(&generation).map(|(_, seat)| (seat.key.clone(), seat.waiting(since_1970())));
        let waiting = waiting.collect();
        if tokio::time::timeout(LAST_WORDS, link.goodbye(waiting)).await.is_err() {
            tracing::warn!(event = "fleet.not_told", "the fleet was not told the last, nor of this end");
        }
    }

    /// Does what a person asks for with a canary of the fleet, at whichever replica.
    pub(in crate::proxy) async fn command_fleet(
        &self,
        rollout: &Rollout,
        seat: &Seat,
        command: Command,
    ) -> Result<Option<Followers>, Undone> {
        let Some(link) = self.fleet.link() else { return Err(Undone::Away) };
        for _ in 0..TRIES {
            match self.commit_command(&link, rollout, seat, command).await {
                Ok(Some(version)) => return Ok(Some(self.followers(&link, seat, version).await)),
                Ok(None) => {}
                Err(Failed::Refused(refusal)) => return Err(refusal.into()),
                Err(Failed::NoAnswer) if matches!(command, Command::RollBack | Command::Pause) => {
                    let decision = rollout.command_apart(seat, command, since_1970())?;
                    self.decided(rollout, &decision);
                    return Ok(None);
                }
                Err(Failed::NoAnswer) => return Err(Undone::Away),
            }
        }
        Err(Undone::Contended)
    }

    async fn take_part(&self, link: &Link, generation: &Generation, round: u64) -> Result<(), NoAnswer> {
        let mut is_news = false;
        for (rollout, seat) in seats(generation) {
            seat.set_members(link.members().len());
            seat.tell(link, since_1970()).await?;
            if round.is_multiple_of(LOOK_TICKS) {
                is_news |= self.follow(link, rollout, seat).await?;
            }
        }
        if is_news || round.is_multiple_of(HELLO_TICKS) {
            self.fleet.find_itself(link).await;
            link.hello(&self.presence(generation)).await?;
            self.around.replicas.set(link.members().len());
        }
        self.share_hints(link, generation, round.is_multiple_of(LOOK_TICKS)).await
    }

    /// Follows what is committed, or sees to it that something is. Whether there is another decision.
    async fn follow(&self, link: &Link, rollout: &Rollout, seat: &Seat) -> Result<bool, NoAnswer> {
        let known = seat.heard().rank;
        let look = link.look(&seat.key, For::Following(known)).await?;
        let Some(current) = look.rank else {
            return match known {
                None => self.begin(link, rollout, seat, &look).await,
                Some(known) => self.offer(link, rollout, seat, known).await,
            };
        };
        if let Some(known) = known.filter(|known| known.outranks(current)) {
            return self.offer(link, rollout, seat, known).await;
        }
        let is_judge = look.judge == *link.owner;
        seat.heard().judge = look.judge;
        let mut is_news = false;
        if known != Some(current) {
            is_news = self.adopt(rollout, seat, current, look.fields, link);
        }
        rollout.hear(seat);
        let wanted = seat.heard().wanted;
        if let Some(command) = wanted {
            is_news |= self.commit_wanted(link, rollout, seat, command).await?;
        } else if is_judge {
            is_news |= self.judge_unread(link, rollout, seat, current).await?;
        }
        Ok(is_news)
    }

    /// Nobody knows anything of this canary: it starts.
    async fn begin(&self, link: &Link, rollout: &Rollout, seat: &Seat, look: &Look) -> Result<bool, NoAnswer> {
        let mut fold = Fold::start(&rollout.plan, look.now);
        let start = fold.judge.decisions().last().copied();
        let fields = signed(fold.fields(&rollout.plan, true), link);
        if link.commit(&seat.key, 0, &fields).await?
            && let Some(start) = start
        {
            self.decided(rollout, &start);
        }
        Ok(false)
    }

    /// The store has lost what it knew, or never knew what this replica kept.
    async fn offer(&self, link: &Link, rollout: &Rollout, seat: &Seat, known: Rank) -> Result<bool, NoAnswer> {
        let mut judging = seat.judging.lock().await;
        let of_judge = judging.take().filter(|judging| judging.version == known.version);
        let fields = match of_judge {
            Some(mut judging) => judging.fold.fields(&rollout.plan, true),
            None => {
                let mut fields: Vec<(String, Vec<u8>)> = seat.heard().fields.clone().into_iter().collect();
                fields.retain(|(name, _)| name != "share" && name != "version");
                fields.push(("share".to_owned(), known.share.to_string().into_bytes()));
                fields
            }
        };
        if link.offer(&seat.key, known, &fields).await? {
            let (route, share) = (&*rollout.route.name, known.share);
            tracing::warn!(
                event = "canary.offered",
                route,
                share_percent = share,
                "the fleet's Redis had lost how the canary of route `{route}` stands: it goes on at {share} %, as this replica knew it"
            );
        }
        Ok(false)
    }

    /// Takes in what replicas have told, and commits what follows.
    async fn judge_unread(&self, link: &Link, rollout: &Rollout, seat: &Seat, current: Rank) -> Result<bool, NoAnswer> {
        let mut judging = seat.judging.lock().await;
        if judging.as_ref().is_none_or(|judging| judging.version != current.version) {
            *judging = self.take_over(link, rollout, seat).await?;
        }
        let Some(mut at) = judging.take() else { return Ok(false) };
        let unread = link.unread(&seat.key, at.fold.cursor).await?;
        if unread.unreadable > 0 {
            let (route, count) = (&*rollout.route.name, unread.unreadable);
            tracing::warn!(event = "canary.unreadable", route, count, "batches of another version were passed over");
        }
        if unread.rewinds {
            at.fold.rewind();
        }
        if unread.entries.is_empty() {
            *judging = Some(at);
            return Ok(false);
        }
        let plan = together(&rollout.plan, plans_differ(link, rollout, seat));
        let decisions: Vec<Decision> = unread.entries.iter().flat_map(|entry| at.fold.take(&plan, entry)).collect();
        let fields = signed(at.fold.fields(&plan, false), link);
        seat.heard().untold = Some((at.version + 1, decisions));
        if !link.commit(&seat.key, at.version, &fields).await? {
            // Another judges since: all that was taken in here is the other's to take in.
            seat.heard().untold = None;
            seat.refused.fetch_add(1, Ordering::Relaxed);
            let route = &*rollout.route.name;
            tracing::info!(event = "canary.commit_refused", route, "another replica has judged meanwhile");
            return Ok(false);
        }
        at.version += 1;
        let rank = Rank { version: at.version, share: at.fold.judge.share(&rollout.plan) };
        *judging = Some(at);
        drop(judging);
        let fields = fields.into_iter().filter(|(name, _)| !name.starts_with("drawn:")).collect();
        Ok(self.adopt(rollout, seat, rank, fields, link))
    }

    /// All that there is to go on with.
    async fn take_over(&self, link: &Link, rollout: &Rollout, seat: &Seat) -> Result<Option<Judging>, NoAnswer> {
        let look = link.look(&seat.key, For::Deciding).await?;
        let Some(rank) = look.rank else { return Ok(None) };
        let fold = Fold::read(&look.fields).or_else(|| Fold::read(&seat.heard().fields));
        let fold = fold.unwrap_or_else(|| Fold::start(&rollout.plan, look.now));
        Ok(Some(Judging { version: rank.version, fold }))
    }

    /// Follows a state, and tells what this replica decided of it.
    fn adopt(&self, rollout: &Rollout, seat: &Seat, rank: Rank, fields: Fields, link: &Link) -> bool {
        let is_ours = fields.get("by").is_some_and(|by| *by == link.owner.as_bytes());
        let untold = seat.heard().untold.take_if(|(version, _)| *version <= rank.version);
        let decisions = untold.filter(|(version, _)| is_ours && *version == rank.version);
        for decision in decisions.iter().flat_map(|(_, decisions)| decisions) {
            self.decided(rollout, decision);
        }
        let Some(is_news) = rollout.adopt(seat, rank, fields) else {
            if !std::mem::replace(&mut seat.heard().has_complained, true) {
                let route = &*rollout.route.name;
                tracing::error!(
                    event = "canary.state_unreadable",
                    route,
                    "what the fleet's Redis holds of the canary of route `{route}` cannot be read: this replica stays where it is"
                );
            }
            return false;
        };
        if is_news {
            let (route, share, epoch) = (&*rollout.route.name, rank.share, rollout.draw().epoch);
            tracing::debug!(event = "canary.adopted", route, share_percent = share, epoch, "a decision is followed");
            // It is to be kept at once.
            self.canary_decided.notify_one();
        }
        is_news
    }

    /// What a person asked for while the store was away.
    async fn commit_wanted(
        &self,
        link: &Link,
        rollout: &Rollout,
        seat: &Seat,
        command: Command,
    ) -> Result<bool, NoAnswer> {
        let done = match self.change(link, rollout, seat, command).await {
            Ok(done) => done.is_some(),
            // Somebody else did it, or something stronger.
            Err(Failed::Refused(_)) => true,
            Err(Failed::NoAnswer) => return Err(NoAnswer),
        };
        if done {
            seat.heard().wanted = None;
            rollout.assign_as_heard(seat);
        }
        Ok(done)
    }

    /// Reads, decides and writes. The version that it made; `None`: another wrote meanwhile.
    async fn commit_command(
        &self,
        link: &Link,
        rollout: &Rollout,
        seat: &Seat,
        command: Command,
    ) -> Result<Option<u64>, Failed> {
        let Some((version, decision)) = self.change(link, rollout, seat, command).await? else { return Ok(None) };
        self.decided(rollout, &decision);
        Ok(Some(version))
    }

    async fn change(
        &self,
        link: &Link,
        rollout: &Rollout,
        seat: &Seat,
        command: Command,
    ) -> Result<Option<(u64, Decision)>, Failed> {
        let look = link.look(&seat.key, For::Deciding).await?;
        let (Some(rank), Some(mut fold)) = (look.rank, Fold::read(&look.fields)) else {
            return Err(Failed::NoAnswer);
        };
        let decision = fold.command(&rollout.plan, command, look.now)?;
        // A rollout that starts anew forgets whom it had counted.
        let fields = signed(fold.fields(&rollout.plan, decision.kind == Kind::Resume), link);
        if !link.commit(&seat.key, rank.version, &fields).await? {
            return Ok(None);
        }
        let rank = Rank { version: rank.version + 1, share: fold.judge.share(&rollout.plan) };
        self.adopt(rollout, seat, rank, fields.into_iter().collect(), link);
        Ok(Some((rank.version, decision)))
    }

    /// What this replica says of itself.
    fn presence(&self, generation: &Generation) -> Presence {
        let canaries = seats(generation).map(|(rollout, seat)| {
            let plan = digest(&rollout.plan, rollout.route.sticky);
            (seat.key.clone(), Follows { plan, epoch: rollout.draw().epoch, version: seat.version() })
        });
        Presence {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            admin: self.fleet.advertised().map_or_else(String::new, |admin| admin.to_string()),
            canaries: canaries.collect(),
        }
    }

    /// Waits for all replicas to follow.
    async fn followers(&self, link: &Link, seat: &Seat, version: u64) -> Followers {
        let since = Instant::now();
        loop {
            let generation = self.generation.load_full();
            let heard = link.hello(&self.presence(&generation)).await;
            let mut followers = Followers::default();
            for member in link.members().iter() {
                let follows = member.says.as_ref().and_then(|says| says.canaries.get(&seat.key));
                match follows {
                    Some(follows) if follows.version >= version => followers.followed.push(member.owner.clone()),
                    Some(_) => followers.missing.push(member.owner.clone()),
                    // It has no such canary.
                    None => {}
                }
            }
            if followers.missing.is_empty() || heard.is_err() || since.elapsed() >= FOLLOWED_WITHIN {
                return followers;
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Why the fleet's state was not changed.
enum Failed {
    Refused(Refusal),
    NoAnswer,
}

impl From<NoAnswer> for Failed {
    fn from(NoAnswer: NoAnswer) -> Self {
        Self::NoAnswer
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The canaries of a fleet.
fn seats(generation: &Generation) -> impl Iterator<Item = (&Arc<Rollout>, &Seat)> {
    generation.rollouts.values().filter_map(|rollout| Some((rollout, rollout.seat()?)))
}

/// Whether replicas that are alive would judge a canary by different plans.
pub(super) fn plans_differ(link: &Link, rollout: &Rollout, seat: &Seat) -> bool {
    let own = digest(&rollout.plan, rollout.route.sticky);
    let members = link.members();
    let mut follows = members.iter().filter_map(|member| member.says.as_ref()?.canaries.get(&seat.key));
    follows.any(|follows| follows.plan != own)
}

/// Fields with whose they are.
fn signed(mut fields: Vec<(String, Vec<u8>)>, link: &Link) -> Vec<(String, Vec<u8>)> {
    fields.push(("by".to_owned(), link.owner.as_bytes().to_vec()));
    fields
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
