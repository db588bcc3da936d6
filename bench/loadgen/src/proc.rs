//! What the measured program costs: CPU time and memory of a process and all its children.

use std::fs;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::Error;

/// Nanoseconds of `CLOCK_MONOTONIC`: one clock for all processes of a machine. 0 if there is none, which Linux never says.
pub fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, nanos)
}

/// A process and its children, as they were when it was looked at.
#[derive(Debug)]
pub struct Tree {
    pids: Vec<i32>,
}

impl Tree {
    /// Finds the children of `root`, and theirs. Threads need no search: their time is their process's.
    ///
    /// # Errors
    /// `root` does not run.
    pub fn of(root: i32) -> Result<Self, Error> {
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| format!("process {pid}: {e}"))? {
                let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
                pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
            next += 1;
        }
        Ok(Self { pids })
    }

    /// CPU time so far, user and system, in nanoseconds: what /proc/PID/stat counts in ticks of 10 ms, from the
    /// process's own clock.
    ///
    /// # Errors
    /// A process of the tree has ended.
    pub fn cpu(&self) -> Result<u64, Error> {
        let mut total = 0;
        for pid in &self.pids {
            let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(*pid)).map_err(|e| format!("process {pid}: {e}"))?;
            total += nanos(clock_gettime(clock)?);
        }
        Ok(total)
    }

    /// Memory in KiB as the proportional set size: what is shared between workers counts once. Without sockets' kernel
    /// buffers.
    ///
    /// # Errors
    /// A process of the tree has ended, or may not be read.
    pub fn memory(&self) -> Result<u64, Error> {
        let mut total = 0;
        for pid in &self.pids {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map_err(|e| format!("{pid}: {e}"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
            total += kib.ok_or_else(|| format!("process {pid}: no Pss in smaps_rollup"))?;
        }
        Ok(total)
    }
}

fn nanos(time: nix::sys::time::TimeSpec) -> u64 {
    u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_tree_counts_the_children_and_their_time_and_memory() {
        // A shell that burns a little, then waits in a child for its stdin.
        let mut shell = Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready; cat; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let root = i32::try_from(shell.id()).unwrap();
        let mut tree = Tree::of(root).unwrap();
        while tree.pids.len() < 2 {
            std::thread::yield_now(); // until the shell has forked
            tree = Tree::of(root).unwrap();
        }
        let alone = Tree { pids: vec![root] };
        let child = Tree { pids: tree.pids.iter().copied().filter(|pid| *pid != root).collect() };
        // Each only grows: the parts before, the whole after.
        let parts = alone.cpu().unwrap() + child.cpu().unwrap();
        assert!(tree.cpu().unwrap() >= parts);
        assert!(alone.cpu().unwrap() > 1_000_000, "20,000 rounds of a shell take more than 1 ms");
        assert!(child.memory().unwrap() > 0);
        assert!(tree.memory().unwrap() > child.memory().unwrap());
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(Tree::of(root).is_err());
    }
}
