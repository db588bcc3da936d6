//! Picks the running streams that are shown if there are too many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stream::Stream;

/// Streams that a viewer is shown at most.
pub const CHOSEN_MAX: usize = 200;

/// Of those, the ones in which nothing moved for longest, and those that run for longest; the rest is a sample.
const QUIETEST: usize = 80;
const OLDEST: usize = 60;

/// A choice holds for so long; among many streams for longer, since all must be looked at for it.
const FRESH: Duration = Duration::from_millis(200);
const FRESH_OF_MANY: Duration = Duration::from_millis(1_000);
const MANY: usize = 1_000;

/// The last choice, which all viewers share.
#[derive(Default)]
pub(super) struct Chosen {
    at: Option<Instant>,
    running: usize,
    streams: Arc<Vec<Arc<Stream>>>,
}

impl Chosen {
    /// The streams to show, the oldest first, and how many run in all; `all` looks them up, in the order they came.
    pub(super) fn get(&mut self, all: impl FnOnce() -> Vec<Arc<Stream>>) -> (usize, Arc<Vec<Arc<Stream>>>) {
        let fresh = if self.running > MANY { FRESH_OF_MANY } else { FRESH };
        if self.at.is_none_or(|at| at.elapsed() >= fresh) {
            let all = all();
            let running = all.len();
            *self = Self { at: Some(Instant::now()), running, streams: Arc::new(choose(all, key)) };
        }
        (self.running, Arc::clone(&self.streams))
    }
}

/// How long nothing moved in it. In coarse steps: between two tokens all are quiet for a moment, and whoever is shown should
/// stay shown.
fn key(stream: &Arc<Stream>) -> Duration {
    Duration::from_secs(stream.standing().here.as_secs() / 2 * 2)
}

/// At most [`CHOSEN_MAX`] of `all`, which is sorted by age, in the same order.
fn choose<T>(mut all: Vec<T>, quiet: impl Fn(&T) -> Duration) -> Vec<T> {
    if all.len() <= CHOSEN_MAX {
        return all;
    }
    let mut rest: Vec<(usize, Duration)> = all.iter().map(quiet).enumerate().skip(OLDEST).collect();
    if rest.len() > QUIETEST {
        rest.select_nth_unstable_by(QUIETEST, |a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    }
    let mut taken = vec![false; all.len()];
    taken.iter_mut().take(OLDEST).for_each(|slot| *slot = true);
    for (at, _) in rest.iter().take(QUIETEST) {
        if let Some(slot) = taken.get_mut(*at) {
            *slot = true;
        }
    }
    // Evenly over the ages.
    let (wanted, open) = (CHOSEN_MAX - OLDEST - QUIETEST, all.len() - OLDEST - QUIETEST);
    let mut share = 0;
    for slot in taken.iter_mut().filter(|slot| !**slot) {
        share += wanted;
        if share >= open {
            share -= open;
            *slot = true;
        }
    }
    let mut taken = taken.into_iter();
    all.retain(|_| taken.next().unwrap_or(false));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_all_shown() {
        assert_eq!(choose((0..200).collect(), |_| Duration::ZERO).len(), 200);
    }

    #[test]
    fn of_many_the_oldest_the_quietest_and_a_sample() {
        // Every hundredth has been quiet, for longer the younger it is.
        let quiet = |number: &u64| if number % 100 == 99 { Duration::from_millis(*number) } else { Duration::ZERO };
        let chosen = choose((0..20_000).collect(), quiet);
        assert_eq!(chosen.len(), CHOSEN_MAX);
        assert!(chosen.is_sorted());
        assert_eq!(chosen[..60], (0..60).collect::<Vec<u64>>());
        let quiet = (0..20_000).filter(|number| number % 100 == 99 && *number >= 12_000);
        assert!(quiet.into_iter().all(|number| chosen.contains(&number)), "the eighty quietest are there");
        for thousand in 0..20 {
            let sampled = chosen.iter().filter(|number| **number / 1_000 == thousand && **number % 100 != 99).count();
            assert!(sampled >= 2, "{sampled} of thousand {thousand}");
        }
    }
}
