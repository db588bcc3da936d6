//! What a person does at the admin address about who serves: finds what was named, pulls the lever, and tells what follows.

use std::sync::Arc;

use super::state::{Generation, Shared};
use crate::config::settings::Route;
use crate::policy::levers::{Command, KeyName, Lever, Names, Pull, Refusal};
use crate::proxy::clock::since_1970;
use crate::proxy::endpoints::endpoint::Member;

/// Who asks for what.
#[derive(Debug)]
pub struct Order<'a> {
    pub command: Command,
    /// `UPSTREAM`, `UPSTREAM/ENDPOINT`, a target where there is a route, or a key.
    pub what: &'a str,
    pub route: Option<&'a str>,
    /// Who asks, as far as the admin address knows.
    pub by: String,
    pub reason: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// The levers that were set or let go: several where an upstream's endpoints go with it.
    pub levers: Vec<Lever>,
    /// Requests that run there and go on, where that is known.
    pub in_flight: Option<u64>,
    /// The other endpoints of the same upstream that take new requests.
    pub siblings: Vec<String>,
    /// The routes that it is about, and who serves each now; nobody, where the list is empty.
    pub routes: Vec<(String, Vec<String>)>,
}

impl Shared {
    /// Does what a person asks for.
    ///
    /// # Errors
    /// Why it changes nothing; where a name is unknown, the words list those there are.
    pub fn operate(&self, order: &Order<'_>) -> Result<Done, Refusal> {
        let generation = self.generation.load_full();
        let lever = self.find(&generation, order)?;
        let levers = match order.command.setting() {
            Some(setting) => {
                let (by, reason) = (order.by.clone(), order.reason.clone());
                self.levers.set(&lever, Pull { setting, since: since_1970(), by, reason })?;
                vec![lever]
            }
            None => {
                let levers = self.levers.release(&lever)?;
                for (name, pool) in &generation.pools {
                    pool.forgive(|member| levers.iter().any(|lever| concerns(lever, name, member)));
                }
                levers
            }
        };
        self.publish_health();
        let done = done(&generation, levers);
        Self::tell_done(order, &done);
        Ok(done)
    }

    /// The lever that was meant. One that is set can be let go under its name, also when the configuration has no such thing
    /// any more.
    fn find(&self, generation: &Generation, order: &Order<'_>) -> Result<Lever, Refusal> {
        let names = names(generation);
        let found =
            if order.command.is_about_keys() { names.key(order.what) } else { names.place(order.what, order.route) };
        let typed =
            order.route.map_or_else(|| order.what.to_owned(), |route| format!("{} --route {route}", order.what));
        found.or_else(|refusal| {
            let pulled = self.levers.pulled();
            let is_meant = |lever: &&Lever| {
                matches!(lever, Lever::Key { .. }) == order.command.is_about_keys() && lever.typed() == typed
            };
            let known = pulled.iter().map(|(lever, _)| lever).find(is_meant).cloned();
            known.filter(|_| order.command.setting().is_none()).ok_or(refusal)
        })
    }

    /// The routes that nobody serves, since all of their places were taken out by hand.
    pub fn unserved_routes(&self) -> Vec<String> {
        let generation = self.generation.load();
        let unserved = generation.settings.routes.iter().filter(|route| generation.serving(route).is_empty());
        unserved.map(|route| route.name.to_string()).collect()
    }

    /// Tells of the levers that a restart found.
    pub fn tell_restored_levers(&self) {
        for (lever, pull) in self.levers.pulled().iter() {
            tracing::warn!(
                event = "lever.kept",
                lever = lever.kind(),
                what = lever.typed(),
                setting = pull.setting.as_str(),
                by = pull.by,
                reason = pull.reason,
                "{lever} is {} since before this start",
                pull.setting.as_str()
            );
        }
    }

