//! `cargo xtask torture`: the long run of the fault harness.

use std::process::ExitCode;

use anyhow::bail;

use crate::workshop::Workshop;
use crate::{process, tools};

/// Rounds where nothing else is asked for: about a quarter of an hour on two cores.
const DEFAULT_ROUNDS: &str = "300";
/// The harness, among the tests of the server.
const TEST: &str = "torture::the_loop_survives_every_fault";

/// What the arguments wish.
#[derive(Debug, PartialEq, Eq)]
struct Wishes {
    /// Variables for the harness.
    variables: Vec<(&'static str, String)>,
    is_release: bool,
}

/// Builds the server and its tests, and runs the rounds; fails when one of them finds a fault.
pub fn run(workshop: &Workshop, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let wishes = parse(arguments)?;
    tools::check_torture(workshop)?;
    let mut cargo = vec!["test", "--package", "server", "--locked"];
    if wishes.is_release {
        cargo.push("--release");
    }
    cargo.extend(["--test", "it", "--", TEST, "--exact", "--nocapture"]);
    let mut command = process::cargo(workshop, &cargo);
    command.envs(wishes.variables);
    process::run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

fn parse(arguments: &[String]) -> anyhow::Result<Wishes> {
    let mut wishes =
        Wishes { variables: vec![("AUSCULT_TORTURE_ROUNDS", DEFAULT_ROUNDS.to_owned())], is_release: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (variable, what) = match argument.as_str() {
            "--rounds" => ("AUSCULT_TORTURE_ROUNDS", "a number"),
            "--seed" => ("AUSCULT_TORTURE_SEED", "a number"),
            "--only" => ("AUSCULT_TORTURE_ONLY", "kinds of faults, separated by commas"),
            "--binary" => ("AUSCULT_TORTURE_BINARY", "the path of another auscult"),
            "--every-state" => {
                wishes.variables.push(("AUSCULT_TORTURE_EVERY_STATE", "1".to_owned()));
                continue;
            }
            "--release" => {
                wishes.is_release = true;
                continue;
            }
            unknown => bail!(
                "`cargo xtask torture` knows --rounds N, --seed N, --only KIND[,KIND], --every-state, --binary PATH \
                 and --release, not `{unknown}`"
            ),
        };
        let is_number = what == "a number";
        match rest.next() {
            Some(value) if !is_number || value.parse::<u64>().is_ok() => {
                wishes.variables.push((variable, value.clone()));
            }
            _ => bail!("`{argument}` needs {what}"),
        }
    }
    Ok(wishes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> anyhow::Result<Wishes> {
        parse(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn wishes_become_variables_and_the_last_one_counts() {
        let wishes = parsed(&["--rounds", "7", "--only", "kill,cut", "--release"]).unwrap();
        let expected = [
            ("AUSCULT_TORTURE_ROUNDS", DEFAULT_ROUNDS.to_owned()),
            ("AUSCULT_TORTURE_ROUNDS", "7".to_owned()),
            ("AUSCULT_TORTURE_ONLY", "kill,cut".to_owned()),
        ];
        assert_eq!(wishes, Wishes { variables: expected.to_vec(), is_release: true });
    }

    #[test]
    fn mistakes_are_told_before_anything_is_built() {
        for (arguments, message) in [
            (&["--round", "7"][..], "not `--round`"),
            (&["--rounds"], "`--rounds` needs a number"),
            (&["--seed", "x"], "`--seed` needs a number"),
        ] {
            let error = parsed(arguments).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
