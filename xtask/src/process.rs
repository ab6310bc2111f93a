//! Runs other programs and says plainly which one failed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::workshop::Workshop;

/// A program started from the repository's root, without what `cargo run` put in the environment about xtask itself:
/// build scripts watch those variables, and would otherwise rebuild whenever xtask is the caller.
pub fn program(workshop: &Workshop, name: impl Into<OsString>) -> Command {
    let mut command = Command::new(name.into());
    command.current_dir(workshop.root());
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&variable);
        }
    }
    command
}

/// The cargo that runs us, with these arguments.
pub fn cargo(workshop: &Workshop, arguments: &[&str]) -> Command {
    let name = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = program(workshop, name);
    command.args(arguments);
    command
}

/// Runs with our terminal; an error names the command and how it ended.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = spelled(command);
    println!("$ {line}");
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("`{line}` could not be started"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs silently and returns what was printed; an error carries the program's own words.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = spelled(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("`{line}` could not be started"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, words.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something other than text"))
}

/// Runs one named piece of work and prints how long it took.
pub fn timed<T>(title: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    println!("==> {title}");
    let start = Instant::now();
    let result = work()?;
    println!("    done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}

/// The first of these programs that stands on the search path.
pub fn find_program(names: &[&str]) -> Option<PathBuf> {
    let search_path = std::env::var_os("PATH")?;
    names.iter().find_map(|name| {
        std::env::split_paths(&search_path)
            .map(|folder| folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
            .find(|candidate| candidate.is_file())
    })
}

fn spelled(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let error = run(&mut cargo(&Workshop::here(), &["no-such-command-of-cargo"])).unwrap_err();
        assert!(error.to_string().contains("cargo no-such-command-of-cargo` failed"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut program(&Workshop::here(), "no-such-program-anywhere")).unwrap_err();
        assert!(error.to_string().contains("`no-such-program-anywhere` could not be started"), "{error}");
    }

    #[test]
    fn programs_are_found_in_order_of_preference() {
        assert_eq!(find_program(&["no-such-program-anywhere"]), None);
        let found = find_program(&["no-such-program-anywhere", "cargo", "rustc"]).unwrap();
        assert!(found.ends_with(format!("cargo{}", std::env::consts::EXE_SUFFIX)), "{}", found.display());
    }
}
