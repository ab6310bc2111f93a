//! How a device comes to its certificate and keeps it: it makes its own key, claims with a code, and renews by EST
//! (RFC 7030) from half of its certificate's life on.

mod der;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Longest wait for one answer.
pub const ENROL_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer that is read, in bytes: a chain and the anchors.
const ANSWER_LIMIT_BYTES: usize = 64 << 10;
/// First wait after a renewal that failed; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// Longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3_600);
/// Longest sleep at once: a clock that is set meanwhile must not be slept past.
const SLEEP_LIMIT: Duration = Duration::from_secs(3_600);

/// Why a device did not get its certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A key could not be made, or a request not be signed.
    #[error("the device's key cannot be used")]
    Key(#[from] rcgen::Error),
    /// TLS cannot be set up with what the device has.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A certificate or an anchor cannot be read.
    #[error("{what} cannot be read")]
    Unreadable {
        /// Which.
        what: &'static str,
    },
    /// No answer.
    #[error("no answer from {url}")]
    NoAnswer {
        /// Who was asked.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{url} answered {status}: {text}")]
    Refused {
        /// Who was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it says.
        text: String,
    },
}

/// What a device holds: its key, which it made itself, and its certificate. Clones share it.
#[derive(Clone)]
pub struct Held {
    serial: String,
    anchors: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    now: Arc<RwLock<Holding>>,
}

struct Holding {
    certified: Arc<CertifiedKey>,
    key_pem: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("serial", &self.serial).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Claimed {
    certificate_pem: String,
}

impl Held {
    /// Claims a certificate with a code: the key is made here and stays here. `base` is `https://host:port`; `anchors_pem`
    /// is what the device was told to believe.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn claim(base: &str, anchors_pem: &str, serial: &str, code: &str) -> Result<Self, EnrolError> {
        let (provider, anchors) = (provider(), anchors(anchors_pem)?);
        let key = KeyPair::generate()?;
        let url = format!("{}/enrol/v1/claim", base.trim_end_matches('/'));
        let body = format!(
            "{{\"serial\":{},\"code\":{},\"csr\":{}}}",
            quoted(serial),
            quoted(code),
            quoted(&request(&key, serial)?)
        );
        let client = http(client_config(&provider, &anchors, None)?, &url)?;
        let asked = client.post(&url).header("content-type", "application/json").body(body);
        let text = answer(asked, &url).await?;
        let claimed: Claimed =
            serde_json::from_slice(&text).map_err(|_| EnrolError::Unreadable { what: "the answer" })?;
        Self::with(serial, provider, anchors, &claimed.certificate_pem, key.serialize_pem())
    }

    /// What an operator gave the device: chain and key as PEM.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub fn given(
        serial: &str,
        anchors_pem: &str,
        chain_pem: &str,
        key_pem: &str,
    ) -> Result<Self, EnrolError> {
        Self::with(serial, provider(), anchors(anchors_pem)?, chain_pem, key_pem.to_owned())
    }

    fn with(
        serial: &str,
        provider: Arc<CryptoProvider>,
        anchors: Arc<RootCertStore>,
        chain_pem: &str,
        key_pem: String,
    ) -> Result<Self, EnrolError> {
        let chain = certificates(chain_pem)?;
        let holding = Holding::of(&provider, chain, key_pem)?;
        Ok(Held { serial: serial.to_owned(), anchors, provider, now: Arc::new(RwLock::new(holding)) })
    }

    /// TLS with this certificate; connections made after a renewal show the new one.
    ///
    /// # Errors
    /// [`EnrolError::Tls`].
    pub fn tls(&self) -> Result<Arc<ClientConfig>, EnrolError> {
        Ok(Arc::new(client_config(&self.provider, &self.anchors, Some(self.clone()))?))
    }

    /// From when on it should be renewed: half of its life.
    pub fn renew_after(&self) -> SystemTime {
        let holding = self.now.read().unwrap_or_else(PoisonError::into_inner);
        half_life(holding.not_before, holding.not_after)
    }

    /// Last instant of its certificate.
    pub fn not_after(&self) -> SystemTime {
        self.now.read().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// Renews by EST, with a new key. The present certificate proves who asks, also when it has ended.
    ///
    /// # Errors
    /// [`EnrolError`]; what was held is held on.
    pub async fn renew(&self, base: &str) -> Result<(), EnrolError> {
        let key = KeyPair::generate()?;
        let url = format!("{}/.well-known/est/simplereenroll", base.trim_end_matches('/'));
        let client = http(client_config(&self.provider, &self.anchors, Some(self.clone()))?, &url)?;
        let asked = client
            .post(&url)
            .header("content-type", "application/pkcs10")
            .header("content-transfer-encoding", "base64")
            .body(request(&key, &self.serial)?);
        let packed: Vec<u8> =
            answer(asked, &url).await?.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let what = "the answer to the renewal";
        let message = STANDARD.decode(packed).map_err(|_| EnrolError::Unreadable { what })?;
        let chain = der::certificates(&message).ok_or(EnrolError::Unreadable { what })?;
        let chain: Vec<_> = chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let holding = Holding::of(&self.provider, chain, key.serialize_pem())?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = holding;
        Ok(())
    }
}

impl Holding {
    fn of(
        provider: &CryptoProvider,
        chain: Vec<CertificateDer<'static>>,
        key_pem: String,
    ) -> Result<Self, EnrolError> {
        let what = "the certificate";
        let leaf = chain.first().ok_or(EnrolError::Unreadable { what })?;
        let (_, read) = X509Certificate::from_der(leaf).map_err(|_| EnrolError::Unreadable { what })?;
        let instant = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        let (not_before, not_after) =
            (instant(read.validity().not_before.timestamp()), instant(read.validity().not_after.timestamp()));
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| EnrolError::Unreadable { what: "the device's key" })?;
        let certified = Arc::new(CertifiedKey::from_der(chain, key, provider)?);
        Ok(Holding { certified, key_pem, not_before, not_after })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        // Best effort: a simulated device has no secure memory.
        self.key_pem.clear();
    }
}

