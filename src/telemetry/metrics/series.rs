//! What a metric is made of: counters, gauges and histograms, and families of them by label values.
//!
//! The `prometheus` crate holds each series; the families are our own, because its label lookup compares nothing but a hash
//! over the joined values (`("ab", "c")` and `("a", "bc")` share a series there), and because it has no exemplars.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use prometheus::core::Metric as _;

use super::family::{Declaration, Exemplar, Kind};
use super::labels::{LabelSet, Scope};
use crate::llm::price::Cost;
use crate::telemetry::exposition::Exposition;

/// One series.
pub(crate) trait Metric: Send + Sync {
    const KIND: Kind;

    fn write(&self, family: &Declaration, labels: &[&str], out: &mut Exposition);
}

/// Series are told apart by their family; to the library each goes by this name.
const NAME: &str = "series";

/// Metrics of one number, each in a type of the library.
macro_rules! numbers {
    ($($(#[$doc:meta])+ $metric:ident($library:ty): $kind:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Debug)]
        pub(crate) struct $metric($library);

        impl Default for $metric {
            fn default() -> Self {
                Self(<$library>::new(NAME, NAME).expect("a valid name"))
            }
        }

        impl Metric for $metric {
            const KIND: Kind = Kind::$kind;

            fn write(&self, family: &Declaration, labels: &[&str], out: &mut Exposition) {
                out.sample(family, "", labels, self.0.get());
            }
        }
    )+};
}

numbers! {
    /// Counts up, in whole units.
    Counter(prometheus::IntCounter): Counter;
    /// Goes up and down, in whole units.
    Gauge(prometheus::IntGauge): Gauge;
    /// Goes up and down, in parts of a unit.
    Float(prometheus::Gauge): Gauge;
}

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.inc_by(count);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.get()
    }

    /// For a count that is kept elsewhere and only ever grows.
    pub(crate) fn set(&self, count: u64) {
        self.0.inc_by(count.saturating_sub(self.0.get()));
    }
}

/// Counts money up; told in US dollars.
#[derive(Debug, Default)]
pub(crate) struct Dollars(Counter);

impl Dollars {
    pub(crate) fn add(&self, cost: Cost) {
        self.0.add(cost.nano_dollars());
    }
}

impl Metric for Dollars {
    const KIND: Kind = Kind::Counter;

    fn write(&self, family: &Declaration, labels: &[&str], out: &mut Exposition) {
        out.sample(family, "", labels, Cost(self.0.0.get()));
    }
}

impl Gauge {
    pub(crate) fn add(&self, count: i64) {
        self.0.add(count);
    }

    pub(crate) fn set(&self, value: i64) {
        self.0.set(value);
    }
}

impl Float {
    pub(crate) fn set(&self, value: f64) {
        self.0.set(value);
    }
}

/// How a distribution is cut: upper bounds, ascending, without the infinite one.
pub(crate) type Bounds = &'static [f64];

/// A distribution over fixed buckets, each with the last sampled request that fell into it.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: Bounds,
    counts: prometheus::Histogram,
    /// One a bucket; made when the first sampled request comes.
    exemplars: OnceLock<Box<[Mutex<Option<Exemplar>>]>>,
}

impl Histogram {
    #[expect(clippy::expect_used, reason = "name and bounds are constants of this crate, ascending")]
    fn new(bounds: Bounds) -> Self {
        let options = prometheus::HistogramOpts::new(NAME, NAME).buckets(bounds.to_vec());
        let counts = prometheus::Histogram::with_opts(options).expect("a valid name and ascending bounds");
        Self { bounds, counts, exemplars: OnceLock::new() }
    }

    /// Counts `value`; `sampled` names the trace that shows the request, where one was exported.
    pub(crate) fn observe(&self, value: f64, sampled: Option<(u128, SystemTime)>) {
        self.counts.observe(value);
        if let Some((trace_id, at)) = sampled {
            let bucket = self.bounds.partition_point(|bound| *bound < value);
            self.remember(bucket, Exemplar { trace_id, value, at });
        }
    }

    /// How many fell below each bound, and in all; and their sum. All of one moment.
    fn read(&self) -> (Vec<u64>, f64) {
        let snapshot = self.counts.metric();
        let histogram = snapshot.get_histogram();
        let below = histogram.get_bucket().iter().map(prometheus::proto::Bucket::cumulative_count);
        (below.chain([histogram.get_sample_count()]).collect(), histogram.get_sample_sum())
    }

    fn remember(&self, bucket: usize, exemplar: Exemplar) {
        let slots = self.exemplars.get_or_init(|| (0..=self.bounds.len()).map(|_| Mutex::new(None)).collect());
        // Whoever holds the lock writes one as good.
        if let Some(mut slot) = slots.get(bucket).and_then(Mutex::try_lock) {
            *slot = Some(exemplar);
        }
    }

    fn exemplar(&self, bucket: usize) -> Option<Exemplar> {
        *self.exemplars.get()?.get(bucket)?.lock()
    }
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn write(&self, family: &Declaration, labels: &[&str], out: &mut Exposition) {
        let (below, sum) = self.read();
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        for (slot, (count, bound)) in below.iter().zip(bounds).enumerate() {
            out.bucket(family, labels, bound, *count, self.exemplar(slot));
        }
        out.sample(family, "_sum", labels, sum);
        out.sample(family, "_count", labels, below.last().copied().unwrap_or(0));
    }
}

