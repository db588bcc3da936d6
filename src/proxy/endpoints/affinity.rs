//! Which endpoint the session of a request lives at, and which one it is sent to.

use std::sync::Arc;
use std::time::Duration;

use super::choose::{PROBED, better, rank};
use super::endpoint::Member;
use super::endpoint_pool::EndpointPool;
use crate::policy::affinity::{self, AffinityResult, Choice, Key, Place};

/// What the request of a session asks of an upstream that keeps sessions together.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// `None`: nothing names its session.
    pub key: Option<Key>,
    /// How many times the mean of requests in flight an endpoint may have.
    pub spill: f64,
}

/// Where a session lives, for people.
pub struct SessionView {
    /// Every place in service, the session's home first, then in the order in which they stand in for it.
    pub places: Vec<SessionPlace>,
    /// Which of them its next request is sent to.
    pub goes_to: usize,
    pub result: AffinityResult,
    /// Requests in flight that a place may have.
    pub most: u64,
}

/// A place that a session may be sent to.
pub struct SessionPlace {
    pub endpoint: Arc<str>,
    pub address: String,
    pub usable: bool,
    pub in_flight: u32,
}

impl EndpointPool {
    /// The place for a request out of `members`, and what became of its session's wish.
    pub(super) fn of_session(
        &self,
        members: Vec<Arc<Member>>,
        wanted: &Wanted,
        streaming: bool,
        roll: u64,
    ) -> Option<(Arc<Member>, AffinityResult)> {
        let now = self.now();
        let Some(key) = wanted.key else { return Some((better(members, streaming, roll, now)?, AffinityResult::None)) };
        // One that is half open gets the next request, whosever it is: without one it would never be known to be back.
        let probed = members.iter().position(|member| rank(&member.state().health, now) == PROBED);
        let choice = affinity::choose(key, &places(&members, streaming, now), wanted.spill)?;
        let (at, result) = match probed {
            Some(at) if at == choice.home => (at, AffinityResult::Home),
            Some(at) => (at, AffinityResult::Second),
            None => (choice.at, choice.result),
        };
        Some((Arc::clone(members.get(at)?), result))
    }

    pub(super) fn tell_affinity(&self, result: AffinityResult) {
        self.telemetry().metrics().affinity(self.name(), result);
    }

    /// Where the session of this key lives, and where its next request would be sent. `None`: nothing is in service.
    pub fn session(&self, key: Key, spill: f64) -> Option<SessionView> {
        let now = self.now();
        let mut members: Vec<Arc<Member>> = self.in_service().collect();
        members.sort_by_key(|member| std::cmp::Reverse((affinity::draw(key, member.drawn_by), member.drawn_by)));
        let places = places(&members, true, now);
        let Choice { at, result, most, .. } = affinity::choose(key, &places, spill)?;
        let shown = members.iter().zip(&places).map(|(member, place)| SessionPlace {
            endpoint: Arc::clone(&member.place.endpoint),
            address: member.address.clone(),
            usable: place.usable,
            in_flight: place.in_flight,
        });
        Some(SessionView { places: shown.collect(), goes_to: at, result, most })
    }
}

/// How members fare, as far as sessions choose by it.
fn places(members: &[Arc<Member>], streaming: bool, now: Duration) -> Vec<Place> {
    let ranks: Vec<u8> = members.iter().map(|member| rank(&member.state().health, now)).collect();
    let best = ranks.iter().copied().filter(|rank| *rank > PROBED).min();
    let place = |(member, rank): (&Arc<Member>, u8)| {
        let state = member.state();
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Place {
            hash: member.drawn_by,
            usable: Some(rank) == best && !state.load.is_penalised(now),
            in_flight: state.load.in_flight(),
            latency: seconds(state.load.latency(streaming, now)),
            last_latency: seconds(state.load.last_latency(streaming)),
        }
    };
    let mut places: Vec<Place> = members.iter().zip(ranks.iter().copied()).map(place).collect();
    if !places.iter().any(|place| place.usable) {
        // All that answer are penalised: they are better than those that do not.
        places.iter_mut().zip(ranks).for_each(|(place, rank)| place.usable = Some(rank) == best);
    }
    places
}