impl ResolvesClientCert for Held {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner).certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Renews the certificates of many devices, each from half of its life on, until `shutdown`. A renewal that fails is tried
/// again after a while, for as long as it takes.
pub async fn keep_renewed(devices: Vec<Held>, base: String, shutdown: CancellationToken) {
    let mut due: Vec<(SystemTime, Duration, Held)> =
        devices.into_iter().map(|held| (held.renew_after(), FIRST_WAIT, held)).collect();
    loop {
        let Some(at) = (0..due.len()).min_by_key(|at| due[*at].0) else { return };
        let left = due[at].0.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(left.min(SLEEP_LIMIT)) => {}
        }
        if SystemTime::now() < due[at].0 {
            continue;
        }
        let (next, wait, held) = &mut due[at];
        match held.renew(&base).await {
            Ok(()) => {
                tracing::info!(serial = held.serial, "a device renewed its certificate");
                (*next, *wait) = (held.renew_after(), FIRST_WAIT);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(serial = held.serial, error, "a device could not renew its certificate");
                *next = SystemTime::now() + *wait;
                *wait = (*wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

fn half_life(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    not_before + not_after.duration_since(not_before).unwrap_or_default() / 2
}

/// A signing request for the serial number, DER in base64.
fn request(key: &KeyPair, serial: &str) -> Result<String, EnrolError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, serial);
    Ok(STANDARD.encode(params.serialize_request(key)?.der()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, EnrolError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.map_err(|_| EnrolError::Unreadable { what: "a certificate" })
}

fn anchors(pem: &str) -> Result<Arc<RootCertStore>, EnrolError> {
    let mut anchors = RootCertStore::empty();
    for anchor in certificates(pem)? {
        anchors.add(anchor)?;
    }
    Ok(Arc::new(anchors))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    anchors: &Arc<RootCertStore>,
    held: Option<Held>,
) -> Result<ClientConfig, EnrolError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(Arc::clone(anchors));
    Ok(match held {
        Some(held) => builder.with_client_cert_resolver(Arc::new(held)),
        None => builder.with_no_client_auth(),
    })
}

fn http(tls: ClientConfig, url: &str) -> Result<reqwest::Client, EnrolError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .timeout(ENROL_TIMEOUT)
        .build()
        .map_err(|source| EnrolError::NoAnswer { url: url.to_owned(), source })
}

async fn answer(asked: reqwest::RequestBuilder, url: &str) -> Result<Vec<u8>, EnrolError> {
    let failed = |source| EnrolError::NoAnswer { url: url.to_owned(), source };
    let mut answer = asked.send().await.map_err(failed)?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        body.extend(chunk.iter().take(ANSWER_LIMIT_BYTES - body.len()));
    }
    // 202 says that a person decides first: there is no certificate in it.
    if status == 200 {
        return Ok(body);
    }
    let text: String = String::from_utf8_lossy(&body).chars().take(400).collect();
    Err(EnrolError::Refused { url: url.to_owned(), status, text })
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_from_half_of_its_life_on() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(half_life(at(1_000), at(3_000)), at(2_000));
        assert_eq!(half_life(at(3_000), at(1_000)), at(3_000), "one that makes no sense is due at once");
    }
}
