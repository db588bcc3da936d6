//! Bounds the cardinality of the model label. A client can send any text as a model, so a model becomes a label value
//! only after an upstream answered to it, and there are at most so many. Some backends answer to any name: so one
//! client adds at most half of them, and a model that was not requested for an hour can be replaced.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use crate::hashing::Map;
use crate::policy::trusted_proxies::network;
use crate::telemetry::record::ClientInfo;

/// What stands for every model that is no label.
pub(super) const OTHER: &str = "other";

/// Models that are labels at most.
const MODELS_MAX: usize = 100;

/// Labels that one client brought in at most.
const SHARE_MAX: usize = MODELS_MAX / 2;

/// Longest model name that can be a label, in bytes.
const NAME_MAX: usize = 128;

/// A label that nobody asked for in so many seconds may go.
const IDLE_SECONDS: u64 = 3_600;

#[derive(Default)]
pub(super) struct Models(RwLock<Map<Box<str>, Label>>);

struct Label {
    /// The client whose request made it one.
    by: Client,
    /// In seconds since 1970.
    used: AtomicU64,
}

/// Stands for a client: a hash of who asks. Two that share one share their room for labels, which harms nobody.
pub(super) type Client = u64;

/// Who a client is: its key and user, or, where it has neither, its address; of IPv6 the network, for one host has many.
pub(super) fn who(client: &ClientInfo) -> (Option<&str>, Option<&str>, Option<IpAddr>) {
    let (key, user) = (client.key.as_deref(), client.user.as_deref());
    let address = client.address.filter(|_| key.is_none() && user.is_none());
    (key, user, address.map(|address| network(address.ip())))
}

/// What a model is called, and whose series have to go for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub(super) label: &'a str,
    pub(super) replaced: Option<Box<str>>,
}

impl Models {
    /// The label of `model`, for which `client` asked at `now`; an answered request may make it one.
    pub(super) fn label<'a>(&self, model: &'a str, answered: bool, client: Client, now: SystemTime) -> Named<'a> {
        if self.touch(model, now) {
            return Named { label: model, replaced: None };
        }
        if !answered || model.len() > NAME_MAX {
            return Named { label: OTHER, replaced: None };
        }
        let now = seconds(now);
        let mut models = self.0.write();
        if models.values().filter(|label| label.by == client).count() >= SHARE_MAX {
            // Of its own, the client may replace one.
            return Self::replace(&mut models, model, client, now, |label| label.by == client);
        }
        if models.len() >= MODELS_MAX {
            return Self::replace(&mut models, model, client, now, |_| true);
        }
        models.insert(model.into(), Label { by: client, used: AtomicU64::new(now) });
        Named { label: model, replaced: None }
    }

    /// Whether `model` is a label; then it was used at `now`.
    pub(super) fn touch(&self, model: &str, now: SystemTime) -> bool {
        let models = self.0.read();
        let label = models.get(model);
        if let Some(label) = label {
            label.used.fetch_max(seconds(now), Relaxed);
        }
        label.is_some()
    }

    fn replace<'a>(
        models: &mut Map<Box<str>, Label>,
        model: &'a str,
        by: Client,
        now: u64,
        of: impl Fn(&Label) -> bool,
    ) -> Named<'a> {
        let idlest = models
            .iter()
            .filter(|(_, label)| of(label))
            .min_by_key(|(_, label)| label.used.load(Relaxed))
            .filter(|(_, label)| label.used.load(Relaxed) + IDLE_SECONDS <= now)
            .map(|(name, _)| name.clone());
        let Some(idlest) = idlest else { return Named { label: OTHER, replaced: None } };
        models.remove(&idlest);
        models.insert(model.into(), Label { by, used: AtomicU64::new(now) });
        Named { label: model, replaced: Some(idlest) }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn label<'a>(models: &Models, model: &'a str, client: Client) -> &'a str {
        models.label(model, true, client, at(0)).label
    }

    #[test]
    fn a_model_is_a_label_once_it_was_answered() {
        let models = Models::default();
        assert_eq!(models.label("a", false, 1, at(0)).label, OTHER);
        assert_eq!(models.label("a", true, 1, at(0)).label, "a");
        assert_eq!(models.label("a", false, 2, at(0)).label, "a");
        assert_eq!(label(&models, &"x".repeat(NAME_MAX + 1), 1), OTHER);
    }

    #[test]
    fn a_client_is_its_key_and_user_or_its_network() {
        let anonymous =
            |address: &str| ClientInfo { address: Some(address.parse().unwrap()), user: None, team: None, key: None };
        let keyed = |address: &str| ClientInfo { key: Some("k1".into()), ..anonymous(address) };
        assert_eq!(who(&keyed("192.0.2.1:1")), who(&keyed("192.0.2.9:1")), "one key from many places");
        assert_ne!(who(&keyed("192.0.2.1:1")), who(&anonymous("192.0.2.1:1")));
        assert_eq!(who(&anonymous("192.0.2.1:1")), who(&anonymous("[::ffff:192.0.2.1]:2")));
        assert_ne!(who(&anonymous("192.0.2.1:1")), who(&anonymous("192.0.2.2:1")));
        assert_eq!(who(&anonymous("[2001:db8::1]:1")), who(&anonymous("[2001:db8::ffff:2]:1")));
        assert_ne!(who(&anonymous("[2001:db8::1]:1")), who(&anonymous("[2001:db8:0:1::1]:1")));
    }

    #[test]
    fn one_client_takes_no_more_than_half() {
        let models = Models::default();
        let names: Vec<_> = (0..1_000).map(|n| format!("bomb-{n}")).collect();
        assert_eq!(names.iter().filter(|name| label(&models, name, 1) != OTHER).count(), SHARE_MAX);
        assert_eq!(label(&models, "gpt-4o", 2), "gpt-4o", "another client's model is a label still");
    }

    #[test]
    fn the_first_hundred_stay_while_they_are_used() {
        let models = Models::default();
        let names: Vec<_> = (0..1_000).map(|n| format!("model-{n}")).collect();
        let labels = names.iter().enumerate().filter(|(n, name)| label(&models, name, *n as u64) != OTHER).count();
        assert_eq!(labels, MODELS_MAX);
        assert_eq!(models.label("model-0", true, 1, at(3_599)).label, "model-0");
        assert_eq!(models.label("new", true, 9_999, at(3_599)).label, OTHER);
        let named = models.label("new", true, 9_999, at(3_600));
        assert_eq!(named.label, "new");
        let replaced = named.replaced.unwrap();
        assert!(&*replaced != "model-0" && replaced.starts_with("model-"));
        assert_eq!(models.label(&replaced, false, 1, at(3_600)).label, OTHER);
    }

    #[test]
    fn a_client_at_its_share_replaces_its_own() {
        let models = Models::default();
        let names: Vec<_> = (0..SHARE_MAX).map(|n| format!("mine-{n}")).collect();
        names.iter().for_each(|name| assert_eq!(label(&models, name, 1), name));
        assert_eq!(label(&models, "theirs", 2), "theirs");
        let named = models.label("new", true, 1, at(4_000));
        assert!(named.replaced.unwrap().starts_with("mine-"));
        assert_eq!(models.label("theirs", true, 2, at(4_000)).label, "theirs");
    }
}
