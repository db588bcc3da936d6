//! What a replica does with a canary by what it has heard of its fleet: follow, or judge by itself.

use std::time::Duration;

use super::seat::{Apart, Reach, Seat};
use super::store::Fields;
use crate::policy::canary::{Command, Decision, FirstAttempt, Fold, Kind, Rank, Refusal, Sample, alone};
use crate::proxy::process::rollout::{Draw, Rollout};

impl Rollout {
    /// Follows a state that was committed. Whether it has another decision than the one before; `None`: it cannot be read.
    pub(super) fn adopt(&self, seat: &Seat, rank: Rank, fields: Fields) -> Option<bool> {
        let fold = Fold::read(&fields)?;
        let mut heard = seat.heard();
        if heard.rank.is_some_and(|known| known.outranks(rank)) {
            // A command was faster.
            return Some(false);
        }
        (heard.rank, heard.fields, heard.has_complained) = (Some(rank), fields, false);
        heard.reads(fold.cursor);
        let mut judge = self.judge();
        let last = |decisions: &[Decision]| decisions.last().map(|decision| (decision.at, decision.kind));
        let is_news = last(&judge.decisions()) != last(&fold.judge.decisions());
        *judge = fold.judge;
        drop((judge, heard));
        self.assign_as_heard(seat);
        Some(is_news)
    }

    /// The store has answered: whoever judged by itself follows again.
    pub(super) fn hear(&self, seat: &Seat) {
        let mut heard = seat.heard();
        if !matches!(heard.reach, Reach::Together) || heard.rejoins_after.is_some() {
            heard.hears();
            let cursor = heard.fields.get("cursor").and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok());
            heard.reads(cursor.unwrap_or_default());
            drop(heard);
            self.assign_as_heard(seat);
        }
    }

    /// The store has not answered for a while, for the `outage`-th time: this replica of `members` judges its own requests.
    pub(super) fn go_apart(&self, seat: &Seat, outage: u64, members: usize, now: Duration) {
        let mut heard = seat.heard();
        if matches!(heard.reach, Reach::Apart(_)) {
            return;
        }
        let Draw { share, epoch } = self.draw();
        let plan = alone(&self.plan, share, outage, members);
        let judge = (1..100).contains(&share).then(|| self.judge().apart(&plan, epoch, now));
        let has_rolled_back = heard.rejoins_after.take().is_some();
        heard.reach = Reach::Apart(Box::new(Apart { plan, judge, has_rolled_back }));
    }

    /// A request's first attempt, while this replica judges by itself; it may roll back itself alone.
    pub(in crate::proxy) fn observe_apart(&self, seat: &Seat, sample: Sample, attempt: &FirstAttempt, now: Duration) {
        let mut heard = seat.heard();
        let Reach::Apart(apart) = &mut heard.reach else { return };
        let decision = apart.judge.as_mut().and_then(|judge| judge.observe(&apart.plan, sample, attempt, now));
        let Some(decision) = decision.filter(|decision| decision.kind == Kind::RollBack) else { return };
        (apart.judge, apart.has_rolled_back) = (None, true);
        drop(heard);
        self.assign_as_heard(seat);
        let (route, variant) = (&*self.route.name, &*self.plan.target);
        tracing::error!(
            event = "canary.rolled_back_here",
            route,
            variant,
            from_percent = decision.from,
            fact = decision.fact().map(crate::policy::canary::Fact::as_str),
            "canary `{variant}` of route `{route}` gets no requests from this replica while the fleet's Redis is away: {}",
            decision.reason
        );
    }

    /// Does what a person asks for, here and now: the fleet is told when the store is back.
    ///
    /// # Errors
    /// Why that would change nothing.
    pub(in crate::proxy) fn command_apart(
        &self,
        seat: &Seat,
        command: Command,
        now: Duration,
    ) -> Result<Decision, Refusal> {
        let decision = self.judge().command(&self.plan, command, now)?;
        seat.heard().wanted = Some(command);
        self.assign_as_heard(seat);
        Ok(decision)
    }

    /// Lets requests be assigned by what is known.
    pub(in crate::proxy) fn assign_as_heard(&self, seat: &Seat) {
        let heard = seat.heard();
        let judge = self.judge();
        let draw = match &heard.reach {
            _ if heard.withdraws() => Draw { share: 0, epoch: 0 },
            Reach::Apart(_) => return,
            Reach::Together => Draw::of(&judge, &self.plan),
            Reach::Joining => Draw { share: heard.rank.map_or(0, |_| judge.share(&self.plan)), epoch: 0 },
        };
        self.assign_by(draw);
    }
}
