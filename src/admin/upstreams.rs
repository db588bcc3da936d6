//! `/api/upstreams`: how each endpoint fares, since when, and what was measured of it in the last minutes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::levers;
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

struct Endpoint<'a> {
    shared: &'a Shared,
    pulled: &'a Pulled,
    upstream: &'a Arc<str>,
    view: &'a EndpointView,
}

impl Endpoint<'_> {
    fn view(&self) -> Value {
        let members = &self.view.members;
        // The one that fares worst speaks for all.
        let worst = members.iter().max_by_key(|member| member.standing);
        let first = members.iter().filter_map(|member| member.failures).map(|seen| seen.first).min();
        let last = members.iter().filter_map(|member| member.failures).map(|seen| seen.last).max();
        let count: u64 = members.iter().filter_map(|member| member.failures).map(|seen| seen.count).sum();
        let health = worst.map_or("unresolved", |member| member.standing.as_str());
        let mut told = json!({
            "endpoint": &*self.view.name,
            "addresses": members.len(),
            "up": self.view.is_up(),
            "state": self.view.out.map_or(health, Setting::as_str),
            "health": health,
            "lever": self.lever(&self.view.name),
            "ejected_addresses": members.iter().filter(|member| member.is_ejected()).count(),
            "reason": worst.and_then(|member| member.reason).map(Reason::as_str),
            "down_since": worst.and_then(|member| member.down_since).map(timestamp),
            "next_try": worst.and_then(|member| member.next_try).map(timestamp),
            "serving_meanwhile": worst.map(|member| &member.serving).filter(|serving| !serving.is_empty()),
            "failures": first.zip(last).map(|(first, last)| failures(first, last, count)),
            "in_flight": members.iter().map(|member| u64::from(member.in_flight)).sum::<u64>(),
            "measured": self.measured(None),
            "balancer_score_s": members.iter().filter_map(|member| member.score).max().map(|score| score.as_secs_f64()),
        });
        // A name with several addresses: which of them it is.
        if members.len() > 1
            && let Some(told) = told.as_object_mut()
        {
            told.insert("each_address".to_owned(), members.iter().map(|member| self.member(member)).collect());
        }
        told
    }

    fn member(&self, member: &MemberView) -> Value {
        json!({
            "address": member.address,
            "state": member.out.map_or(member.standing.as_str(), Setting::as_str),
            "health": member.standing.as_str(),
            "lever": self.lever(&member.address),
            "reason": member.reason.map(Reason::as_str),
            "down_since": member.down_since.map(timestamp),
            "next_try": member.next_try.map(timestamp),
            "serving_meanwhile": Some(&member.serving).filter(|serving| !serving.is_empty()),
            "failures": member.failures.map(|seen| failures(seen.first, seen.last, seen.count)),
            "in_flight": member.in_flight,
            "measured": self.measured(member.peer),
            "balancer_score_s": member.score.map(|score| score.as_secs_f64()),
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

fn failures(first: SystemTime, last: SystemTime, count: u64) -> Value {
    json!({ "first": timestamp(first), "last": timestamp(last), "count": count })
}
