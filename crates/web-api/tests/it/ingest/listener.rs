//! The device port with real certificates, over TLS 1.3, by HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clinical_model::DeviceId;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trust::pki::{Authority, IssueRequest, IssueServerRequest, PeerUri};
use web_api::{serve_devices, serve_web};

use super::{ENVELOPE, kept, reading};
use crate::clinic::{Clinic, START_S, monitor};

pub struct Port {
    pub clinic: Clinic,
    authority: Authority,
    address: SocketAddr,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// The clinic's clock stands still: what is issued must be in date by it and by the machine's.
fn life() -> (SystemTime, SystemTime) {
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(START_S as u64 - 86_400);
    (begin, begin + Duration::from_secs(20 * 365 * 86_400))
}

fn authority() -> Authority {
    let made = Authority::create("Test", life().0, 30).unwrap();
    Authority::load(&made.certificate_pem, made.key_pem.expose()).unwrap()
}

impl Port {
    pub async fn open() -> Self {
        let clinic = Clinic::furnished();
        let authority = authority();
        let (not_before, not_after) = life();
        let issued = authority
            .issue_server(&IssueServerRequest {
                common_name: "server".into(),
                dns_names: vec!["localhost".into()],
                ips: vec!["127.0.0.1".parse().unwrap()],
                not_before,
                not_after,
            })
            .unwrap();
        let tls = trust::tls::server_config_mutual(
            &issued.certificate_pem,
            issued.key_pem.expose(),
            authority.certificate_pem(),
            &[b"h2", b"http/1.1"],
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let shutdown = stop.clone().cancelled_owned();
        let served =
            tokio::spawn(serve_devices(listener, Arc::clone(&clinic.web), Arc::new(tls.unwrap()), shutdown));
        Port { clinic, authority, address, stop, served }
    }

    /// A client with a certificate of `authority`, and its serial number.
    fn client_of(&self, authority: &Authority, uri: PeerUri, http2: bool) -> (reqwest::Client, String) {
        let (not_before, not_after) = life();
        let issued = authority
            .issue_client(&IssueRequest { common_name: "client".into(), uri, not_before, not_after })
            .unwrap();
        let alpn: &[&[u8]] = if http2 { &[b"h2"] } else { &[b"http/1.1"] };
        let identity = Some((issued.certificate_pem.as_str(), issued.key_pem.expose()));
        let tls = trust::tls::client_config(self.authority.certificate_pem(), identity, alpn).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        (client, issued.serial_hex)
    }

    pub fn client(&self, uri: PeerUri, http2: bool) -> (reqwest::Client, String) {
        self.client_of(&self.authority, uri, http2)
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub async fn close(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }

    async fn post(&self, client: &reqwest::Client, second: i64) -> reqwest::Result<reqwest::Response> {
        let request = client.post(self.url(ENVELOPE)).header("content-type", "application/json");
        request.body(reading(second, 72)).send().await
    }
}

fn device(id: DeviceId) -> PeerUri {
    PeerUri::Device(*id.as_uuid())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_sends_with_its_certificate_until_it_is_revoked() {
    let port = Port::open().await;
    for (http2, second) in [(false, -10), (true, -9)] {
        let (client, serial) = port.client(device(monitor(1)), http2);
        let answer = port.post(&client, second).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.version() == reqwest::Version::HTTP_2, http2);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["entries"][0]["outcome"], "committed", "{body}");
        // The open connection is cut, and a new one is refused.
        port.clinic.site.admission().set_revoked([serial]);
        let cut = port.post(&client, second + 100).await;
        assert!(cut.as_ref().is_err() || cut.as_ref().is_ok_and(|cut| cut.status() == 403), "{cut:?}");
        let refused = port.post(&client, second + 100).await.unwrap();
        assert_eq!(refused.status(), 403);
        assert!(refused.text().await.unwrap().contains("revoked"));
        port.clinic.site.admission().set_revoked([]);
    }
    assert_eq!(kept(&port.clinic), 2);
    port.stop.cancel();
    port.served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let port = Port::open().await;
    // A sound certificate of an unknown device: every request is refused, and says why.
    let (unknown, _) = port.client(device(DeviceId::from_bytes([0x99; 16])), true);
    let refused = port.post(&unknown, -10).await.unwrap();
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.unwrap().contains("not registered"));
    // A certificate of another authority, or none: no handshake.
    let (foreign, _) = port.client_of(&authority(), device(monitor(1)), true);
    assert!(port.post(&foreign, -10).await.is_err());
    let tls = trust::tls::client_config(port.authority.certificate_pem(), None, &[b"h2"]).unwrap();
    let nobody = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    assert!(port.post(&nobody, -10).await.is_err());
    assert_eq!(kept(&port.clinic), 0);
    port.stop.cancel();
    port.served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_and_writes_fhir_over_the_wire() {
    let port = Port::open().await;
    let everything = vec!["system/*.cruds".to_owned()];
    port.clinic.site.admission().set_program_scopes([("ehr".to_owned(), everything)]);
    let (client, _) = port.client(PeerUri::program("ehr").unwrap(), true);
    let sent = crate::fhir::heart_rate(monitor(1), None, crate::fhir::at(-10), "72.0");
    let made = client
        .post(port.url("/fhir/Observation"))
        .header("content-type", "application/fhir+json")
        .body(sent.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    let address = location.strip_suffix("/_history/1").unwrap();
    assert!(address.starts_with(&port.url("/fhir/Observation/")), "{address}");
    let read: Value = client.get(address).send().await.unwrap().json().await.unwrap();
    assert_eq!(read["valueQuantity"]["value"].to_string(), "72.0");
    let page = client.get(port.url("/fhir/Observation?_count=1")).send().await.unwrap();
    assert_eq!(page.status(), 200);
    port.stop.cancel();
    port.served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_answered_when_the_port_closes() {
    let clinic = Clinic::furnished();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served =
        tokio::spawn(serve_web(listener, Arc::clone(&clinic.web), None, stop.clone().cancelled_owned()));
    let client = reqwest::Client::new();
    let answer = client.get(format!("http://{address}/fhir/metadata")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // The idle connection that the client keeps does not hold the port up.
    stop.cancel();
    served.await.unwrap().unwrap();
    assert!(client.get(format!("http://{address}/fhir/metadata")).send().await.is_err());
}

/// What is answered to a request on a connection of its own, up to the end of its headers.
async fn answered_head(address: SocketAddr, request: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_body_was_read_says_that_the_connection_ends() {
    let clinic = Clinic::furnished();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served =
        tokio::spawn(serve_web(listener, Arc::clone(&clinic.web), None, stop.clone().cancelled_owned()));
    let head = "host: a\r\nx-auscult: 1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
    // The body does not come: nobody waits for it where nothing is served.
    let unread = answered_head(address, &format!("POST /fhir/Nonsense HTTP/1.1\r\n{head}")).await;
    assert!(unread.starts_with("http/1.1 404") && unread.contains("connection: close\r\n"), "{unread}");
    let read = answered_head(address, &format!("POST /api/v1/sign-in HTTP/1.1\r\n{head}{{}}")).await;
    assert!(read.starts_with("http/1.1 4") && !read.contains("connection: close"), "{read}");
    stop.cancel();
    served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_answered_and_not_just_cut() {
    let port = Port::open().await;
    for http2 in [false, true] {
        let (client, _) = port.client(device(monitor(1)), http2);
        for path in [ENVELOPE, "/fhir/Observation"] {
            let request = client.post(port.url(path)).header("content-type", "application/json");
            let answer = request.body(vec![b' '; 10 << 20]).send().await.unwrap();
            assert_eq!(answer.status(), 413, "HTTP/2: {http2}, {path}");
            // The client can go on.
            assert_eq!(port.post(&client, -10).await.unwrap().status(), 200);
        }
    }
    assert_eq!(kept(&port.clinic), 1);
    port.stop.cancel();
    port.served.await.unwrap().unwrap();
}

/// Every second answer that was given before the body was read was lost with its stream: curl saw a broken link, and a
/// device that was refused tried again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_body_was_read_arrives_over_http2() {
    let port = Port::open().await;
    let (not_before, not_after) = life();
    let uri = device(DeviceId::from_bytes([0x99; 16]));
    let request = IssueRequest { common_name: "client".into(), uri, not_before, not_after };
    let issued = port.authority.issue_client(&request).unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let authority = file("authority.pem", port.authority.certificate_pem());
    let (certificate, key) =
        (file("client.pem", &issued.certificate_pem), file("client.key", issued.key_pem.expose()));
    for path in [ENVELOPE, "/nothing"] {
        for _ in 0..10 {
            let mut curl = tokio::process::Command::new("curl");
            curl.args(["-s", "--http2", "-w", "%{http_version} %{http_code}\n", "-o", "/dev/null"]);
            curl.arg("--cacert").arg(&authority).arg("--cert").arg(&certificate).arg("--key").arg(&key);
            let told = curl.args(["-d", &reading(-10, 72)]).arg(port.url(path)).output().await.unwrap();
            assert!(told.status.success(), "{path}: {told:?}");
            assert_eq!(String::from_utf8_lossy(&told.stdout), "2 403\n");
        }
    }
    port.close().await;
}
