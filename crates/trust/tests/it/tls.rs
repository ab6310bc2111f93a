//! Real TLS handshakes, in memory: who gets in, who does not, and why.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error, NamedGroup, PeerIncompatible,
    ProtocolVersion, ServerConfig, ServerConnection,
};
use rustls_pki_types::ServerName;
use trust::pki::{
    Authority, IssueRequest, IssueServerRequest, Issued, PeerIdentity, PeerUri, RevokedSerials,
};
use trust::tls::{PemRole, TlsError, client_config, server_config_mutual, server_config_plain_tls};
use uuid::Uuid;

const ALPN: &[&[u8]] = &[b"mqtt"];
const HOST: &str = "ward.hospital.example";
const DEVICE: PeerUri = PeerUri::Device(Uuid::from_u128(0x7a7a));

/// An authority that exists since five years, so that certificates of the past can be made.
struct House {
    authority: Authority,
    now: SystemTime,
}

impl House {
    fn new() -> Self {
        // The TLS library reads the system clock, so these tests must live in the present.
        let now = SystemTime::now();
        let pem = Authority::create("test authority", now - days(5 * 365), 20).unwrap();
        Self { authority: Authority::load(&pem.certificate_pem, pem.key_pem.expose()).unwrap(), now }
    }

    fn device_between(&self, not_before: SystemTime, not_after: SystemTime) -> Issued {
        let request = IssueRequest { common_name: "pump".into(), uri: DEVICE, not_before, not_after };
        self.authority.issue_client(&request).unwrap()
    }

    fn device(&self) -> Issued {
        self.device_between(self.now - days(1), self.now + days(1))
    }

    fn server(&self) -> Issued {
        let request = IssueServerRequest {
            common_name: "server".into(),
            dns_names: vec![HOST.into()],
            ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            not_before: self.now - days(1),
            not_after: self.now + days(1),
        };
        self.authority.issue_server(&request).unwrap()
    }

    fn trusted(&self) -> &str {
        self.authority.certificate_pem()
    }

    fn mutual(&self) -> ServerConfig {
        let server = self.server();
        server_config_mutual(&server.certificate_pem, server.key_pem.expose(), self.trusted(), ALPN).unwrap()
    }

    fn client(&self, identity: Option<&Issued>) -> ClientConfig {
        let identity = identity.map(|issued| (issued.certificate_pem.as_str(), issued.key_pem.expose()));
        client_config(self.trusted(), identity, ALPN).unwrap()
    }
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

/// What became of a handshake on either side.
pub(super) struct Outcome {
    client: Result<ClientConnection, Error>,
    server: Result<ServerConnection, Error>,
}

impl Outcome {
    /// Whether both sides believe each other.
    pub(super) fn is_ok(&self) -> bool {
        self.client.is_ok() && self.server.is_ok()
    }

    /// Whether one of them refused.
    pub(super) fn is_err(&self) -> bool {
        !self.is_ok()
    }
}

/// Moves bytes between the two until neither has anything to say or one gave up.
pub(super) fn shake(client: ClientConfig, server: ServerConfig, host: &str) -> Outcome {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = Connection::from(ClientConnection::new(client.into(), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(server.into()).unwrap());
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let to_server = carry(&mut client, &mut server, &mut server_error);
        let to_client = carry(&mut server, &mut client, &mut client_error);
        if !to_server && !to_client {
            break;
        }
    }
    let (Connection::Client(client), Connection::Server(server)) = (client, server) else { unreachable!() };
    Outcome { client: client_error.map_or(Ok(client), Err), server: server_error.map_or(Ok(server), Err) }
}

/// Carries everything one side wants to send; whether there was anything.
fn carry(from: &mut Connection, to: &mut Connection, error: &mut Option<Error>) -> bool {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() && error.is_none() {
        to.read_tls(&mut rest).unwrap();
        *error = to.process_new_packets().err();
    }
    !wire.is_empty()
}

fn refusal(outcome: Outcome) -> Error {
    outcome.server.expect_err("the server accepted the client")
}

#[test]
fn a_device_with_its_certificate_gets_in_and_is_known() {
    let house = House::new();
    let device = house.device();
    let outcome = shake(house.client(Some(&device)), house.mutual(), HOST);
    let (client, server) = (outcome.client.unwrap(), outcome.server.unwrap());
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(b"mqtt".as_slice()));
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(client.tls13_tickets_received(), 0, "a session could be resumed past a revocation");

    let peer = PeerIdentity::from_der(&server.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(peer.uri, DEVICE);
    assert_eq!(peer.serial_hex, device.serial_hex);
    let mut revoked = RevokedSerials::default();
    assert!(!revoked.contains(&peer.serial_hex));
    revoked.insert(&device.serial_hex, house.now, "lost").unwrap();
    assert!(revoked.contains(&peer.serial_hex));
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let house = House::new();
    assert_eq!(refusal(shake(house.client(None), house.mutual(), HOST)), Error::NoCertificatesPresented);
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (house, stranger) = (House::new(), House::new());
    let identity = stranger.device();
    let error = refusal(shake(house.client(Some(&identity)), house.mutual(), HOST));
    // Both authorities have the same name, so the chain is tried and its signature found wrong.
    assert!(
        matches!(
            error,
            Error::InvalidCertificate(CertificateError::BadSignature | CertificateError::UnknownIssuer)
        ),
        "{error}"
    );
}

#[test]
fn an_expired_and_a_future_certificate_are_refused() {
    let house = House::new();
    let expired = house.device_between(house.now - days(30), house.now - days(1));
    let error = refusal(shake(house.client(Some(&expired)), house.mutual(), HOST));
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::ExpiredContext { .. })), "{error}");
    let future = house.device_between(house.now + days(1), house.now + days(30));
    let error = refusal(shake(house.client(Some(&future)), house.mutual(), HOST));
    assert!(
        matches!(error, Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })),
        "{error}"
    );
}

