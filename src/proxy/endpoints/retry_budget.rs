//! How many requests of a route are served, and how many of them were sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::policy::failover;

/// How many replicas are alive that share the floor of the retry budget, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Replicas(AtomicUsize);

impl Replicas {
    pub(crate) fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }

    fn budget_floor(&self) -> usize {
        failover::budget_floor(self.0.load(Ordering::Relaxed))
    }
}

/// The requests of one route, over reloads.
#[derive(Debug, Default)]
pub(crate) struct RouteLoad {
    active: AtomicUsize,
    again: AtomicUsize,
    replicas: Arc<Replicas>,
}

/// A request that is being served.
pub(crate) struct Active(Arc<RouteLoad>);

/// A request that was sent again, or is asked twice, and has no first token yet.
pub(crate) struct Again(Arc<RouteLoad>);

impl RouteLoad {
    pub(crate) fn new(replicas: &Arc<Replicas>) -> Self {
        Self { replicas: Arc::clone(replicas), ..Self::default() }
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::AcqRel);
        Active(Arc::clone(self))
    }

    /// Leave to send one more request again; `None`: too many are under way. `share` is the route's budget.
    pub(crate) fn again(self: &Arc<Self>, share: f64) -> Option<Again> {
        let taken = self.again.fetch_add(1, Ordering::AcqRel);
        // Dropping it takes the count back.
        let again = Again(Arc::clone(self));
        self.is_within(taken, share).then_some(again)
    }

    /// Whether [`RouteLoad::again`] would give leave now.
    pub(crate) fn has_budget(&self, share: f64) -> bool {
        self.is_within(self.again.load(Ordering::Acquire), share)
    }

    fn is_within(&self, again: usize, share: f64) -> bool {
        failover::within_budget(self.active.load(Ordering::Acquire), again, share, self.replicas.budget_floor())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.0.again.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_is_given_back() {
        let load = Arc::new(RouteLoad::default());
        let taken: Vec<_> = std::iter::from_fn(|| load.again(0.2)).collect();
        assert_eq!((taken.len(), load.has_budget(0.2)), (10, false));
        let active: Vec<_> = (0..100).map(|_| load.enter()).collect();
        let more: Vec<_> = std::iter::from_fn(|| load.again(0.2)).collect();
        assert_eq!(more.len(), 10);
        drop((taken, more, active));
        assert!(load.has_budget(0.2) && load.active.load(Ordering::Acquire) == 0);
    }

    #[test]
    fn the_floor_follows_the_number_of_replicas() {
        let replicas = Arc::<Replicas>::default();
        let load = Arc::new(RouteLoad::new(&replicas));
        let most = || std::iter::from_fn(|| load.again(0.2)).collect::<Vec<_>>().len();
        assert_eq!(most(), 10, "alone");
        replicas.set(3);
        assert_eq!(most(), 4);
        replicas.set(1);
        assert_eq!(most(), 10);
    }
}
