//! What must not get a certificate, and who must not be locked out by it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use trust::pki::{Authority, IssueRequest, IssueServerRequest, PeerUri};

use super::house::{DAY_S, House, key_and_request, request_of};
use crate::clinic::monitor;

/// A code of the right form that is nobody's.
const WRONG: &str = "00000-00000-00000-00000-00000-1";

#[tokio::test(flavor = "multi_thread")]
async fn wrong_codes_take_no_code_away_and_fill_no_log() {
    let house = House::open().await;
    let code = house.code(monitor(1)).await;
    let csr = key_and_request(None).1;
    for number in 0..60 {
        let (status, refused) = house.claim("S1", WRONG, &csr).await;
        assert_eq!(status, if number < 30 { 403 } else { 429 }, "{refused}");
    }
    assert_eq!(house.shown(monitor(1)).await["claim"]["state"], "open");
    let refusals =
        || house.recorded().into_iter().filter(|(outcome, _)| outcome == "Refused").collect::<Vec<_>>();
    assert_eq!(refusals().len(), 30, "of a flood from one address some are recorded");
    house.clinic.clock.advance(2);
    house.claim("S1", WRONG, &csr).await;
    assert_eq!(refusals().len(), 31);
    assert!(refusals().iter().any(|(_, detail)| detail.contains("30 refusals")), "{:?}", refusals());
    // From the same address, in the middle of it.
    assert_eq!(house.claim("S1", &code, &csr).await.0, 200);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_broken_off_is_finished_at_the_start() {
    let house = House::open().await;
    let (key, csr) = key_and_request(None);
    let (_, first) = house.claim("S1", &house.code(monitor(1)).await, &csr).await;
    let old_key = key.serialize_pem();
    // A connection each: those of a revoked certificate are cut.
    let old = || house.client(Some((first["certificate_pem"].as_str().unwrap(), &old_key)));
    let (key, csr) = key_and_request(None);
    let code = house.code(monitor(1)).await;
    let (status, second) = house.claim("S1", &code, &csr).await;
    assert_eq!((status, house.send(&old(), -10).await.unwrap()), (200, 403));
    // As if the server had been stopped before it revoked what was before.
    house.authority.forget_revocations();
    assert_eq!(house.send(&old(), -9).await.unwrap(), 200);
    house.clinic.site.finish_claims(house.authority.as_ref()).unwrap();
    assert_eq!(house.send(&old(), -8).await.unwrap(), 403, "superseded");
    let new = house.client(Some((second["certificate_pem"].as_str().unwrap(), &key.serialize_pem())));
    assert_eq!(house.send(&new, -7).await.unwrap(), 200, "the newest stands");
    house.authority.forget_revocations();
    assert_eq!(house.claim("S1", &code, &csr).await.0, 200, "asked for again, for the answer was lost");
    assert_eq!(house.send(&old(), -6).await.unwrap(), 403);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_bound_to_its_serial_number_time_and_withdrawal() {
    let house = House::open().await;
    let csr = key_and_request(None).1;
    let code = house.code(monitor(1)).await;
    for serial in ["S2", "s1", "", "S1\0", "*", "nobody"] {
        assert_eq!(house.claim(serial, &code, &csr).await.0, 403, "{serial:?}");
    }
    house.clinic.clock.advance(3 * DAY_S);
    assert_eq!(house.claim("S1", &code, &csr).await.0, 403, "72 hours are over");
    let code = house.code(monitor(1)).await;
    let cookie = house.clinic.sign_in("biomedical-engineer").await;
    let path = format!("/api/v1/devices/{}/claim", monitor(1));
    let taken = house.clinic.call(axum::http::Method::DELETE, &path, Some(&cookie), None).await;
    assert_eq!(taken.body["claim"]["state"], "withdrawn", "{:?}", taken.body);
    assert_eq!(house.claim("S1", &code, &csr).await.0, 403);
    // The second code is worth nothing once a third was made.
    let second = house.code(monitor(1)).await;
    let third = house.code(monitor(1)).await;
    assert_eq!(house.claim("S1", &second, &csr).await.0, 403);
    assert_eq!(house.claim("S1", &third, &csr).await.0, 200);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_devices_that_race_with_one_code_one_wins() {
    let house = House::open().await;
    let code = house.code(monitor(1)).await;
    let requests: Vec<String> = (0..6).map(|_| key_and_request(None).1).collect();
    let racing = requests.iter().map(|csr| house.claim("S1", &code, csr));
    let statuses: Vec<u16> =
        futures_util::future::join_all(racing).await.into_iter().map(|(status, _)| status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 5, "{statuses:?}");
    let refused = house.recorded().into_iter().filter(|(outcome, _)| outcome == "Refused").count();
    assert_eq!(refused, 5, "the losers are recorded");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_other_names_weak_keys_and_giants_are_refused_and_cost_no_try() {
    let house = House::open().await;
    let code = house.code(monitor(1)).await;
    let key = KeyPair::generate().unwrap();
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        STANDARD.encode(params.serialize_request(&key).unwrap().der())
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let other = format!("urn:auscult:device:{}", monitor(2));
    let abuses = [
        request_of(&key, Some("S2")),
        request_of(&key, Some("administrator")),
        with(&|params| params.subject_alt_names = vec![uri(&other)]),
        with(&|params| params.subject_alt_names = vec![uri("urn:auscult:program:ehr")]),
        with(&|params| params.subject_alt_names = vec![SanType::DnsName("*.example".try_into().unwrap())]),
        with(&|params| params.distinguished_name.push(DnType::OrganizationName, "Hospital")),
        with(&|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
        request_of(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap(), None),
        "AAAA".to_owned(),
        String::new(),
    ];
    for csr in &abuses {
        let (status, refused) = house.claim("S1", &code, csr).await;
        assert_eq!(status, 400, "{csr}: {refused}");
    }
    let mut forged = STANDARD.decode(request_of(&key, None)).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(house.claim("S1", &code, &STANDARD.encode(&forged)).await.0, 400, "a wrong signature");
    assert_eq!(house.claim("S1", &code, &"A".repeat(1 << 20)).await.0, 413);
    assert_eq!(house.claim("S1", &code, &"A".repeat(17 << 10)).await.0, 413);
    assert_eq!(house.claim("S1", &code, &request_of(&key, Some("S1"))).await.0, 200);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_only_the_paths_of_enrolment_answer() {
    let house = House::open().await;
    let nobody = house.client(None);
    for path in [
        "/fhir/Observation",
        "/fhir/Patient",
        "/fhir/metadata",
        "/ingest/v1/envelope",
        "/api/v1/session",
        "/.well-known/est",
        "/.well-known/est/../../fhir/Patient",
        "/.well-known/estx/cacerts",
        "/enrol/v1/claimx",
        "/pki/crl",
        "/",
    ] {
        let status = nobody.get(house.url(path)).send().await.unwrap().status().as_u16();
        assert!([403, 404].contains(&status), "{path}: {status}");
    }
    for path in
        ["/.well-known/est/fullcmc", "/.well-known/est/serverkeygen", "/.well-known/est/label/cacerts"]
    {
        assert_eq!(nobody.get(house.url(path)).send().await.unwrap().status(), 404, "{path}");
    }
    // A browser is told what a claim code is, and nothing else.
    assert_eq!(nobody.get(house.url("/enrol/v1/claim")).send().await.unwrap().status(), 200);
    assert_eq!(nobody.delete(house.url("/enrol/v1/claim")).send().await.unwrap().status(), 405);
    let csr = key_and_request(None).1;
    assert_eq!(house.est(&nobody, "simplereenroll", &csr, None).await.status, 403);
    let bearer =
        nobody.get(house.url("/fhir/Patient")).header("authorization", "Bearer nonsense").send().await;
    assert_eq!(bearer.unwrap().status(), 401, "a token that is none opens nothing");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_misused_certificates_do_not_get_in() {
    let house = House::open().await;
    let issuing = house.authority.issuing();
    let csr = key_and_request(None).1;
    let uri = PeerUri::Device(*monitor(1).as_uuid());
    let hour = Duration::from_secs(3_600);
    let (from, until) = (issuing.not_before() + 2 * hour, issuing.not_after() - 2 * hour);
    let request = |uri: &PeerUri| IssueRequest {
        common_name: "S1".into(),
        uri: uri.clone(),
        not_before: from,
        not_after: until,
    };
    // Another authority with the same names.
    let begin = issuing.not_before();
    let root = Authority::create_root("Test root", begin, 30).unwrap();
    let root = Authority::load(&root.certificate_pem, root.key_pem.expose()).unwrap();
    let twin = root.create_issuing("Test issuing", begin, 20, &trust::pki::NameLimits::default()).unwrap();
    let twin = Authority::load(&twin.certificate_pem, twin.key_pem.expose()).unwrap();
    let foreign = twin.issue_client(&request(&uri)).unwrap();
    let client = house.client(Some((&foreign.certificate_pem, foreign.key_pem.expose())));
    assert!(house.send(&client, -10).await.is_err(), "no handshake");
    let url = house.url("/.well-known/est/cacerts");
    assert!(client.get(url).send().await.is_err(), "not even for what is open to all");

    // A server's certificate of ours.
    let server = issuing.issue_server(&IssueServerRequest {
        common_name: "server".into(),
        dns_names: vec!["localhost".into()],
        ips: vec![],
        not_before: from,
        not_after: until,
    });
    let server = server.unwrap();
    let client = house.client(Some((&server.certificate_pem, server.key_pem.expose())));
    assert!(house.send(&client, -10).await.is_err(), "another purpose");

    // A program of ours cannot become a device.
    let program = PeerUri::program("lab").unwrap();
    let program = issuing.issue_client(&request(&program)).unwrap();
    let client = house.client(Some((&program.certificate_pem, program.key_pem.expose())));
    assert_eq!(house.est(&client, "simplereenroll", &csr, None).await.status, 403);
    assert_eq!(house.est(&client, "simpleenroll", &csr, None).await.status, 403);

    // A device that nobody knows, with a sound certificate.
    let stranger = PeerUri::Device(uuid::Uuid::from_u128(0x77));
    let stranger = issuing.issue_client(&request(&stranger)).unwrap();
    let client = house.client(Some((&stranger.certificate_pem, stranger.key_pem.expose())));
    assert_eq!(house.est(&client, "simplereenroll", &csr, None).await.status, 403);
    // One device cannot renew as another.
    let own = issuing.issue_client(&request(&uri)).unwrap();
    let client = house.client(Some((&own.certificate_pem, own.key_pem.expose())));
    assert_eq!(house.est(&client, "simplereenroll", &key_and_request(Some("S2")).1, None).await.status, 400);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_guesses_is_slowed_down() {
    let house = House::open().await;
    let csr = key_and_request(None).1;
    let mut statuses = Vec::new();
    for number in 0..35 {
        statuses.push(house.claim(&format!("X{number}"), WRONG, &csr).await.0);
    }
    assert_eq!(statuses[..30], [403; 30]);
    assert_eq!(statuses[30..], [429; 5], "the log is not filled");
    house.clinic.clock.advance(60);
    assert_eq!(
        house.claim("S1", &house.code(monitor(1)).await, &csr).await.0,
        200,
        "and nobody stays locked out"
    );
    house.close().await;
}