    fn tell_done(order: &Order<'_>, done: &Done) {
        let (by, reason) = (&*order.by, order.reason.as_deref());
        for lever in &done.levers {
            let (kind, what, in_flight) = (lever.kind(), lever.typed(), done.in_flight);
            // The name of an event is fixed where it is written, and so is its level.
            macro_rules! tell {
                ($level:ident, $event:literal, $words:literal) => {
                    tracing::$level!(event = $event, lever = kind, what, by, reason, in_flight, $words)
                };
            }
            match order.command {
                Command::Drain => tell!(warn, "lever.drained", "{lever} gets no new requests; running ones go on"),
                Command::Disable => {
                    tell!(
                        warn,
                        "lever.disabled",
                        "{lever} gets no new requests and no health checks; running ones go on"
                    );
                }
                Command::Enable => tell!(info, "lever.enabled", "{lever} is in service again"),
                Command::Revoke => {
                    tell!(warn, "lever.revoked", "{lever} lets nobody in from now on; what runs with it ends")
                }
                Command::Restore => tell!(info, "lever.restored", "{lever} lets its holder in again"),
            }
        }
        for (route, _) in done.routes.iter().filter(|(_, serving)| serving.is_empty()) {
            tracing::error!(
                event = "lever.nobody_serves",
                route,
                by,
                "NOBODY serves route `{route}`: all of its places are out of service by hand, clients get 503"
            );
        }
    }
}

/// Whether a lever is about this address of an upstream's endpoint.
fn concerns(lever: &Lever, name: &str, member: &Member) -> bool {
    match lever {
        Lever::Upstream { upstream } => upstream == name,
        Lever::Endpoint { upstream, endpoint } => {
            upstream == name && (*endpoint == *member.place.endpoint || *endpoint == member.address)
        }
        Lever::Target { .. } | Lever::Key { .. } => false,
    }
}

/// What follows from levers that were just set or let go. They are all of one upstream, or one target or key.
fn done(generation: &Generation, levers: Vec<Lever>) -> Done {
    let first = levers.first();
    let upstream = first.and_then(|lever| match lever {
        Lever::Upstream { upstream } | Lever::Endpoint { upstream, .. } => Some(upstream.as_str()),
        Lever::Target { .. } | Lever::Key { .. } => None,
    });
    let is_about = |route: &&Arc<Route>| match first {
        Some(Lever::Target { route: name, .. }) => *route.name == **name,
        _ => upstream
            .is_some_and(|name| route.targets.iter().chain(&route.fallback).any(|at| *at.upstream.name == *name)),
    };
    let routes = generation.settings.routes.iter().filter(is_about).map(|route| {
        let serving = generation.serving(route).into_iter().map(|target| target.name.to_string());
        (route.name.to_string(), serving.collect())
    });
    let routes = routes.collect();
    let members: Vec<Arc<Member>> =
        upstream.and_then(|name| generation.pools.get(name)).into_iter().flat_map(|pool| pool.members()).collect();
    let (there, others): (Vec<&Arc<Member>>, Vec<&Arc<Member>>) = members
        .iter()
        .partition(|member| levers.iter().any(|lever| concerns(lever, upstream.unwrap_or_default(), member)));
    let in_flight = upstream.map(|_| there.iter().map(|member| u64::from(member.state().load.in_flight())).sum());
    let siblings = others.iter().filter(|member| member.out().is_none()).map(|member| member.place.to_string());
    Done { in_flight, siblings: siblings.collect(), routes, levers }
}

/// What can be named in this configuration.
fn names(generation: &Generation) -> Names<'_> {
    let upstreams = generation.settings.upstreams.iter().map(|upstream| {
        let pool = generation.pools.get(&*upstream.name);
        let endpoints = pool.iter().flat_map(|pool| pool.endpoints());
        let named = endpoints.flat_map(|endpoint| {
            let addresses = endpoint.members.into_iter().map(|member| member.address);
            std::iter::once(endpoint.name.to_string()).chain(addresses).collect::<Vec<_>>()
        });
        let mut named: Vec<String> = named.collect();
        named.sort_unstable();
        named.dedup();
        (&*upstream.name, named)
    });
    let routes =
        generation.settings.routes.iter().map(|route| {
            (&*route.name, route.targets.iter().chain(&route.fallback).map(|target| &*target.name).collect())
        });
    let keys = generation.settings.identity.iter().flat_map(|rules| rules.keys.values());
    let keys = keys.map(|key| KeyName { id: &key.id, user: key.user.as_deref(), team: key.team.as_deref() });
    Names { upstreams: upstreams.collect(), routes: routes.collect(), keys: keys.collect() }
}
