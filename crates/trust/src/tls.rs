//! TLS configurations: version 1.3 only, with client certificates where devices and programs connect.
//!
//! The key exchange prefers the hybrid of X25519 and ML-KEM-768: health data recorded on the wire
//! today stays sensitive for a lifetime, and longer than today's curves may hold.

mod live;

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use live::{LiveTls, Now};

/// Most certificates in one chain or bundle; a longer file is not what it is taken for.
pub const MAX_CERTIFICATES: usize = 64;

/// A server that asks every client for a certificate of the given authority and refuses all others.
///
/// Sessions cannot be resumed: resumption would skip the certificate, and so its revocation.
/// `alpn` names the application protocols, most preferred first (`b"mqtt"`, `b"h2"`); it may be empty.
///
/// # Errors
/// [`TlsError`] says which of the three texts is at fault.
pub fn server_config_mutual(
    server_chain_pem: &str,
    server_key_pem: &str,
    authority_pem: &str,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let roots = Arc::new(roots(authority_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier { source })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Library { source })?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            chain(server_chain_pem, PemRole::ServerChain)?,
            key(server_key_pem, PemRole::ServerKey)?,
        )
        .map_err(|source| TlsError::KeyRefused { role: PemRole::ServerKey, source })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = owned(alpn);
    Ok(config)
}

/// A server that asks for no client certificate: people sign in inside, with passwords or passkeys.
///
/// # Errors
/// [`TlsError`] says which of the two texts is at fault.
pub fn server_config_plain_tls(
    server_chain_pem: &str,
    server_key_pem: &str,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Library { source })?
        .with_no_client_auth()
        .with_single_cert(
            chain(server_chain_pem, PemRole::ServerChain)?,
            key(server_key_pem, PemRole::ServerKey)?,
        )
        .map_err(|source| TlsError::KeyRefused { role: PemRole::ServerKey, source })?;
    config.alpn_protocols = owned(alpn);
    Ok(config)
}

/// A client that believes servers of the given authority, and shows its own certificate (chain and
/// key as PEM) when one is given.
///
/// # Errors
/// [`TlsError`] says which text is at fault.
pub fn client_config(
    authority_pem: &str,
    identity: Option<(&str, &str)>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let roots = Arc::new(roots(authority_pem)?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier { source })?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Library { source })?
        .with_webpki_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain_pem, key_pem)) => builder
            .with_client_auth_cert(chain(chain_pem, PemRole::ClientChain)?, key(key_pem, PemRole::ClientKey)?)
            .map_err(|source| TlsError::KeyRefused { role: PemRole::ClientKey, source })?,
    };
    config.alpn_protocols = owned(alpn);
    Ok(config)
}

/// Which of the given texts an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PemRole {
    /// The server's certificate chain.
    ServerChain,
    /// The server's private key.
    ServerKey,
    /// The client's certificate chain.
    ClientChain,
    /// The client's private key.
    ClientKey,
    /// The trusted authorities.
    Authority,
}

impl std::fmt::Display for PemRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ServerChain => "server's certificate chain",
            Self::ServerKey => "server's private key",
            Self::ClientChain => "client's certificate chain",
            Self::ClientKey => "client's private key",
            Self::Authority => "authority's certificate",
        })
    }
}

/// Why a TLS configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or PEM of something else.
    #[error("the {role} is not readable PEM")]
    Pem {
        /// Which text.
        role: PemRole,
        /// What the parser says.
        source: rustls_pki_types::pem::Error,
    },
    /// PEM without a certificate, or with far too many.
    #[error("the {role} holds {count} certificates instead of 1 to {MAX_CERTIFICATES}")]
    CertificateCount {
        /// Which text.
        role: PemRole,
        /// Certificates found (counting stops one above the bound).
        count: usize,
    },
    /// A certificate that cannot be an authority.
    #[error("the {role} is not usable as a trust anchor")]
    Anchor {
        /// Which text.
        role: PemRole,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// The verifier of the other side could not be built.
    #[error("the certificate verifier could not be built")]
    Verifier {
        /// What the TLS library says.
        source: VerifierBuilderError,
    },
    /// The key is of an unknown kind or belongs to another certificate.
    #[error("the {role} is refused or belongs to another certificate")]
    KeyRefused {
        /// Which text.
        role: PemRole,
        /// What the TLS library says.
        source: rustls::Error,
    },
    /// The TLS library lacks TLS 1.3.
    #[error("the TLS library refused the configuration")]
    Library {
        /// What it says.
        source: rustls::Error,
    },
}

fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
    Arc::new(provider)
}

fn chain(pem: &str, role: PemRole) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { role, source })?;
    match certificates.len() {
        1..=MAX_CERTIFICATES => Ok(certificates),
        count => Err(TlsError::CertificateCount { role, count }),
    }
}

fn key(pem: &str, role: PemRole) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| TlsError::Pem { role, source })
}

fn roots(authority_pem: &str) -> Result<RootCertStore, TlsError> {
    let role = PemRole::Authority;
    let mut store = RootCertStore::empty();
    for certificate in chain(authority_pem, role)? {
        store.add(certificate).map_err(|source| TlsError::Anchor { role, source })?;
    }
    Ok(store)
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