#[test]
fn a_server_certificate_is_no_client_identity() {
    let house = House::new();
    let server = house.server();
    let error = refusal(shake(house.client(Some(&server)), house.mutual(), HOST));
    assert!(
        matches!(error, Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })),
        "{error}"
    );
}

#[test]
fn a_device_certificate_is_no_server() {
    let house = House::new();
    let device = house.device();
    let impostor = server_config_plain_tls(&device.certificate_pem, device.key_pem.expose(), ALPN).unwrap();
    let outcome = shake(house.client(None), impostor, HOST);
    assert!(matches!(outcome.client, Err(Error::InvalidCertificate(_))));
}

#[test]
fn a_client_refuses_a_stranger_and_a_wrong_name() {
    let (house, stranger) = (House::new(), House::new());
    let device = house.device();
    let outcome = shake(house.client(Some(&device)), stranger.mutual(), HOST);
    assert!(matches!(outcome.client, Err(Error::InvalidCertificate(_))));
    let outcome = shake(house.client(Some(&device)), house.mutual(), "other.hospital.example");
    let error = outcome.client.err().unwrap();
    assert!(
        matches!(error, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })),
        "{error}"
    );
}

#[test]
fn a_server_without_client_certificates_takes_anyone_by_name_or_address() {
    let house = House::new();
    let server = house.server();
    for host in [HOST, "127.0.0.1"] {
        let config = server_config_plain_tls(&server.certificate_pem, server.key_pem.expose(), ALPN).unwrap();
        let outcome = shake(house.client(None), config, host);
        assert!(!outcome.client.unwrap().is_handshaking());
        assert!(outcome.server.unwrap().peer_certificates().is_none());
    }
}

#[test]
fn application_data_flows_both_ways() {
    use std::io::{Read as _, Write as _};
    let house = House::new();
    let device = house.device();
    let outcome = shake(house.client(Some(&device)), house.mutual(), HOST);
    let (mut client, mut server) = (outcome.client.unwrap(), outcome.server.unwrap());
    client.writer().write_all(b"reading").unwrap();
    let (mut wire, mut text) = (Vec::new(), [0_u8; 7]);
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    server.reader().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"reading");
    assert!(!wire.windows(text.len()).any(|window| window == text), "the wire shows the text");
}

/// A greeting as a client of TLS 1.2 sends it: without the extension that offers newer versions.
fn greeting_of_tls_1_2() -> Vec<u8> {
    let mut extensions = Vec::new();
    // supported_groups: secp256r1; ec_point_formats: uncompressed; signature_algorithms: ECDSA, SHA-256.
    extensions.extend([0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x17]);
    extensions.extend([0x00, 0x0b, 0x00, 0x02, 0x01, 0x00]);
    extensions.extend([0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03]);
    let mut hello = vec![0x03, 0x03];
    hello.extend([0x42; 32]);
    // No session, the suite ECDHE-ECDSA-AES128-GCM-SHA256, no compression.
    hello.extend([0x00, 0x00, 0x02, 0xc0, 0x2b, 0x01, 0x00]);
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let hello_len = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 0x03, 0x01, 0x00, hello_len + 4, 0x01, 0x00, 0x00, hello_len];
    record.extend(hello);
    record
}

#[test]
fn tls_1_2_is_refused() {
    let mut server = ServerConnection::new(House::new().mutual().into()).unwrap();
    server.read_tls(&mut greeting_of_tls_1_2().as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    let expected = PeerIncompatible::SupportedVersionsExtensionRequired;
    assert_eq!(error, Error::PeerIncompatible(expected));
}

#[test]
fn unusable_texts_are_named() {
    let house = House::new();
    let (server, device) = (house.server(), house.device());
    let (chain, key) = (server.certificate_pem.as_str(), server.key_pem.expose());
    let error = server_config_plain_tls("", key, ALPN).unwrap_err();
    assert!(matches!(error, TlsError::CertificateCount { role: PemRole::ServerChain, count: 0 }), "{error}");
    let error = server_config_plain_tls(chain, "", ALPN).unwrap_err();
    assert!(matches!(error, TlsError::Pem { role: PemRole::ServerKey, .. }), "{error}");
    let error = server_config_plain_tls(chain, device.key_pem.expose(), ALPN).unwrap_err();
    assert!(matches!(error, TlsError::KeyRefused { role: PemRole::ServerKey, .. }), "{error}");
    let error = server_config_mutual(chain, key, "nonsense", ALPN).unwrap_err();
    assert!(matches!(error, TlsError::CertificateCount { role: PemRole::Authority, count: 0 }), "{error}");
    let error = server_config_mutual(chain, key, &chain.repeat(65), ALPN).unwrap_err();
    assert!(matches!(error, TlsError::CertificateCount { role: PemRole::Authority, count: 65 }), "{error}");
    let error = client_config(house.trusted(), Some((&device.certificate_pem, key)), ALPN).unwrap_err();
    assert!(matches!(error, TlsError::KeyRefused { role: PemRole::ClientKey, .. }), "{error}");
}
