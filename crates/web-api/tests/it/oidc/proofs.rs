//! What somebody who comes by an identity provider has still to prove here, and how they prove themself again there.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// How what the provider says is altered.
type Change = &'static dyn Fn(&mut Value);

/// A name that was chosen at the provider stood in for the password: one code was enough, and wrong ones kept its owner out.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_at_the_provider_stands_in_for_no_password_and_keeps_nobody_out() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let evil = come(&clinic, &provider, "evil-subject", "nurse").await;
    let cookie = cookie_called(&evil, "auscult_session").unwrap();
    for path in ["/api/v1/sign-in/totp", "/api/v1/sign-in/recovery"] {
        for code in [clinic.code(), "000000".to_owned()].iter().cycle().take(20) {
            let answer = clinic.post(path, &cookie, json!({"code": code})).await;
            let told = (answer.status, &answer.body["code"]);
            assert_eq!(told, (StatusCode::UNAUTHORIZED, &json!("signed-out")), "{path}");
        }
    }
    assert_eq!(clinic.get("/api/v1/account", &cookie).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(rows_of_links(&clinic), 0);
    // The nurse in a browser that was never used before, and with the very code that was tried.
    let body = json!({"name": "nurse", "password": PASSWORD});
    let half = clinic.call(Method::POST, "/api/v1/sign-in", None, Some(body)).await;
    let own = crate::clinic::cookie_of(&half);
    let whole = clinic.post("/api/v1/sign-in/totp", &own, json!({"code": clinic.code()})).await;
    assert_eq!(whole.body["state"], "signed-in", "{:?}", whole.body);
    let own = clinic.get("/api/v1/account/sessions", &crate::clinic::cookie_of(&whole)).await.body;
    assert_eq!(own["sessions"].as_array().unwrap().len(), 1, "whoever has proven nothing has no session");
    assert_eq!(line(&clinic, "nurse").await["provider_links"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_very_person_who_signs_in_as_always_is_linked_and_by_a_passkey_too() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let links = async |name: &str| line(&clinic, name).await["provider_links"].clone();
    let by_passkey = async |name: &str, before: &Answer| {
        let cookie = cookie_called(before, "auscult_session").unwrap();
        let begun = clinic.post("/api/v1/sign-in/passkey/begin", &cookie, Value::Null).await.body;
        let body = clinic.use_passkey(name, &begun);
        let whole = clinic.post("/api/v1/sign-in/passkey", &cookie, body).await;
        assert_eq!((&whole.body["state"], &whole.body["linking"]), (&json!("signed-in"), &Value::Null));
    };
    // Somebody else in that browser takes nothing over, and the nurse in another one neither.
    let first = come(&clinic, &provider, "n", "nurse").await;
    by_passkey("physician", &first).await;
    clinic.sign_in("nurse").await;
    assert_eq!((links("nurse").await, links("physician").await), (json!([]), json!([])));
    let first = come(&clinic, &provider, "n", "nurse").await;
    let second = come(&clinic, &provider, "other", "nurse").await;
    by_passkey("nurse", &first).await;
    assert_eq!(links("nurse").await[0]["subject"], "n");
    // Whom somebody else was faster to be linked to signs in all the same.
    by_passkey("nurse", &second).await;
    assert_eq!(links("nurse").await.as_array().unwrap().len(), 1);
}

/// Changes when somebody proved themself, by seconds.
fn shift(claims: &mut Value, by_s: i64) {
    claims["auth_time"] = json!(claims["auth_time"].as_i64().unwrap() + by_s);
}

/// Whoever has no way in of their own here could prove themself again by signing out and in only.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_by_a_provider_proves_themself_again_there() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    awaited(&clinic, "new nurse").await;
    let claims = |claims: &mut Value| {
        claims["preferred_username"] = json!("new nurse");
        claims["amr"] = json!(["mfa"]);
    };
    let whole = round(&clinic, &provider, claims).await;
    let cookie = cookie_called(&whole, "auscult_session").unwrap();
    let offered = clinic.get("/api/v1/step-up/providers", &cookie).await.body;
    assert_eq!(offered, json!({"providers": [{"id": "clinic", "name": "Clinic sign-in"}]}));
    let administrator = clinic.sign_in("administrator").await;
    let offered = clinic.get("/api/v1/step-up/providers", &administrator).await.body;
    assert_eq!(offered, json!({"providers": []}), "who is not linked");

    let is_fresh = async || {
        let body = json!({"password": "a whole other long sentence"});
        let answer = clinic.call(Method::PUT, "/api/v1/account/password", Some(&cookie), Some(body)).await;
        answer.body["code"] != "step-up-needed"
    };
    let again = async |cookie: &str, change: &dyn Fn(&mut Value)| {
        let path = "/api/v1/sign-in/oidc/clinic?again=true&next=/glass";
        let begun = clinic.call(Method::GET, path, Some(cookie), None).await;
        let to = location(&begun);
        assert_eq!(
            (said(&to, "prompt").as_deref(), said(&to, "max_age").as_deref()),
            (Some("login"), Some("0"))
        );
        let mut said_of = provider.claims(&clinic, &said(&to, "nonce").unwrap());
        claims(&mut said_of);
        said_of["auth_time"] = json!(clinic.site.clock().now().as_seconds());
        change(&mut said_of);
        *provider.token.lock().unwrap() = Some(provider.key.sign(&said_of).unwrap().expose().to_owned());
        let state = said(&to, "state").unwrap();
        let query = format!("code=c&state={state}&iss={}", crate::oauth::encoded(&provider.issuer));
        // A browser sends no session's cookie along on its way back from another site.
        let answer = back(&clinic, &cookie_called(&begun, "auscult_oidc").unwrap(), &query).await;
        assert!(cookie_called(&answer, "auscult_session").is_none(), "the session is the same");
        location(&answer)
    };
    clinic.clock.advance(301);
    assert!(!is_fresh().await);
    let refused: [(&str, Change); 6] = [
        ("not asked anew", &|claims| shift(claims, -121)),
        ("ahead", &|claims| shift(claims, 61)),
        ("does not say when", &|claims| claims["auth_time"] = Value::Null),
        ("without a second factor", &|claims| claims["amr"] = json!(["pwd"])),
        ("a stranger", &|claims| claims["sub"] = json!("subject-2")),
        ("forged", &|claims| claims["nonce"] = json!("x")),
    ];
    for (what, change) in refused {
        let to = again(&cookie, change).await;
        assert!(to.starts_with("/account#error=not-"), "{what}: {to}");
        assert!(!is_fresh().await, "{what}");
    }
    let to = again(&administrator, &|_| {}).await;
    assert!(to.starts_with("/account#error=not-again"), "in somebody else's session: {to}");
    assert!(!is_fresh().await);
    assert_eq!(again(&cookie, &|_| {}).await, "/glass");
    assert!(is_fresh().await);
}

/// Whoever came first under somebody's name set up a password and a code, and went on signing in by them after the link was
/// removed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_up_by_a_link_goes_with_it() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let id = awaited(&clinic, "new nurse").await;
    come(&clinic, &provider, "evil-subject", "new nurse").await;
    let totp = Some(trust::totp::TotpSecret::from_bytes([9; trust::totp::SECRET_LEN]));
    let ways = Ways { password: Some(PASSWORD), totp, ..Ways::default() };
    clinic.web.equip(store::Actor::System, id, ways).unwrap();
    let sign_in = async || {
        let body = json!({"name": "new nurse", "password": PASSWORD});
        clinic.call(Method::POST, "/api/v1/sign-in", None, Some(body)).await
    };
    assert_eq!(sign_in().await.body["state"], "second-factor-needed");
    let link = line(&clinic, "new nurse").await["provider_links"][0]["id"].as_str().unwrap().to_owned();
    let administrator = clinic.sign_in("administrator").await;
    let path = format!("/api/v1/users/{id}/provider-links/{link}");
    let removed = clinic.call(Method::DELETE, &path, Some(&administrator), None).await;
    assert_eq!(removed.status, StatusCode::OK, "{:?}", removed.body);
    assert_eq!((&removed.body["has_password"], &removed.body["has_totp"]), (&json!(false), &json!(false)));
    assert_eq!(sign_in().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(allowed(&clinic, id, json!("clinic")).await.status, StatusCode::OK, "the right one may come");
}

/// The hash had the length of the text before it: no provider that looks let anybody in.
#[tokio::test(flavor = "multi_thread")]
async fn the_verifier_that_goes_with_the_code_has_the_hash_that_went_before() {
    let clinic = Clinic::furnished();
    let provider = Provider::started().await;
    configured(&clinic, settings(&provider)).await;
    let begun = clinic.call(Method::GET, "/api/v1/sign-in/oidc/clinic", None, None).await;
    let to = location(&begun);
    let query = format!(
        "code=c&state={}&iss={}",
        said(&to, "state").unwrap(),
        crate::oauth::encoded(&provider.issuer)
    );
    back(&clinic, &cookie_called(&begun, "auscult_oidc").unwrap(), &query).await;
    let form = provider.sent.lock().unwrap().pop().unwrap();
    let verifier = said(&format!("/?{form}"), "code_verifier").unwrap();
    let mut digest = trust::digest::Sha256::new();
    digest.update(verifier.as_bytes());
    assert_eq!(said(&to, "code_challenge").unwrap(), URL_SAFE_NO_PAD.encode(digest.finish()));
}
