//! The plan of attempts: which target is asked next, and whether a failed attempt may be retried.

use crate::config::settings::{Failover, Route, Target};

/// How far an attempt had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No byte of the request went out.
    Unsent,
    /// The upstream may have acted on it.
    Sent,
}

/// Whether a request may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// LLM-shaped: asked again it costs tokens, and changes nothing.
    pub llm: bool,
    /// Its body is in hand, or there is none.
    pub replayable: bool,
}

/// Whether an attempt that failed at `stage` may be retried, by the route's `failover`.
pub fn may_replace(rule: Failover, nature: Nature, stage: Stage) -> bool {
    match (rule, stage) {
        (Failover::Never, _) => false,
        (_, Stage::Unsent) => true,
        (Failover::Unsent, Stage::Sent) => false,
        (Failover::Llm, Stage::Sent) => nature.llm && nature.replayable,
        (Failover::Always, Stage::Sent) => nature.replayable,
    }
}

/// A status that is worth a retry: the backend failed, or it is overloaded.
pub fn is_replaceable_status(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504 | 529)
}

/// How informative a failed answer is for the client: the highest is returned when all attempts failed.
pub fn tells(status: u16, retry_after: bool) -> u8 {
    match status {
        429 => 5,
        503 | 529 if retry_after => 4,
        // An error inside the stream, in the dialect's words.
        200..=299 => 3,
        500 | 503 | 529 => 2,
        _ => 1,
    }
}

/// A target or fallback of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// By its place among the targets.
    Target(usize),
    /// By its place among the fallbacks.
    Fallback(usize),
}

impl Choice {
    /// All of a route, each with its target.
    pub fn all(route: &Route) -> impl Iterator<Item = (Self, &Target)> {
        let targets = route.targets.iter().enumerate().map(|(at, target)| (Self::Target(at), target));
        targets.chain(route.fallback.iter().enumerate().map(|(at, target)| (Self::Fallback(at), target)))
    }

    /// Its target; `None` only for a choice of another route.
    pub fn of(self, route: &Route) -> Option<&Target> {
        match self {
            Self::Target(at) => route.targets.get(at),
            Self::Fallback(at) => route.fallback.get(at),
        }
    }
}

/// Whether a target gets anything of its route's requests. One of weight 0 does not; nor does a canary whose share is 0, in
/// percent: it was rolled back, or its time has not come.
pub fn takes_part(route: &Route, target: &Target, canary_share: Option<u8>) -> bool {
    match route.canary.as_ref().zip(canary_share) {
        Some((canary, share)) if canary.target == target.name => share > 0,
        _ => target.weight > 0,
    }
}

/// The endpoints of a choice that a request can still use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// An endpoint that was not tried yet and is believed to answer.
    Up,
    /// Only endpoints that are down, and were not tried yet.
    Down,
    Exhausted,
}

/// The plan of one request: which targets are asked, in which order, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    order: Vec<(Choice, bool)>,
    current: Option<Choice>,
    left: u32,
}

impl Plan {
    /// The assigned target, then the others in the file's order that [take part](takes_part), then the fallbacks.
    pub fn new(route: &Route, assigned: &Target, canary_share: Option<u8>) -> Self {
        let is_assigned = |target: &Target| target.name == assigned.name;
        let takes_part = |target: &Target| takes_part(route, target, canary_share);
        let first = route.targets.iter().position(is_assigned).map(Choice::Target);
        let others = (0..route.targets.len())
            .filter(|at| route.targets.get(*at).is_some_and(|target| takes_part(target) && !is_assigned(target)));
        let fallbacks = (0..route.fallback.len()).map(Choice::Fallback);
        let order = first.into_iter().chain(others.map(Choice::Target)).chain(fallbacks);
        Self { order: order.map(|choice| (choice, false)).collect(), current: None, left: route.retries.attempts }
    }

    /// This one is asked now.
    pub fn ask(&mut self, choice: Choice) {
        self.left = self.left.saturating_sub(1);
        self.current = Some(choice);
        for (known, asked) in &mut self.order {
            *asked |= *known == choice;
        }
    }

    /// Whether another was asked while the assigned target never was: it is down.
    pub fn passes_over_assigned(&self) -> bool {
        self.current.is_some() && self.order.first().is_some_and(|(_, asked)| !asked)
    }

    /// The choice that was asked last.
    pub fn current(&self) -> Option<Choice> {
        self.current
    }

    /// Whom to ask next; `None`: nobody is left, or no attempt. Another endpoint of the same upstream comes first as long as
    /// that leaves an attempt for each of the others; what is down comes last.
    pub fn next(&self, room: impl Fn(Choice) -> Room) -> Option<Choice> {
        if self.left == 0 {
            return None;
        }
        let room = &room;
        let fresh = |wanted: Room| {
            self.order.iter().filter(|(_, asked)| !asked).map(|(choice, _)| *choice).filter(move |c| room(*c) == wanted)
        };
        let here = self.current.map(|choice| (choice, room(choice)));
        let others = u32::try_from(fresh(Room::Up).count()).unwrap_or(u32::MAX);
        let stays = |wanted: Room| here.filter(|(_, room)| *room == wanted).map(|(choice, _)| choice);
        stays(Room::Up)
            .filter(|_| self.left > others)
            .or_else(|| fresh(Room::Up).next())
            .or_else(|| stays(Room::Up))
            .or_else(|| fresh(Room::Down).next())
            .or_else(|| stays(Room::Down))
    }
}

#[cfg(test)]
#[path = "failover_tests.rs"]
mod tests;
