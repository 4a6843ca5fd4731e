//! Process metrics from the operating system, read at each scrape.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge as FloatGauge};

use super::catalogue;
use super::handles::{Gauge, Registrar};

/// Ticks per second in `/proc/self/stat`; Linux reports 100 to programs regardless of the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// The standard `process_*` metrics.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    threads: Gauge,
    cpu_seconds: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Self {
        start_time(&registrar.float_gauge(&catalogue::PROCESS_START_TIME));
        Self {
            resident_bytes: registrar.gauge(&catalogue::PROCESS_RESIDENT),
            virtual_bytes: registrar.gauge(&catalogue::PROCESS_VIRTUAL),
            threads: registrar.gauge(&catalogue::PROCESS_THREADS),
            cpu_seconds: registrar.float_counter(&catalogue::PROCESS_CPU),
            open_fds: registrar.gauge(&catalogue::PROCESS_OPEN_FDS),
            max_fds: registrar.gauge(&catalogue::PROCESS_MAX_FDS),
        }
    }

    /// Reads all values again. An unreadable value keeps its last state.
    pub(super) fn refresh(&self) {
        if let Some(status) = read("status") {
            kibibytes(&status, "VmRSS:").inspect(|size| self.resident_bytes.set(size * 1024));
            kibibytes(&status, "VmSize:").inspect(|size| self.virtual_bytes.set(size * 1024));
            number(&status, "Threads:").inspect(|count| self.threads.set(*count));
        }
        // Each file is read by itself, so one that is unreadable affects no other value.
        read("stat").and_then(|text| cpu_seconds(&text)).inspect(|seconds| self.raise_cpu(*seconds));
        read("limits").and_then(|text| max_fds(&text)).inspect(|count| self.max_fds.set(*count));
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The open directory itself takes one descriptor.
            self.open_fds.set((open.count() as u64).saturating_sub(1));
        }
    }

    fn raise_cpu(&self, seconds: f64) {
        // A Prometheus counter cannot be set, only raised.
        let more = seconds - self.cpu_seconds.get();
        if more > 0.0 {
            self.cpu_seconds.inc_by(more);
        }
    }
}

fn start_time(gauge: &FloatGauge) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge.set(now.as_secs_f64());
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

/// Parses the number of a line of `/proc/self/status` with the unit `kB`.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Parses the number of a line without a unit.
fn number(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the program's name, which may contain spaces and brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    // User and system time are the 12th and 13th field after the name.
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes_and_threads_without_a_unit() {
        let status = "VmPeak:\t  9 kB\nVmSize:\t 8 kB\nVmRSS:\t    2048 kB\nThreads:\t7\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(2048));
        assert_eq!(kibibytes(status, "VmSize:"), Some(8));
        assert_eq!(number(status, "Threads:"), Some(7));
        assert_eq!(kibibytes("Threads:\t1\n", "VmRSS:"), None);
    }

    #[test]
    fn cpu_time_is_found_behind_a_program_name_with_brackets() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }

    #[test]
    fn the_soft_limit_of_file_descriptors_is_reported() {
        assert_eq!(max_fds("Max open files            1024                 4096                 files\n"), Some(1024));
    }
}
