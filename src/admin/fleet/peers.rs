//! Who of a fleet there is besides this replica, who answers, and since when somebody does not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::ask::{self, DEADLINE, Reply, Signer, Trouble};
use crate::config::fleet::{DnsName, Fleet, PEERS_MAX, PeerAddress, Peers as Configured};
use crate::proxy::Shared;
use crate::telemetry::timestamp;

/// A replica that is alive over Redis, but said nothing for so long, is absent since its last word.
const SILENT: Duration = Duration::from_secs(6);

/// One other replica.
#[derive(Debug, Clone)]
pub(in crate::admin) struct Peer {
    /// As Redis tells; `None`: it is known by its address alone.
    pub(in crate::admin) owner: Option<String>,
    pub(in crate::admin) address: Option<PeerAddress>,
    /// The program's version, as Redis tells.
    pub(in crate::admin) version: Option<String>,
    /// Its last word over Redis, since 1970.
    pub(in crate::admin) heard: Option<Duration>,
    /// Redis knows that it went without a word.
    pub(in crate::admin) is_gone: bool,
}

impl Peer {
    /// By what it is named where it is absent.
    pub(in crate::admin) fn name(&self) -> String {
        let address = || self.address.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
        self.owner.clone().unwrap_or_else(address)
    }
}

/// What became of asking one.
#[derive(Debug)]
pub(in crate::admin) struct Told {
    pub(in crate::admin) peer: Peer,
    pub(in crate::admin) took: Duration,
    pub(in crate::admin) answer: Result<Reply, Trouble>,
    /// Since when it does not answer, since 1970.
    pub(in crate::admin) absent_since: Option<Duration>,
}

/// Since when replicas do not answer, by their names.
#[derive(Default)]
pub(in crate::admin) struct Absences(Mutex<HashMap<String, Duration>>);

/// A fleet whose replicas can be asked.
///
/// # Errors
/// What is missing, and what to do.
pub(in crate::admin) fn askable(shared: &Shared) -> Result<Arc<Fleet>, &'static str> {
    let fleet =
        shared.fleet.configured().ok_or("this replica is of no fleet: give all replicas a [fleet] of one name")?;
    if fleet.secret.is_none() {
        return Err(NO_SECRET);
    }
    Ok(fleet)
}

pub(in crate::admin) const NO_SECRET: &str = "replicas sign what they ask one another: give all of them the same secret of at least 32 bytes, made \
     with `openssl rand -hex 32`, in an environment variable that `secret_env` in [fleet] names";

/// Who there is besides this replica: those that Redis tells of, then those of `peers`.
pub(in crate::admin) async fn peers(shared: &Shared, fleet: &Fleet) -> Vec<Peer> {
    let own = shared.fleet.advertised();
    let mut peers = Vec::new();
    if let Some(view) = shared.fleet.view() {
        for member in view.roster.members.iter().filter(|member| *member.owner != *shared.fleet.owner) {
            let says = member.says.as_ref();
            peers.push(Peer {
                owner: Some(member.owner.clone()),
                address: says.and_then(|says| says.admin.parse().ok()),
                version: says.map(|says| says.version.clone()),
                heard: Some(member.heard),
                is_gone: false,
            });
        }
        for lost in view.roster.lost.iter() {
            let (owner, heard) = (Some(lost.owner.clone()), Some(lost.since));
            peers.push(Peer { owner, address: lost.admin.parse().ok(), version: None, heard, is_gone: true });
        }
    }
    let listed = match &fleet.peers {
        Configured::None => Vec::new(),
        Configured::Listed(listed) => listed.clone(),
        Configured::Named(name) => addresses(name).await,
    };
    let known: HashSet<PeerAddress> = peers.iter().filter_map(|peer| peer.address.clone()).chain(own).collect();
    let unknown = listed.into_iter().filter(|address| !known.contains(address));
    let by_address = |address| Peer { owner: None, address: Some(address), version: None, heard: None, is_gone: false };
    peers.extend(unknown.map(by_address));
    peers
}

/// The addresses of a name, in order; none where it cannot be looked up in time.
async fn addresses(name: &DnsName) -> Vec<PeerAddress> {
    let looked_up = tokio::time::timeout(DEADLINE, tokio::net::lookup_host(name.authority())).await;
    let mut found: Vec<_> = looked_up.into_iter().flatten().flatten().collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(PeerAddress::from).collect()
}

