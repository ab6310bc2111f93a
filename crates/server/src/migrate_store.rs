//! `auscult migrate-store`: moves everything between a data directory and a database, and proves that both are equal.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use store::Store;
use store::migrate::{self, MoveReport, Place};
use trust::Kek;

use crate::config::{DatabaseUrl, KeyConfig, StoreConfig};
use crate::terminal::{self, Progress};
use crate::{keys, opening, pki};

/// What `auscult migrate-store` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult migrate-store --from /var/lib/auscult --to-file /etc/auscult/database --key-file /etc/auscult/key
  auscult migrate-store --from-file /etc/auscult/database --to /var/lib/auscult --key-file /etc/auscult/key

A store is a data directory or the address of a database (postgres://…); a file keeps the password of an address from
others on this machine.")]
#[command(group = clap::ArgGroup::new("source").required(true).args(["from", "from_file"]))]
#[command(group = clap::ArgGroup::new("target").required(true).args(["to", "to_file"]))]
pub struct MigrateArguments {
    /// Store to move from; it is only read
    #[arg(long, value_name = "STORE")]
    from: Option<Home>,
    /// File with the address of the database to move from
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Store to move to: an empty or new directory, or an empty database
    #[arg(long, value_name = "STORE")]
    to: Option<Home>,
    /// File with the address of the database to move to
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// File with the key-encryption key
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// File with another key-encryption key for the target
    #[arg(long, value_name = "FILE")]
    to_key_file: Option<PathBuf>,
    /// Copy what can be copied while servers run on the source; then stop them and run this again without it, which
    /// copies the rest and proves that both are equal
    #[arg(long)]
    ahead: bool,
}

/// Where a store lives.
#[derive(Clone, Debug)]
enum Home {
    Directory(PathBuf),
    Database(DatabaseUrl),
}

impl std::str::FromStr for Home {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text.contains("://") {
            Ok(Home::Database(text.parse()?))
        } else {
            Ok(Home::Directory(text.into()))
        }
    }
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Home::Directory(path) => write!(f, "{}", path.display()),
            Home::Database(url) => write!(f, "{url}"),
        }
    }
}

impl Home {
    fn of(given: Option<&Home>, file: Option<&PathBuf>) -> anyhow::Result<Self> {
        if let Some(home) = given {
            return Ok(home.clone());
        }
        let config = StoreConfig { database: None, database_file: file.cloned() };
        Ok(Home::Database(config.url()?.context("a store must be named")?))
    }

    /// The key, which must not lie with the data.
    fn key(&self, file: &Path) -> anyhow::Result<Kek> {
        let config = KeyConfig::of_file(file);
        match self {
            Home::Directory(path) => keys::load(&config, path),
            // No file lies in a database.
            Home::Database(_) => keys::load(&config, Path::new("")),
        }
    }

    fn place(&self) -> anyhow::Result<Place> {
        let text = match self {
            Home::Directory(path) => path.to_str().context("the path of a store must be UTF-8")?,
            Home::Database(url) => url.expose(),
        };
        Ok(Place::parse(text))
    }

    fn open(&self, kek: Kek) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            Home::Directory(path) => Ok(Arc::new(opening::directory(path, kek)?)),
            Home::Database(url) => opening::database(url, kek),
        }
    }
}

/// Moves.
///
/// # Errors
/// What failed and where; the source is as it was.
pub fn run(arguments: &MigrateArguments) -> anyhow::Result<ExitCode> {
    let from = Home::of(arguments.from.as_ref(), arguments.from_file.as_ref())?;
    let to = Home::of(arguments.to.as_ref(), arguments.to_file.as_ref())?;
    let to_key = arguments.to_key_file.as_ref().unwrap_or(&arguments.key_file);
    let (from_kek, to_kek) = (from.key(&arguments.key_file)?, to.key(to_key)?);
    if let Home::Directory(path) = &from
        && !path.join("data.db").exists()
    {
        bail!("there is no store in {}", path.display());
    }
    if let Home::Directory(path) = &to {
        pki::make_private_directory(path)?;
    }
    let (source, target) = (from.place()?, to.place()?);
    let mut line = Progress::new("rows compared");
    let progress = &mut |done: u64| line.count(done);
    let moved = if arguments.ahead {
        migrate::copy_running(&source, &target, (&from_kek, &to_kek), progress)
    } else {
        migrate::finish(&source, &target, (from_kek, to_kek), progress)
    };
    line.end();
    let report = moved.with_context(|| format!("{from} could not be moved to {to}"))?;
    terminal::println(&format!("{} rows written, {} outdated rows removed", report.added, report.removed));
    if arguments.ahead {
        terminal::println(
            "Copied ahead. Stop every server on the source, then run the same without --ahead.",
        );
        return Ok(ExitCode::SUCCESS);
    }
    print(&report);
    terminal::println(&format!("{to} is equal to {from}. Do not start a server on {from} any more."));
    match (&from, &to) {
        (_, Home::Directory(path)) => {
            let keks = trust::KekRing::from(to.key(to_key)?);
            pki::shared::put_into(to.open(to.key(to_key)?)?.as_ref(), &path.join("pki"), &keks)?;
        }
        (Home::Directory(path), _) => terminal::println(&format!(
            "Start the first node with a data directory that has a copy of {}: the others get it from there.",
            path.join("pki").display()
        )),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &MoveReport) {
    let mut rows = vec![
        ["  table", "rows", "erased", "SHA-256 of all opened rows, on both sides"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(report.tables.iter().map(|proof| {
        let hash = if proof.source == proof.target { &proof.source } else { "NOT EQUAL" };
        vec![format!("  {}", proof.table), proof.rows.to_string(), proof.erased.to_string(), hash.to_owned()]
    }));
    terminal::print(&terminal::table(&rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_directory_or_the_address_of_a_database() {
        let home = |text: &str| text.parse::<Home>().unwrap();
        assert!(matches!(home("/var/lib/auscult"), Home::Directory(_)));
        let database = home("postgres://auscult:secret@db/auscult");
        assert_eq!(database.to_string(), "postgres://auscult@db/auscult");
        assert!("mysql://db/auscult".parse::<Home>().is_err());
    }
}
