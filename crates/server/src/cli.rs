//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    audit, backup, bench, care, decode, demo, doctor, migrate_store, pki, policy, replay, serve, user,
};

/// Auscult listens to medical devices and writes what it hears into the chart.
#[derive(Debug, Parser)]
#[command(
    name = "auscult",
    version,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 the audit log was tampered with, 74 stable storage failed.

Try it:   auscult demo
Set up:   auscult key generate /etc/auscult/key
          auscult serve --data /var/lib/auscult --key-file /etc/auscult/key"
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(serve::ServeArguments),
    /// Show a hospital that never existed, on throw-away encrypted data
    Demo(demo::DemoArguments),
    /// Print a commented configuration file with all defaults
    ConfigTemplate,
    /// Make a key-encryption key
    Key {
        /// What to do with it
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// See, prove and turn over the key-encryption key
    Keys {
        /// What to do with it
        #[command(subcommand)]
        command: care::KeysCommand,
    },
    /// Make the certificate authority; issue, revoke and list certificates
    Pki {
        /// What to do
        #[command(subcommand)]
        command: pki::command::PkiCommand,
    },
    /// People who sign in
    User {
        /// What to do
        #[command(subcommand)]
        command: user::UserCommand,
    },
    /// Check, explain and test who may what
    Policy {
        /// What to do
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Check a site, running or not, and say what to mend
    Doctor(doctor::DoctorArguments),
    /// Explain the bytes of a device
    Decode(decode::DecodeArguments),
    /// Send a recording (WFDB) as a device
    Replay(replay::ReplayArguments),
    /// Copy everything that is kept, while the server runs
    Backup(backup::BackupArguments),
    /// Restore a backup into a new directory, with proof
    Restore(backup::RestoreArguments),
    /// Say that somebody has looked at what a restored site cannot know
    ConfirmRestore(backup::ConfirmArguments),
    /// Read everything that is kept once and check it; or check an export of the audit log
    Verify(backup::VerifyArguments),
    /// Take the audit log out, prove a row, print its checkpoints and keys
    Audit {
        /// What to do
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Cosign the checkpoints of other sites' logs, so that none can be rolled back
    Witness {
        /// What to do
        #[command(subcommand)]
        command: audit::witness::WitnessCommand,
    },
    /// Move a site between a data directory and a PostgreSQL database, with proof that both are equal
    MigrateStore(migrate_store::MigrateArguments),
    /// Measure this machine: acknowledged readings a second, bytes a reading, publish to screen
    Bench(bench::BenchArguments),
}

/// What to do with a key.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Draw a new key into a new file with mode 0400
    #[command(after_help = "Example:
  auscult key generate /etc/auscult/key

Keep a copy in a safe: without the key nothing can be read, backups included.")]
    Generate {
        /// The file; it must not exist
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn verify_cli() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
