//! Collectors in memory, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;

/// Keeps the last value of each series, as `name{key=value,…}`; of a histogram its `name_count` and `name_sum`.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptMetrics {
    pub(super) series: Arc<Mutex<BTreeMap<String, f64>>>,
    pub(super) refuse: bool,
}

impl KeptMetrics {
    pub(super) fn value(&self, series: &str) -> f64 {
        let all = self.series.lock().unwrap();
        *all.get(series).unwrap_or_else(|| panic!("{series} in {all:#?}"))
    }

    fn keep(&self, name: &str, suffix: &str, attributes: impl Iterator<Item = KeyValue>, value: f64) {
        let mut attributes: Vec<_> = attributes.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        attributes.sort();
        self.series.lock().unwrap().insert(format!("{name}{suffix}{{{}}}", attributes.join(",")), value);
    }

    fn keep_all<T: Copy>(&self, metric: &Metric, data: &MetricData<T>, number: fn(T) -> f64) {
        match data {
            MetricData::Sum(sum) => {
                for point in sum.data_points() {
                    self.keep(metric.name(), "", point.attributes().cloned(), number(point.value()));
                }
            }
            MetricData::Histogram(histogram) => {
                for point in histogram.data_points() {
                    self.keep(metric.name(), "_count", point.attributes().cloned(), point.count() as f64);
                    self.keep(metric.name(), "_sum", point.attributes().cloned(), number(point.sum()));
                }
            }
            _ => panic!("{} is neither", metric.name()),
        }
    }
}

impl PushMetricExporter for KeptMetrics {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        if self.refuse {
            return Err(OTelSdkError::InternalFailure("on purpose".into()));
        }
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            match metric.data() {
                AggregatedMetrics::F64(data) => self.keep_all(metric, data, |value| value),
                AggregatedMetrics::U64(data) => self.keep_all(metric, data, |value| value as f64),
                AggregatedMetrics::I64(_) => panic!("{} is signed", metric.name()),
            }
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// Keeps log records.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptLogs {
    pub(super) records: Arc<Mutex<Vec<SdkLogRecord>>>,
    pub(super) refuse: bool,
}

impl LogExporter for KeptLogs {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        if self.refuse {
            return Err(OTelSdkError::InternalFailure("on purpose".into()));
        }
        self.records.lock().unwrap().extend(batch.iter().map(|(record, _)| record.clone()));
        Ok(())
    }
}
