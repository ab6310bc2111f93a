//! Building the product as it is shipped, and becoming it: `cargo xtask demo`, and what `cargo xtask bench` needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};

use crate::workshop::Workshop;
use crate::{process, web};

/// Variables of the environment that weaken a server on purpose, and must be unknown to what is shipped: for a measurement,
/// and for the proof that the fault harness finds bugs.
const SWITCHES: [&str; 2] = ["AUSCULT_BENCH_OFF", "AUSCULT_PLANTED"];

/// Builds everything and starts `auscult demo`.
pub fn demo(workshop: &Workshop, arguments: &[String]) -> anyhow::Result<ExitCode> {
    // Judged before minutes of building.
    let passed_on = demo_arguments(arguments)?;
    build(workshop)?;
    become_auscult(workshop, "demo", &passed_on)
}

/// The web app comes first: the server carries it inside.
pub fn build(workshop: &Workshop) -> anyhow::Result<()> {
    build_with(workshop, &[])?;
    let built = workshop.auscult("release");
    match names_of_switches(&built)?.first() {
        None => Ok(()),
        Some(name) => bail!("{} knows {name}: what is shipped must not", built.display()),
    }
}

/// As [`build`], with the switches of a measurement, and put where nobody takes it for the product.
pub fn build_for_measuring(workshop: &Workshop) -> anyhow::Result<PathBuf> {
    build_with(workshop, &["--features", "bench-off"])?;
    let built = workshop.auscult("release");
    // The look into the product proves something only if it sees the switch where it is.
    ensure!(names_of_switches(&built)? == [SWITCHES[0]], "{} has not its switches", built.display());
    let apart = workshop.target().join("bench").join("auscult-bench-off");
    fs::create_dir_all(workshop.target().join("bench"))?;
    fs::rename(&built, &apart).with_context(|| format!("{} cannot be put aside", built.display()))?;
    Ok(apart)
}

fn build_with(workshop: &Workshop, features: &[&str]) -> anyhow::Result<()> {
    web::build(workshop)?;
    process::timed("building the server (the first time takes minutes)", || {
        let arguments = ["build", "--release", "--locked", "--package", "server", "--bin", "auscult"];
        process::run(&mut process::cargo(workshop, &[&arguments, features].concat()))
    })
}

/// The switches whose names stand in a binary.
fn names_of_switches(binary: &Path) -> anyhow::Result<Vec<&'static str>> {
    let bytes = fs::read(binary).with_context(|| format!("{} cannot be read", binary.display()))?;
    Ok(switches_in(&bytes))
}

fn switches_in(bytes: &[u8]) -> Vec<&'static str> {
    let stands = |name: &&str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    SWITCHES.into_iter().filter(stands).collect()
}

/// The options of the demo, checked; whatever follows `--` is passed on unread.
fn demo_arguments(arguments: &[String]) -> anyhow::Result<Vec<String>> {
    let mut passed_on = Vec::new();
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        if option == "--" {
            passed_on.extend(rest.cloned());
            break;
        }
        let what = match option.as_str() {
            "--speed" => "a number above 0",
            "--port" => "a port from 0 to 65535",
            "--keep" => "a folder",
            unknown => bail!(
                "the demo knows --speed N, --port N and --keep DIR, not `{unknown}`; options behind a bare -- go to \
                 `auscult demo` unread"
            ),
        };
        let Some(value) = rest.next().filter(|value| fits(option, value)) else {
            bail!("`{option}` needs {what}");
        };
        passed_on.extend([option.clone(), value.clone()]);
    }
    Ok(passed_on)
}

fn fits(option: &str, value: &str) -> bool {
    match option {
        "--speed" => value.parse::<f64>().is_ok_and(|speed| speed.is_finite() && 0.0 < speed),
        "--port" => value.parse::<u16>().is_ok(),
        _ => !value.is_empty() && !value.starts_with("--"),
    }
}

fn become_auscult(workshop: &Workshop, subcommand: &str, arguments: &[String]) -> anyhow::Result<ExitCode> {
    become_auscult_with(&workshop.auscult("release"), subcommand, arguments, &[])
}

/// Becomes a binary that was built, with further variables in its environment.
pub fn become_auscult_with(
    binary: &Path,
    subcommand: &str,
    arguments: &[String],
    environment: &[(&str, PathBuf)],
) -> anyhow::Result<ExitCode> {
    // Not `process::program`: a folder given with --keep is meant from where the person stands.
    let mut auscult = Command::new(binary);
    auscult.arg(subcommand).args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    println!("==> auscult {subcommand} {}", arguments.join(" "));
    replace_this_process(auscult)
}

/// The server takes this process's place, so that Ctrl-C and every other signal reach it and nobody else.
#[cfg(unix)]
fn replace_this_process(mut command: Command) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(anyhow::Error::new(error)
        .context(format!("{} could not be started", command.get_program().to_string_lossy())))
}

#[cfg(not(unix))]
fn replace_this_process(mut command: Command) -> anyhow::Result<ExitCode> {
    let status = command.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
        demo_arguments(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_switch_is_seen_in_a_binary() {
        assert_eq!(switches_in(b"\x7fELF\0AUSCULT_LOG_LEVEL\0AUSCULT_PLANTE"), [""; 0]);
        assert_eq!(switches_in(b"\x7fELF\0xxAUSCULT_PLANTEDxx"), ["AUSCULT_PLANTED"]);
        assert_eq!(switches_in(b"AUSCULT_PLANTED AUSCULT_BENCH_OFF"), SWITCHES);
    }

    #[test]
    fn options_of_the_demo_are_passed_on() {
        let all = ["--speed", "2.5", "--port", "8443", "--keep", "/tmp/x"];
        assert_eq!(parsed(&all).unwrap(), all);
        assert_eq!(parsed(&["--port", "0", "--", "--verbose"]).unwrap(), ["--port", "0", "--verbose"]);
        assert_eq!(parsed(&[]).unwrap(), [""; 0]);
    }

    #[test]
    fn mistakes_are_told_before_anything_is_built() {
        for (arguments, message) in [
            (&["--sped", "2"][..], "not `--sped`"),
            (&["--speed"], "`--speed` needs a number above 0"),
            (&["--speed", "0"], "`--speed` needs a number above 0"),
            (&["--speed", "NaN"], "`--speed` needs a number above 0"),
            (&["--port", "70000"], "`--port` needs a port"),
            (&["--keep", "--port"], "`--keep` needs a folder"),
        ] {
            let error = parsed(arguments).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
