//! Bodies that are small to send and dear to read: packed, deep, long, huge, or of a language that unfolds itself. Every door
//! that takes a body refuses them with a clear answer, and nothing of them is kept.

use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use web_api::operations::openapi;
use web_api::{DevicePeer, device_operations, device_router};

use crate::clinic::{Clinic, monitor, patient};
use crate::enrol::house::House;
use crate::fhir::program;

/// An answer says what is wrong; it does not give back what was sent.
const ANSWER_LIMIT_BYTES: usize = 32 << 10;
/// What every door takes at most.
const MIB: usize = 1 << 20;

/// How a door is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// The web port, by a person of this name, or by nobody.
    Web(&'static str),
    /// The device port, by a program with a certificate.
    Program,
    /// The device port over TLS, without a certificate.
    Stranger,
}

#[derive(Clone, Copy, Debug)]
struct Door {
    port: Port,
    method: &'static str,
    path: &'static str,
    kind: &'static str,
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const FHIR: &str = "application/fhir+json";

const fn door(port: Port, path: &'static str, kind: &'static str) -> Door {
    Door { port, method: "POST", path, kind }
}

const DOORS: &[Door] = &[
    door(Port::Web(""), "/api/v1/sign-in", JSON),
    door(Port::Web(""), "/api/v1/sign-in/passkey", JSON),
    door(Port::Web("administrator"), "/api/v1/users", JSON),
    door(Port::Web("administrator"), "/api/v1/policies/explain", JSON),
    door(Port::Web("integrator"), "/api/v1/clients", JSON),
    door(Port::Web("biomedical-engineer"), "/api/v1/enrolment/import", "text/csv"),
    door(Port::Web(""), "/oauth2/token", FORM),
    door(Port::Web("physician"), "/fhir/Observation/_search", FORM),
    door(Port::Program, "/fhir/Observation", FHIR),
    door(Port::Program, "/fhir/Patient", FHIR),
    door(Port::Program, "/fhir", FHIR),
    door(Port::Program, "/fhir/Observation/$validate", FHIR),
    door(Port::Program, "/fhir/Patient/_search", FORM),
    door(Port::Program, "/ingest/v1/gatt/2a37?device=41414141-4141-4141-4141-414141414141", JSON),
    door(Port::Stranger, "/enrol/v1/claim", JSON),
    door(Port::Stranger, "/.well-known/est/simpleenroll", "application/pkcs10"),
];

struct Said {
    status: u16,
    length: usize,
    text: String,
    encoding: Option<String>,
}

async fn send(house: &House, door: Door, headers: &[(&str, &str)], body: Vec<u8>) -> Said {
    let clinic = &house.clinic;
    let kind = headers.iter().find(|(name, _)| *name == "content-type").map_or(door.kind, |(_, kind)| kind);
    let others = headers.iter().filter(|(name, _)| *name != "content-type");
    if door.port == Port::Stranger {
        let method = door.method.parse().unwrap();
        let mut request = house.client(None).request(method, house.url(door.path));
        request = request.header("content-type", kind).basic_auth("S1", Some("00000"));
        for (name, value) in others {
            request = request.header(*name, *value);
        }
        let answer = request.body(body).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let encoding = headers.get("accept-encoding").map(|value| value.to_str().unwrap().to_owned());
        let text = answer.text().await.unwrap();
        return Said { status, length: text.len(), text, encoding };
    }
    let mut request = Request::builder().method(door.method).uri(door.path).header("x-auscult", "1");
    request = request.header(header::CONTENT_TYPE, kind);
    for (name, value) in others {
        request = request.header(*name, *value);
    }
    if let Port::Web(name) = door.port
        && !name.is_empty()
    {
        request = request.header(header::COOKIE, clinic.sign_in(name).await);
    }
    let mut request = request.body(Body::from(body)).unwrap();
    let router = if door.port == Port::Program {
        let certificate = pipeline::PeerCertificate {
            uri: "urn:test".into(),
            serial_hex: "01".into(),
            common_name: "test".into(),
        };
        request.extensions_mut().insert(DevicePeer { certificate, peer: program() });
        device_router(&clinic.web)
    } else {
        clinic.router.clone()
    };
    let response = router.oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let encoding = headers.get("accept-encoding").map(|value| value.to_str().unwrap().to_owned());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Said { status, length: bytes.len(), text: String::from_utf8_lossy(&bytes).into_owned(), encoding }
}

/// What is there to be changed: nothing of it may change.
fn kept(clinic: &Clinic) -> (usize, usize, u64) {
    let registry = clinic.site.registry();
    (registry.patients().len(), registry.devices().len(), clinic.site.store().quarantine_count().items)
}

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    let long = "k".repeat(400_000);
    let digits = "9".repeat(400_000);
    let many: String = (0..60_000).map(|number| format!("\"key{number}\":0,")).collect();
    vec![
        ("lists in lists", nested("[", "1", "]", 100_000)),
        ("objects in objects", nested("{\"a\":", "1", "}", 100_000)),
        ("an open list", vec![b'['; 900_000]),
        (
            "a resource with depth",
            nested("{\"resourceType\":\"Bundle\",\"entry\":[{\"resource\":", "1", "}]}", 15_000),
        ),
        ("a long number", format!("{{\"name\":{digits},\"resourceType\":{digits}}}").into_bytes()),
        ("a far exponent", b"{\"name\":1e999999999,\"resourceType\":-1e-999999999}".to_vec()),
        ("a long key", format!("{{\"{long}\":1}}").into_bytes()),
        ("a long text", format!("{{\"name\":\"{long}\",\"resourceType\":\"{long}\"}}").into_bytes()),
        ("many keys", format!("{{{many}\"name\":1}}").into_bytes()),
        ("many commas", vec![b','; 900_000]),
        ("many names and values", "a=b&".repeat(200_000).into_bytes()),
        ("many quotation marks", vec![b'"'; 900_001]),
        ("nothing but zeroes", vec![0; 900_000]),
        ("no UTF-8", vec![0xff; 900_000]),
        ("one byte too many", vec![b' '; MIB + 1]),
        ("ten megabytes", vec![b'['; 10 * MIB]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_door_keeps_or_repeats_a_bomb() {
    let house = House::open().await;
    let before = kept(&house.clinic);
    let mut unsound = Vec::new();
    for &door in DOORS {
        for (name, body) in bombs() {
            let is_too_large = body.len() > MIB;
            let said = send(&house, door, &[], body).await;
            let shown: String = said.text.chars().take(300).collect();
            let is_form = door.path.starts_with("/oauth2");
            // To validate is to be told what is wrong.
            let is_told = door.path.ends_with("$validate") && said.text.contains("\"error\"");
            let is_sound = ((400..500).contains(&said.status) || (said.status == 200 && is_told))
                && (20..=ANSWER_LIMIT_BYTES).contains(&said.length)
                && (!is_too_large || is_form || said.status == 413);
            if !is_sound {
                unsound.push(format!("{name} at {door:?}: {}, {} bytes: {shown}", said.status, said.length));
            }
        }
    }
    assert!(unsound.is_empty(), "{}", unsound.join("\n"));
    assert_eq!(kept(&house.clinic), before);
    house.close().await;
}

/// Entities that unfold to gigabytes, and one that reads a file.
const XML: &str = "<?xml version=\"1.0\"?><!DOCTYPE p [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">\
    <!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY f SYSTEM \"file:///etc/passwd\">]>\
    <Patient xmlns=\"http://hl7.org/fhir\"><id value=\"&c;&f;\"/></Patient>";

#[tokio::test(flavor = "multi_thread")]
async fn xml_is_taken_nowhere() {
    let house = House::open().await;
    let before = kept(&house.clinic);
    let mut unsound = Vec::new();
    for &door in DOORS {
        for kind in ["application/xml", "text/xml", "application/fhir+xml"] {
            let said = send(&house, door, &[("content-type", kind)], XML.into()).await;
            // RFC 6749 §5.2 knows one answer for every malformed request of a token.
            let wanted = if door.path.starts_with("/oauth2") { 400 } else { 415 };
            if said.status != wanted || said.text.contains("root:") {
                unsound.push(format!("{kind} at {door:?}: {} {}", said.status, said.text));
            }
        }
        // The same under the name of what is taken.
        let said = send(&house, door, &[], XML.into()).await;
        if !(400..500).contains(&said.status) {
            unsound.push(format!("{door:?}: {} {}", said.status, said.text));
        }
    }
    assert!(unsound.is_empty(), "{}", unsound.join("\n"));
    assert_eq!(kept(&house.clinic), before);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_bodies_are_refused_at_every_operation_and_never_opened() {
    let house = House::open().await;
    // The first bytes of gzip; that nothing reads on is shown by the answer: it is of the coding, not of the content.
    let packed = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 2_000]].concat();
    let document = openapi();
    let web = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(|method| (Port::Web(""), method.to_uppercase(), path.clone()))
    });
    let devices = device_operations()
        .into_iter()
        .filter(|(_, path)| !path.starts_with("/.well-known") && !path.starts_with("/pki"))
        .map(|(method, path)| (Port::Program, method.to_string(), path.to_owned()));
    let mut asked = 0;
    for (port, method, path) in web.chain(devices).filter(|(_, method, _)| method != "GET") {
        let path = path.replace("{id}", &patient(1).to_string()).replace(['{', '}'], "");
        let door = Door { port, method: method.leak(), path: path.leak(), kind: JSON };
        refuses_packed(&house, door, &["gzip"], &packed).await;
        asked += 1;
    }
    assert!(asked > 60, "{asked} operations");
    let codings = [
        "gzip",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "GZIP",
        "identity, gzip",
        "gzip, identity",
        "gzip,gzip",
        "new",
    ];
    for &door in DOORS {
        refuses_packed(&house, door, &codings, &packed).await;
    }
    // What names no coding is not refused for it.
    let plain = send(&house, DOORS[0], &[("content-encoding", "identity")], b"{}".to_vec()).await;
    assert_ne!(plain.status, 415, "{}", plain.text);
    house.close().await;
}

