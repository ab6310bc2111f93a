//! The entry point of the binary `auscult`: configuration, wiring, subcommands.

mod admin_socket;
mod audit;
mod backup;
mod bench;
#[cfg(feature = "bench-off")]
mod bench_off;
mod care;
mod cli;
mod config;
mod database_url;
mod decode;
mod demo;
mod doctor;
mod erasures;
mod fleet;
mod kek;
mod keys;
mod listening;
mod logging;
mod memory;
mod migrate_store;
mod opening;
mod passkey;
mod pki;
mod policy;
mod provision;
mod replay;
mod running;
mod serve;
mod terminal;
mod user;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, KeyCommand};

/// Readings and FHIR are many small pieces of memory, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::keep_private();
    let result = run(Cli::parse());
    result.unwrap_or_else(|error| {
        terminal::print_error(&error);
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::ConfigTemplate => {
            terminal::print(config::TEMPLATE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Key { command: KeyCommand::Generate { file } } => {
            let kek = keys::generate(&file)?;
            terminal::println(&format!("{} (fingerprint {})", file.display(), kek.fingerprint_text()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Keys { command } => care::run(&command),
        Command::Pki { command } => pki::command::run(&command),
        Command::User { command } => user::run(&command),
        Command::Policy { command } => policy::run(&command),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Decode(arguments) => decode::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Backup(arguments) => backup::run_backup(&arguments),
        Command::Restore(arguments) => backup::run_restore(&arguments),
        Command::ConfirmRestore(arguments) => backup::run_confirm(&arguments),
        Command::Verify(arguments) => backup::run_verify(&arguments),
        Command::Audit { command } => audit::run(&command),
        Command::Witness { command } => audit::witness::run(&command),
        Command::MigrateStore(arguments) => migrate_store::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    }
}