impl Absences {
    /// Asks all others for what they show at `path`, at once.
    pub(in crate::admin) async fn ask_all(&self, shared: &Shared, fleet: &Fleet, path: &str) -> Vec<Told> {
        let asked = peers(shared, fleet).await.into_iter().enumerate();
        let told = join_all(asked.map(|(number, peer)| ask_one(fleet, peer, number < PEERS_MAX, path))).await;
        let mut seen: HashSet<String> = HashSet::from([shared.fleet.owner.to_string()]);
        // Under another address it may be this replica itself, or one that is known already.
        let mut told: Vec<Told> = told
            .into_iter()
            .filter(|told| told.answer.as_ref().map_or(true, |reply| seen.insert(reply.replica.clone())))
            .collect();
        self.note(&mut told, since_1970());
        told
    }

    /// Keeps since when each of those that were asked does not answer.
    fn note(&self, told: &mut [Told], now: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut absent = HashMap::new();
        for told in told.iter_mut().filter(|told| told.answer.is_err()) {
            let name = told.peer.name();
            let unanswered = known.get(&name).copied().unwrap_or(now);
            let silent = told.peer.heard.filter(|heard| told.peer.is_gone || now.saturating_sub(*heard) >= SILENT);
            told.absent_since = Some(silent.map_or(unanswered, |heard| heard.min(unanswered)));
            absent.insert(name, unanswered);
        }
        *known = absent;
    }
}

async fn ask_one(fleet: &Fleet, peer: Peer, may_be_asked: bool, path: &str) -> Told {
    let since = Instant::now();
    let answer = match (&peer.address, &fleet.secret) {
        _ if peer.is_gone => Err(Trouble::Gone),
        _ if !may_be_asked => Err(Trouble::TooMany),
        (Some(address), Some(secret)) => {
            let reply = ask::get(address, path, Signer { fleet: &fleet.name, secret }).await;
            reply.and_then(|reply| match &peer.owner {
                Some(owner) if *owner != reply.replica => Err(Trouble::Another(reply.replica)),
                _ => Ok(reply),
            })
        }
        _ => Err(Trouble::NoAddress),
    };
    Told { took: since.elapsed(), peer, answer, absent_since: None }
}

/// Who was asked, and what became of it: `absent` are those whose part is missing.
pub(in crate::admin) fn report(shared: &Shared, fleet: &Fleet, told: &[Told]) -> Value {
    let own = json!({
        "replica": &*shared.fleet.owner,
        "admin": shared.fleet.advertised().map(|admin| admin.to_string()),
        "version": env!("CARGO_PKG_VERSION"),
        "self": true,
        "answered": true,
    });
    let others = told.iter().map(row);
    json!({
        "name": &*fleet.name,
        "replica": &*shared.fleet.owner,
        "replicas": std::iter::once(own).chain(others).collect::<Vec<_>>(),
        "absent": told.iter().filter(|told| told.answer.is_err()).map(|told| told.peer.name()).collect::<Vec<_>>(),
    })
}

fn row(told: &Told) -> Value {
    let replica = told.answer.as_ref().ok().map(|reply| &reply.replica).or(told.peer.owner.as_ref());
    json!({
        "replica": replica,
        "admin": told.peer.address.as_ref().map(ToString::to_string),
        "version": told.peer.version,
        "self": false,
        "answered": told.answer.is_ok(),
        "took_ms": (told.took.as_secs_f64() * 1e4).round() / 10.0,
        "trouble": told.answer.as_ref().err().map(ToString::to_string),
        "absent_since": told.absent_since.map(at),
        "last_word": told.peer.heard.map(at),
    })
}

pub(in crate::admin) fn at(since_1970: Duration) -> String {
    timestamp(UNIX_EPOCH + since_1970)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(owner: &str, heard: Option<u64>, answers: bool) -> Told {
        let answer =
            if answers { Ok(Reply { replica: owner.to_owned(), body: Value::Null }) } else { Err(Trouble::Silent) };
        let heard = heard.map(Duration::from_secs);
        let peer = Peer { owner: Some(owner.to_owned()), address: None, version: None, heard, is_gone: false };
        Told { peer, took: Duration::ZERO, answer, absent_since: None }
    }

    #[test]
    fn somebody_is_absent_since_the_first_time_that_there_was_no_answer_or_the_last_word() {
        let absences = Absences::default();
        let since = |told: Told, now: u64| {
            let mut told = [told];
            absences.note(&mut told, Duration::from_secs(now));
            told[0].absent_since.map(|since| since.as_secs())
        };
        assert_eq!(since(told("a", Some(99), false), 100), Some(100), "a hung one still says its word");
        assert_eq!(since(told("a", Some(109), false), 110), Some(100));
        assert_eq!(since(told("a", Some(110), true), 111), None);
        assert_eq!(since(told("a", Some(111), false), 112), Some(112), "anew");
        assert_eq!(since(told("a", Some(111), false), 120), Some(111), "a killed one does not");
        assert_eq!(since(told("b", None, false), 130), Some(130));
    }
}
