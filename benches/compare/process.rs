//! The processes of one proxy: started together, measured together through `/proc`, ended by their ids.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// One tick of `/proc/PID/stat`; Linux shows 100 a second to every program.
const TICK_NS: u64 = 10_000_000;
/// Time for an orderly end; processes that are left are killed.
const END_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Processes that were started here, and their descendants.
#[derive(Default)]
pub(crate) struct Processes {
    started: Vec<Child>,
}

/// Processor time of a group of processes so far, user and system together.
#[derive(Clone, Copy)]
pub(crate) struct CpuTime {
    /// From the scheduler, in nanoseconds; omits threads that have ended.
    scheduled_ns: u64,
    /// From the ticks of each process; includes threads that have ended.
    ticks_ns: u64,
}

impl CpuTime {
    /// Returns the time since `earlier`. The finer number is used unless the ticks show that it omits something.
    pub(crate) fn since_ns(self, earlier: Self) -> u64 {
        let fine = self.scheduled_ns.saturating_sub(earlier.scheduled_ns);
        let coarse = self.ticks_ns.saturating_sub(earlier.ticks_ns);
        if coarse > fine + 5 * TICK_NS { coarse } else { fine }
    }
}

impl Processes {
    /// Starts a program on these cores; none means that any core will do. It is also ended if this process dies.
    pub(crate) fn start(&mut self, cores: Option<&str>, command: &Command, output: fs::File) -> Outcome<()> {
        let mut words = vec!["setpriv", "--pdeathsig", "TERM"];
        if let Some(cores) = cores {
            words.extend(["taskset", "-c", cores]);
        }
        let mut wrapped = Command::new(words[0]);
        wrapped.args(&words[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            wrapped.env(name, value.unwrap_or_default());
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let program = command.get_program().display();
        let child = wrapped.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
        self.started.push(child);
        Ok(())
    }

    /// Returns an error if one of the started processes has ended.
    pub(crate) fn check_alive(&mut self) -> Outcome<()> {
        for child in &mut self.started {
            if let Some(status) = child.try_wait()? {
                return Err(format!("ended at once: {status}").into());
            }
        }
        Ok(())
    }

    /// Returns the processor time of all processes so far.
    pub(crate) fn cpu(&self) -> CpuTime {
        let ids = self.ids();
        CpuTime {
            scheduled_ns: ids.iter().map(|id| scheduled_ns(*id)).sum(),
            ticks_ns: ids.iter().map(|id| ticks_ns(*id)).sum(),
        }
    }

    /// Returns the memory of all processes in bytes. Memory that several of them share counts once.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.ids().iter().map(|id| kilobytes(*id, "smaps_rollup", "Pss:") * 1024).sum()
    }

    /// Returns the sum of the largest resident memory of each process in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.ids().iter().map(|id| kilobytes(*id, "status", "VmHWM:") * 1024).sum()
    }

    /// Returns the ids of all started processes and their descendants.
    fn ids(&self) -> Vec<u32> {
        let parents = parents();
        let mut ids: Vec<u32> = self.started.iter().map(Child::id).collect();
        let mut next = 0;
        while let Some(parent) = ids.get(next).copied() {
            ids.extend(parents.iter().filter(|(_, its)| **its == parent).map(|(id, _)| *id));
            next += 1;
        }
        ids
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Masters end their workers when they are terminated, but not when they are killed.
        let ids = self.ids();
        signal("-TERM", &self.started.iter().map(Child::id).collect::<Vec<u32>>());
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline && self.started.iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) {
            std::thread::sleep(POLL);
        }
        let left: Vec<u32> = ids.into_iter().filter(|id| stat(*id).is_some_and(|fields| fields[0] != "Z")).collect();
        signal("-KILL", &left);
        for child in &mut self.started {
            // The process has ended or was killed; there is nothing else to do about an error.
            drop(child.wait());
        }
    }
}

fn signal(name: &str, ids: &[u32]) {
    if !ids.is_empty() {
        let words = ids.iter().map(u32::to_string);
        // A process may have ended by itself in the meantime.
        drop(Command::new("kill").arg(name).args(words).stderr(Stdio::null()).status());
    }
}

/// Returns the parent of every process of the machine.
fn parents() -> BTreeMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // The parent is the second field after the name.
    ids.filter_map(|id| Some((id, stat(id)?.get(1)?.parse().ok()?))).collect()
}

/// Returns the fields of `/proc/PID/stat` after the name, which may contain spaces and brackets.
fn stat(id: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}

fn scheduled_ns(id: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return 0 };
    let texts = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

fn ticks_ns(id: u32) -> u64 {
    // User and system time are the 12th and 13th field after the name.
    let fields = stat(id).unwrap_or_default();
    fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * TICK_NS
}

fn kilobytes(id: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
