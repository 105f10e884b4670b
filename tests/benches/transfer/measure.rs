//! What the system says of a process, and how runs that took turns become one figure.

use std::fs;
use std::time::{Duration, Instant};

/// Ticks of a second in `/proc/PID/stat`: the same on every Linux, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// A process, while it runs.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Seconds of all cores that it has used so far.
    pub(crate) fn cpu_s(self) -> f64 {
        self.stat_s(11)
    }

    /// The same of all children of this process that have ended.
    pub(crate) fn ended_children_cpu_s() -> f64 {
        Self(std::process::id()).stat_s(13)
    }

    /// Two fields of `/proc/PID/stat` after the name, which stands in brackets and may hold anything.
    fn stat_s(self, first: usize) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(first).take(2);
        fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
    }

    /// From now on the peak is counted anew.
    pub(crate) fn forget_peak(self) {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5").expect("the peak of a child can be forgotten");
    }

    /// The most memory that it had since [`Self::forget_peak`], in MiB.
    pub(crate) fn peak_mib(self) -> f64 {
        self.status_mib("VmHWM:")
    }

    /// Its memory now, in MiB.
    pub(crate) fn resident_mib(self) -> f64 {
        self.status_mib("VmRSS:")
    }

    fn status_mib(self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }
}

/// One run: how long it took, and what it cost.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// CPU seconds of both sides together.
    pub(crate) cpu_s: f64,
}

impl Run {
    /// Times `work`, and what `processes` use meanwhile.
    pub(crate) async fn of<T>(bytes: u64, processes: &[Process], work: impl Future<Output = T>) -> (Self, T) {
        let cpu = || processes.iter().map(|process| process.cpu_s()).sum::<f64>();
        let (before, begun) = (cpu(), Instant::now());
        let done = work.await;
        (Self { bytes, took: begun.elapsed(), cpu_s: cpu() - before }, done)
    }

    /// Millions of bytes a second.
    pub(crate) fn mb_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    /// CPU seconds of both sides for a GB.
    pub(crate) fn cpu_s_per_gb(&self) -> f64 {
        self.cpu_s / (self.bytes as f64 / 1e9)
    }
}

/// The one in the middle; of an even number the mean of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => f64::NAN,
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

/// What a figure is to be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// It is only said.
    None,
}

/// The table, printed row by row as the figures come.
pub(crate) struct Report {
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn begin() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        println!("{cores} cores, load {load} at the start");
        println!("{:<44} {:>9}  {:<8} {:<6} detail", "figure", "measured", "target", "");
        Self { missed: Vec::new() }
    }

    pub(crate) fn row(&mut self, figure: &str, value: f64, target: Target, detail: &str) {
        let (target, met) = match target {
            Target::AtLeast(least) => (format!(">= {least}"), Some(value >= least)),
            Target::AtMost(most) => (format!("<= {most}"), Some(value <= most)),
            Target::None => (String::new(), None),
        };
        let verdict = met.map_or("", |met| if met { "ok" } else { "MISSED" });
        if met == Some(false) {
            self.missed.push(figure.to_owned());
        }
        println!("{figure:<44} {value:>9.3}  {target:<8} {verdict:<6} {detail}");
    }

    /// The median of the ratios of runs that took turns.
    pub(crate) fn ratio(&mut self, figure: &str, ours: &[Run], theirs: &[Run], target: Target) {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours.mb_s() / theirs.mb_s()).collect();
        let speed = |runs: &[Run]| median(runs.iter().map(Run::mb_s));
        let cpu = |runs: &[Run]| median(runs.iter().map(Run::cpu_s_per_gb));
        let (least, most) =
            (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
        let detail = format!(
            "{:.0} / {:.0} MB/s, CPU {:.2} / {:.2} s/GB, ratios {least:.3} to {most:.3} of {}",
            speed(ours),
            speed(theirs),
            cpu(ours),
            cpu(theirs),
            ratios.len()
        );
        self.row(figure, median(ratios), target, &detail);
    }

    pub(crate) fn skipped(&self, figure: &str, why: &str) {
        println!("{figure:<44} {:>9}  {:<8} {:<6} {why}", "SKIPPED", "", "");
    }

    pub(crate) fn end(self) {
        match self.missed.as_slice() {
            [] => println!("every target is met"),
            missed => println!("MISSED: {}", missed.join("; ")),
        }
    }
}

/// Lets what earlier runs wrote reach the disk, so that it does not weigh on the next.
pub(crate) async fn quiet_disk() {
    let synced = tokio::process::Command::new("sync").status().await;
    assert!(synced.is_ok_and(|status| status.success()), "`sync` runs");
}
