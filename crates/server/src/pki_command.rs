//! `auscult pki`: make the authority, issue and revoke certificates, list them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Subcommand;
use clinical_model::DeviceId;
use trust::pki::PeerUri;

use crate::keys;
use crate::pki::{self, DEFAULT_DAYS, PkiDirectory};
use crate::terminal;

/// What `auscult pki` does.
#[derive(Clone, Debug, Subcommand)]
pub enum PkiCommand {
    /// Make a new authority in a directory that has none
    Init {
        /// The directory; it gets authority.pem, authority.key, issued.txt and revoked.txt
        dir: PathBuf,
        /// Name of the site
        #[arg(long, value_name = "NAME")]
        site: String,
    },
    /// Issue a certificate for a device, a program or a server
    #[command(after_help = "Examples:
  auscult pki issue /var/lib/auscult/pki --device 01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11 --out certs
  auscult pki issue /var/lib/auscult/pki --device 01930e6c-… --request device.csr --out certs
  auscult pki issue /var/lib/auscult/pki --program ehr-bridge --out certs
  auscult pki issue /var/lib/auscult/pki --server auscult.example,10.0.0.5 --out certs")]
    Issue(IssueArguments),
    /// Revoke a certificate; a running server notices within a second
    Revoke {
        /// Directory of the authority
        dir: PathBuf,
        /// Serial number, as `auscult pki list` shows it
        serial: String,
        /// Why, in one line
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// List what was issued and what was revoked
    List {
        /// Directory of the authority
        dir: PathBuf,
    },
}

/// What to issue.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["device", "program", "server"]))]
pub struct IssueArguments {
    /// Directory of the authority
    dir: PathBuf,
    /// For a device, by its id
    #[arg(long, value_name = "UUID")]
    device: Option<DeviceId>,
    /// For a program, by a name of letters, digits, hyphens, dots and underscores
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// For a server, by host names and addresses
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    server: Vec<String>,
    /// Sign this request (PKCS #10, PEM), so that the private key stays where it was made
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    request: Option<PathBuf>,
    /// Life in days
    #[arg(long, default_value_t = DEFAULT_DAYS)]
    days: u32,
    /// Directory for the files: NAME.pem, NAME.key and authority.pem
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// Does it.
///
/// # Errors
/// What failed and where.
pub fn run(command: &PkiCommand) -> anyhow::Result<ExitCode> {
    match command {
        PkiCommand::Init { dir, site } => {
            let made = PkiDirectory::init(dir, site)?;
            terminal::println(&format!("{} was made in {}.", made.name(), dir.display()));
            terminal::println("Keep authority.key secret and a copy of the directory in a safe.");
        }
        PkiCommand::Issue(arguments) => issue(arguments)?,
        PkiCommand::Revoke { dir, serial, reason } => {
            let new = PkiDirectory::open(dir)?.revoke(serial, reason)?;
            let word = if new { "is revoked now" } else { "was revoked before" };
            terminal::println(&format!("{serial} {word}."));
        }
        PkiCommand::List { dir } => list(&PkiDirectory::open(dir)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn issue(arguments: &IssueArguments) -> anyhow::Result<()> {
    let pki = PkiDirectory::open(&arguments.dir)?;
    pki::make_private_directory(&arguments.out)?;
    let (stem, uri) = match (&arguments.device, &arguments.program) {
        (Some(device), _) => (device.to_string(), Some(PeerUri::Device(*device.as_uuid()))),
        (None, Some(program)) => (program.clone(), Some(PeerUri::program(program)?)),
        (None, None) => (arguments.server.first().cloned().unwrap_or_default(), None),
    };
    let certificate_path = arguments.out.join(format!("{stem}.pem"));
    let key_path = arguments.out.join(format!("{stem}.key"));
    let mut written = vec![certificate_path.clone()];
    let certificate = match (uri, &arguments.request) {
        (Some(uri), Some(request)) => {
            let text = std::fs::read_to_string(request)
                .with_context(|| format!("the request {} cannot be read", request.display()))?;
            pki.sign_request(&text, uri, &stem, arguments.days)?
        }
        (uri, _) => {
            let issued = match uri {
                Some(uri) => pki.issue_client(uri, &stem, arguments.days)?,
                None => pki.issue_server(&arguments.server, arguments.days)?,
            };
            keys::write_secret(&key_path, issued.key_pem.expose(), 0o600)?;
            written.push(key_path);
            issued.certificate_pem
        }
    };
    write(&certificate_path, &certificate)?;
    let authority = arguments.out.join("authority.pem");
    if !authority.exists() {
        write(&authority, pki.certificate_pem())?;
    }
    written.push(authority);
    for path in written {
        terminal::println(&path.display().to_string());
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

fn list(pki: &PkiDirectory) -> anyhow::Result<()> {
    let revoked = pki.revoked()?;
    let now = pki::timestamp(SystemTime::now());
    let mut rows = vec![["serial", "until", "state", "for", "name"].map(str::to_owned).to_vec()];
    for line in pki.issued()? {
        let state = match revoked.get(&line.serial_hex) {
            Some(revocation) => {
                format!("revoked {}: {}", pki::timestamp(revocation.revoked_at), revocation.reason)
            }
            None if line.not_after < now => "expired".to_owned(),
            None => "valid".to_owned(),
        };
        rows.push(vec![line.serial_hex, line.not_after.to_string(), state, line.purpose, line.common_name]);
    }
    terminal::print(&terminal::table(&rows));
    Ok(())
}
