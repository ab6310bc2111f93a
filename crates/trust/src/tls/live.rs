//! TLS of a server that runs for years: its certificate, and which issuing keys it believes, can be replaced while it runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::UnixTime;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{PemRole, TlsError, chain, key, owned, provider, roots};

/// Tells the time by which certificates are judged.
pub type Now = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What the ports of a running server share: its certificate, and whose clients' certificates it believes.
///
/// Connections that are open keep what they have shaken hands with; new ones get what stands here.
pub struct LiveTls {
    identity: Arc<Identity>,
    anchors: Arc<Anchors>,
    clock: Arc<Clock>,
}

impl LiveTls {
    /// From the server's chain and key, and the certificates of the issuing keys whose clients are believed (all PEM).
    ///
    /// # Errors
    /// [`TlsError`] says which of the texts is at fault.
    pub fn new(
        server_chain_pem: &str,
        server_key_pem: &str,
        issuing_pem: &str,
        now: Now,
    ) -> Result<Self, TlsError> {
        let provider = provider();
        let identity = certified(&provider, server_chain_pem, server_key_pem)?;
        let inner = verifier(&provider, issuing_pem)?;
        Ok(LiveTls {
            identity: Arc::new(Identity(RwLock::new(identity))),
            anchors: Arc::new(Anchors { inner: RwLock::new(inner), provider }),
            clock: Arc::new(Clock(now)),
        })
    }

    /// Puts another certificate of the server in place of the present one, from the next handshake on.
    ///
    /// # Errors
    /// [`TlsError`]; the present one stays then.
    pub fn replace_identity(&self, server_chain_pem: &str, server_key_pem: &str) -> Result<(), TlsError> {
        let identity = certified(&self.anchors.provider, server_chain_pem, server_key_pem)?;
        *self.identity.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// Believes clients of these issuing keys (PEM) and no others, from the next handshake on.
    ///
    /// # Errors
    /// [`TlsError`]; those of before stay then.
    pub fn replace_issuing(&self, issuing_pem: &str) -> Result<(), TlsError> {
        let inner = verifier(&self.anchors.provider, issuing_pem)?;
        *self.anchors.inner.write().unwrap_or_else(PoisonError::into_inner) = inner;
        Ok(())
    }

    /// For a port that asks for no certificate.
    ///
    /// # Errors
    /// [`TlsError::Library`].
    pub fn open_port(&self, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        let resolver = Arc::clone(&self.identity);
        let builder =
            ServerConfig::builder_with_details(Arc::clone(&self.anchors.provider), self.clock.clone());
        let mut config = builder
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| TlsError::Library { source })?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = owned(alpn);
        Ok(config)
    }

    /// For a port on which every client needs a certificate that is in date. Sessions cannot be resumed: resumption
    /// would skip the certificate, and so its revocation.
    ///
    /// # Errors
    /// [`TlsError::Library`].
    pub fn strict_port(&self, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        self.asking_port(alpn, false)
    }

    /// For the port on which devices also enrol: a client may come without a certificate, or with one of ours that is
    /// out of date. What such a client may do is for whoever serves it to decide; the certificate it shows is proven.
    ///
    /// # Errors
    /// [`TlsError::Library`].
    pub fn enrolling_port(&self, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        self.asking_port(alpn, true)
    }

    fn asking_port(&self, alpn: &[&[u8]], enrols: bool) -> Result<ServerConfig, TlsError> {
        let verifier = Arc::new(Asking { anchors: Arc::clone(&self.anchors), enrols });
        let resolver = Arc::clone(&self.identity);
        let builder =
            ServerConfig::builder_with_details(Arc::clone(&self.anchors.provider), self.clock.clone());
        let mut config = builder
            .with_protocol_versions(&[&TLS13])
            .map_err(|source| TlsError::Library { source })?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(resolver);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = owned(alpn);
        Ok(config)
    }
}

impl fmt::Debug for LiveTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveTls").finish_non_exhaustive()
    }
}

fn certified(
    provider: &CryptoProvider,
    chain_pem: &str,
    key_pem: &str,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let refused = |source| TlsError::KeyRefused { role: PemRole::ServerKey, source };
    let key = key(key_pem, PemRole::ServerKey)?;
    let certified =
        CertifiedKey::from_der(chain(chain_pem, PemRole::ServerChain)?, key, provider).map_err(refused)?;
    Ok(Arc::new(certified))
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    issuing_pem: &str,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(issuing_pem)?), Arc::clone(provider))
        .build()
        .map_err(|source| TlsError::Verifier { source })
}

struct Identity(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(redacted)")
    }
}

struct Clock(Now);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

struct Anchors {
    inner: RwLock<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anchors")
    }
}

/// Asks for a certificate, and judges it by the anchors that stand now.
#[derive(Debug)]
struct Asking {
    anchors: Arc<Anchors>,
    enrols: bool,
}

impl Asking {
    fn inner(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.anchors.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        !self.enrols
    }

    /// No hints: they would name the site's keys to whoever connects, and would be of the moment at which this was made.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let inner = self.inner();
        let judged = inner.verify_client_cert(end_entity, intermediates, now);
        match judged {
            Err(Error::InvalidCertificate(ref why)) if self.enrols && is_of_time(why) => {
                // All else must be right: judged as of its own last instant.
                let last = last_instant(end_entity)
                    .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
                inner.verify_client_cert(end_entity, intermediates, last)
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.anchors.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.anchors.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.provider.signature_verification_algorithms.supported_schemes()
    }
}

const fn is_of_time(why: &CertificateError) -> bool {
    matches!(
        why,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

fn last_instant(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let second = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(second)))
}
