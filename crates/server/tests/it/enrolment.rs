//! Enrolment against the real binary: the documented commands as they stand, openssl, turning keys over, and one's own device.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use clinical_model::DeviceId;
use simulator::client::HttpsDevice;
use simulator::client::enrol::{EnrolError, Held};
use store::Actor;

use crate::devices;
use crate::process::{ON_FREE_PORTS, Place, Server, succeed};

/// Longest wait for what a server takes up within a second.
const TAKEN_UP_LIMIT: Duration = Duration::from_secs(20);

/// A place with one device and a claim code for it.
fn expecting(place: &Place) -> (DeviceId, String) {
    std::fs::create_dir(place.data()).unwrap();
    devices::with_site(place, |site| {
        let device = devices::register(site, 1)[0];
        let opened = site.open_claim(Actor::System, device).unwrap();
        (device, opened.code.expose().to_owned())
    })
}

fn base(server: &Server) -> String {
    format!("https://localhost:{}", server.address("devices").rsplit(':').next().unwrap())
}

fn anchors(place: &Place) -> String {
    std::fs::read_to_string(place.data().join("pki/authority.pem")).unwrap()
}

/// The commands between two marks of the page, one block after the other.
fn documented() -> String {
    let page = include_str!("../../../../docs/operate/pki.md");
    let (_, rest) = page.split_once("<!-- a test runs the commands from here on as they stand -->").unwrap();
    let (part, _) = rest.split_once("<!-- to here -->").unwrap();
    let blocks: Vec<&str> =
        part.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 5, "blocks of commands on the page");
    blocks.concat()
}

fn shell(directory: &Path, script: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    said(&output.stdout)
}

