//! What a request asks of one limit, and for which holder.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::limits::{Limit, LimitKey};
use crate::config::settings::RouteKind;
use crate::llm::RequestFacts;
use crate::policy::identity::Identity;
use crate::policy::trusted_proxies::{network, put_address};

/// One limit that a request is under, and what it may take of it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub limit: Arc<Limit>,
    /// Who shares the count, as `user:alice`.
    pub holder: Arc<str>,
    /// Tokens of prompt and answer, as estimated; zero where the limit counts none, or the request is not an LLM's.
    pub tokens: u64,
    /// Nano-dollars, as estimated.
    pub cost: u64,
    /// As [`is_unforeseen`]: where it holds nothing, it is refused while the bucket is in debt.
    pub unforeseen: bool,
    /// It takes one of the places that the limit has at one time.
    pub runs: bool,
}

impl Claim {
    /// Of a request that takes a place, and neither tokens nor money.
    pub fn new(limit: &Arc<Limit>, holder: impl Into<Arc<str>>) -> Self {
        let (limit, holder) = (Arc::clone(limit), holder.into());
        Self { limit, holder, tokens: 0, cost: 0, unforeseen: false, runs: true }
    }
}

/// Whether a request that shows nothing of an LLM may be answered by one all the same, and be charged then with what the answer
/// took. What only reads and brings no body is taken for a page or a list; a route of `kind = "stream"` charges no answer.
#[must_use]
pub fn is_unforeseen(facts: &RequestFacts, kind: RouteKind, method: &str, has_body: bool) -> bool {
    let only_reads = matches!(method, "GET" | "HEAD" | "OPTIONS") && !has_body;
    let only_fetches = facts.retrieves() && !facts.continues();
    !facts.is_llm() && !only_fetches && kind != RouteKind::Stream && !only_reads
}

/// What a request has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub tokens: u64,
    /// Nano-dollars.
    pub cost: u64,
}

/// In whose name a request is counted. Where the kind that the limit asks for is not known, the client's address stands
/// in: nobody gets around a limit by saying less.
#[must_use]
pub fn holder(key: LimitKey, identity: &Identity, address: Option<IpAddr>, route: &str) -> Arc<str> {
    let named = match key {
        LimitKey::User => identity.user.as_deref(),
        LimitKey::Team => identity.team.as_deref(),
        LimitKey::Key => identity.key.as_deref(),
        LimitKey::Ip => None,
        LimitKey::Route => Some(route),
        LimitKey::Global => return Arc::from("global"),
    };
    match named {
        Some(name) => Arc::from(format!("{key}:{name}")),
        None => Arc::from(address_holder(address)),
    }
}

/// An address as one holder. A subscriber has a whole IPv6 /64 to call from.
fn address_holder(address: Option<IpAddr>) -> String {
    let mut holder = String::with_capacity("ip:2001:db8:1111:2222::/64".len());
    holder.push_str("ip:");
    match address.map(network) {
        Some(network) => {
            put_address(&mut holder, network);
            if network.is_ipv6() {
                holder.push_str("/64");
            }
        }
        // A unix socket: whoever may open it is one.
        None => holder.push_str("local"),
    }
    holder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_brings_something_may_be_answered_by_an_llm() {
        let (plain, chat) = (RequestFacts::default(), RequestFacts::read("/v1/chat/completions", Some(b"{}")));
        let vectors = [
            (&plain, RouteKind::Auto, "POST", true, true),
            (&plain, RouteKind::Auto, "POST", false, true),
            (&plain, RouteKind::Auto, "GET", true, true),
            (&plain, RouteKind::Auto, "GET", false, false),
            (&plain, RouteKind::Auto, "HEAD", false, false),
            (&plain, RouteKind::Auto, "get", false, true),
            (&plain, RouteKind::Stream, "POST", true, false),
            (&chat, RouteKind::Auto, "POST", true, false),
        ];
        for (facts, kind, method, has_body, expected) in vectors {
            assert_eq!(is_unforeseen(facts, kind, method, has_body), expected, "{kind:?} {method} {has_body}");
        }
    }

    #[test]
    fn a_holder_is_named_by_its_kind() {
        let alice = Identity { user: Some("alice".into()), team: Some("search".into()), key: Some("0a1b2c".into()) };
        let v4: Option<IpAddr> = Some("::ffff:192.0.2.1".parse().unwrap());
        let v6: Option<IpAddr> = Some("2001:db8:1:2:3:4:5:6".parse().unwrap());
        let vectors = [
            (LimitKey::User, &alice, v4, "user:alice"),
            (LimitKey::Team, &alice, v4, "team:search"),
            (LimitKey::Key, &alice, v4, "key:0a1b2c"),
            (LimitKey::Ip, &alice, v4, "ip:192.0.2.1"),
            (LimitKey::Ip, &alice, v6, "ip:2001:db8:1:2::/64"),
            (LimitKey::Route, &alice, v4, "route:chat"),
            (LimitKey::Global, &alice, v4, "global"),
            (LimitKey::User, &Identity::default(), v4, "ip:192.0.2.1"),
            (LimitKey::Team, &Identity::default(), v6, "ip:2001:db8:1:2::/64"),
            (LimitKey::Key, &Identity::default(), None, "ip:local"),
        ];
        for (key, identity, address, expected) in vectors {
            assert_eq!(&*holder(key, identity, address, "chat"), expected);
        }
    }
}
