//! `auscult witness`: a process that remembers how far other sites' logs had come, and cosigns only what grew out of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::Timestamp;
use pipeline::witness::Witness;
use tokio::net::TcpListener;
use trust::log::note::{KeyKind, Signer, VerifierKey};
use trust::{Kek, Key, KeyId};

use crate::config::KeyConfig;
use crate::serve::{StopSignal, block_on};
use crate::{keys, logging, terminal};

/// File with the witness's own key, wrapped by the key-encryption key.
const KEY_FILE: &str = "witness.key";
/// What its wrapped key is bound to.
const KEY_DOMAIN: &str = "witness";

/// What to do as a witness.
#[derive(Debug, clap::Subcommand)]
pub enum WitnessCommand {
    /// Cosign checkpoints of the logs that are named
    #[command(after_help = "Example, on another machine than the site:
  auscult key generate /etc/auscult/witness-key
  auscult witness serve --dir /var/lib/auscult-witness --key-file /etc/auscult/witness-key \\
      --name witness.example/w1 --log 'auscult/0123…+abcdef01+AQ…' --listen 127.0.0.1:8470

The key of a site's log is printed by `auscult audit key`. The site asks this witness once its configuration names it
under [audit] witnesses, with the key that `auscult witness key` prints.")]
    Serve {
        #[command(flatten)]
        own: Own,
        /// Key of a log whose checkpoints are cosigned; may be given several times
        #[arg(long, value_name = "KEY", required = true)]
        log: Vec<VerifierKey>,
        /// Address to listen on; other than loopback needs a certificate
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8470")]
        listen: SocketAddr,
        /// Certificate chain (PEM) for TLS
        #[arg(long, value_name = "FILE", requires = "certificate_key")]
        certificate: Option<PathBuf>,
        /// Private key of the certificate (PEM)
        #[arg(long, value_name = "FILE", requires = "certificate")]
        certificate_key: Option<PathBuf>,
        /// When ready, print one line of JSON with the address and the key
        #[arg(long)]
        print_json: bool,
    },
    /// Print the witness's public key
    Key {
        #[command(flatten)]
        own: Own,
    },
    /// List what was cosigned, and what was refused as proof of a rollback
    Logs {
        #[command(flatten)]
        own: Own,
    },
}

/// What belongs to the witness itself.
#[derive(Clone, Debug, clap::Args)]
pub struct Own {
    /// Directory in which it remembers
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// File with the key-encryption key that wraps its key
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Its name in cosignatures, such as witness.example/w1
    #[arg(long, value_name = "NAME", default_value = "auscult-witness")]
    name: String,
}

impl Own {
    fn signer(&self) -> anyhow::Result<Signer> {
        let key = KeyConfig { file: Some(self.key_file.clone()), ..KeyConfig::default() };
        let kek = keys::load(&key, &self.dir)?;
        let path = self.dir.join(KEY_FILE);
        let key = if path.exists() { read_key(&path, &kek)? } else { make_key(&path, &kek)? };
        Ok(Signer::derive(&key, KeyKind::Witness, &self.name))
    }

    fn witness(&self, logs: &[VerifierKey]) -> anyhow::Result<Witness> {
        crate::pki::make_private_directory(&self.dir)?;
        let signer = self.signer()?;
        let memory = self.dir.join("logs");
        Witness::open(&memory, signer, logs.to_vec()).context("the witness cannot start")
    }
}

fn make_key(path: &Path, kek: &Kek) -> anyhow::Result<Key> {
    let (id, key) = (KeyId::generate(), Key::generate());
    let wrapped = kek.wrap(KEY_DOMAIN, id, &key);
    let text = format!("{}\n", STANDARD.encode([&id.0[..], &wrapped].concat()));
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(key)
}

fn read_key(path: &Path, kek: &Kek) -> anyhow::Result<Key> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
    let bytes = STANDARD.decode(text.trim()).ok();
    let parts = bytes.as_deref().and_then(|bytes| bytes.split_first_chunk::<16>());
    let Some((id, wrapped)) = parts else { bail!("{shown} is no key of a witness") };
    kek.unwrap(KEY_DOMAIN, KeyId(*id), wrapped).with_context(|| format!("{shown} cannot be opened"))
}

/// Does what a command asks.
///
/// # Errors
/// What failed, where, and what to do.
pub fn run(command: &WitnessCommand) -> anyhow::Result<ExitCode> {
    match command {
        WitnessCommand::Serve { own, log, listen, certificate, certificate_key, print_json } => {
            logging::start("info")?;
            let witness = Arc::new(own.witness(log)?);
            let files = certificate.as_deref().zip(certificate_key.as_deref());
            if files.is_none() && !listen.ip().is_loopback() {
                bail!(
                    "{listen} can be reached from other machines; give --certificate and --certificate-key"
                );
            }
            serve(&witness, *listen, files, *print_json)
        }
        WitnessCommand::Key { own } => {
            terminal::println(&own.witness(&[])?.key().to_string());
            Ok(ExitCode::SUCCESS)
        }
        WitnessCommand::Logs { own } => {
            for log in own.witness(&[])?.all().context("what is remembered cannot be read")? {
                let at = Timestamp::from_seconds(i64::try_from(log.cosigned_at_s).unwrap_or(i64::MAX));
                terminal::println(&format!("{} size {} cosigned at {at}", log.origin, log.size));
                if let Some(refused) = log.refused {
                    terminal::println(&format!(
                        "  REFUSED, signed by the log and not grown out of it:\n{refused}"
                    ));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn serve(
    witness: &Arc<Witness>,
    listen: SocketAddr,
    files: Option<(&Path, &Path)>,
    print_json: bool,
) -> anyhow::Result<ExitCode> {
    let tls = match files {
        None => None,
        Some((chain, key)) => {
            let read = |path: &Path| {
                std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
            };
            let (chain, key) = (read(chain)?, trust::SecretText::new(read(key)?));
            let config = trust::tls::server_config_plain_tls(&chain, key.expose(), &[b"h2", b"http/1.1"]);
            Some(Arc::new(config.context("the certificate cannot be used")?))
        }
    };
    block_on(async {
        let mut stop = StopSignal::listen()?;
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let key = witness.key().to_string();
        tracing::info!(%address, key, "the witness is ready");
        if print_json {
            terminal::println(&serde_json::json!({ "address": address.to_string(), "key": key }).to_string());
        }
        let stopped = stop.asked();
        web_api::serve_witness(listener, Arc::clone(witness), tls, stopped)
            .await
            .context("the witness failed")?;
        Ok(ExitCode::SUCCESS)
    })
}
