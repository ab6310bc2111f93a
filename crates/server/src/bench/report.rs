//! The table of the measurements, as Markdown.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{BATCH, CONNECTIONS, Kept, Run, disk, screen};

/// Renders everything that was measured, with its settings.
pub fn render(
    data_dir: &Path,
    runs: usize,
    length: Duration,
    loads: &[(&'static str, Vec<Run>)],
    kept: &Kept,
    screens: &[(&'static str, screen::Latency)],
) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "DEBUG BUILD, not for comparison" } else { "release build" };
    let mut text = format!(
        "\nAuscult {} ({build}), {cores} cores shared by server, devices and screen; {CONNECTIONS} MQTT 5 connections \
         over TLS 1.3 with client certificates, QoS 1, acknowledged after fsync and encrypted; median of {runs} runs \
         of {} s, least and most in brackets.\n",
        env!("CARGO_PKG_VERSION"),
        length.as_secs()
    );
    if disk::is_memory(data_dir) {
        text.push_str("\n**The directory is in memory (tmpfs): fsync costs nothing there, these are not figures of a disk. Use --dir.**\n");
    }
    text.push_str("\n| Load | Acknowledged readings/s | p50 | p99 | Commits/s | Disk's own commits/s | Share of the disk | Readings a commit | Bytes a commit |\n");
    text.push_str("|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    for (name, runs) in loads {
        let commits = |run: &Run| run.groups as f64 / run.figures.elapsed_s;
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            spread(runs, |run| run.figures.readings_per_s, ""),
            spread(runs, |run| run.figures.latency.p50_us as f64 / 1e3, " ms"),
            spread(runs, |run| run.figures.latency.p99_us as f64 / 1e3, " ms"),
            spread(runs, commits, ""),
            spread(runs, |run| run.disk_commits_per_s, ""),
            spread(runs, |run| 100.0 * commits(run) / run.disk_commits_per_s, " %"),
            spread(runs, |run| run.figures.acked_readings as f64 / run.groups as f64, ""),
            spread(runs, |run| run.bytes_per_group as f64, ""),
        );
    }
    text.push_str(
        "\nThe disk's own limit: appends of the same bytes a commit with fdatasync, one after another, in the same \
         directory, right after each run.\n",
    );
    let _ = writeln!(
        text,
        "\nKept on disk after the fold, with raw frames, indexes and seals: {} bytes a reading ({} readings in batches of \
         {BATCH}, at random microseconds, which compress worst).",
        number(kept.bytes_per_reading),
        number(kept.readings as f64),
    );
    text.push_str("\n| Publish to screen | p50 | p99 | Shown | Overtaken |\n|---|---:|---:|---:|---:|\n");
    for (name, latency) in screens {
        let _ = writeln!(
            text,
            "| {name} | {:.1} ms | {:.1} ms | {} | {} |",
            latency.p50.as_secs_f64() * 1e3,
            latency.p99.as_secs_f64() * 1e3,
            latency.seen,
            latency.overtaken
        );
    }
    text.push_str(
        "\nOvertaken: a newer reading of the series was committed in the same group and is shown instead.\n",
    );
    text
}

/// Median, and the least and most.
fn spread<R>(runs: &[R], figure: impl Fn(&R) -> f64, unit: &str) -> String {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (figures.first(), figures.last()) else { return "–".to_owned() };
    let middle = figures.len() / 2;
    let median =
        if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 };
    format!("{}{unit} ({}–{})", number(median), number(*least), number(*most))
}

/// Three significant places or whole numbers, with commas between thousands.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown: Vec<String> =
            [0.5, 9.994, 42.0, 100.0, 1_234.4, 1_234_567.0].into_iter().map(number).collect();
        assert_eq!(shown, ["0.50", "9.99", "42.0", "100", "1,234", "1,234,567"]);
    }

    #[test]
    fn the_median_stands_before_its_spread() {
        let run = |readings_per_s| Run {
            figures: simulator::load::Figures { readings_per_s, ..Default::default() },
            groups: 1,
            bytes_per_group: 1,
            disk_commits_per_s: 1.0,
        };
        let runs = [run(30.0), run(10.0), run(20.0)];
        assert_eq!(spread(&runs, |run| run.figures.readings_per_s, " x"), "20.0 x (10.0–30.0)");
        assert_eq!(spread(&[], |run: &Run| run.disk_commits_per_s, ""), "–");
    }
}
