//! Certificates read back as what they were issued as, and requests that are refused.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use trust::pki::{
    Authority, AuthorityError, AuthorityPem, IssueError, IssueRequest, IssueServerRequest, PeerIdentity,
    PeerIdentityError, PeerUri, PeerUriError,
};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// 2026-11-22T09:00:00Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_338_000)
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

fn made() -> AuthorityPem {
    Authority::create("Auscult authority", now(), 10).unwrap()
}

fn loaded(pem: &AuthorityPem) -> Authority {
    Authority::load(&pem.certificate_pem, pem.key_pem.expose()).unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn device_request(uri: PeerUri) -> IssueRequest {
    IssueRequest { common_name: "Monitor bed 4".into(), uri, not_before: now(), not_after: now() + days(30) }
}

/// A certificate made apart from [`Authority`], with the given alternative names.
fn foreign(names: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn a_device_certificate_reads_back() {
    let device = PeerUri::Device(trust::uuid_v7(1_795_338_000_000));
    let request = device_request(device.clone());
    let issued = loaded(&made()).issue_client(&request).unwrap();
    let der = der(&issued.certificate_pem);
    let peer = PeerIdentity::from_der(&der).unwrap();
    assert_eq!(peer.uri, device);
    assert_eq!(peer.common_name, "Monitor bed 4");
    assert_eq!(peer.serial_hex, issued.serial_hex);
    assert_eq!(peer.serial_hex.len(), 32);
    assert_eq!(peer.fingerprint_hex, issued.sha256_fingerprint_hex);
    assert_eq!((peer.not_before, peer.not_after), (request.not_before, request.not_after));
}

#[test]
fn each_certificate_serves_one_purpose() {
    let (pem, names) = (made(), vec!["ward.hospital.example".to_owned()]);
    let authority = loaded(&pem);
    let (not_before, not_after) = (now(), now() + days(30));
    let (common_name, ips) = ("server".to_owned(), vec![]);
    let request = IssueServerRequest { common_name, dns_names: names, ips, not_before, not_after };
    let server = authority.issue_server(&request).unwrap();
    let client = authority.issue_client(&device_request(PeerUri::Device(Uuid::nil()))).unwrap();
    for (pem, is_client) in [(client.certificate_pem, true), (server.certificate_pem, false)] {
        let der = der(&pem);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((purposes.client_auth, purposes.server_auth), (is_client, !is_client));
        assert!(!purposes.any && purposes.other.is_empty());
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        assert!(!certificate.is_ca());
    }
    let der = der(&pem.certificate_pem);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    assert!(certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn a_program_certificate_reads_back_and_serial_numbers_differ() {
    let authority = loaded(&made());
    let program = PeerUri::program("lab-bridge.2").unwrap();
    let first = authority.issue_client(&device_request(program.clone())).unwrap();
    let second = authority.issue_client(&device_request(program.clone())).unwrap();
    assert_eq!(PeerIdentity::from_der(&der(&first.certificate_pem)).unwrap().uri, program);
    assert_ne!(first.serial_hex, second.serial_hex);
    assert_ne!(first.key_pem.expose(), second.key_pem.expose());
}

#[test]
fn a_device_can_keep_its_own_key() {
    let key = KeyPair::generate().unwrap();
    // The request asks for another name; only its key may be believed.
    let mut asked = CertificateParams::default();
    asked.subject_alt_names = vec![uri("urn:auscult:program:administrator")];
    let csr = asked.serialize_request(&key).unwrap();
    let device = PeerUri::Device(Uuid::from_u128(7));
    let authority = loaded(&made());
    let request = device_request(device.clone());
    let issued = authority.issue_client_for_request(&csr.pem().unwrap(), &request).unwrap();
    let peer = PeerIdentity::from_der(&der(&issued.certificate_pem)).unwrap();
    assert_eq!((peer.uri, peer.serial_hex), (device, issued.serial_hex));

    let mut forged = csr.der().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = pem_request(&forged);
    let error = authority.issue_client_for_request(&forged, &request).unwrap_err();
    assert!(matches!(error, IssueError::SigningRequest { .. }), "{error}");
}

fn pem_request(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn certificates_that_name_no_peer_are_refused_with_the_reason() {
    let device = "urn:auscult:device:00000000-0000-0000-0000-000000000007";
    let read = |names| PeerIdentity::from_der(&foreign(names)).unwrap_err();
    assert_eq!(read(vec![]), PeerIdentityError::NoUri);
    assert_eq!(read(vec![SanType::DnsName("a.example".try_into().unwrap())]), PeerIdentityError::NoUri);
    assert_eq!(read(vec![uri(device), uri(device)]), PeerIdentityError::SeveralUris { count: 2 });
    let wrong = |source| PeerIdentityError::Uri { source };
    let text = "spiffe://hospital/pump".to_owned();
    assert_eq!(read(vec![uri(&text)]), wrong(PeerUriError::Foreign { uri: text }));
    let text = "not-a-uuid".to_owned();
    assert_eq!(read(vec![uri("urn:auscult:device:not-a-uuid")]), wrong(PeerUriError::DeviceId { text }));
    let name = "a b".to_owned();
    assert_eq!(read(vec![uri("urn:auscult:program:a b")]), wrong(PeerUriError::ProgramName { name }));

    assert!(
        PeerIdentity::from_der(&foreign(vec![uri(device)])).is_ok(),
        "the same reader accepts a good one"
    );
    assert_eq!(PeerIdentity::from_der(&der(&made().certificate_pem)), Err(PeerIdentityError::IsAuthority));
    let mut longer = foreign(vec![uri(device)]);
    longer.push(0);
    assert_eq!(PeerIdentity::from_der(&longer), Err(PeerIdentityError::TrailingBytes { len: 1 }));
    assert!(matches!(PeerIdentity::from_der(b"\x30"), Err(PeerIdentityError::NotACertificate { .. })));
}

#[test]
fn one_peer_has_one_uri() {
    for text in [
        "urn:auscult:device:019C0000-0000-7000-8000-00000000ABCD",
        "urn:auscult:device:019c0000000070008000000000000001",
        "urn:auscult:device:{019c0000-0000-7000-8000-000000000001}",
        "URN:auscult:device:019c0000-0000-7000-8000-000000000001",
        "urn:auscult:program:",
        "urn:auscult:program:a/b",
        "",
    ] {
        assert!(text.parse::<PeerUri>().is_err(), "{text}");
    }
    let device: PeerUri = "urn:auscult:device:019c0000-0000-7000-8000-00000000abcd".parse().unwrap();
    assert_eq!(device.device(), Some(Uuid::from_u128(0x019c_0000_0000_7000_8000_0000_0000_abcd)));
    assert_eq!(device.to_string().parse(), Ok(device));
}

#[test]
fn an_authority_issues_nothing_outside_its_own_life_or_without_names() {
    let authority = loaded(&made());
    let base = device_request(PeerUri::Device(Uuid::nil()));
    let refused = |request: IssueRequest| authority.issue_client(&request).unwrap_err();
    let error = refused(IssueRequest { not_after: now() + days(365 * 11), ..base.clone() });
    assert!(matches!(error, IssueError::OutsideAuthority { .. }), "{error}");
    let error = refused(IssueRequest { not_before: now() - days(1), ..base.clone() });
    assert!(matches!(error, IssueError::OutsideAuthority { .. }), "{error}");
    let error = refused(IssueRequest { not_after: now(), ..base.clone() });
    assert!(matches!(error, IssueError::Period { .. }), "{error}");
    for name in ["", "line\nbreak", &"x".repeat(65)] {
        let error = refused(IssueRequest { common_name: name.into(), ..base.clone() });
        assert!(matches!(error, IssueError::CommonName { .. }), "{error}");
    }
    let error = refused(IssueRequest { uri: PeerUri::Program("a b".into()), ..base.clone() });
    assert!(matches!(error, IssueError::Uri { .. }), "{error}");

    let server = |dns_names: Vec<String>| {
        authority.issue_server(&IssueServerRequest {
            common_name: "server".into(),
            dns_names,
            ips: vec![],
            not_before: now(),
            not_after: now() + days(30),
        })
    };
    assert!(matches!(server(vec![]), Err(IssueError::ServerNames { count: 0 })));
    assert!(matches!(server(vec!["bad name".into()]), Err(IssueError::DnsName { .. })));
    assert!(matches!(server(vec!["a.example".into(); 51]), Err(IssueError::ServerNames { count: 51 })));
    assert!(server(vec!["ward.hospital.example".into()]).is_ok());
}

#[test]
fn an_authority_is_made_and_loaded_only_whole() {
    let (one, other) = (made(), made());
    let error = Authority::load(&one.certificate_pem, other.key_pem.expose()).unwrap_err();
    assert!(matches!(error, AuthorityError::KeyMismatch), "{error}");
    let error = Authority::load("", one.key_pem.expose()).unwrap_err();
    assert!(matches!(error, AuthorityError::CertificatePem { .. }), "{error}");
    let error = Authority::load(&one.certificate_pem, "").unwrap_err();
    assert!(matches!(error, AuthorityError::Key { .. }), "{error}");
    let issued = loaded(&one).issue_client(&device_request(PeerUri::Device(Uuid::nil()))).unwrap();
    let error = Authority::load(&issued.certificate_pem, issued.key_pem.expose()).unwrap_err();
    assert!(matches!(error, AuthorityError::NotAnAuthority), "{error}");

    assert!(matches!(Authority::create("", now(), 10), Err(AuthorityError::Name { chars: 0 })));
    assert!(matches!(Authority::create("a", now(), 0), Err(AuthorityError::Years { years: 0 })));
    assert!(matches!(Authority::create("a", now(), 31), Err(AuthorityError::Years { years: 31 })));
    let far = SystemTime::UNIX_EPOCH + days(366 * 9000);
    assert!(matches!(Authority::create("a", far, 1), Err(AuthorityError::Now { .. })));
}

#[test]
fn debug_shows_no_private_key() {
    let authority = made();
    assert!(authority.key_pem.expose().contains("PRIVATE KEY"));
    let issued = loaded(&authority).issue_client(&device_request(PeerUri::Device(Uuid::nil()))).unwrap();
    let text = format!("{authority:?} {:?} {issued:?}", loaded(&authority));
    assert!(!text.contains("PRIVATE"), "{text}");
}
