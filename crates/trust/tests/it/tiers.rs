//! Two tiers, signing requests, revocation lists and live TLS: what is issued is believed, and only what should be.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use trust::pki::{
    Authority, IssueRequest, IssueServerRequest, NameLimits, PeerUri, RequestError, RevokedSerials,
    SigningRequest, certificates_of, certs_only, is_signed_by,
};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

fn root() -> Authority {
    let pem = Authority::create_root("Site root", SystemTime::now(), 30).unwrap();
    Authority::load(&pem.certificate_pem, pem.key_pem.expose()).unwrap()
}

fn issuing(root: &Authority, limits: &[&str]) -> Authority {
    let limits = NameLimits::parse(limits.iter().copied()).unwrap();
    let pem = root.create_issuing("Site issuing", SystemTime::now(), 10, &limits).unwrap();
    assert!(is_signed_by(&pem.certificate_pem, root.certificate_pem()));
    Authority::load(&pem.certificate_pem, pem.key_pem.expose()).unwrap()
}

fn device() -> PeerUri {
    PeerUri::Device(Uuid::from_u128(7))
}

fn request() -> IssueRequest {
    let now = SystemTime::now();
    IssueRequest {
        common_name: "SN-1".into(),
        uri: device(),
        not_before: now - Duration::from_secs(300),
        not_after: now + days(30),
    }
}

#[test]
fn an_issuing_key_signs_ends_only_and_shows_its_chain() {
    let root = root();
    let issuing = issuing(&root, &[]).with_revocation_lists(vec!["https://a.example/pki/crl/1.crl".into()]);
    assert!(root.is_anchor() && !issuing.is_anchor() && root.id_hex() != issuing.id_hex());
    let der = CertificateDer::from_pem_slice(issuing.certificate_pem().as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let issued = issuing.issue_client(&request()).unwrap();
    let chain = certificates_of(&issued.certificate_pem);
    assert_eq!(chain.len(), 2, "the certificate and that of the issuing key");
    assert_eq!(chain[1], der);
    assert!(is_signed_by(&issued.certificate_pem, issuing.certificate_pem()));
    assert!(!is_signed_by(&issued.certificate_pem, root.certificate_pem()));
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let points = leaf.extensions().iter().any(|one| {
        matches!(one.parsed_extension(), x509_parser::extensions::ParsedExtension::CRLDistributionPoints(_))
    });
    assert!(points, "where the list of revoked certificates is");
}

#[test]
fn limits_are_host_names_and_networks() {
    for wrong in ["10.0.0.0/33", "a b", "300.0.0.0/8", "x/8", "::1/129", ""] {
        assert!(NameLimits::parse([wrong]).is_err(), "{wrong:?}");
    }
    let root = root();
    let der = CertificateDer::from_pem_slice(
        issuing(&root, &["hospital.example", "10.0.0.0/8"]).certificate_pem().as_bytes(),
    )
    .unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let permitted =
        certificate.name_constraints().unwrap().unwrap().value.permitted_subtrees.clone().unwrap();
    assert_eq!(permitted.len(), 5, "two given, and loopback in three spellings");
}

fn request_of(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn a_request_asks_for_the_device_itself_or_is_refused() {
    let key = KeyPair::generate().unwrap();
    let uri = device().to_string();
    let read = |change: &dyn Fn(&mut CertificateParams)| {
        let text = request_of(&key, |params| change(params));
        SigningRequest::from_text(&text).and_then(|read| read.asks_only_for(&["SN-1"], &uri))
    };
    assert_eq!(read(&|_| {}), Ok(()), "an empty subject");
    assert_eq!(read(&|params| params.distinguished_name.push(DnType::CommonName, "SN-1")), Ok(()));
    assert_eq!(
        read(&|params| params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())]),
        Ok(())
    );
    let refused = |asked: &str| Err(RequestError::Subject { asked: asked.to_owned() });
    assert_eq!(read(&|params| params.distinguished_name.push(DnType::CommonName, "SN-2")), refused("SN-2"));
    let other = "urn:auscult:program:administrator";
    assert_eq!(
        read(&|params| params.subject_alt_names = vec![SanType::URI(other.try_into().unwrap())]),
        refused(other)
    );
    let host = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName("*.hospital.example".try_into().unwrap())];
    };
    assert!(matches!(read(&host), Err(RequestError::Subject { .. })), "a wildcard host");
    assert!(matches!(
        read(&|params| params.distinguished_name.push(DnType::OrganizationName, "Evil")),
        Err(RequestError::Subject { .. })
    ));
    let authority = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    assert_eq!(read(&authority), refused("to be an authority"));
}

