//! The process as the system sees it, by the usual names. Read from `/proc` when a scraper asks; elsewhere than on Linux
//! there is nothing.

use std::fs;

use super::family::Kind;
use crate::telemetry::exposition::Exposition;

/// Clock ticks a second in `/proc`: the kernel's `USER_HZ`, the same on all of Rust's Linux targets.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes the `process_*` metrics.
pub(super) fn write(out: &mut Exposition) {
    let (Ok(stat), Ok(status)) = (fs::read_to_string("/proc/self/stat"), fs::read_to_string("/proc/self/status"))
    else {
        return;
    };
    let ticks = field(&stat, UTIME).zip(field(&stat, STIME)).map(|(user, system)| user + system);
    let help = "CPU time of the process, user and system, in seconds.";
    out.single("process_cpu_seconds_total", help, Kind::Counter, ticks.map(|ticks| ticks / TICKS_PER_SECOND));
    let (resident, virtual_size) = (kibibytes(&status, "VmRSS:"), kibibytes(&status, "VmSize:"));
    out.single("process_resident_memory_bytes", "Memory of the process in RAM, in bytes.", Kind::Gauge, resident);
    out.single("process_virtual_memory_bytes", "Address space of the process, in bytes.", Kind::Gauge, virtual_size);
    out.single("process_threads", "Threads of the process.", Kind::Gauge, field(&stat, THREADS));
    let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    out.single("process_open_fds", "Open file descriptors, sockets included.", Kind::Gauge, open);
    out.single("process_max_fds", "File descriptors the process may open.", Kind::Gauge, files_limit());
    let help = "When the process started, in seconds since 1970.";
    out.single("process_start_time_seconds", help, Kind::Gauge, started(&stat));
}

// Positions in `/proc/self/stat` (proc(5)), counted from the state, which is field 3.
const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
const THREADS: usize = 20 - 3;
const START_TIME: usize = 22 - 3;

/// A number out of `/proc/self/stat`. The name before the fields may hold spaces and parentheses.
fn field(stat: &str, position: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split_ascii_whitespace().nth(position)?.parse().ok()
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

fn files_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn started(stat: &str) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + field(stat, START_TIME)? / TICKS_PER_SECOND)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::telemetry::exposition::Format;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 700 30 0 0 20 0 9 0 123456 1000 50";
        assert_eq!(field(stat, UTIME), Some(700.0));
        assert_eq!(field(stat, STIME), Some(30.0));
        assert_eq!(field(stat, THREADS), Some(9.0));
        assert_eq!(field(stat, START_TIME), Some(123_456.0));
        assert_eq!(field("garbage", UTIME), None);
    }

    #[test]
    fn this_process_is_described() {
        let mut out = Exposition::new(Format::Text);
        write(&mut out);
        let text = out.finish();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
            line.unwrap_or_else(|| panic!("{name} in {text}")).trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 500_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
