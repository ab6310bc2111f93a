//! `auscult bench`: measures this machine side by side with the best peers, and prints one table a measure.
//!
//! Every measure is one module of the same shape: it sets itself up in a directory of its own, runs a number of
//! times, and returns rows of what was reached, beside whom, and whether the goal was met. The server that is measured
//! is always a process of its own, started as a site would start it.

mod apart;
mod cold_start;
mod disk;
mod fhir_read;
mod fhir_write;
mod fill;
mod http;
mod ingest;
mod kept;
mod latency;
mod memory;
mod observation;
mod outcome;
mod peers;
mod proof;
mod publish;
mod report;
mod screen;
mod stage;
#[cfg(feature = "bench-off")]
mod trust_cost;
mod waveform;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::{logging, running, terminal};
use outcome::Section;

/// Fewest runs of each load: a median of fewer says nothing.
const MIN_RUNS: usize = 3;
/// Most runs of each load.
const MAX_RUNS: usize = 50;
/// Length of one run.
const RUN: Duration = Duration::from_secs(5);
/// Length of one run with `--quick`.
const QUICK_RUN: Duration = Duration::from_secs(1);
/// Length of the soak unless another is asked for.
const SOAK: Duration = Duration::from_secs(90);
/// The same with `--quick`.
const QUICK_SOAK: Duration = Duration::from_secs(12);
/// Longest soak: a day.
const SOAK_LIMIT: Duration = Duration::from_secs(86_400);

/// What `auscult bench` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult bench --quick
  auscult bench --only publish --only fhir-write
  auscult bench --only memory --soak 1h
  auscult bench --runs 5 --dir /var/lib --save results

Measures: ingest, publish, latency, fhir-write, fhir-read, kept, waveform, memory, cold-start, proof;
trust-cost only in a build with the feature `bench-off`, which `cargo xtask bench --only trust-cost` makes.
Server, devices and peers run on this machine and share its cores. The tables are Markdown. Use a release build.

Peers are found through the environment, and a measure whose peer is missing says so:
  AUSCULT_MOSQUITTO   the broker (else `mosquitto` on the search path)
  AUSCULT_HFS         the FHIR server helios-hfs
  AUSCULT_HFS_DATA    its directory with search-parameters-r4.json
  AUSCULT_ATRIUMDB    a Python that can import atriumdb")]
pub struct BenchArguments {
    /// Shorter runs and smaller charts
    #[arg(long)]
    quick: bool,
    /// Only this measure; may be given several times
    #[arg(long, value_name = "MEASURE")]
    only: Vec<String>,
    /// Runs of each load; the tables show their median and spread
    #[arg(long, value_name = "N", default_value_t = MIN_RUNS)]
    runs: usize,
    /// Directory on the disk to measure; throw-away directories are made in it
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Length of the load under which memory is watched, such as 90s, 10m or 1h
    #[arg(long, value_name = "LENGTH", value_parser = parse_length)]
    soak: Option<Duration>,
    /// Readings kept for the cold start [default: 100000000; with --quick 2000000]
    #[arg(long, value_name = "N")]
    kept_readings: Option<u64>,
    /// Keep what was measured in this directory, as results.md and results.json
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shorter runs and smaller charts.
    pub quick: bool,
    /// Runs of each load.
    pub runs: usize,
    /// Length of one run.
    pub length: Duration,
    /// Length of the soak.
    pub soak: Duration,
    /// Readings kept for the cold start.
    pub kept_readings: u64,
    /// The directory on the disk to measure.
    pub dir: PathBuf,
}

impl Settings {
    fn of(arguments: &BenchArguments) -> anyhow::Result<Self> {
        anyhow::ensure!(
            (MIN_RUNS..=MAX_RUNS).contains(&arguments.runs),
            "--runs {} must be {MIN_RUNS} to {MAX_RUNS}",
            arguments.runs
        );
        let quick = arguments.quick;
        let dir = std::fs::canonicalize(&arguments.dir)
            .with_context(|| format!("--dir {} cannot be used", arguments.dir.display()))?;
        Ok(Settings {
            quick,
            runs: arguments.runs,
            length: if quick { QUICK_RUN } else { RUN },
            soak: arguments.soak.unwrap_or(if quick { QUICK_SOAK } else { SOAK }),
            kept_readings: arguments.kept_readings.unwrap_or(if quick { 2_000_000 } else { 100_000_000 }),
            dir,
        })
    }
}

/// One measure of the table.
struct Measure {
    name: &'static str,
    run: fn(&Settings) -> anyhow::Result<Section>,
}

/// Every measure, in the order of the report.
const MEASURES: &[Measure] = &[
    Measure { name: "ingest", run: ingest::measure },
    Measure { name: "publish", run: publish::measure },
    Measure { name: "latency", run: latency::measure },
    Measure { name: "fhir-write", run: fhir_write::measure },
    Measure { name: "fhir-read", run: fhir_read::measure },
    Measure { name: "kept", run: kept::measure },
    Measure { name: "waveform", run: waveform::measure },
    Measure { name: "memory", run: memory::measure },
    Measure { name: "cold-start", run: cold_start::measure },
    Measure { name: "proof", run: proof::measure },
    #[cfg(feature = "bench-off")]
    Measure { name: "trust-cost", run: trust_cost::measure },
];

/// Measures and prints.
///
/// # Errors
/// When the arguments make no sense. A measure that fails says so in the report; the exit status is then 1.
pub fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let settings = Settings::of(arguments)?;
    for name in &arguments.only {
        anyhow::ensure!(
            MEASURES.iter().any(|measure| measure.name == name),
            "there is no measure `{name}`; there are {}",
            MEASURES.iter().map(|measure| measure.name).collect::<Vec<_>>().join(", ")
        );
    }
    logging::start("warn")?;
    running::raise_file_limit();
    let mut text = report::head(&settings);
    terminal::print(&text);
    let (mut sections, mut failed) = (Vec::new(), false);
    for measure in MEASURES {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == measure.name) {
            continue;
        }
        eprintln!("=== {}", measure.name);
        let began = Instant::now();
        let said = match (measure.run)(&settings) {
            Ok(section) => {
                let said = report::section(&section);
                sections.push((measure.name, section));
                said
            }
            Err(error) => {
                failed = true;
                format!("\n## {}\n\nNot measured: {error:#}\n", measure.name)
            }
        };
        terminal::print(&said);
        text.push_str(&said);
        eprintln!("--- {} took {:.0} s", measure.name, began.elapsed().as_secs_f64());
    }
    if let Some(directory) = &arguments.save {
        let json = serde_json::to_string_pretty(&report::json(&settings, &sections))?;
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(directory.join("results.md"), text))
            .and_then(|()| std::fs::write(directory.join("results.json"), json))
            .with_context(|| format!("the results cannot be kept in {}", directory.display()))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn parse_length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no length such as 90s, 10m or 1h");
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        _ => None,
    };
    let length = Duration::from_secs(seconds.ok_or_else(wrong)?);
    if length.is_zero() || length > SOAK_LIMIT {
        return Err(format!("{text} must be more than nothing and at most a day"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read() {
        assert_eq!(parse_length("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_length("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_length("1h"), Ok(Duration::from_secs(3_600)));
        for wrong in ["", "h", "1d", "0s", "25h", "-1s"] {
            assert!(parse_length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_help_names_every_measure() {
        use clap::Args as _;
        let help = BenchArguments::augment_args(clap::Command::new("bench")).render_long_help().to_string();
        for measure in MEASURES {
            assert!(help.contains(measure.name), "{}", measure.name);
        }
    }
}