#[test]
fn weak_keys_wrong_signatures_and_giants_are_refused() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let read = SigningRequest::from_text(&request_of(&key, |_| {})).unwrap();
        let issued = issuing(&root(), &[]).issue_client_for_key(&read, &request()).unwrap();
        let leaf = certificates_of(&issued.certificate_pem).remove(0);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    }
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let error = SigningRequest::from_text(&request_of(&p521, |_| {})).unwrap_err();
    assert!(matches!(error, RequestError::WeakKey { .. }), "{error}");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::default();
    let mut der = params.serialize_request(&key).unwrap().der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(SigningRequest::from_der(&der).unwrap_err(), RequestError::Signature);
    der[last] ^= 1;
    assert!(SigningRequest::from_der(&der).is_ok());
    der.push(0);
    assert!(matches!(SigningRequest::from_der(&der), Err(RequestError::Malformed { .. })));
    let giant = "A".repeat(1 << 20);
    assert_eq!(SigningRequest::from_text(&giant).unwrap_err(), RequestError::TooLong { bytes: 1 << 20 });
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "é", "AAAA"] {
        assert!(matches!(SigningRequest::from_text(text), Err(RequestError::Malformed { .. })), "{text}");
    }
}

#[test]
fn a_revocation_list_names_the_revoked_and_is_signed() {
    let issuing = issuing(&root(), &[]);
    let issued = issuing.issue_client(&request()).unwrap();
    let mut revoked = RevokedSerials::default();
    let now = SystemTime::now();
    revoked.insert(&issued.serial_hex, now, "lost").unwrap();
    let der = issuing.revocation_list(&revoked, now, days(7)).unwrap();
    let (rest, list) = CertificateRevocationList::from_der(&der).unwrap();
    assert!(rest.is_empty());
    let authority = CertificateDer::from_pem_slice(issuing.certificate_pem().as_bytes()).unwrap();
    let (_, authority) = X509Certificate::from_der(&authority).unwrap();
    list.verify_signature(authority.public_key()).unwrap();
    assert_eq!(list.iter_revoked_certificates().count(), 1);
    let empty = issuing.revocation_list(&RevokedSerials::default(), now, days(7)).unwrap();
    let (_, empty) = CertificateRevocationList::from_der(&empty).unwrap();
    assert_eq!(empty.iter_revoked_certificates().count(), 0);
    assert!(empty.crl_number().is_some());
}

#[test]
fn a_certs_only_message_holds_each_certificate_once() {
    let root = root();
    let chain = certificates_of(&issuing(&root, &[]).issue_client(&request()).unwrap().certificate_pem);
    let message = certs_only(chain.iter().chain(&chain));
    let total: usize = chain.iter().map(|one| one.len()).sum();
    assert!(message.len() > total && message.len() < total + 64);
}