/// All series of one name, by the values of its labels `L`.
pub(crate) struct Family<M, L: LabelSet> {
    declaration: Declaration,
    make: fn(Bounds) -> M,
    bounds: Bounds,
    series: RwLock<BTreeMap<L::Key, Arc<M>>>,
}

impl<M: Metric + Default, L: LabelSet> Family<M, L> {
    pub(super) fn new(name: &'static str, help: &'static str) -> Self {
        Self::with(name, help, |_| M::default(), &[])
    }
}

impl<L: LabelSet> Family<Histogram, L> {
    pub(super) fn histogram(name: &'static str, help: &'static str, bounds: Bounds) -> Self {
        Self::with(name, help, Histogram::new, bounds)
    }
}

impl<M: Metric, L: LabelSet> Family<M, L> {
    pub(super) fn with(name: &'static str, help: &'static str, make: fn(Bounds) -> M, bounds: Bounds) -> Self {
        let declaration = Declaration { name, help: help.trim_start(), kind: M::KIND, labels: L::NAMES };
        Self { declaration, make, bounds, series: RwLock::new(BTreeMap::new()) }
    }

    /// The series with these label values; made when it is new. Keep the handle where it is hot.
    pub(super) fn get(&self, values: L::Values<'_>) -> Arc<M> {
        let key = L::key(values);
        if let Some(found) = self.series.read().get(&key) {
            return Arc::clone(found);
        }
        let mut series = self.series.write();
        Arc::clone(series.entry(key).or_insert_with(|| Arc::new((self.make)(self.bounds))))
    }

    /// The series there are, with their label values.
    pub(super) fn series(&self) -> Vec<(L::Key, Arc<M>)> {
        let series = self.series.read();
        series.iter().map(|(values, metric)| (values.clone(), Arc::clone(metric))).collect()
    }

    pub(super) fn remove(&self, values: L::Values<'_>) {
        self.series.write().remove(&L::key(values));
    }
}

/// A family, whatever it holds.
pub(crate) trait AnyFamily: Send + Sync {
    /// What is fixed about it.
    fn declaration(&self) -> &Declaration;

    /// The types of its labels' values.
    #[cfg(test)]
    fn label_types(&self) -> Vec<std::any::TypeId>;

    /// How many series there are.
    fn len(&self) -> usize;

    /// Writes the family, sorted by label values; nothing when it has no series.
    fn write(&self, out: &mut Exposition);

    /// Drops each series of which `keep` refuses one label's value.
    fn retain(&self, keep: &dyn Fn(Scope, &str) -> bool);
}

impl<M: Metric, L: LabelSet> AnyFamily for Family<M, L> {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    #[cfg(test)]
    fn label_types(&self) -> Vec<std::any::TypeId> {
        L::types()
    }

    fn len(&self) -> usize {
        self.series.read().len()
    }

    fn write(&self, out: &mut Exposition) {
        let series = self.series.read();
        if series.is_empty() {
            return;
        }
        out.family(&self.declaration);
        for (values, metric) in series.iter() {
            let values: Vec<&str> = values.as_ref().iter().map(|value| &**value).collect();
            metric.write(&self.declaration, &values, out);
        }
    }

    fn retain(&self, keep: &dyn Fn(Scope, &str) -> bool) {
        let mut series = self.series.write();
        series.retain(|values, _| L::SCOPES.iter().zip(values.as_ref()).all(|(scope, value)| keep(*scope, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::{Named, Route, Upstream};
    use super::*;

    #[test]
    fn label_values_that_join_to_the_same_text_are_apart() {
        let family: Family<Counter, (Route, Upstream)> = Family::new("c", "");
        let of = |route, upstream| family.get((Named::bounded(route), Named::bounded(upstream)));
        of("ab", "c").add(1);
        of("a", "bc").add(2);
        assert_eq!(family.len(), 2);
        assert!(Arc::ptr_eq(&of("ab", "c"), &of("ab", "c")));
    }

    #[test]
    fn a_value_on_a_bound_falls_into_its_bucket() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 2.5, f64::INFINITY] {
            histogram.observe(value, None);
        }
        assert_eq!(histogram.read().0, [2, 4, 6]);
    }

    #[test]
    fn no_observation_is_lost_between_threads() {
        let histogram = Histogram::new(&[0.5]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| histogram.observe(1.0, None)));
            }
        });
        assert_eq!(histogram.read(), (vec![0, 40_000], 40_000.0));
    }

    #[test]
    fn each_bucket_keeps_its_last_sampled_request() {
        let histogram = Histogram::new(&[1.0]);
        let at = SystemTime::UNIX_EPOCH;
        histogram.observe(0.5, None);
        assert_eq!(histogram.exemplar(0), None);
        histogram.observe(0.6, Some((7, at)));
        histogram.observe(0.7, Some((8, at)));
        histogram.observe(0.8, None);
        assert_eq!(histogram.exemplar(0), Some(Exemplar { trace_id: 8, value: 0.7, at }));
        assert_eq!(histogram.exemplar(1), None);
    }
}
