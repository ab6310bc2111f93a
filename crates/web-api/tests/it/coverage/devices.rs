//! Every operation of the device port over the wire: refused without a certificate, and refused to a device or a program
//! whose certificate is revoked. A new operation without its row fails here.

use axum::http::Method;
use serde_json::json;
use trust::pki::PeerUri;
use web_api::device_operations;

use super::concrete;
use crate::clinic::monitor;
use crate::enrol::house::{House, key_and_request};
use crate::ingest::listener::Port;

/// What an operation of the device port asks of whoever calls it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asks {
    /// A certificate that is believed now.
    Certificate,
    /// Nothing: why it is open.
    Nothing(&'static str),
}

fn asks(path: &str) -> Asks {
    match path {
        "/enrol/v1/claim" | "/.well-known/est/simpleenroll" => {
            Asks::Nothing("for a device without a certificate: it proves itself with a claim code")
        }
        "/.well-known/est/cacerts" | "/.well-known/est/csrattrs" | "/pki/crl/{file}" => {
            Asks::Nothing("public: the authority's certificates, what a request holds, who is revoked")
        }
        "/fhir/metadata" => Asks::Nothing("public, but on this port the certificate is asked for first"),
        "/.well-known/est/simplereenroll" | "/ingest/v1/envelope" | "/ingest/v1/gatt/{characteristic}" => {
            Asks::Certificate
        }
        path if path == "/fhir" || path.starts_with("/fhir/") => Asks::Certificate,
        path => panic!("{path} needs a row here: what does it ask of a device?"),
    }
}

/// The status, and all that was said.
async fn told(client: &reqwest::Client, method: &Method, url: String, csr: &str) -> (u16, String) {
    let kind = match url.as_str() {
        url if url.contains("/est/") => "application/pkcs10",
        url if url.contains("/gatt/") => "application/octet-stream",
        url if url.contains("/fhir") => "application/fhir+json",
        _ => "application/json",
    };
    let request = client.request(method.clone(), url).header("content-type", kind).body(csr.to_owned());
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn filled(path: &str) -> String {
    concrete(path).replace("{vid}", "1").replace("{characteristic}", "2a37").replace("{file}", "0000.crl")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_and_with_a_revoked_one_no_operation_of_the_device_port_is_done() {
    let house = House::open().await;
    let cookie = house.clinic.sign_in("biomedical-engineer").await;
    let code = house.code(monitor(1)).await;
    let (key, csr) = key_and_request(None);
    let (status, claimed) = house.claim("S1", &code, &csr).await;
    assert_eq!(status, 200, "{claimed}");
    let own = house.client(Some((claimed["certificate_pem"].as_str().unwrap(), &key.serialize_pem())));
    let nobody = house.client(None);

    // The same requests of the same device get past the door before: what is refused after is about the certificate.
    for (method, path) in device_operations() {
        if asks(path) == Asks::Certificate && path != "/.well-known/est/simplereenroll" {
            let (_, said) = told(&own, &method, house.url(&filled(path)), "x").await;
            assert!(!said.contains("revoked"), "{method} {path}: {said}");
        }
    }
    let path = format!("/api/v1/devices/{}/certificate/revoke", monitor(1));
    let revoked = house.clinic.post(&path, &cookie, json!({"reason": "lost"})).await;
    assert_eq!(revoked.status, 200, "{:?}", revoked.body);
    let cut = own.get(house.url("/fhir/metadata")).send().await;
    assert!(cut.is_err() || cut.is_ok_and(|answer| answer.status() == 403), "the open connection");

    let mut checked = 0;
    for (method, path) in device_operations() {
        let body = if path.contains("/est/") { csr.as_str() } else { "x" };
        let (status, said) = told(&own, &method, house.url(&filled(path)), body).await;
        let (strange, strangers) = told(&nobody, &method, house.url(&filled(path)), body).await;
        if let Asks::Nothing(_) = asks(path) {
            continue;
        }
        assert_eq!(status, 403, "{method} {path}: {said}");
        assert!(said.contains("revoked") || path.contains("/est/"), "{method} {path}: {said}");
        assert!(matches!(strange, 401 | 403), "{method} {path}: {strange} {strangers}");
        checked += 1;
    }
    assert!(checked >= 50, "{checked}");
    // A token in a header does not stand in for the certificate that was shown.
    let beside = own.get(house.url("/fhir/Patient")).bearer_auth("x").send().await.unwrap();
    assert_eq!(beside.status(), 403);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_certificate_is_revoked_gets_no_operation_of_the_device_port() {
    let port = Port::open().await;
    let everything = vec!["system/*.cruds".to_owned()];
    port.clinic.site.admission().set_program_scopes([("ehr".to_owned(), everything)]);
    let (client, serial) = port.client(PeerUri::program("ehr").unwrap(), true);
    let before = client.get(port.url("/fhir/Patient")).send().await.unwrap();
    assert_eq!(before.status(), 200);
    port.clinic.site.admission().set_revoked([serial]);
    let cut = client.get(port.url("/fhir/Patient")).send().await;
    assert!(cut.is_err() || cut.is_ok_and(|answer| answer.status() == 403), "the open connection");
    for (method, path) in device_operations() {
        if asks(path) != Asks::Certificate || path.contains("/est/") {
            continue;
        }
        let url = format!("{}?device={}", port.url(&filled(path)), monitor(1));
        let (status, said) = told(&client, &method, url, "x").await;
        assert_eq!(status, 403, "{method} {path}: {said}");
        assert!(said.contains("revoked"), "{method} {path}: {said}");
    }
    port.close().await;
}
