//! Clocks that are wrong and devices that were away for long: nobody is locked out for good, and nothing is silent.

use serde_json::json;

use super::house::{DAY_S, House, key_and_request};
use crate::clinic::monitor;

async fn enrolled(house: &House) -> (reqwest::Client, String) {
    let (key, csr) = key_and_request(None);
    let (status, claimed) = house.claim("S1", &house.code(monitor(1)).await, &csr).await;
    assert_eq!(status, 200, "{claimed}");
    (house.client(Some((claimed["certificate_pem"].as_str().unwrap(), &key.serialize_pem()))), csr)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_can_be_renewed_and_nothing_else() {
    let house = House::open().await;
    let (own, csr) = enrolled(&house).await;
    assert_eq!(house.send(&own, -10).await.unwrap(), 200);
    house.clinic.clock.advance(31 * DAY_S);
    assert_eq!(house.shown(monitor(1)).await["state"], "expired");
    // Also on the connection that was opened while it was in date.
    assert_eq!(house.send(&own, 0).await.unwrap(), 403);
    let read = own.get(house.url("/fhir/Observation")).send().await.unwrap();
    assert_eq!(read.status(), 403);
    assert!(read.text().await.unwrap().contains("simplereenroll"), "it says what can be done");
    assert_eq!(house.est(&own, "simpleenroll", &csr, None).await.status, 401, "not as a first enrolment");
    let renewed = house.est(&own, "simplereenroll", &csr, None).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    assert_eq!(house.shown(monitor(1)).await["state"], "enrolled");
    assert!(house.recorded()[0].1.contains("late: it ended"), "{:?}", house.recorded()[0]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ended_long_ago_waits_for_a_person() {
    let house = House::open().await;
    let (own, csr) = enrolled(&house).await;
    house.clinic.clock.advance((30 + 91) * DAY_S);
    for _ in 0..3 {
        let waits = house.est(&own, "simplereenroll", &csr, None).await;
        assert_eq!((waits.status, waits.headers["retry-after"].to_str().unwrap()), (202, "3600"));
    }
    let shown = house.shown(monitor(1)).await;
    assert_eq!(shown["state"], "renewal-to-review");
    let asked = house.recorded().iter().filter(|(_, detail)| detail.starts_with("late renewal")).count();
    assert_eq!(asked, 1, "asked three times, recorded once");

    let cookie = house.clinic.sign_in("biomedical-engineer").await;
    let path = format!("/api/v1/devices/{}/late-renewal", monitor(1));
    let approved =
        house.clinic.post(&path, &cookie, json!({"approve": true, "note": "was in storage"})).await;
    assert_eq!(approved.status, 200, "{:?}", approved.body);
    assert_eq!(house.est(&own, "simplereenroll", &csr, None).await.status, 200);
    assert_eq!(house.shown(monitor(1)).await["state"], "enrolled");
    let nothing = house.clinic.post(&path, &cookie, json!({"approve": true, "note": "x"})).await;
    assert_eq!(nothing.status, 409, "nothing waits");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_renewal_that_is_refused_is_a_revocation_and_an_approval_ends() {
    let house = House::open().await;
    let (own, csr) = enrolled(&house).await;
    house.clinic.clock.advance(200 * DAY_S);
    assert_eq!(house.est(&own, "simplereenroll", &csr, None).await.status, 202);
    let path = format!("/api/v1/devices/{}/late-renewal", monitor(1));
    let decide = async |approve: bool| {
        let cookie = house.clinic.sign_in("biomedical-engineer").await;
        house.clinic.post(&path, &cookie, json!({"approve": approve, "note": "looked at"})).await.status
    };
    assert_eq!(decide(true).await, 200);
    house.clinic.clock.advance(4 * DAY_S);
    assert_eq!(house.est(&own, "simplereenroll", &csr, None).await.status, 202, "the approval has ended");
    assert_eq!(decide(false).await, 200);
    assert_eq!(house.est(&own, "simplereenroll", &csr, None).await.status, 403);
    assert_eq!(house.shown(monitor(1)).await["state"], "revoked");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_future_can_be_renewed_and_nothing_else() {
    let house = House::open().await;
    let (own, csr) = enrolled(&house).await;
    // The server's clock was set back, or was ahead when it issued.
    house.clinic.clock.advance(-10 * DAY_S);
    assert_eq!(house.send(&own, -10).await.unwrap(), 403);
    let renewed = house.est(&own, "simplereenroll", &csr, None).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_renews_all_the_time_is_slowed_down() {
    let house = House::open().await;
    let (own, csr) = enrolled(&house).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(house.est(&own, "simplereenroll", &key_and_request(None).1, None).await.status);
    }
    assert_eq!(statuses[..7], [200; 7]);
    assert_eq!(statuses[9], 429, "{statuses:?}");
    house.clinic.clock.advance(3_601);
    assert_eq!(house.est(&own, "simplereenroll", &csr, None).await.status, 200);
    house.close().await;
}
