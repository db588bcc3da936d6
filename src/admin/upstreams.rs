//! `/api/upstreams`: how each endpoint fares, since when, and what was measured of it in the last minutes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::levers;
use super::limits::with;
use crate::policy::balance::PenaltyBy;
use crate::policy::health::Reason;
use crate::policy::levers::{Lever, Pulled, Setting};
use crate::proxy::{EndpointView, MemberView, Shared};
use crate::telemetry::live::Summary;
use crate::telemetry::live::first_tokens::MINUTES;
use crate::telemetry::timestamp;

/// The endpoints of all upstreams.
pub(super) fn view(shared: &Shared) -> Vec<Value> {
    let (generation, pulled) = (shared.generation.load(), shared.levers.pulled());
    let upstreams = generation.settings.upstreams.iter().map(|upstream| {
        let pool = generation.pools.get(&*upstream.name);
        let endpoints: Vec<Value> = pool
            .iter()
            .flat_map(|pool| pool.endpoints())
            .map(|endpoint| Endpoint { shared, pulled: &pulled, upstream: &upstream.name, view: &endpoint }.view())
            .collect();
        json!({ "name": &*upstream.name, "endpoints": endpoints })
    });
    upstreams.collect()
}

fn penalty((until, by): (SystemTime, PenaltyBy)) -> Value {
    json!({ "until": timestamp(until), "by": by.as_str() })
}

struct Endpoint<'a> {
    shared: &'a Shared,
    pulled: &'a Pulled,
    upstream: &'a Arc<str>,
    view: &'a EndpointView,
}

impl Endpoint<'_> {
    fn view(&self) -> Value {
        let members = &self.view.members;
        let told = with(
            self.told(&self.view.name, self.view.out, members, None),
            json!({
                "endpoint": &*self.view.name,
                "addresses": members.len(),
                "up": self.view.is_up(),
                "ejected_addresses": members.iter().filter(|member| member.is_ejected()).count(),
            }),
        );
        // A name with several addresses: which of them it is.
        if members.len() <= 1 {
            return told;
        }
        let each = members.iter().map(|member| {
            let told = self.told(&member.address, member.out, std::slice::from_ref(member), member.peer);
            with(told, json!({ "address": member.address }))
        });
        with(told, json!({ "each_address": each.collect::<Vec<_>>() }))
    }

    /// How the addresses in `members` fare together; `one` is asked for its own measurements.
    fn told(&self, name: &str, out: Option<Setting>, members: &[MemberView], one: Option<SocketAddr>) -> Value {
        // The one that fares worst speaks for all.
        let worst = members.iter().max_by_key(|member| member.standing);
        let failures = || members.iter().filter_map(|member| member.failures);
        let first = failures().map(|seen| seen.first).min().map(timestamp);
        let last = failures().map(|seen| seen.last).max().map(timestamp);
        let count: u64 = failures().map(|seen| seen.count).sum();
        let health = worst.map_or("unresolved", |member| member.standing.as_str());
        json!({
            "state": out.map_or(health, Setting::as_str),
            "health": health,
            "lever": self.lever(name),
            "reason": worst.and_then(|member| member.reason).map(Reason::as_str),
            "down_since": worst.and_then(|member| member.down_since).map(timestamp),
            "next_try": worst.and_then(|member| member.next_try).map(timestamp),
            "serving_meanwhile": worst.map(|member| &member.serving).filter(|serving| !serving.is_empty()),
            "failures": first.map(|first| json!({ "first": first, "last": last, "count": count })),
            "in_flight": members.iter().map(|member| u64::from(member.in_flight)).sum::<u64>(),
            "penalty": members.iter().filter_map(|member| member.penalty).max_by_key(|(until, _)| *until).map(penalty),
            "measured": self.measured(one),
            "balancer_score_s": members.iter().filter_map(|member| member.score).max().map(|score| score.as_secs_f64()),
        })
    }

    /// The lever that keeps an endpoint, or an address, from service: its own, or its upstream's.
    fn lever(&self, endpoint: &str) -> Option<Value> {
        let upstream = self.upstream.to_string();
        let own = Lever::Endpoint { upstream: upstream.clone(), endpoint: endpoint.to_owned() };
        let all = [
            own,
            Lever::Endpoint { upstream: upstream.clone(), endpoint: self.view.name.to_string() },
            Lever::Upstream { upstream },
        ];
        all.iter().find_map(|lever| Some(levers::view(lever, self.pulled.get(lever)?)))
    }

    /// Of the last minutes: attempts, those that failed, and the times to the first token of the others.
    fn measured(&self, one: Option<SocketAddr>) -> Value {
        let endpoints = self.shared.telemetry.live().endpoints();
        let summary: Summary = endpoints.summary(self.upstream, &self.view.name, one, SystemTime::now());
        let percentile = |share| summary.percentile(share).map(|time| time.as_secs_f64());
        json!({
            "minutes": MINUTES,
            "attempts": summary.requests,
            "failed": summary.failed,
            "first_tokens": summary.first_tokens(),
            "p50_s": percentile(0.5),
            "p95_s": percentile(0.95),
            "p99_s": percentile(0.99),
        })
    }
}
