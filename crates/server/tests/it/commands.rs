//! Commands that need no server.

use std::io::Write as _;
use std::process::Stdio;

use crate::process::{Place, auscult, refuse, run, succeed};

#[test]
fn the_exit_status_tells_wrong_usage_from_failure() {
    assert_eq!(run(&["serve", "--nonsense"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["decode", "gatt/zzzz", "00"]).status.code(), Some(2));
    assert_eq!(
        run(&["verify", "--data", "/nonexistent", "--key-file", "/nonexistent"]).status.code(),
        Some(1)
    );
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_frame_is_explained_and_a_broken_one_is_pointed_at() {
    let text = succeed(&["decode", "gatt/2a37", "00", "48"]);
    assert!(text.contains("heart_rate 72"), "{text}");
    let output = run(&["decode", "gatt/2a37", "01", "48"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains('^'));
}

#[test]
fn an_envelope_is_read_from_standard_input() {
    let mut child = auscult()
        .args(["decode", "envelope", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\n  \"measure\": 7\n}").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("line    2") && text.contains('^'), "{text}");
}

#[test]
fn a_certificate_is_issued_listed_and_revoked() {
    let place = Place::new();
    let (pki, out) = (place.path("pki"), place.path("certs"));
    let (pki, out) = (pki.to_str().unwrap(), out.to_str().unwrap());
    place.pki(&["init", pki, "--site", "Ward 3"]);
    let device = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11";
    let written = place.pki(&["issue", pki, "--device", device, "--out", out]);
    assert_eq!(written.lines().count(), 3, "{written}");
    let list = succeed(&["pki", "list", pki]);
    let serial = list.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(list.contains("valid") && list.contains(device), "{list}");
    succeed(&["pki", "revoke", pki, &serial, "--reason", "lost on the bus"]);
    assert!(succeed(&["pki", "list", pki]).contains("lost on the bus"));
    assert!(refuse(&["pki", "revoke", pki, "00ff", "--reason", "x"]).contains("pki list"));
    assert_eq!(run(&["pki", "issue", pki, "--out", out]).status.code(), Some(2), "for whom?");
    let sealed = refuse(&["pki", "issue", pki, "--device", device, "--out", out]);
    assert!(sealed.contains("--key-file"), "{sealed}");
}

#[test]
fn a_key_that_protects_nothing_is_refused() {
    let place = Place::new();
    let (data, key) = (place.data(), place.data().join("key"));
    std::fs::create_dir(&data).unwrap();
    succeed(&["key", "generate", key.to_str().unwrap()]);
    let arguments = ["serve", "--data", data.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
    assert!(refuse(&arguments).contains("inside the data directory"));
    let errors = refuse(&["serve", "--data", data.to_str().unwrap()]);
    assert!(errors.contains("key generate"), "{errors}");
    let arguments = place.arguments();
    let web = ["--web", "0.0.0.0:0"];
    let arguments: Vec<&str> =
        ["serve"].into_iter().chain(arguments.iter().map(String::as_str)).chain(web).collect();
    assert!(refuse(&arguments).contains("web.tls = true"));
}

/// TRY, 20:40: doctor said nothing of policies that the next start refuses.
#[test]
fn doctor_names_policies_that_cannot_be_used() {
    let place = Place::new();
    let (policies, config) = (place.path("policies"), place.path("auscult.toml"));
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(&config, format!("[access]\npolicies = {policies:?}\n")).unwrap();
    let doctor = || {
        let output = auscult().arg("doctor").args(place.arguments()).arg("--config").arg(&config).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(doctor().contains("ok    policies"), "{}", doctor());
    std::fs::write(policies.join("site.cedar"), "permit (principal, action").unwrap();
    let said = doctor();
    assert!(said.contains("FAIL  policies") && said.contains("site.cedar"), "{said}");
    assert!(said.contains("1 failure") && !said.contains("1 failures"), "{said}");
}

#[test]
fn a_site_without_a_checkpoint_says_so_instead_of_printing_nothing() {
    let place = Place::new();
    crate::devices::provision(&place, 1);
    let arguments = place.arguments();
    let arguments: Vec<&str> =
        ["audit", "checkpoint"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    assert!(refuse(&arguments).contains("no checkpoint was signed yet"));
}
