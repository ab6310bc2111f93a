//! Every FHIR interaction by OAuth access tokens whose scopes are too small, on both ports, and without any credential. A
//! new interaction without its row fails here.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use web_api::access::Permission;
use web_api::device_router;
use web_api::fhir::{Interaction, interactions};

use super::concrete;
use crate::clinic::{Answer, Clinic, eventually, monitor, patient, ward};

/// The scopes by which an interaction is refused: one of another type, and one of its type without the act; or why it is
/// open to everybody or tested by itself.
fn too_small(interaction: &Interaction) -> Result<[&'static str; 2], &'static str> {
    match (interaction.resource, interaction.code) {
        ("", "capabilities") => Err("open: it says nothing of patients"),
        (_, "$validate") => Err("reads and keeps nothing"),
        ("", "transaction") => Err("each entry asks for itself: tested below"),
        ("" | "Group", "$export") => Err("each type asks for itself: tested below"),
        ("", "$export-status" | "$export-file") => {
            Err("of one's own exports alone: tested below; each type asks for itself")
        }
        (kind @ ("Patient" | "Device" | "Location" | "Observation" | "AuditEvent" | "Consent"), code) => {
            let other = if kind == "Location" { "system/Device.cruds" } else { "system/Location.cruds" };
            let lesser = match code {
                "read" | "vread" | "history-instance" | "$everything" | "$export" => "system/*.cuds",
                "search-type" | "history-type" | "$lastn" | "$stats" | "$trend" => "system/*.crud",
                "create" => "system/*.ruds",
                "update" => "system/*.crds",
                "delete" => "system/*.crus",
                code => panic!("{kind} {code} needs a row here: which letter of a scope opens it?"),
            };
            Ok([other, lesser])
        }
        (kind, code) => panic!("\"{kind}\" {code} needs a row here: which scope opens it?"),
    }
}

/// Asks on the device port without a certificate, as a token comes there.
async fn at_device_port(clinic: &Clinic, method: &Method, path: &str, token: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = device_router(&clinic.web).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

fn filled(path: &str) -> String {
    concrete(path).replace("{vid}", "1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_too_small_a_scope_is_refused_every_interaction() {
    let clinic = Clinic::furnished();
    let mut refused = 0;
    let mut tokens: std::collections::BTreeMap<&str, String> = std::collections::BTreeMap::new();
    for interaction in interactions() {
        let Ok(scopes) = too_small(&interaction) else { continue };
        let path = filled(interaction.path);
        for scope in scopes {
            if !tokens.contains_key(scope) {
                tokens.insert(scope, clinic.service_token(scope).await);
            }
            let token = &tokens[scope];
            for answer in [
                clinic.with_token(interaction.method.clone(), &path, token, None).await,
                at_device_port(&clinic, &interaction.method, &path, Some(token)).await,
            ] {
                let what = format!("{scope}: {} {path}: {}", interaction.method, answer.body);
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 160, "{refused}");
}

/// With the scope, the act is not refused for it: so that the refusals above are about the scope.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_the_scope_gets_past_the_scopes() {
    let clinic = Clinic::furnished();
    let token = clinic.service_token("system/*.cruds").await;
    for interaction in interactions() {
        if too_small(&interaction).is_err() {
            continue;
        }
        let path = filled(interaction.path);
        let answer = clinic.with_token(interaction.method.clone(), &path, &token, None).await;
        let challenge = answer.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let is_scope = answer.body.to_string().contains("scopes do not reach");
        assert!(!is_scope, "{} {path}: {challenge:?} {}", interaction.method, answer.body);
        assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{} {path}", interaction.method);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_the_whole_system_shows_a_token_only_the_types_of_its_scopes() {
    let clinic = Clinic::furnished();
    clinic.ingest(monitor(1), r#"[{"measure":"heart_rate","value":71}]"#).await;
    let token = clinic.service_token("system/Location.cruds").await;
    let entry = |method: &str, url: String| json!({"request": {"method": method, "url": url}});
    let entries = [
        entry("GET", format!("Patient/{}", patient(1))),
        entry("GET", "Observation".into()),
        entry("DELETE", format!("Observation/{}", patient(1))),
    ];
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": entries});
    let answer = clinic.with_token(Method::POST, "/fhir", &token, Some(batch)).await;
    let answered = answer.body["entry"].as_array().map_or(0, Vec::len);
    assert!(answered == 3 || answer.status == StatusCode::FORBIDDEN, "{}", answer.body);
    for entry in answer.body["entry"].as_array().into_iter().flatten() {
        assert!(entry["response"]["status"].as_str().unwrap().starts_with("403"), "{entry}");
    }
    assert!(!answer.body.to_string().contains("Family1"), "{}", answer.body);
    // An export of everything holds places alone.
    let request = |path: &str, token: &str| {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        clinic.send(request.header("prefer", "respond-async").body(Body::empty()).unwrap())
    };
    for path in ["/fhir/$export".to_owned(), format!("/fhir/Group/{}/$export", ward(1))] {
        let begun = request(&path, &token).await;
        // A ward without a patient that the scopes show is not there.
        if begun.status == StatusCode::NOT_FOUND && path.contains("Group") {
            continue;
        }
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{path}: {}", begun.body);
        let location = begun.headers[header::CONTENT_LOCATION].to_str().unwrap();
        let location = location[location.find("/fhir").unwrap()..].to_owned();
        let mut manifest = Value::Null;
        for _ in 0..1_000 {
            let answer = request(&location, &token).await;
            if answer.status == StatusCode::OK {
                manifest = answer.body;
                break;
            }
            eventually("the export is ready", || true).await;
        }
        let kinds: Vec<&str> = manifest["output"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["type"].as_str().unwrap())
            .collect();
        assert!(kinds.iter().all(|kind| *kind == "Location"), "{path}: {kinds:?}");
        // Nobody else gets at it.
        let other = clinic.service_token("system/*.cruds").await;
        assert_eq!(request(&location, &other).await.status, StatusCode::NOT_FOUND, "{path}");
        for file in manifest["output"].as_array().unwrap() {
            let url = file["url"].as_str().unwrap();
            let path = &url[url.find("/fhir").unwrap()..];
            assert_eq!(request(path, &other).await.status, StatusCode::NOT_FOUND, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_an_interaction_without_credentials() {
    let clinic = Clinic::furnished();
    for interaction in interactions() {
        if interaction.permission == Permission::Open {
            continue;
        }
        let path = filled(interaction.path);
        let (method, what) = (&interaction.method, format!("{} {path}", interaction.method));
        let answer = clinic.call(method.clone(), &path, None, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "web port: {what}: {}", answer.body);
        for token in [None, Some("x"), Some("eyJhbGciOiJub25lIn0.e30.")] {
            let answer = at_device_port(&clinic, method, &path, token).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "device port: {what}: {}", answer.body);
        }
        let answer = clinic.with_token(method.clone(), &path, "x", None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a token of nobody: {what}: {}", answer.body);
    }
}
