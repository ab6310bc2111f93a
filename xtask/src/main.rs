//! Every project command: `cargo xtask test | demo | bench | torture | tidy | web | help`.

mod bench;
mod clients;
mod finding;
mod layers;
mod process;
mod product;
mod rust_source;
mod steps;
mod supply;
mod test;
mod tidy;
mod tools;
mod torture;
mod web;
mod workshop;

use std::process::ExitCode;

use anyhow::bail;

use crate::workshop::Workshop;

const HELP: &str = "\
Every command of this project.

    cargo xtask test [--only STEP]... [--keep-going] [--list]
        The whole check: formatting, house rules, licences, web app, lints, every test, a real browser.
        Stops at the first failing step unless --keep-going is given; --list names the steps.

    cargo xtask demo [--speed N] [--port N] [--keep DIR]
        Builds everything and starts a hospital that never existed, on encrypted throw-away data.
        --keep DIR leaves the data in DIR. Whatever follows a bare -- goes to `auscult demo` unread.

    cargo xtask bench [--no-peers] [ARGS...]
        Builds the release binary, installs the peers that are missing (the first time takes half an hour), and runs
        `auscult bench ARGS`, for instance --quick, --only publish, --soak 1h. Results: target/bench.

    cargo xtask clients [--only NAME]...
        Real MQTT and FHIR clients, validators and the black-box suite against the real server.

    cargo xtask peers
        The black-box suite against another FHIR server as well, which is built first where it is missing;
        AUSCULT_HFS names a binary that is there already.

    cargo xtask torture [--rounds N] [--seed N] [--only KIND[,KIND]] [--every-state] [--binary PATH] [--release]
        Faults against the real server under load, 300 rounds where nothing else is said, and a table at the end.
        --every-state judges every state that a power failure can leave, not a choice. docs/reference/durability.md.

    cargo xtask tidy
        The house rules that need no compiler, in seconds.

    cargo xtask web
        Builds the web app into web/dist.

    cargo xtask help
        This page.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let workshop = Workshop::here();
    let Some((command, rest)) = arguments.split_first() else {
        print!("{HELP}");
        return Ok(ExitCode::FAILURE);
    };
    match command.as_str() {
        "test" => test::run(&workshop, rest),
        "demo" => product::demo(&workshop, rest),
        "bench" => bench::command(&workshop, rest),
        "clients" => clients::command(&workshop, rest),
        "peers" => clients::peers(&workshop, rest),
        "torture" => torture::run(&workshop, rest),
        "tidy" => no_arguments(command, rest).and_then(|()| tidy::command(&workshop)),
        "web" => no_arguments(command, rest).and_then(|()| web::command(&workshop)),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        unknown => bail!("there is no command `{unknown}`; `cargo xtask help` names those there are"),
    }
}

fn no_arguments(command: &str, rest: &[String]) -> anyhow::Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => bail!("`cargo xtask {command}` takes no argument, and was given `{extra}`"),
    }
}
