//! Handles with which the parts of the program count. Each is resolved once; its use costs one atomic addition.

use std::marker::PhantomData;

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::catalogue::Family;
use super::label::Label;

/// A counter without labels.
#[derive(Clone, Debug)]
pub struct Counter(prometheus::IntCounter);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// Returns the current count.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    pub(super) const fn from(counter: prometheus::IntCounter) -> Self {
        Self(counter)
    }

    /// Raises the count to a total from another source; a lower total changes nothing.
    pub(super) fn raise_to(&self, total: u64) {
        // A counter cannot be set. The callers are scrape hooks, which run one at a time.
        self.0.inc_by(total.saturating_sub(self.0.get()));
    }
}

/// A gauge: a number that increases and decreases.
#[derive(Clone, Debug)]
pub struct Gauge(prometheus::IntGauge);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Subtracts one.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// Adds `n`.
    pub fn add(&self, n: usize) {
        self.0.add(signed(n as u64));
    }

    /// Subtracts `n`.
    pub fn sub(&self, n: usize) {
        self.0.sub(signed(n as u64));
    }

    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.0.set(signed(value));
    }

    /// Returns the value.
    pub fn get(&self) -> i64 {
        self.0.get()
    }

    /// Adds one until the guard is dropped.
    pub fn enter(&self) -> Entered {
        self.inc();
        Entered(self.clone())
    }
}

/// Guard that decrements a gauge on drop.
#[derive(Debug)]
#[must_use = "the gauge goes down again when this is dropped"]
pub struct Entered(Gauge);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One handle per label value.
#[derive(Debug)]
pub struct PerLabel<L, H> {
    handles: Box<[H]>,
    // A function type keeps the handles `Send` and `Sync` for every `L`.
    label: PhantomData<fn(L)>,
}

impl<L: Label, H> PerLabel<L, H> {
    fn resolve(handle: impl Fn(&'static str) -> H) -> Self {
        // The resolution creates each series, so it is exported as zero before its first event.
        Self { handles: L::LABELS.iter().map(|label| handle(label)).collect(), label: PhantomData }
    }

    /// Returns the handle of one value.
    pub fn of(&self, label: L) -> &H {
        &self.handles[label.index()]
    }
}

/// Registers the families of the catalogue in a registry and returns their handles.
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

impl Registrar<'_> {
    pub(super) fn counter(&self, family: &Family) -> Counter {
        Counter(self.counter_vec(family).with_label_values::<&str>(&[]))
    }

    pub(super) fn counters<L: Label>(&self, family: &Family) -> PerLabel<L, Counter> {
        let vec = self.counter_vec(family);
        PerLabel::resolve(|label| Counter(vec.with_label_values(&[label])))
    }

    pub(super) fn counters_by_two<A: Label, B: Label>(&self, family: &Family) -> PerLabel<A, PerLabel<B, Counter>> {
        let vec = self.counter_vec(family);
        PerLabel::resolve(|a| PerLabel::resolve(|b| Counter(vec.with_label_values(&[a, b]))))
    }

    pub(super) fn gauge(&self, family: &Family) -> Gauge {
        Gauge(self.gauge_vec(family).with_label_values::<&str>(&[]))
    }

    pub(super) fn gauges<L: Label>(&self, family: &Family) -> PerLabel<L, Gauge> {
        let vec = self.gauge_vec(family);
        PerLabel::resolve(|label| Gauge(vec.with_label_values(&[label])))
    }

    /// Registers a gauge that is always 1 and carries its information in the label.
    pub(super) fn info(&self, family: &Family, value: &str) {
        self.gauge_vec(family).with_label_values(&[value]).set(1);
    }

    pub(super) fn histogram(&self, family: &Family) -> prometheus::Histogram {
        self.histograms(family).with_label_values::<&str>(&[])
    }

    pub(super) fn histograms(&self, family: &Family) -> HistogramVec {
        let opts = HistogramOpts::new(family.name, family.help).buckets(family.buckets.to_vec());
        self.keep(HistogramVec::new(opts, &names(family)))
    }

    pub(super) fn float_counter(&self, family: &Family) -> prometheus::Counter {
        self.float_counter_vec(family).with_label_values::<&str>(&[])
    }

    /// Registers a family with label values that are only known at run time. The caller must bound the number of
    /// series.
    pub(super) fn float_counter_vec(&self, family: &Family) -> CounterVec {
        self.keep(CounterVec::new(opts(family), &names(family)))
    }

    pub(super) fn float_gauge(&self, family: &Family) -> prometheus::Gauge {
        self.float_gauge_vec(family).with_label_values::<&str>(&[])
    }

    /// Like [`Registrar::float_counter_vec`], for gauges.
    pub(super) fn float_gauge_vec(&self, family: &Family) -> GaugeVec {
        self.keep(GaugeVec::new(opts(family), &names(family)))
    }

    /// Like [`Registrar::float_counter_vec`], with whole numbers.
    pub(super) fn counter_vec(&self, family: &Family) -> IntCounterVec {
        self.keep(IntCounterVec::new(opts(family), &names(family)))
    }

    fn gauge_vec(&self, family: &Family) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(opts(family), &names(family)))
    }

    fn keep<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("the catalogue must hold valid names");
        self.0.register(Box::new(collector.clone())).expect("the catalogue must hold distinct names");
        collector
    }
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn names(family: &Family) -> Vec<&'static str> {
    family.labels.iter().map(|label| label.name).collect()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
