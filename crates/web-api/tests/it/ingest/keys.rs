//! Idempotency keys.

use axum::http::StatusCode;
use pipeline::Peer;
use serde_json::json;

use super::{ENVELOPE, kept, reading, send};
use crate::clinic::{Answer, Clinic, monitor};
use crate::fhir::text;

async fn keyed(clinic: &Clinic, number: u8, key: &str, body: String) -> Answer {
    let peer = Peer::Device(monitor(number));
    send(clinic, &peer, ENVELOPE, "application/json", &[("idempotency-key", key)], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_again() {
    let clinic = Clinic::furnished();
    let first = keyed(&clinic, 1, "k1", reading(-10, 72)).await;
    assert_eq!((first.status, text(&first.headers, "idempotency-replayed")), (StatusCode::OK, ""));
    let again = keyed(&clinic, 1, "k1", reading(-10, 72)).await;
    assert_eq!((again.status, text(&again.headers, "idempotency-replayed")), (StatusCode::OK, "true"));
    assert_eq!(again.body, first.body, "the group too");
    let other = keyed(&clinic, 1, "k1", reading(-9, 72)).await;
    assert_eq!((other.status, &other.body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("key-used")));
    // Another device has keys of its own.
    assert_eq!(keyed(&clinic, 2, "k1", reading(-9, 72)).await.status, StatusCode::OK);
    assert_eq!(kept(&clinic), 2);
    // After its time a key is free again.
    clinic.clock.advance(25 * 3_600);
    let later = keyed(&clinic, 1, "k1", reading(25 * 3_600 - 10, 72)).await;
    assert_eq!((later.status, text(&later.headers, "idempotency-replayed")), (StatusCode::OK, ""));
    assert_eq!(kept(&clinic), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none_are_refused() {
    let clinic = Clinic::furnished();
    for key in ["", " ", "a b", "ü", &"k".repeat(129)] {
        let answer = keyed(&clinic, 1, key, reading(-10, 72)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{key:?}");
    }
    assert_eq!(keyed(&clinic, 1, &"k".repeat(128), reading(-10, 72)).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_under_one_key_one_is_taken() {
    let clinic = Clinic::furnished();
    for round in 0..5 {
        let before = kept(&clinic);
        let key = format!("round {round}").replace(' ', "-");
        let sends =
            (0..16).map(|n| keyed(&clinic, 1, &key, reading(-1_000 + round * 10 + i64::from(n % 2), 72)));
        let answers = futures_util::future::join_all(sends).await;
        let taken: Vec<&Answer> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
        assert_eq!(taken.len(), 8);
        assert!(
            answers.iter().all(|answer| answer.status == StatusCode::OK || answer.body["code"] == "key-used")
        );
        assert!(taken.iter().all(|answer| answer.body["entries"] == taken[0].body["entries"]));
        assert_eq!(kept(&clinic), before + 1);
    }
}
