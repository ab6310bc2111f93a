//! `cargo xtask test`: the whole check, the same on every desk and on the build machine.

use std::io;
use std::process::ExitCode;

use anyhow::bail;

use crate::steps::{self, Step, Wishes};
use crate::workshop::Workshop;
use crate::{clients as foreign, process, supply, tidy, tools, web};

/// In this order: what is quick, and what others need, comes first.
const STEPS: [Step; 10] = [
    Step { name: "tools", about: "node, npm, a C compiler and a browser are here", run: tools },
    Step { name: "format", about: "rustfmt changes nothing", run: format },
    Step { name: "tidy", about: "the house rules that need no compiler", run: tidy },
    Step { name: "licences", about: "licences, bans and sources of everything we build on", run: licences },
    Step { name: "web", about: "type check, unit tests and build of the web app", run: web },
    Step { name: "clippy", about: "no warning anywhere", run: clippy },
    Step { name: "rust", about: "every Rust test", run: rust },
    Step { name: "browser", about: "the real server in a real browser", run: browser },
    Step { name: "planted", about: "every kind of fault finds the bug that is planted for it", run: planted },
    Step {
        name: "clients",
        about: "real clients, validators and the black-box suite; what else needs more than Rust",
        run: clients,
    },
];

/// Runs the check as the arguments wish.
pub fn run(workshop: &Workshop, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let Some(wishes) = parse(arguments)? else {
        for step in &STEPS {
            println!("{:10} {}", step.name, step.about);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let failed = steps::run_all(&STEPS, &wishes, workshop, &mut io::stdout())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wished; nothing when only the list is.
fn parse(arguments: &[String]) -> anyhow::Result<Option<Wishes>> {
    let mut wishes = Wishes::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--list" => return Ok(None),
            "--keep-going" => wishes.keep_going = true,
            "--only" => match rest.next() {
                Some(name) if STEPS.iter().any(|step| step.name == name) => wishes.only.push(name.clone()),
                Some(name) => bail!("there is no step `{name}`; `cargo xtask test --list` names them"),
                None => bail!("`--only` needs the name of a step; `cargo xtask test --list` names them"),
            },
            unknown => {
                bail!("`cargo xtask test` knows --only STEP, --keep-going and --list, not `{unknown}`")
            }
        }
    }
    Ok(Some(wishes))
}

fn tools(workshop: &Workshop) -> anyhow::Result<()> {
    tools::check(workshop)?;
    Ok(())
}

fn format(workshop: &Workshop) -> anyhow::Result<()> {
    process::run(&mut process::cargo(workshop, &["fmt", "--all", "--check"]))?;
    Ok(())
}

fn tidy(workshop: &Workshop) -> anyhow::Result<()> {
    tidy::run(workshop)?;
    Ok(())
}

fn licences(workshop: &Workshop) -> anyhow::Result<()> {
    supply::run(workshop)?;
    Ok(())
}

fn web(workshop: &Workshop) -> anyhow::Result<()> {
    web::install(workshop)?;
    web::script(workshop, "typecheck")?;
    web::script(workshop, "test")?;
    web::script(workshop, "build")?;
    Ok(())
}

fn clippy(workshop: &Workshop) -> anyhow::Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    process::run(&mut process::cargo(workshop, &arguments))?;
    Ok(())
}

fn rust(workshop: &Workshop) -> anyhow::Result<()> {
    process::run(&mut process::cargo(workshop, &["test", "--workspace", "--locked"]))?;
    Ok(())
}

/// The browser program starts the server itself, on a free port and fresh data, and stops it.
fn browser(workshop: &Workshop) -> anyhow::Result<()> {
    web::install(workshop)?;
    // Again, though the step `web` did: run alone, this step must not show an old app.
    web::script(workshop, "build")?;
    // The whole workspace, as in the step before: the same features, so nothing is compiled twice.
    process::run(&mut process::cargo(workshop, &["build", "--workspace", "--bins", "--locked"]))?;
    let Some(chromium) = tools::chromium(workshop) else {
        bail!("there is no browser; `cargo xtask test --only tools` says how to install one");
    };
    let mut e2e = process::program(workshop, "npm");
    e2e.args(["run", "--prefix", "web", "e2e"]);
    e2e.env("AUSCULT_BIN", workshop.auscult("debug")).env("AUSCULT_CHROMIUM", chromium);
    process::run(&mut e2e)?;
    Ok(())
}

/// A harness that cannot fail proves nothing: each kind of fault must find the bug that is planted for it.
fn planted(workshop: &Workshop) -> anyhow::Result<()> {
    tools::check_torture(workshop)?;
    // Only this package: its tests are the only ones that a planted bug is for.
    let arguments = [
        "test",
        "--package",
        "server",
        "--locked",
        "--features",
        "planted",
        "--test",
        "it",
        "--",
        "every_kind_finds",
    ];
    process::run(&mut process::cargo(workshop, &arguments))?;
    Ok(())
}

/// Tests that need a program beside Rust, marked as ignored so that plain `cargo test` needs nothing.
fn clients(workshop: &Workshop) -> anyhow::Result<()> {
    // The whole workspace, as in the step "rust": the same features, so nothing is compiled twice.
    let arguments = ["test", "--workspace", "--locked", "--", "--ignored"];
    process::run(&mut process::cargo(workshop, &arguments))?;
    process::run(&mut process::cargo(workshop, &["build", "--workspace", "--bins", "--locked"]))?;
    foreign::run(workshop, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> anyhow::Result<Option<Wishes>> {
        parse(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_understood() {
        assert_eq!(parsed(&[]).unwrap(), Some(Wishes::default()));
        assert_eq!(parsed(&["--list"]).unwrap(), None);
        let wishes = parsed(&["--only", "tidy", "--keep-going", "--only", "web"]).unwrap().unwrap();
        assert_eq!(wishes, Wishes { only: vec!["tidy".to_owned(), "web".to_owned()], keep_going: true });
    }

    #[test]
    fn arguments_that_mean_nothing_are_refused() {
        assert!(parsed(&["--only", "everything"]).unwrap_err().to_string().contains("no step `everything`"));
        assert!(parsed(&["--only"]).unwrap_err().to_string().contains("needs the name"));
        assert!(parsed(&["tidy"]).unwrap_err().to_string().contains("not `tidy`"));
    }

    #[test]
    fn steps_have_names_of_their_own() {
        let mut names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
    }
}