async fn refuses_packed(house: &House, door: Door, codings: &[&str], packed: &[u8]) {
    for coding in codings {
        let said = send(house, door, &[("content-encoding", coding)], packed.to_vec()).await;
        assert_eq!(said.status, 415, "{coding} at {door:?}: {}", said.text);
        assert_eq!(said.encoding.as_deref(), Some("identity"), "{coding} at {door:?}");
        assert!(said.text.contains("Content-Encoding"), "{coding} at {door:?}: {}", said.text);
        if door.path.starts_with("/fhir") {
            assert!(said.text.contains("OperationOutcome"), "{}", said.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_that_is_a_bomb_waits_in_quarantine_or_is_refused() {
    let house = House::open().await;
    let path = format!("{}?device={}", crate::ingest::ENVELOPE, monitor(1));
    let door = Door { port: Port::Program, method: "POST", path: path.leak(), kind: JSON };
    for (name, body) in bombs() {
        let size = body.len();
        let said = send(&house, door, &[], body).await;
        // What a device sends and cannot be read is kept for a person to look at, once, whole and bounded.
        let is_sound =
            if size > MIB { said.status == 413 } else { matches!(said.status, 200 | 202 | 400..=499) };
        assert!(is_sound, "{name}: {} {}", said.status, &said.text[..said.text.len().min(300)]);
        assert!(said.length <= ANSWER_LIMIT_BYTES, "{name}: {} bytes said", said.length);
        assert!(said.status >= 400 || said.text.contains("quarantine"), "{name}: {}", said.text);
    }
    assert_eq!(crate::ingest::kept(&house.clinic), 0, "nothing is charted");
    assert!(house.clinic.site.store().quarantine_count().items as usize <= bombs().len());
    house.close().await;
}
