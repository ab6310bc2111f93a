//! Requests whose end is in doubt: whoever stands before us may see one request where we see two, so none is believed.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use web_api::serve_web;

use crate::clinic::Clinic;

/// A second request, hidden in what may be the body of the first.
const HIDDEN: &str = "GET /health HTTP/1.1\r\nHost: hidden\r\n\r\n";
/// Time in which everything that will be answered is answered, on a machine that is busy with other tests as well.
const SILENCE: Duration = Duration::from_secs(20);

struct Shape {
    name: &'static str,
    /// Everything before the hidden request, written as is.
    head: &'static str,
    /// What may stand after it.
    tail: &'static str,
}

/// RFC 9112 sections 2.2, 3.2, 5.1, 5.2, 6.1, 6.3 and 7.1: what a server must refuse, or answer once and then close.
const SHAPES: &[Shape] = &[
    Shape {
        name: "a length and chunks",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "chunks and a length",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "two lengths",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 38\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "two lengths in one line",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 38\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a length with a sign",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a length in hexadecimal",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a coding that is not the last",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "an unknown coding",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a space before the colon",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a folded header",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nX: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a carriage return inside a header",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nX: b\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a zero byte in a header",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nX: b\0c\r\nContent-Length: 0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "chunks in HTTP/1.0",
        head: "POST /api/v1/sign-in HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        tail: "",
    },
    Shape {
        name: "a chunk longer than any number",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        tail: "\r\n0\r\n\r\n",
    },
    Shape {
        name: "a chunk with a sign",
        head: "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        tail: "\r\n0\r\n\r\n",
    },
];

/// The status of each answer that comes until the connection is closed or silent.
async fn answers(address: std::net::SocketAddr, sent: &[u8]) -> (Vec<u16>, bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(sent).await;
    let mut said = Vec::new();
    let closed = tokio::time::timeout(SILENCE, stream.read_to_end(&mut said)).await.is_ok();
    let text = String::from_utf8_lossy(&said);
    let statuses =
        text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    (statuses.collect(), closed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_request_is_never_answered() {
    let clinic = Clinic::furnished();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served =
        tokio::spawn(serve_web(listener, Arc::clone(&clinic.web), None, stop.clone().cancelled_owned()));

    // What the shapes are measured against: the hidden request is answered where it is a request of its own.
    let honest = "POST /api/v1/sign-in HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
        GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (statuses, _) = answers(address, honest.as_bytes()).await;
    assert_eq!(statuses.len(), 2, "{statuses:?}");

    let tried = SHAPES.iter().map(|shape| async move {
        let (statuses, closed) =
            answers(address, format!("{}{HIDDEN}{}", shape.head, shape.tail).as_bytes()).await;
        (shape.name, statuses, closed)
    });
    let mut believed = Vec::new();
    for (name, statuses, closed) in futures_util::future::join_all(tried).await {
        if statuses.len() > 1 || statuses.contains(&200) || !closed {
            believed.push((name, statuses, closed));
        }
    }
    assert!(believed.is_empty(), "{believed:#?}");
    stop.cancel();
    served.await.unwrap().unwrap();
}
