//! Enrolment over the wire: claims, EST, revocation, late renewals, and everything that must not get a certificate.

mod abuse;
pub mod house;
mod late;

use std::time::Duration;

use serde_json::json;
use trust::pki::{PeerIdentity, certificates_of};

use self::house::{Est, House, key_and_request, request_of};
use crate::clinic::{eventually, monitor};

#[tokio::test(flavor = "multi_thread")]
async fn a_device_claims_with_its_code_and_sends() {
    let house = House::open().await;
    assert_eq!(house.shown(monitor(1)).await["state"], "none");
    let code = house.code(monitor(1)).await;
    let waiting = house.shown(monitor(1)).await;
    assert_eq!((&waiting["state"], &waiting["claim"]["state"]), (&json!("claimable"), &json!("open")));
    assert!(!waiting.to_string().contains(&code), "the code is shown once");

    let (key, csr) = key_and_request(Some("S1"));
    let typed = code.to_lowercase().replace('-', " ");
    let (status, claimed) = house.claim("S1", &typed, &csr).await;
    assert_eq!(status, 200, "{claimed}");
    assert_eq!(claimed["device_id"], monitor(1).to_string());
    let chain = claimed["certificate_pem"].as_str().unwrap();
    let leaf = certificates_of(chain).remove(0);
    let identity = PeerIdentity::from_der(&leaf).unwrap();
    assert_eq!(identity.uri.to_string(), format!("urn:auscult:device:{}", monitor(1)));
    assert_eq!(identity.common_name, "S1");
    let life = identity.not_after.duration_since(identity.not_before).unwrap();
    assert_eq!(life.as_secs() / 86_400, 30);

    let own = house.client(Some((chain, &key.serialize_pem())));
    assert_eq!(house.send(&own, -10).await.unwrap(), 200);
    let shown = house.shown(monitor(1)).await;
    assert_eq!((&shown["state"], &shown["certificate"]["via"]), (&json!("enrolled"), &json!("claim")));
    assert_eq!(shown["certificate"]["serial_hex"], identity.serial_hex);

    // An answer can be lost: the same key gets the same certificate once more, another key does not.
    let (status, again) = house.claim("S1", &code, &request_of(&key, None)).await;
    assert_eq!((status, &again["certificate_pem"]), (200, &claimed["certificate_pem"]));
    let (status, _) = house.claim("S1", &code, &key_and_request(None).1).await;
    assert_eq!(status, 403);
    let recorded = house.recorded();
    assert!(recorded[0].0 == "Refused" && recorded[0].1.contains("used"), "{recorded:?}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn est_clients_enrol_and_renew_as_rfc_7030_says() {
    let house = House::open().await;
    let nobody = house.client(None);
    let get = async |path: &str| {
        Est::of(nobody.get(house.url(&format!("/.well-known/est/{path}"))).send().await.unwrap()).await
    };
    let authorities = get("cacerts").await;
    assert_eq!((authorities.status, authorities.kind.as_str()), (200, "application/pkcs7-mime"));
    assert_eq!(authorities.encoding, "base64");
    assert!(authorities.headers["date"].to_str().unwrap().ends_with("GMT"), "a lost clock is set by it");
    let anchor = certificates_of(&pipeline_outline(&house).anchors_pem).remove(0);
    let holds = |message: &[u8], part: &[u8]| message.windows(part.len()).any(|window| window == part);
    assert!(holds(&authorities.der(), &anchor));
    let wishes = get("csrattrs").await;
    assert_eq!((wishes.status, wishes.kind.as_str()), (200, "application/csrattrs"));

    let (key, csr) = key_and_request(Some("S1"));
    let refused = house.est(&nobody, "simpleenroll", &csr, None).await;
    assert_eq!(refused.status, 401);
    assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Basic realm="));
    let code = house.code(monitor(1)).await;
    let wrapped: String =
        csr.as_bytes().chunks(64).map(|line| format!("{}\r\n", str::from_utf8(line).unwrap())).collect();
    let enrolled = house.est(&nobody, "simpleenroll", &wrapped, Some(("S1", &code))).await;
    assert_eq!(enrolled.status, 200, "{}", enrolled.text);
    assert_eq!(enrolled.kind, "application/pkcs7-mime; smime-type=certs-only");
    let known = house.clinic.site.enrolment(monitor(1)).unwrap();
    let chain = known.certificates[0].chain_pem.clone().unwrap();
    let leaf = certificates_of(&chain).remove(0);
    assert!(holds(&enrolled.der(), &leaf) && !holds(&enrolled.der(), &anchor), "the new certificate alone");

    // Renewal: the identity stays, the key may be another.
    house.clinic.clock.advance(16 * house::DAY_S);
    assert_eq!(house.shown(monitor(1)).await["state"], "renewal-due");
    let leaf_only = house::first_pem(&chain);
    let own = house.client(Some((&leaf_only, &key.serialize_pem())));
    let (second_key, second_csr) = key_and_request(Some("S1"));
    let renewed = house.est(&own, "simplereenroll", &second_csr, None).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    let shown = house.shown(monitor(1)).await;
    assert_eq!((&shown["state"], &shown["certificate"]["via"]), (&json!("enrolled"), &json!("renewal")));
    assert!(shown["last_renewed_at"].is_string());
    let renewed = house.clinic.site.enrolment(monitor(1)).unwrap().certificates[0].chain_pem.clone().unwrap();
    let own = house.client(Some((&renewed, &second_key.serialize_pem())));
    assert_eq!(house.send(&own, 10).await.unwrap(), 200);
    let enrolled = house.est(&own, "simpleenroll", &key_and_request(None).1, None).await;
    assert_eq!(enrolled.status, 200, "a certificate in date authorises simpleenroll too");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_opens_a_claim_code_is_told_what_to_do_with_it() {
    let house = House::open().await;
    let answer = house.client(None).get(house.url("/enrol/v1/claim")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-type").starts_with("text/html") && header("cache-control") == "no-store");
    assert!(header("content-security-policy").contains("default-src 'none'"));
    let page = answer.text().await.unwrap();
    assert!(page.contains("A browser cannot claim a device") && !page.contains("<script"), "{page}");
    let on_the_web_port = house.clinic.text("/enrol/v1/claim", "").await;
    assert_eq!(on_the_web_port, page);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_from_a_replaced_hubs_flash_makes_itself_no_new_certificate() {
    let house = House::open().await;
    let code = house.code(monitor(1)).await;
    let (old_key, csr) = key_and_request(Some("S1"));
    let (status, claimed) = house.claim("S1", &code, &csr).await;
    assert_eq!(status, 200, "{claimed}");
    let old = house.client(Some((claimed["certificate_pem"].as_str().unwrap(), &old_key.serialize_pem())));
    assert_eq!(house.send(&old, -10).await.unwrap(), 200);
    let kept = || house.clinic.site.enrolment(monitor(1)).unwrap();
    eventually("the use of the first is noted", || kept().certificates[0].used_at.is_some()).await;

    house.clinic.clock.advance(16 * house::DAY_S);
    let (new_key, csr) = key_and_request(Some("S1"));
    assert_eq!(house.est(&old, "simplereenroll", &csr, None).await.status, 200);
    // Its answer may have been lost, so until the next one is seen the earlier one still renews.
    house.clinic.clock.advance(2 * 3_600);
    let (newest_key, csr) = key_and_request(Some("S1"));
    assert_eq!(house.est(&old, "simplereenroll", &csr, None).await.status, 200);
    drop(new_key);
    let newest = kept().certificates[0].chain_pem.clone().unwrap();
    let newest = house.client(Some((&newest, &newest_key.serialize_pem())));
    assert_eq!(house.send(&newest, -5).await.unwrap(), 200);
    eventually("the use of the newest is noted", || kept().certificates[0].used_at.is_some()).await;

    let issued = kept().certificates.len();
    for _ in 0..3 {
        let answer = house.est(&old, "simplereenroll", &key_and_request(Some("S1")).1, None).await;
        assert_eq!(answer.status, 403, "{}", answer.text);
        assert!(answer.text.contains("a newer certificate of this device is in use"), "{}", answer.text);
    }
    assert_eq!(kept().certificates.len(), issued);
    let recorded = house.recorded();
    let refused = recorded.iter().filter(|(_, detail)| detail.contains("a newer one is in use")).count();
    assert_eq!(refused, 1, "once an hour");
    let next = house.est(&newest, "simplereenroll", &key_and_request(Some("S1")).1, None).await;
    assert_eq!(next.status, 200, "the device itself goes on: {}", next.text);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_or_issued_by_a_clock_that_ran_ahead_outlives_nothing() {
    for was_ahead in [true, false] {
        let house = House::open().await;
        let code = house.code(monitor(1)).await;
        let (key, csr) = key_and_request(Some("S1"));
        let (status, claimed) = house.claim("S1", &code, &csr).await;
        assert_eq!(status, 200, "{claimed}");
        let own = house.client(Some((claimed["certificate_pem"].as_str().unwrap(), &key.serialize_pem())));
        house.clinic.clock.advance(20 * house::DAY_S);
        let (newer_key, csr) = key_and_request(Some("S1"));
        assert_eq!(house.est(&own, "simplereenroll", &csr, None).await.status, 200);
        let kept = || house.clinic.site.enrolment(monitor(1)).unwrap();
        let newest = kept().certificates[0].clone();
        let newer = house.client(Some((&newest.chain_pem.unwrap(), &newer_key.serialize_pem())));
        assert_eq!(house.send(&newer, -5).await.unwrap(), 200);
        eventually("the use of the newer is noted", || kept().certificates[0].used_at.is_some()).await;
        let again = async || house.est(&own, "simplereenroll", &key_and_request(Some("S1")).1, None).await;
        house.clinic.clock.advance(2 * 3_600);
        assert_eq!(again().await.status, 403, "outlived");
        if was_ahead {
            house.clinic.clock.advance(-20 * house::DAY_S);
        } else {
            use pipeline::enrolment::CertificateAuthority as _;
            house.authority.revoke(&[newest.serial_hex], "stolen").unwrap();
        }
        for _ in 0..pipeline::enrolment::ISSUED_PER_HOUR - usize::from(!was_ahead) {
            let renewed = again().await;
            assert_eq!(renewed.status, 200, "ahead: {was_ahead}: {}", renewed.text);
        }
        house.close().await;
    }
}

fn pipeline_outline(house: &House) -> pipeline::enrolment::Outline {
    use pipeline::enrolment::CertificateAuthority as _;
    house.authority.outline()
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_and_decommissioning_end_open_connections_and_say_so() {
    let house = House::open().await;
    let cookie = house.clinic.sign_in("biomedical-engineer").await;
    let enrol = async |number: u8| {
        let code = house.code(monitor(number)).await;
        let (key, csr) = key_and_request(None);
        let (status, claimed) = house.claim(&format!("S{number}"), &code, &csr).await;
        assert_eq!(status, 200, "{claimed}");
        (house.client(Some((claimed["certificate_pem"].as_str().unwrap(), &key.serialize_pem()))), csr)
    };
    let (first, csr) = enrol(1).await;
    assert_eq!(house.send(&first, -10).await.unwrap(), 200);
    let path = format!("/api/v1/devices/{}/certificate/revoke", monitor(1));
    assert_eq!(house.clinic.post(&path, &cookie, json!({"reason": " "})).await.status, 400);
    let revoked = house.clinic.post(&path, &cookie, json!({"reason": "lost"})).await;
    assert_eq!((revoked.status.as_u16(), &revoked.body["state"]), (200, &json!("revoked")));
    // The open connection is cut, or refuses; a new one refuses.
    let cut = house.send(&first, -9).await;
    assert!(cut.as_ref().is_err() || cut.as_ref().is_ok_and(|status| *status == 403), "{cut:?}");
    assert_eq!(house.send(&first, -8).await.unwrap(), 403);
    assert_eq!(house.est(&first, "simplereenroll", &csr, None).await.status, 403, "no way back by renewal");

    let (second, csr) = enrol(2).await;
    assert_eq!(house.send(&second, -10).await.unwrap(), 200);
    let path = format!("/api/v1/devices/{}/decommission", monitor(2));
    let done = house.clinic.post(&path, &cookie, json!({"reason": "sold"})).await;
    assert_eq!(done.status, 200, "{:?}", done.body);
    let proof = &done.body["proof"];
    assert_eq!(proof["revoked"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&proof["assignment_ended"], &done.body["enrolment"]["state"]),
        (&json!(true), &json!("decommissioned"))
    );
    assert!(house.clinic.site.registry().device(monitor(2)).unwrap().retired);
    let cut = house.send(&second, -9).await;
    assert!(cut.is_err() || cut.is_ok_and(|status| status == 403));
    assert_eq!(house.est(&second, "simplereenroll", &csr, None).await.status, 403);

    // Both stand in the signed list, which anybody may have.
    let list = proof["crl_paths"][0].as_str().unwrap();
    let got = house.client(None).get(house.url(list)).send().await.unwrap();
    assert_eq!(got.headers()["content-type"], "application/pkix-crl");
    let der = got.bytes().await.unwrap();
    let serial = proof["revoked"][0].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..serial.len()).step_by(2).map(|at| u8::from_str_radix(&serial[at..at + 2], 16).unwrap()).collect();
    assert!(der.windows(bytes.len()).any(|window| window == bytes));
    let unknown = house.client(None).get(house.url("/pki/crl/0000.crl")).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_claimed_anew_has_one_identity() {
    let house = House::open().await;
    let (old_key, csr) = key_and_request(None);
    let (_, first) = house.claim("S1", &house.code(monitor(1)).await, &csr).await;
    let (_, second) = house.claim("S1", &house.code(monitor(1)).await, &key_and_request(None).1).await;
    assert!(second["certificate_pem"].is_string(), "{second}");
    let old = house.client(Some((first["certificate_pem"].as_str().unwrap(), &old_key.serialize_pem())));
    assert_eq!(house.send(&old, -10).await.unwrap(), 403, "the earlier certificate is superseded");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_devices_are_expected_from_a_table() {
    let house = House::open().await;
    let cookie = house.clinic.sign_in("biomedical-engineer").await;
    let import = async |body: &str| {
        let request = axum::http::Request::builder()
            .method("POST")
            .uri("/api/v1/enrolment/import")
            .header("x-auscult", "1")
            .header("content-type", "text/csv")
            .header("cookie", &cookie)
            .body(axum::body::Body::from(body.to_owned()));
        house.clinic.send(request.unwrap()).await
    };
    let added = import("serial;model;manufacturer\nA-1;Cuff;Acme\nA-2;Cuff;Acme\nS1;T1;Test\n").await;
    assert_eq!(added.status, 200, "{:?}", added.body);
    assert_eq!(added.body["added"].as_array().unwrap().len(), 2);
    assert_eq!(added.body["known"][0]["device_id"], monitor(1).to_string());
    let again = import("serial;model;manufacturer\nA-1;Cuff;Acme\n").await;
    assert_eq!(again.body["known"].as_array().unwrap().len(), 1);
    let refused = import("serial,model\nB-1,Cuff\n=1+1,Cuff\n").await;
    assert_eq!(refused.status, 400);
    let listed = house.clinic.get("/api/v1/enrolment", &cookie).await;
    let devices = listed.body["devices"].as_array().unwrap();
    assert!(!devices.iter().any(|device| device["serial"] == "B-1"), "nothing of a refused table is added");
    assert_eq!(listed.body["authority"]["issuing"][0]["is_current"], true);

    let new = added.body["added"][0]["device_id"].as_str().unwrap().parse().unwrap();
    let (status, claimed) = house.claim("A-1", &house.code(new).await, &key_and_request(None).1).await;
    assert_eq!(status, 200, "{claimed}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_registered_and_ended() {
    use pipeline::enrolment::CertificateAuthority as _;
    let house = House::open().await;
    let cookie = house.clinic.sign_in("administrator").await;
    let read = vec!["system/*.rs".to_owned()];
    house.authority.register_program("lab", &read).unwrap();
    let uri = trust::pki::PeerUri::program("lab").unwrap();
    house.authority.note(
        &uri.to_string(),
        "ab01",
        house.clinic.site.clock().now().plus(Duration::from_secs(9)),
    );
    let listed = house.clinic.get("/api/v1/programs", &cookie).await;
    assert_eq!(listed.body["programs"][0]["scopes"], json!(["system/*.rs"]), "{:?}", listed.body);
    let set = async |scopes: serde_json::Value| {
        let body = Some(json!({ "scopes": scopes }));
        house.clinic.call(axum::http::Method::PUT, "/api/v1/programs/lab/scopes", Some(&cookie), body).await
    };
    assert_eq!(set(json!(["system/Observation.cruds"])).await.status, 200);
    assert_eq!(&*house.clinic.site.admission().program_scopes("lab"), ["system/Observation.cruds"]);
    assert_eq!(&*house.clinic.site.admission().program_scopes("other"), ["system/*.rs"], "the default");
    for wrong in [json!([]), json!(["user/*.rs"]), json!(["system/*.xyz"]), json!(["launch"])] {
        assert_eq!(set(wrong.clone()).await.status, 400, "{wrong}");
    }
    let ended =
        house.clinic.post("/api/v1/programs/lab/revoke", &cookie, json!({"reason": "replaced"})).await;
    assert!(ended.body["programs"].is_null() && ended.body["certificates"][0]["revoked_at"].is_string());
    let none = house.clinic.post("/api/v1/programs/none/revoke", &cookie, json!({"reason": "x"})).await;
    assert_eq!(none.status, 404);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_no_chart_widens_no_program() {
    use pipeline::enrolment::CertificateAuthority as _;
    let house = House::open().await;
    let integrator = house.clinic.sign_in("integrator").await;
    let administrator = house.clinic.sign_in("administrator").await;
    house.authority.register_program("lab", &["system/Observation.rs".to_owned()]).unwrap();
    let set = async |cookie: &str, scopes: &str| {
        let body = Some(json!({ "scopes": [scopes] }));
        let path = "/api/v1/programs/lab/scopes";
        house.clinic.call(axum::http::Method::PUT, path, Some(cookie), body).await.status
    };
    for wider in ["system/*.cruds", "system/Observation.crs", "system/Patient.r", "system/*.rs"] {
        assert_eq!(set(&integrator, wider).await, 403, "{wider}");
    }
    assert_eq!(&*house.clinic.site.admission().program_scopes("lab"), ["system/Observation.rs"]);
    assert_eq!(
        set(&integrator, "system/Observation.r?category=vital-signs").await,
        200,
        "narrower is theirs"
    );
    assert_eq!(set(&integrator, "system/Observation.rs").await, 403, "and there is no way back for them");
    assert_eq!(set(&administrator, "system/*.cruds").await, 200);
    let query = store::AuditQuery { limit: 100, ..store::AuditQuery::default() };
    let rows = house.clinic.site.store().audit_rows(&query).unwrap();
    let refused = rows
        .iter()
        .filter(|row| row.record.object == "program" && row.record.outcome == store::AuditOutcome::Refused);
    assert_eq!(refused.count(), 5);
    house.close().await;
}
