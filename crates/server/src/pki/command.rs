//! `auscult pki`: make the authority, issue and revoke certificates, turn its key over, show and list.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use clinical_model::DeviceId;
use pipeline::admission::DEFAULT_PROGRAM_SCOPE;
use trust::pki::{NameLimits, PeerUri, SigningRequest};
use trust::{KekRing, SecretText};

use super::{DEFAULT_DAYS, PkiDirectory, ProgramLine, RootHome, RootSource, server_names};
use crate::admin_socket::Request;
use crate::config::{Config, ConfigArguments, KeyConfig};
use crate::{admin_socket, kek, keys, pki, terminal};

/// What `auscult pki` does.
#[derive(Clone, Debug, Subcommand)]
pub enum PkiCommand {
    /// Make a new authority: an offline root, and an issuing key under it
    #[command(
        after_help = "The root's key is needed only to turn the issuing key over. With --root-key it goes to a file
that you take away; without, it lies in the directory, sealed, until `auscult pki take-root`.

Examples:
  auscult pki init /var/lib/auscult/pki --site 'General Hospital' --key-file /etc/auscult/key \\
    --root-key /media/usb/auscult-root.key --passphrase-file /root/passphrase
  auscult pki init DIR --site NAME --key-file KEY --limit hospital.example --limit 10.0.0.0/8"
    )]
    Init(InitArguments),
    /// Issue a certificate for a device, a program or a server
    #[command(after_help = "Examples:
  auscult pki issue /var/lib/auscult/pki --device 01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11 --out certs
  auscult pki issue /var/lib/auscult/pki --device 01930e6c-… --request device.csr --out certs
  auscult pki issue /var/lib/auscult/pki --program ehr-bridge --scope system/*.rs --out certs
  auscult pki issue /var/lib/auscult/pki --server auscult.example,10.0.0.5 --out certs
The key-encryption key is named by --key-file or by AUSCULT_KEY_FILE.")]
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
    /// Make the next issuing key under the root; the present one is believed until what it issued has ended
    Rotate {
        /// Directory of the authority
        dir: PathBuf,
        #[command(flatten)]
        key: KeyArguments,
        #[command(flatten)]
        root: RootArguments,
        /// Names of servers for which the new key may sign: host names and networks; none: all
        #[arg(long, value_name = "NAME")]
        limit: Vec<String>,
    },
    /// Move the root's key out of the directory, into a file to take away
    TakeRoot {
        /// Directory of the authority
        dir: PathBuf,
        /// The file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// A file with a passphrase for it
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Renew the server's own certificate now; a running server takes it up within a second
    Renew {
        /// Directory of the authority
        dir: PathBuf,
        /// Further names and addresses of the server, as in the setting tls.names
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        names: Vec<String>,
        #[command(flatten)]
        key: KeyArguments,
    },
    /// Register what a program may do; a running server takes it up within a second
    Scope {
        /// Directory of the authority
        dir: PathBuf,
        /// The program
        program: String,
        /// SMART system scopes, such as system/Observation.rs
        #[arg(long, value_name = "SCOPE", required = true)]
        scope: Vec<String>,
    },
    /// Show the authority: root, issuing keys, programs
    Show {
        /// Directory of the authority
        dir: PathBuf,
    },
    /// List what was issued and what was revoked
    List {
        /// Directory of the authority
        dir: PathBuf,
    },
    /// Write the signed list of revoked certificates (DER)
    Crl {
        /// Directory of the authority
        dir: PathBuf,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Id of an earlier issuing key, as `auscult pki show` shows it; without it the present one
        #[arg(long, value_name = "ID")]
        issuing: Option<String>,
        #[command(flatten)]
        key: KeyArguments,
    },
}

/// Where the key-encryption key is.
#[derive(Clone, Debug, clap::Args)]
pub struct KeyArguments {
    /// File with the key-encryption key, which sealed the keys of the authority
    #[arg(long, value_name = "FILE", env = "AUSCULT_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Configuration of the site, where the key-encryption key has another home than a file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl KeyArguments {
    fn load(&self, dir: &Path) -> anyhow::Result<KekRing> {
        if let Some(file) = &self.key_file {
            return Ok(keys::load(&KeyConfig::of_file(file), dir)?.into());
        }
        let Some(config) = &self.config else {
            bail!(
                "the keys of the authority are sealed; name the key-encryption key with --key-file, or --config"
            )
        };
        let arguments = ConfigArguments { config: Some(config.clone()), ..ConfigArguments::default() };
        kek::ring(&Config::assemble(&arguments)?)
    }
}

/// Where the root's key is.
#[derive(Clone, Debug, clap::Args)]
pub struct RootArguments {
    /// File with the root's key; without it, it is in the directory
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// A file with the passphrase of the root's key
    #[arg(long, value_name = "FILE", requires = "root_key")]
    passphrase_file: Option<PathBuf>,
}

impl RootArguments {
    fn passphrase(&self) -> anyhow::Result<Option<SecretText>> {
        self.passphrase_file.as_deref().map(read_passphrase).transpose()
    }
}

/// What to make.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArguments {
    /// The directory
    dir: PathBuf,
    /// Name of the site
    #[arg(long, value_name = "NAME")]
    site: String,
    #[command(flatten)]
    key: KeyArguments,
    #[command(flatten)]
    root: RootArguments,
    /// Names of servers for which the issuing key may sign: host names and networks; none: all
    #[arg(long, value_name = "NAME")]
    limit: Vec<String>,
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
    /// What the program may do, as SMART scopes (default: system/*.rs, read and search)
    #[arg(long, value_name = "SCOPE", requires = "program")]
    scope: Vec<String>,
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
    #[command(flatten)]
    key: KeyArguments,
}

/// Longest passphrase that is read, in bytes.
const PASSPHRASE_LIMIT_BYTES: u64 = 1_024;
/// Fewest characters of a passphrase: it guards the key that can make every other.
const PASSPHRASE_MIN_CHARS: usize = 12;

fn read_passphrase(path: &Path) -> anyhow::Result<SecretText> {
    let shown = path.display();
    let length = std::fs::metadata(path).with_context(|| format!("{shown} cannot be looked at"))?.len();
    anyhow::ensure!(length <= PASSPHRASE_LIMIT_BYTES, "{shown} has {length} bytes, which is no passphrase");
    let text =
        SecretText::new(std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?);
    let phrase = SecretText::new(text.expose().trim_end_matches(['\r', '\n']).to_owned());
    let chars = phrase.expose().chars().count();
    anyhow::ensure!(
        chars >= PASSPHRASE_MIN_CHARS,
        "the passphrase in {shown} has {chars} characters; at least {PASSPHRASE_MIN_CHARS} are needed"
    );
    Ok(phrase)
}

/// How long a command waits for the server to have read what changed.
const TELL_LIMIT: Duration = Duration::from_secs(5);

/// Does it.
///
/// # Errors
/// What failed and where.
pub fn run(command: &PkiCommand) -> anyhow::Result<ExitCode> {
    match command {
        PkiCommand::Init(arguments) => init(arguments)?,
        PkiCommand::Issue(arguments) => issue(arguments)?,
        PkiCommand::Revoke { dir, serial, reason } => {
            let new = PkiDirectory::look(dir)?.revoke(serial, reason)?;
            tell_server(dir)?;
            let word = if new { "is revoked now" } else { "was revoked before" };
            terminal::println(&format!("{serial} {word}."));
        }
        PkiCommand::Rotate { dir, key, root, limit } => {
            let keks = key.load(dir)?;
            let source = match &root.root_key {
                Some(file) => RootSource::File(file.clone(), root.passphrase()?),
                None => RootSource::Here,
            };
            let mut pki = PkiDirectory::open(dir, &keks)?;
            pki.rotate(&source, &limits(limit)?, &keks)?;
            tell_server(dir)?;
            terminal::println("A new issuing key is in force. Both are believed for now:");
            show(&pki)?;
        }
        PkiCommand::TakeRoot { dir, out, passphrase_file, key } => {
            let passphrase = passphrase_file.as_deref().map(read_passphrase).transpose()?;
            PkiDirectory::open(dir, &key.load(dir)?)?.take_root(out, passphrase.as_ref())?;
            terminal::println(&format!(
                "The root's key is in {} now, and here no more. Keep it offline.",
                out.display()
            ));
        }
        PkiCommand::Renew { dir, names, key } => {
            let pki = PkiDirectory::open(dir, &key.load(dir)?)?;
            let identity = pki.renew_server_identity(&server_names(names))?;
            terminal::print(&identity.chain_pem);
        }
        PkiCommand::Scope { dir, program, scope } => {
            let pki = PkiDirectory::look(dir)?;
            let line = ProgramLine::new(pki::timestamp(SystemTime::now()), program, scope)?;
            pki::append_programs(&pki.programs_file(), &[line])?;
            tell_server(dir)?;
            terminal::println(&format!("{program} may: {}", scope.join(" ")));
        }
        PkiCommand::Show { dir } => show(&PkiDirectory::look(dir)?)?,
        PkiCommand::List { dir } => list(&PkiDirectory::look(dir)?)?,
        PkiCommand::Crl { dir, out, issuing, key } => {
            let der = PkiDirectory::open(dir, &key.load(dir)?)?.revocation_list(issuing.as_deref())?;
            std::fs::write(out, der).with_context(|| format!("{} cannot be written", out.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A server that runs over this authority knows what changed before the command ends, and not a moment later. Other nodes,
/// and one that does not answer, see it by themselves within a second.
fn tell_server(dir: &Path) -> anyhow::Result<()> {
    let directory = dir.canonicalize().with_context(|| format!("{} cannot be looked at", dir.display()))?;
    let Some(data_dir) = directory.parent() else { return Ok(()) };
    if let Err(error) = admin_socket::tell(data_dir, &Request::ReadAuthority, TELL_LIMIT) {
        tracing::debug!("the server reads the authority by itself: {error:#}");
    }
    Ok(())
}

fn limits(texts: &[String]) -> anyhow::Result<NameLimits> {
    Ok(NameLimits::parse(texts.iter().map(String::as_str))?)
}

fn init(arguments: &InitArguments) -> anyhow::Result<()> {
    let InitArguments { dir, site, key, root, limit } = arguments;
    // The directory need not exist yet; the key must not lie in it later either.
    pki::make_private_directory(dir)?;
    let keks = key.load(dir)?;
    let home = match &root.root_key {
        Some(file) => RootHome::File(file.clone(), root.passphrase()?),
        None => RootHome::Here,
    };
    let made = PkiDirectory::init(dir, site, &keks, &home, &limits(limit)?)?;
    terminal::println(&format!("{} was made in {}.", made.name(), dir.display()));
    terminal::println(&match &root.root_key {
        Some(file) => format!("The root's key is in {}: keep it offline, and a copy of it.", file.display()),
        None => format!(
            "The root's key lies there too, sealed. Take it away: auscult pki take-root {} --out FILE",
            dir.display()
        ),
    });
    terminal::println("Keep a copy of the directory in a safe.");
    Ok(())
}

fn issue(arguments: &IssueArguments) -> anyhow::Result<()> {
    let pki = PkiDirectory::open(&arguments.dir, &arguments.key.load(&arguments.dir)?)?;
    pki::make_private_directory(&arguments.out)?;
    let (stem, uri) = match (&arguments.device, &arguments.program) {
        (Some(device), _) => (device.to_string(), Some(PeerUri::Device(*device.as_uuid()))),
        (None, Some(program)) => (program.clone(), Some(PeerUri::program(program)?)),
        (None, None) => (arguments.server.first().cloned().unwrap_or_default(), None),
    };
    if let Some(program) = &arguments.program {
        register(&pki, program, &arguments.scope)?;
    }
    let certificate_path = arguments.out.join(format!("{stem}.pem"));
    let key_path = arguments.out.join(format!("{stem}.key"));
    let mut written = vec![certificate_path.clone()];
    let certificate = match (uri, &arguments.request) {
        (Some(uri), Some(request)) => {
            let text = std::fs::read_to_string(request)
                .with_context(|| format!("the request {} cannot be read", request.display()))?;
            let request = SigningRequest::from_text(&text)?;
            let life = Duration::from_secs(u64::from(arguments.days) * 86_400);
            pki.sign_request(&request, uri, &stem, life)?.0.certificate_pem
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
    tell_server(&arguments.dir)?;
    for path in written {
        terminal::println(&path.display().to_string());
    }
    Ok(())
}

/// What the program may: what was asked for, or what it may already, or to read and search.
fn register(pki: &PkiDirectory, program: &str, scopes: &[String]) -> anyhow::Result<()> {
    let known = pki::read_programs(&pki.programs_file())?;
    let scopes = match (scopes, known.get(program)) {
        ([], Some(_)) => return Ok(()),
        ([], None) => vec![DEFAULT_PROGRAM_SCOPE.to_owned()],
        (scopes, _) => scopes.to_vec(),
    };
    let line = ProgramLine::new(pki::timestamp(SystemTime::now()), program, &scopes)?;
    pki::append_programs(&pki.programs_file(), &[line])
}

fn show(pki: &PkiDirectory) -> anyhow::Result<()> {
    let (sha256, ends) = pki.tiers().anchor();
    terminal::println(&format!("root     SHA-256 {sha256}, until {ends}"));
    let place = if pki.is_root_key_here() { "here: take it away" } else { "not here" };
    terminal::println(&format!("         its key is {place}"));
    for (number, tier) in pki.tiers().issuing.iter().enumerate() {
        let role = if number == 0 { "issuing " } else { "earlier " };
        let until = tier.believed_until.unwrap_or(tier.not_after).min(tier.not_after);
        terminal::println(&format!("{role} {} \"{}\", believed until {until}", tier.id, tier.name));
    }
    for line in pki::read_programs(&pki.programs_file())?.into_values() {
        terminal::println(&format!("program  {}: {}", line.name, line.scopes.join(" ")));
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
