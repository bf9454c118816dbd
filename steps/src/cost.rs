//! What work costs: CPU seconds, peak memory.

use std::time::Instant;

/// CPU seconds (user and system) of this process so far; 0 where the system doesn't say.
pub fn cpu_seconds() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    // Fields 14 and 15, counted after the command's closing parenthesis; 100 ticks a second on Linux.
    let after = stat.rsplit(')').next().unwrap_or("");
    after.split_whitespace().skip(11).take(2).filter_map(|x| x.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A line's number of kilobytes.
fn kilobytes(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Peak resident memory in MB; 0 where the system doesn't say.
pub fn peak_rss_mb() -> f64 {
    kilobytes("/proc/self/status", "VmHWM:").unwrap_or(0.0) / 1024.0
}

/// Memory that can be had, where the system says.
pub fn available_gb() -> Option<f64> {
    kilobytes("/proc/meminfo", "MemAvailable:").map(|kb| kb / f64::from(1 << 20))
}

/// Measures from its making.
pub struct Meter {
    start: Instant,
    cpu: f64,
}

impl Meter {
    /// Starts now.
    pub fn start() -> Self {
        Self { start: Instant::now(), cpu: cpu_seconds() }
    }

    /// Wall and CPU seconds since.
    pub fn read(&self) -> (f64, f64) {
        (self.start.elapsed().as_secs_f64(), cpu_seconds() - self.cpu)
    }
}
