//! Caps on how many of something there may be at once, and how many of them one address may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::policy::trusted_proxies;

/// Counts what is inside. The cap is given at each entry, since a reload may change it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Concurrency {
    inside: Arc<AtomicUsize>,
}

/// One place inside a [`Concurrency`]; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Permit {
    inside: Arc<AtomicUsize>,
}

impl Concurrency {
    /// A place, or `None` when `cap` places are taken.
    pub(crate) fn enter(&self, cap: usize) -> Option<Permit> {
        let pass = Permit { inside: Arc::clone(&self.inside) };
        let before = self.inside.fetch_add(1, Ordering::AcqRel);
        // Dropping the pass takes the count back.
        (before < cap).then_some(pass)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts what each address has inside; of IPv6 by /64. It knows no more addresses than there are passes.
#[derive(Debug, Clone)]
pub struct AddressConcurrency {
    shards: Arc<[Shard; SHARDS]>,
    hasher: RandomState,
}

/// So that threads seldom wait for each other.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<IpAddr, NonZeroUsize>>;

/// One place of an address; dropping it frees the place.
#[derive(Debug)]
pub struct AddressPermit {
    gate: AddressConcurrency,
    network: IpAddr,
}

impl Default for AddressConcurrency {
    fn default() -> Self {
        Self { shards: Arc::new(std::array::from_fn(|_| Mutex::default())), hasher: RandomState::new() }
    }
}

impl AddressConcurrency {
    /// A place, or `None` when `address` has `cap` places already.
    pub fn enter(&self, address: IpAddr, cap: usize) -> Option<AddressPermit> {
        let network = trusted_proxies::network(address);
        self.with(network, |shard| match shard.entry(network) {
            Entry::Vacant(place) if cap > 0 => {
                place.insert(NonZeroUsize::MIN);
                true
            }
            Entry::Occupied(mut count) if count.get().get() < cap => {
                *count.get_mut() = count.get().saturating_add(1);
                true
            }
            _ => false,
        })
        .then(|| AddressPermit { gate: self.clone(), network })
    }

    fn with<T>(&self, network: IpAddr, act: impl FnOnce(&mut HashMap<IpAddr, NonZeroUsize>) -> T) -> T
    where
        T: Default,
    {
        let at = self.hasher.hash_one(network) as usize % SHARDS;
        // There is one for each remainder.
        let Some(shard) = self.shards.get(at) else { return T::default() };
        act(&mut shard.lock())
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.gate.with(self.network, |shard| {
            let Entry::Occupied(mut count) = shard.entry(self.network) else { return };
            match NonZeroUsize::new(count.get().get() - 1) {
                Some(left) => *count.get_mut() = left,
                None => drop(count.remove()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let gate = AddressConcurrency::default();
        let [one, same, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        let passes: Vec<_> = [one, same].map(|address| gate.enter(address, 2).unwrap()).into();
        assert!(gate.enter(same, 2).is_none(), "a subscriber has a whole /64");
        let _other = gate.enter(other, 2).unwrap();
        assert!(gate.enter(one, 0).is_none());
        drop(passes);
        let again = gate.enter(one, 1).unwrap();
        drop(again);
        let left: usize = gate.shards.iter().map(|shard| shard.lock().len()).sum();
        assert_eq!(left, 1, "who has left is forgotten");
    }

    #[test]
    fn a_full_gate_refuses_until_someone_leaves() {
        let gate = Concurrency::default();
        let first = gate.enter(1).unwrap();
        assert!(gate.enter(1).is_none());
        assert!(gate.enter(2).is_some(), "a refused entry must not keep a place");
        drop(first);
        assert!(gate.enter(1).is_some());
    }
}