#[test]
fn a_live_port_takes_another_certificate_and_other_anchors_while_it_runs() {
    let (root, old_root) = (self::root(), self::root());
    let (old, new) = (issuing(&old_root, &[]), issuing(&root, &[]));
    let server = |authority: &Authority| {
        let now = SystemTime::now();
        authority
            .issue_server(&IssueServerRequest {
                common_name: "server".into(),
                dns_names: vec!["ward.example".into()],
                ips: vec![],
                not_before: now - Duration::from_secs(300),
                not_after: now + days(30),
            })
            .unwrap()
    };
    let first = server(&old);
    let live = trust::tls::LiveTls::new(
        &first.certificate_pem,
        first.key_pem.expose(),
        old.certificate_pem(),
        Arc::new(SystemTime::now),
    )
    .unwrap();
    let port = live.strict_port(&[]).unwrap();
    let client = |root: &Authority, issuing: &Authority| {
        let issued = issuing.issue_client(&request()).unwrap();
        let identity = (issued.certificate_pem.as_str(), issued.key_pem.expose());
        trust::tls::client_config(root.certificate_pem(), Some(identity), &[]).unwrap()
    };
    let shake = |config| super::tls::shake(config, port.clone(), "ward.example").is_ok();
    assert!(shake(client(&old_root, &old)));
    assert!(!shake(client(&old_root, &new)), "a key that is not believed");
    live.replace_issuing(&format!("{}{}", new.certificate_pem(), old.certificate_pem())).unwrap();
    assert!(shake(client(&old_root, &new)) && shake(client(&old_root, &old)), "both are believed");
    let second = server(&new);
    live.replace_identity(&second.certificate_pem, second.key_pem.expose()).unwrap();
    assert!(shake(client(&root, &new)) && !shake(client(&old_root, &new)), "the server shows the new one");
    live.replace_issuing(new.certificate_pem()).unwrap();
    assert!(!shake(client(&root, &old)), "the old one is believed no more");
    assert!(live.replace_identity(&second.certificate_pem, first.key_pem.expose()).is_err());
    assert!(shake(client(&root, &new)), "what cannot be used changes nothing");
}

#[test]
fn the_enrolling_port_takes_no_certificate_or_one_out_of_date_and_no_foreign_one() {
    let (root, foreign_root) = (self::root(), self::root());
    let (ours, foreign) = (issuing(&root, &[]), issuing(&foreign_root, &[]));
    let now = SystemTime::now();
    let server = ours
        .issue_server(&IssueServerRequest {
            common_name: "server".into(),
            dns_names: vec!["ward.example".into()],
            ips: vec![],
            not_before: now - Duration::from_secs(60),
            not_after: now + days(1),
        })
        .unwrap();
    // The server's clock stands a year further than the certificates: they are all out of date.
    let later = now + days(365);
    let live = |at: SystemTime| {
        let now: trust::tls::Now = Arc::new(move || at);
        trust::tls::LiveTls::new(
            &server.certificate_pem,
            server.key_pem.expose(),
            ours.certificate_pem(),
            now,
        )
        .unwrap()
    };
    let identity = |authority: &Authority| {
        let issued = authority.issue_client(&request()).unwrap();
        let identity = (issued.certificate_pem.as_str(), issued.key_pem.expose());
        trust::tls::client_config(root.certificate_pem(), Some(identity), &[]).unwrap()
    };
    let nobody = || trust::tls::client_config(root.certificate_pem(), None, &[]).unwrap();
    for at in [now, later, now - days(365)] {
        let (strict, enrolling) = (live(at).strict_port(&[]).unwrap(), live(at).enrolling_port(&[]).unwrap());
        let shake =
            |config, port: &rustls::ServerConfig| super::tls::shake(config, port.clone(), "ward.example");
        assert_eq!(shake(identity(&ours), &strict).is_ok(), at == now, "in date only");
        assert!(shake(identity(&ours), &enrolling).is_ok(), "out of date too");
        assert!(shake(nobody(), &enrolling).is_ok() && shake(nobody(), &strict).is_err());
        assert!(shake(identity(&foreign), &enrolling).is_err(), "another's, with the same names");
        // A server's certificate has another purpose.
        let server = (server.certificate_pem.as_str(), server.key_pem.expose());
        let server = trust::tls::client_config(root.certificate_pem(), Some(server), &[]).unwrap();
        assert!(shake(server, &enrolling).is_err(), "another purpose");
    }
}