#[test]
fn the_documented_commands_enrol_renew_and_verify() {
    let place = Place::new();
    let (device, code) = expecting(&place);
    let server = Server::serve(&place, &[]);
    let shown = succeed(&["pki", "show", place.data().join("pki").to_str().unwrap()]);
    let pin = shown.split("SHA-256 ").nth(1).unwrap()[..64].to_owned();
    let work = tempfile::tempdir().unwrap();
    let base = base(&server);
    let variables = [("SERVER", base.as_str()), ("SERIAL", "1"), ("CODE", &code), ("PIN", &pin)];
    let said = shell(work.path(), &documented(), &variables);
    assert!(said.contains("device.pem: OK") && said.contains("next.pem: OK"), "{said}");
    let certificate = shell(work.path(), "openssl x509 -in next.pem -noout -text", &[]);
    assert!(certificate.contains(&format!("URI:urn:auscult:device:{device}")), "{certificate}");
    assert!(certificate.contains("TLS Web Client Authentication") && certificate.contains("/pki/crl/"));

    // Revoked: the same check fails, for that reason.
    let pki = place.data().join("pki");
    let list = succeed(&["pki", "list", pki.to_str().unwrap()]);
    let script = "openssl x509 -in next.pem -noout -serial | cut -d= -f2";
    let serial = shell(work.path(), script, &[]).trim().to_lowercase();
    assert!(list.contains(&serial), "{list}");
    succeed(&["pki", "revoke", pki.to_str().unwrap(), &serial, "--reason", "sold"]);
    place.pki(&["crl", pki.to_str().unwrap(), "--out", work.path().join("offline.crl").to_str().unwrap()]);
    let check = "openssl crl -inform DER -in offline.crl -out offline.pem
        openssl crl -in offline.pem -noout -CAfile <(cat chain.pem authority.pem) 2>&1
        openssl verify -crl_check -CAfile authority.pem -untrusted chain.pem -CRLfile offline.pem next.pem 2>&1 || true";
    let said = shell(work.path(), check, &[]);
    assert!(said.contains("verify OK") && said.contains("certificate revoked"), "{said}");
    // A wrong pin gives no root, and with it nothing.
    let elsewhere = tempfile::tempdir().unwrap();
    let wrong = [("SERVER", base.as_str()), ("SERIAL", "1"), ("CODE", &code), ("PIN", &"0".repeat(64))];
    let fetch = documented().split("openssl ecparam").next().unwrap().to_owned();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &fetch])
        .current_dir(elsewhere.path())
        .envs(wrong)
        .output()
        .unwrap();
    assert!(!output.status.success() && !elsewhere.path().join("authority.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_ours_claims_sends_renews_and_follows_a_turn_of_the_issuing_key() {
    let place = Place::new();
    let (_, code) = expecting(&place);
    let server = Server::serve(&place, &[]);
    let base = base(&server);
    let root = anchors(&place);
    assert!(matches!(
        Held::claim(&base, &root, "1", "00000-00000-00000-00000-00000-0").await,
        Err(EnrolError::Refused { status: 403, .. })
    ));
    let held = Held::claim(&base, &root, "1", &code).await.unwrap();
    let half = held.renew_after().duration_since(SystemTime::now()).unwrap();
    assert!((14..=15).contains(&(half.as_secs() / 86_400)), "{half:?}");
    let sends = async || {
        let device = HttpsDevice::new(&base, (*held.tls().unwrap()).clone()).unwrap();
        let frame = vec![0x00, 0x48];
        device.post(clinical_model::FrameKind::Gatt(0x2a37), frame).await.map(|posted| posted.status)
    };
    assert_eq!(sends().await.unwrap(), 200, "log: {}", server.log());
    held.renew(&base).await.unwrap();
    assert_eq!(sends().await.unwrap(), 200);

    // The issuing key turns over while the server runs, with a root's key that was taken away.
    let pki = place.data().join("pki");
    let (pki, root_key) = (pki.to_str().unwrap(), place.path("root.key"));
    let root_key = root_key.to_str().unwrap();
    let phrase = place.path("phrase");
    std::fs::write(&phrase, "correct horse battery staple\n").unwrap();
    let phrase = phrase.to_str().unwrap();
    place.pki(&["take-root", pki, "--out", root_key, "--passphrase-file", phrase]);
    place.pki(&["rotate", pki, "--root-key", root_key, "--passphrase-file", phrase]);
    let began = Instant::now();
    let issuers = |pem: &str| trust::pki::certificates_of(pem).len();
    let issuing = std::fs::read_to_string(place.data().join("pki/issuing.pem")).unwrap();
    assert_eq!(issuers(&issuing), 2);
    let present = trust::pki::certificates_of(&issuing)[0].clone();
    let shown_by_server = || {
        let script = format!(
            "openssl s_client -connect {} -showcerts </dev/null 2>/dev/null || true",
            base.strip_prefix("https://").unwrap()
        );
        trust::pki::certificates_of(&shell(place.path(".").as_path(), &script, &[]))
    };
    while !shown_by_server().contains(&present) {
        assert!(
            began.elapsed() < TAKEN_UP_LIMIT,
            "the server still shows the old one; log: {}",
            server.log()
        );
    }
    assert_eq!(sends().await.unwrap(), 200, "what the earlier key issued is believed");
    held.renew(&base).await.unwrap();
    assert_eq!(sends().await.unwrap(), 200, "and what the new one issues");
    assert!(server.stop().0.success());
    let server = Server::serve(&place, &[]);
    assert!(server.ready["address"].is_string(), "it serves without the root's key");
    assert!(server.stop().0.success());

    // A restore that forgot the authority must not make another one that no device believes.
    std::fs::rename(pki, place.path("pki.away")).unwrap();
    let arguments = place.arguments();
    let own: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let refused = crate::process::refuse(&[&["serve"], &own[..], &ON_FREE_PORTS].concat());
    assert!(
        refused.contains("there is no authority in") && refused.contains("auscult pki init"),
        "{refused}"
    );
    let doctor = crate::process::run(&[&["doctor"], &own[..]].concat());
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(!doctor.status.success() && said.contains("though there is a store"), "{said}");
}

#[test]
fn nothing_secret_lies_in_the_directory_of_the_authority() {
    let place = Place::new();
    devices::provision(&place, 1);
    let server = Server::serve(&place, &[]);
    assert!(server.stop().0.success());
    let pki = place.data().join("pki");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&pki).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"), "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    for name in ["sealing.key", "server.key", "root.key", "issuing.pem"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
    // Another key-encryption key opens nothing.
    let other = place.path("other");
    succeed(&["key", "generate", other.to_str().unwrap()]);
    let pki = pki.to_str().unwrap();
    let refused = crate::process::refuse(&["pki", "rotate", pki, "--key-file", other.to_str().unwrap()]);
    assert!(refused.contains("fingerprint"), "{refused}");
}
