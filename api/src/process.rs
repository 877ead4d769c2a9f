//! What the operating system says of this process, in Prometheus text. Linux only; elsewhere nothing is told.

/// How many ticks of `/proc/self/stat` make a second: USER_HZ, which Linux gives all programs as 100.
const TICKS_PER_SECOND: f64 = 100.0;

/// The CPU time and memory of this process; empty where there is no `/proc`.
pub(crate) fn metrics() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    text(&stat, &status)
}

fn text(stat: &str, status: &str) -> String {
    let mut out = String::new();
    if let Some(seconds) = cpu_seconds(stat) {
        out.push_str("# HELP process_cpu_seconds_total CPU time of all threads\n");
        out.push_str(&format!("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {seconds}\n"));
    }
    if let Some(bytes) = resident_bytes(status) {
        // The working set is what .NET, whose dashboards ask for it, calls the resident set.
        for (name, help) in [
            ("process_resident_memory_bytes", "Memory of the process that is in RAM"),
            ("process_working_set_bytes", "Memory of the process that is in RAM, by its other name"),
        ] {
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {bytes}\n"));
        }
    }
    out
}

/// `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5). Field 2, the name, may contain anything, so that
/// fields are counted from its last parenthesis.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// `VmRSS` of proc_pid_status(5), which is in kibibytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory_are_read_whatever_the_name_of_the_process() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9 9 9";
        let status = "Name:\tx\nVmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n";
        let text = text(stat, status);
        for line in [
            "process_cpu_seconds_total 3",
            "process_resident_memory_bytes 2097152",
            "process_working_set_bytes 2097152",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(super::text("", ""), "");
    }
}
