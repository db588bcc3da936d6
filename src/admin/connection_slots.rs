//! How many connections the admin address serves, and how long one that says nothing may keep its place.
//!
//! Some places are kept for monitoring: strangers who connect and say nothing must not make the process look dead.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::proxy::{AddressConcurrency, AddressPermit};

/// Connections at once. A scraper, a few people and their browsers need a handful.
const PLACES: usize = 256;

/// Further ones, on which health and metrics are answered and nothing else.
const KEPT_FOR_MONITORING: usize = 32;

/// Of both together, how many one address off this machine may have.
const OF_ONE_ADDRESS: usize = 64;

/// From a connection's opening, or its last answer, to the end of the next request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The same where more than half of the places are taken, and on those that are kept.
const HEAD_TIMEOUT_CROWDED: Duration = Duration::from_secs(2);

/// The places of one listener.
#[derive(Debug, Default)]
pub(super) struct ConnectionSlots {
    taken: AtomicUsize,
    by_address: AddressConcurrency,
}

/// One connection's place; dropping it frees it.
pub(super) struct Slot<'a> {
    all: &'a ConnectionSlots,
    /// It is one of those kept for monitoring.
    pub(super) kept: bool,
    _own: Option<AddressPermit>,
}

impl ConnectionSlots {
    /// A place for a connection from `address`, or `None` when there is none.
    pub(super) fn enter(&self, address: Option<IpAddr>) -> Option<Slot<'_>> {
        let own = match address.filter(|address| !address.to_canonical().is_loopback()) {
            None => None,
            Some(address) => Some(self.by_address.enter(address, OF_ONE_ADDRESS)?),
        };
        let before = self.taken.fetch_add(1, Ordering::AcqRel);
        // Dropping the place takes the count back.
        let place = Slot { all: self, kept: before >= PLACES, _own: own };
        (before < PLACES + KEPT_FOR_MONITORING).then_some(place)
    }
}

impl Slot<'_> {
    /// How long the next head may take, as crowded as it is now.
    pub(super) fn patience(&self) -> Duration {
        let crowded = self.kept || self.all.taken.load(Ordering::Acquire) > PLACES / 2;
        if crowded { HEAD_TIMEOUT_CROWDED } else { HEAD_TIMEOUT }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.all.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_places_for_monitoring() {
        let places = ConnectionSlots::default();
        let stranger = |n: u32| Some(IpAddr::V4((0x0a00_0000 + n / 8).into()));
        let taken: Vec<_> = (0..256).map(|n| places.enter(stranger(n)).unwrap()).collect();
        assert!(taken.iter().all(|place| !place.kept));
        let monitor = places.enter("192.0.2.1".parse().ok()).unwrap();
        assert!(monitor.kept);
        assert_eq!(taken.first().unwrap().patience(), HEAD_TIMEOUT_CROWDED);
        drop(taken);
        assert!(!places.enter(None).unwrap().kept);
    }

    #[test]
    fn one_address_cannot_take_them_all() {
        let places = ConnectionSlots::default();
        let taken: Vec<_> = std::iter::from_fn(|| places.enter("192.0.2.1".parse().ok())).take(300).collect();
        assert_eq!(taken.len(), OF_ONE_ADDRESS);
        assert!(places.enter("192.0.2.2".parse().ok()).is_some());
        let local: Vec<_> = std::iter::from_fn(|| places.enter("127.0.0.1".parse().ok())).take(100).collect();
        assert_eq!(local.len(), 100);
    }
}
