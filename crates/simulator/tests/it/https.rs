//! The HTTPS device client against a listener that speaks just enough HTTP/1.1.

use std::sync::Arc;

use clinical_model::FrameKind;
use simulator::client::{HttpsDevice, HttpsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::peer::Trust;

/// Reads one request and answers it; the head and the body come back.
async fn answer_one(listener: TcpListener, trust: Arc<Trust>, answer: &'static str) -> (String, Vec<u8>) {
    let (tcp, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(trust.server.clone()).accept(tcp).await.unwrap();
    assert!(stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty()));
    let mut bytes = Vec::new();
    let (head, length) = loop {
        stream.read_buf(&mut bytes).await.unwrap();
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        break (head.clone(), length.parse::<usize>().unwrap());
    };
    while bytes.len() < head.len() + 4 + length {
        stream.read_buf(&mut bytes).await.unwrap();
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    (head.clone(), bytes[head.len() + 4..].to_vec())
}

async fn check(kind: FrameKind, path: &str, content_type: &str, answer: &'static str, status: u16) {
    let trust = Arc::new(Trust::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(answer_one(listener, trust.clone(), answer));
    let device = HttpsDevice::new(&format!("https://localhost:{port}/"), (*trust.client).clone()).unwrap();
    let posted = device.post(kind, vec![1, 2, 3]).await.unwrap();
    assert_eq!(posted.status, status);
    assert_eq!(posted.is_accepted(), status < 300);
    let (head, body) = server.await.unwrap();
    assert!(head.starts_with(&format!("post {path} http/1.1")), "{head}");
    assert!(head.contains(&format!("content-type: {content_type}")), "{head}");
    assert_eq!(body, vec![1, 2, 3]);
}

#[tokio::test]
async fn frames_are_posted_where_they_belong() {
    let accepted = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
    check(FrameKind::Gatt(0x2a35), "/ingest/v1/gatt/2a35", "application/octet-stream", accepted, 202).await;
    check(FrameKind::Envelope, "/ingest/v1/envelope", "application/json", accepted, 202).await;
    let created = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";
    check(FrameKind::Fhir, "/fhir/observation", "application/fhir+json", created, 201).await;
    let refused = "HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 3\r\n\r\nwhy";
    check(FrameKind::Envelope, "/ingest/v1/envelope", "application/json", refused, 422).await;
}

#[tokio::test]
async fn plain_http_and_silence_are_errors() {
    let trust = Trust::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for base in [format!("https://localhost:{}", free.port()), format!("http://{free}")] {
        let device = HttpsDevice::new(&base, (*trust.client).clone()).unwrap();
        let error = device.post(FrameKind::Envelope, Vec::new()).await.unwrap_err();
        assert!(matches!(error, HttpsError::NoAnswer { .. }), "{error:?}");
    }
}
