//! The retry budget of a route: how many requests it serves, how many of them were sent again, and whether one more may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The minimum of the retry budget: retries that a route may have at one time, however few requests it has. All replicas of a fleet share it.
const BUDGET_FLOOR: usize = 10;

/// How many replicas are alive that share the floor of the retry budget, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Replicas(AtomicUsize);

impl Replicas {
    pub(crate) fn set(&self, count: usize) {
        self.0.store(count, Ordering::Relaxed);
    }

    fn budget_floor(&self) -> usize {
        budget_floor(self.0.load(Ordering::Relaxed))
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
        within_budget(self.active.load(Ordering::Acquire), again, share, self.replicas.budget_floor())
    }
}

/// Whether a route may retry one more request, while it has `active` requests and `again` retries. `floor`: of [`budget_floor`].
fn within_budget(active: usize, again: usize, share: f64, floor: usize) -> bool {
    let allowed = (active as f64 * share).floor() as usize;
    again < allowed.max(floor)
}

/// How many retries each of so many replicas may have at one time, however few requests it has. Shares of each one's own requests add up
/// to the share of all; this would not.
fn budget_floor(replicas: usize) -> usize {
    BUDGET_FLOOR.div_ceil(replicas.max(1))
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
    fn the_budget_is_a_share_with_a_floor() {
        let most =
            |active, share| (0..).take_while(|again| within_budget(active, *again, share, budget_floor(1))).count();
        assert_eq!((most(0, 0.2), most(10, 0.2), most(100, 0.2), most(1_000, 0.0)), (10, 10, 20, 10));
    }

    #[test]
    fn the_floor_is_shared_by_replicas_and_never_nothing() {
        assert_eq!([0, 1, 2, 3, 4, 9, 10, 11, 300].map(budget_floor), [10, 10, 5, 4, 3, 2, 1, 1, 1]);
        let most = |active| (0..).take_while(|again| within_budget(active, *again, 0.2, budget_floor(3))).count();
        assert_eq!((most(0), most(100)), (4, 20), "the share is each one's own");
    }

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
