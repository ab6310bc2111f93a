//! The built-in authority on this machine: its directory, its lists, what nodes share of it, and its commands.

pub mod command;
mod directory;
mod lists;
mod online;
pub mod shared;
mod tiers;

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clinical_model::Timestamp;

pub use self::directory::{PkiDirectory, ServerIdentity, rewrap};
pub use self::lists::{
    IssuedLine, ProgramLine, append_issued, append_programs, parse_issued, parse_program, read_issued,
    read_programs, read_revoked, write_revoked,
};
pub use self::online::{OnlineAuthority, floored_clock};
pub use self::tiers::{RootHome, RootSource};

/// Life of a root, in years: longer than most devices serve.
const ROOT_YEARS: u32 = 30;
/// Life of an issuing key, in years; `auscult pki rotate` makes the next one whenever somebody wants.
const ISSUING_YEARS: u32 = 10;
/// Life of a certificate where nothing else is asked for, in days: a year and a month to renew it.
pub const DEFAULT_DAYS: u32 = 397;
/// Longest life of a certificate, in days: five years.
pub const MAX_DAYS: u32 = 1_826;
/// A server certificate with less than this left is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// A certificate is valid a little before it was made: clocks of devices run behind.
const BACKDATE: Duration = Duration::from_secs(300);
/// Time for which a list of revoked certificates counts as current: whoever cannot get the next one for a week learns it.
pub const LIST_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The names of a server certificate from the built-in authority: loopback, the machine, and what was configured.
pub fn server_names(extra: &[String]) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // A machine may be named in ways that no certificate can say.
    let host = Some(host).filter(|name| rustls_pki_types::DnsName::try_from(name.as_str()).is_ok());
    let mut seen = BTreeSet::new();
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(host);
    names.chain(extra.iter().cloned()).filter(|name| seen.insert(name.clone())).collect()
}

/// Makes a directory that only its owner may enter, with its parents; one that exists is left as it is.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_directory(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("the directory {} cannot be made", path.display()))
}

/// An instant of the system's clock, cut to whole seconds.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_seconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// An instant for the certificate library.
fn system_time(at: Timestamp) -> SystemTime {
    let seconds = u64::try_from(at.as_seconds()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests;
