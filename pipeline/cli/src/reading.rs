//! Numbers of this process, taken from its own metrics: what is shown is what `/metrics` says.

use prometheus::Registry;
use prometheus::proto::{Metric, MetricFamily};
use std::collections::HashMap;
use std::time::Duration;

/// All metrics at one moment.
pub struct Reading {
    families: HashMap<String, MetricFamily>,
}

impl Reading {
    pub fn of(registry: &Registry) -> Self {
        Self { families: registry.gather().into_iter().map(|family| (family.name().to_owned(), family)).collect() }
    }

    /// The sum of a counter over all series that have these labels.
    pub fn sum(&self, counter: &str, labels: &[(&str, &str)]) -> u64 {
        self.series(counter, labels).map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// The sums of a counter over all series that have these labels, by the value of another label.
    pub fn sums_by(&self, counter: &str, labels: &[(&str, &str)], by: &str) -> Vec<(String, u64)> {
        let mut sums: Vec<(String, u64)> = Vec::new();
        for metric in self.series(counter, labels) {
            let Some(label) = metric.get_label().iter().find(|label| label.name() == by) else { continue };
            let value = metric.get_counter().get_value() as u64;
            match sums.iter_mut().find(|(name, _)| name == label.value()) {
                Some((_, sum)) => *sum += value,
                None => sums.push((label.value().to_owned(), value)),
            }
        }
        sums
    }

    /// The time that a share of the observations of a histogram of seconds did not exceed.
    pub fn quantile(&self, histogram: &str, share: f64) -> Option<Duration> {
        let metric = self.series(histogram, &[]).next()?;
        let histogram = metric.get_histogram();
        let buckets: Vec<(f64, u64)> =
            histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
        interpolate(&buckets, histogram.get_sample_count(), share).map(Duration::from_secs_f64)
    }

    fn series<'a>(&'a self, name: &str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Metric> {
        let metrics = self.families.get(name).map(MetricFamily::get_metric).unwrap_or_default();
        metrics.iter().filter(move |metric| {
            labels.iter().all(|(name, value)| {
                metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
            })
        })
    }
}

/// As Prometheus' `histogram_quantile`: observations are taken to be spread evenly within a bucket. Beyond the
/// last bound, that bound.
fn interpolate(buckets: &[(f64, u64)], count: u64, share: f64) -> Option<f64> {
    if count == 0 {
        return None;
    }
    let rank = share * count as f64;
    let (mut lower, mut below) = (0.0, 0);
    for &(upper, cumulative) in buckets {
        if cumulative as f64 >= rank && cumulative > below && upper.is_finite() {
            let part = (rank - below as f64) / (cumulative - below) as f64;
            return Some(lower + (upper - lower) * part.clamp(0.0, 1.0));
        }
        if upper.is_finite() {
            lower = upper;
        }
        below = cumulative;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts};

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let buckets = [(0.01, 50), (0.1, 100), (1.0, 100)];
        for (share, expected) in [(0.25, 0.005), (0.5, 0.01), (0.75, 0.055), (1.0, 0.1)] {
            let found = interpolate(&buckets, 100, share).unwrap();
            assert!((found - expected).abs() < 1e-9, "{share}: {found}");
        }
        assert_eq!(interpolate(&buckets, 0, 0.5), None);
        assert_eq!(interpolate(&[(0.01, 0)], 5, 0.5), Some(0.01), "beyond the last bound");
    }

    #[test]
    fn counters_are_summed_by_labels() {
        let registry = Registry::new();
        let hits = IntCounterVec::new(Opts::new("hits", "hits"), &["level", "kind"]).unwrap();
        registry.register(Box::new(hits.clone())).unwrap();
        hits.with_label_values(&["L1", "a"]).inc_by(3);
        hits.with_label_values(&["L1", "b"]).inc_by(4);
        hits.with_label_values(&["L2", "a"]).inc();
        let latency = Histogram::with_opts(HistogramOpts::new("latency", "latency").buckets(vec![1.0, 2.0])).unwrap();
        registry.register(Box::new(latency.clone())).unwrap();
        latency.observe(1.5);
        let reading = Reading::of(&registry);
        assert_eq!(reading.sum("hits", &[("level", "L1")]), 7);
        assert_eq!(reading.sum("hits", &[]), 8);
        assert_eq!(reading.sum("misses", &[]), 0);
        assert_eq!(reading.sums_by("hits", &[], "level"), [("L1".to_owned(), 7), ("L2".to_owned(), 1)]);
        assert_eq!(reading.quantile("latency", 0.5), Some(Duration::from_secs_f64(1.5)));
    }
}
