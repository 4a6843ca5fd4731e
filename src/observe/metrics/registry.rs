//! The metrics of one process: their registry, their groups, and the scrape.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Registry, TEXT_FORMAT, TextEncoder};

use super::budget::BudgetMetrics;
use super::cache::CacheMetrics;
use super::catalogue;
use super::connections::ConnectionMetrics;
use super::handles::Registrar;
use super::history::History;
use super::incidents::Incidents;
use super::memory::MemoryMetrics;
use super::pace::PaceMetrics;
use super::performance::Performance;
use super::process::ProcessMetrics;
use super::requests::RequestMetrics;
use super::savings::UsageAccounts;
use super::status::StatusMetrics;
use super::targets::TargetMetrics;
use super::tiers::TierMetrics;
use super::traces::TraceMetrics;
use super::upstream::UpstreamMetrics;
use super::usage::UsageMetrics;
use super::watch::WatchMetrics;

type ScrapeHook = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one process, in groups.
pub struct Metrics {
    /// Requests on both ports.
    pub requests: RequestMetrics,
    /// Answered inputs and their tokens.
    pub usage: UsageMetrics,
    /// Budgets of embeddings calls.
    pub budget: BudgetMetrics,
    /// Calls to the upstream.
    pub upstream: UpstreamMetrics,
    /// Calls that wait for their turn.
    pub pace: PaceMetrics,
    /// Calls to each of several targets.
    pub targets: TargetMetrics,
    /// Size and state of each tier.
    pub tiers: TierMetrics,
    /// Events of the cache as a whole.
    pub cache: CacheMetrics,
    /// Checks of models.
    pub watch: WatchMetrics,
    /// Connections of both ports.
    pub connections: ConnectionMetrics,
    /// Resident memory and the governor.
    pub memory: MemoryMetrics,
    /// Readiness, and whether the configuration in force is current.
    pub status: StatusMetrics,
    /// Delivery of traces.
    pub traces: TraceMetrics,
    pub(super) incidents: Incidents,
    pub(super) history: History,
    exposition: Exposition,
}

/// State of the scrapes.
struct Exposition {
    registry: Registry,
    hooks: Mutex<Vec<ScrapeHook>>,
    /// Held while a scrape collects its figures.
    rendering: Mutex<()>,
    process: ProcessMetrics,
}

impl Metrics {
    /// Creates all metrics at zero, except those whose normal value is not zero.
    pub fn new(version: &str) -> Arc<Self> {
        let registry = Registry::new();
        let registrar = Registrar(&registry);
        registrar.info(&catalogue::BUILD_INFO, version);
        Arc::new(Self {
            requests: RequestMetrics::new(&registrar),
            usage: UsageMetrics::new(&registrar),
            budget: BudgetMetrics::new(&registrar),
            upstream: UpstreamMetrics::new(&registrar),
            pace: PaceMetrics::new(&registrar),
            targets: TargetMetrics::new(&registrar),
            tiers: TierMetrics::new(&registrar),
            cache: CacheMetrics::new(&registrar),
            watch: WatchMetrics::new(&registrar),
            connections: ConnectionMetrics::new(&registrar),
            memory: MemoryMetrics::new(&registrar),
            status: StatusMetrics::new(&registrar),
            traces: TraceMetrics::new(&registrar),
            incidents: Incidents::new(&registrar),
            history: History::default(),
            exposition: Exposition {
                process: ProcessMetrics::new(&registrar),
                registry: registry.clone(),
                hooks: Mutex::default(),
                rendering: Mutex::default(),
            },
        })
    }

    /// Registers a hook that is called before every scrape, for values that are measured only then.
    pub fn on_scrape(&self, hook: Box<dyn Fn(&Self) + Send + Sync>) {
        self.exposition.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::from(hook));
    }

    /// Returns the content type and the text of a scrape.
    pub fn render(&self) -> (&'static str, String) {
        let Exposition { registry, hooks, rendering, process } = &self.exposition;
        // Scrapes run one at a time: two concurrent ones would both raise a counter by the same amount.
        let _turn = rendering.lock().unwrap_or_else(PoisonError::into_inner);
        // The hooks run without the hooks' lock, so a hook may register another hook.
        let hooks = hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for hook in &hooks {
            hook(self);
        }
        process.refresh();
        self.accounts().show_costs();
        let text = TextEncoder::new().encode_to_string(&registry.gather());
        (TEXT_FORMAT, text.expect("the catalogue must render"))
    }

    /// Returns response times, rate and errors of the public port.
    pub const fn performance(&self) -> &Performance {
        &self.requests.performance
    }

    /// Returns the incidents.
    pub const fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// Returns tokens and costs by model and namespace.
    pub const fn accounts(&self) -> &UsageAccounts {
        &self.usage.accounts
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
