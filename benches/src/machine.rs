//! What the machine is, and who used its processors.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time of the whole machine, and of this program with all that it started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessorTime {
    all: Duration,
    ours: Duration,
}

impl ProcessorTime {
    pub(crate) fn now() -> Result<Self> {
        Ok(Self {
            all: of_the_machine()?,
            ours: of_this_program()?,
        })
    }

    /// The processor time that others used since `earlier`, in cores.
    pub(crate) fn foreign_cores_since(&self, earlier: &Self, wall: Duration) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        let ours = self.ours.saturating_sub(earlier.ours);
        all.saturating_sub(ours).as_secs_f64() / wall.as_secs_f64()
    }
}

/// User, nice, system, interrupts and what a hypervisor took: all but idle and waiting.
fn of_the_machine() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let first = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at));
    Ok(from_ticks(busy.sum()))
}

/// This process, its living descendants, and all that have ended and been waited for.
fn of_this_program() -> Result<Duration> {
    let mut parents = HashMap::new();
    let mut times = HashMap::new();
    for entry in std::fs::read_dir("/proc").context("listing /proc")? {
        let path = entry.context("listing /proc")?.path();
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else {
            continue;
        };
        if let Some((process, parent, ticks)) = parse(&stat) {
            parents.insert(process, parent);
            times.insert(process, ticks);
        }
    }
    let me = std::process::id();
    let is_ours = |process: u32| {
        let mut ancestor = Some(process);
        while let Some(this) = ancestor {
            if this == me {
                return true;
            }
            ancestor = parents.get(&this).copied();
        }
        false
    };
    let ours = times.iter().filter(|(process, _)| is_ours(**process));
    Ok(from_ticks(ours.map(|(_, ticks)| ticks).sum()))
}

/// Process, parent, and ticks of it and its children that were waited for. The name, in
/// parentheses, may contain anything.
fn parse(stat: &str) -> Option<(u32, u32, u64)> {
    let (process, _) = stat.split_once(' ')?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter();
    let ticks = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((process.parse().ok()?, fields.get(1)?.parse().ok()?, ticks))
}

fn from_ticks(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// One line about the machine, for the head of a report.
pub(crate) fn description() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let information = read("/proc/cpuinfo");
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("an unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores of {model}, Linux {}, load {}",
        kernel.trim(),
        load.split_whitespace().next().unwrap_or("unknown")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1";
        assert_eq!(parse(stat), Some((42, 7, 100)));
    }

    #[test]
    fn own_work_is_ours_and_the_machines() {
        let before = ProcessorTime::now().unwrap();
        // Other tests of this program may run beside this one, and count as well.
        let after = loop {
            let now = ProcessorTime::now().unwrap();
            if now.ours - before.ours >= Duration::from_millis(200) {
                break now;
            }
        };
        assert!(after.all > before.all);
    }
}
