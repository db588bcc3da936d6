//! `[fleet]`: several replicas that act as one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::LimitsTable;
use crate::config::address::{Endpoint, EndpointAddress};
use crate::config::checker::Checker;
use crate::config::secret::Secret;
use crate::config::units::{At, OneOrMany, Table};
use crate::config::view::{Shown, serialize_as_displayed};

/// Longest name of a fleet, in bytes.
const NAME_MAX: usize = 64;

/// Shortest secret, in bytes: who sees what a shorter one signed can guess it.
const SECRET_MIN: usize = 32;

/// Replicas that are asked for what they show, at most.
pub const PEERS_MAX: usize = 32;

/// What stands before a name of which each address is a replica.
const DNS: &str = "dns:";

/// Several replicas that act as one: they judge canaries together, over the Redis of `[limits]`, and show what all of them do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetTable {
    /// What all replicas of this fleet call it, and no other fleet on the same Redis.
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Where the other replicas reach this one's admin address, as "http://10.0.0.7:9090". Absent: the admin address; where that is every address of
    /// this machine, the one from which it reaches Redis.
    pub advertise: Option<At<String>>,
    /// The replicas' admin addresses, besides those that tell theirs over Redis: a list of URLs, or "dns:NAME:PORT", of which each address is one.
    pub peers: Option<At<OneOrMany<String>>>,
    /// The environment variable with the secret, the same at all replicas, with which they sign what they ask one another for the view of the fleet.
    /// At least 32 bytes.
    pub secret_env: Option<At<String>>,
}

/// `[fleet]`: several replicas that act as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// Of letters, digits, `-`, `_` and `.`; never empty.
    #[serde(serialize_with = "Shown::shown")]
    pub name: Arc<str>,
    /// Where others reach this replica. `None`: it is found out.
    pub advertise: Option<PeerAddress>,
    pub peers: Peers,
    /// With which replicas sign what they ask one another. `None`: they ask nothing.
    pub secret: Option<Secret>,
}

/// Replicas that need not tell over Redis where they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Peers {
    #[default]
    None,
    Listed(Vec<PeerAddress>),
    /// Each address of the name is one.
    Named(DnsName),
}

/// A replica's admin address: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress(Arc<str>);

/// A name of which each address is a replica: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName(Arc<str>);

impl PeerAddress {
    pub fn authority(&self) -> &str {
        &self.0
    }
}

impl DnsName {
    pub fn authority(&self) -> &str {
        &self.0
    }
}

impl From<std::net::SocketAddr> for PeerAddress {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl FromStr for PeerAddress {
    /// The words that say how to write it.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXAMPLE: &str = "write a replica's admin address as \"http://10.0.0.7:9090\"";
        let endpoint = text.parse::<Endpoint>().map_err(|_| EXAMPLE)?;
        let EndpointAddress::Tcp { host, port } = &endpoint.address else { return Err(EXAMPLE) };
        if endpoint.tls {
            return Err("the admin address speaks plain HTTP: write http://");
        }
        if !endpoint.base_path.is_empty() {
            return Err("no path belongs here: write a replica's admin address as \"http://10.0.0.7:9090\"");
        }
        let is_bare_v6 = host.contains(':') && !host.starts_with('[');
        let host = if is_bare_v6 { format!("[{host}]") } else { host.to_ascii_lowercase() };
        Ok(Self(format!("{host}:{port}").into()))
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DNS}{}", self.0)
    }
}

serialize_as_displayed!(PeerAddress, DnsName);

impl Fleet {
    /// What all keys in Redis begin with; in braces, so that a cluster keeps them on one node, as scripts ask for. Without a fleet all
    /// proxies on a Redis share one.
    pub fn tag(fleet: Option<&Self>) -> String {
        fleet.map_or_else(|| "{streamgauge}".to_owned(), |fleet| format!("{{streamgauge:{}}}", fleet.name))
    }
}

impl Checker<'_> {
    pub fn fleet(&mut self, table: &Table<FleetTable>, limits: Option<&Table<LimitsTable>>) -> Option<Fleet> {
        let has_redis = limits
            .is_some_and(|limits| limits.value.redis.is_some() || self.lost.may_have_lost(&limits.span, &["redis"]));
        let has_peers = table.value.peers.is_some() || self.lost.may_have_lost(&table.span, &["peers"]);
        if !has_redis && !has_peers && !self.lost.is_table_lost("limits") {
            let message = "the replicas of a fleet share what they know over Redis: add `redis` to [limits]";
            self.problem(&table.span, message);
        }
        let advertise = table.value.advertise.as_ref().and_then(|at| {
            let address = at.value.parse::<PeerAddress>().map_err(|wrong| format!("`advertise`: {wrong}"));
            self.checked(&at.span, address)
        });
        let peers = table.value.peers.as_ref().map_or(Peers::None, |at| self.peers(at));
        let secret = table.value.secret_env.as_ref().and_then(|at| self.fleet_secret(at));
        let Some(name) = &table.value.name else {
            if !self.lost.is_lost(&table.span, "name") {
                self.problem(
                    &table.span,
                    "this fleet has no `name`, which keeps it apart from others on the same Redis",
                );
            }
            return None;
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.value.is_empty() || name.value.len() > NAME_MAX || !name.value.bytes().all(is_plain) {
            let message =
                format!("`name` is 1 to {NAME_MAX} letters, digits, `-`, `_` and `.`: it is part of keys in Redis");
            self.problem(&name.span, message);
            return None;
        }
        Some(Fleet { name: name.value.as_str().into(), advertise, peers, secret })
    }

    fn peers(&mut self, at: &At<OneOrMany<String>>) -> Peers {
        let read = |text: &str| text.parse::<PeerAddress>().map_err(|wrong| format!("`peers`: {wrong}"));
        let listed = match &at.value {
            OneOrMany::One(text) => match text.strip_prefix(DNS) {
                Some(name) => {
                    let address = format!("http://{name}").parse::<PeerAddress>();
                    let has_port = name.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                    let named = address.ok().filter(|_| has_port).ok_or_else(|| {
                        "`peers`: write a name and the port of the admin address, as \"dns:streamgauge-headless:9090\"".to_owned()
                    });
                    let named = self.checked(&at.span, named);
                    return named.map_or(Peers::None, |PeerAddress(name)| Peers::Named(DnsName(name)));
                }
                None => vec![self.checked(&at.span, read(text))],
            },
            OneOrMany::Many(texts) => texts.iter().map(|text| self.checked(&text.span, read(&text.value))).collect(),
        };
        if listed.len() > PEERS_MAX {
            self.problem(&at.span, format!("`peers`: at most {PEERS_MAX} replicas are asked"));
        }
        Peers::Listed(listed.into_iter().flatten().collect())
    }

    fn fleet_secret(&mut self, at: &At<String>) -> Option<Secret> {
        let secret = self.secret_from_env(at)?;
        if secret.expose().len() < SECRET_MIN {
            let message = format!(
                "`secret_env`: the secret is shorter than {SECRET_MIN} bytes and can be guessed from what it signs: make \
                 one with `openssl rand -hex 32`"
            );
            self.problem(&at.span, message);
        }
        Some(secret)
    }
}
