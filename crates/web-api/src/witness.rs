//! A witness over HTTP (C2SP tlog-witness): `POST /add-checkpoint`, and its key at `GET /key`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use pipeline::witness::{Witness, WitnessError};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use trust::log::witness::{REQUEST_LIMIT_BYTES, Refusal};

/// Connections at one time: a witness has a handful of logs.
const CONNECTIONS_LIMIT: usize = 64;
/// Longest that one connection may take, with all its requests.
const CONNECTION_LIMIT: Duration = Duration::from_secs(120);
/// Time for the TLS handshake, and for the headers of a request.
const HEADERS_LIMIT: Duration = Duration::from_secs(10);

/// Answers until `shutdown` resolves; over TLS where a configuration is given.
///
/// # Errors
/// [`io::Error`] where the listener fails.
pub async fn serve_witness(
    listener: TcpListener,
    witness: Arc<Witness>,
    tls: Option<Arc<ServerConfig>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = router(witness);
    let acceptor = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(CONNECTIONS_LIMIT));
    tokio::pin!(shutdown);
    loop {
        let (stream, _) = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        // Whoever comes when all places are taken asks again later: a log does.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (router, acceptor) = (router.clone(), acceptor.clone());
        tokio::spawn(async move {
            let _place = place;
            let talk = async {
                match acceptor {
                    None => converse(stream, router).await,
                    Some(acceptor) => {
                        let accepted = tokio::time::timeout(HEADERS_LIMIT, acceptor.accept(stream)).await;
                        if let Ok(Ok(stream)) = accepted {
                            converse(stream, router).await;
                        }
                    }
                }
            };
            // Longer than a log needs; what is cut off is asked again.
            let _ = tokio::time::timeout(CONNECTION_LIMIT, talk).await;
        });
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_LIMIT);
    let service = TowerToHyperService::new(router);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = %error, "a connection to the witness broke");
    }
}

fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/key", get(key))
        .layer(DefaultBodyLimit::max(REQUEST_LIMIT_BYTES))
        .with_state(witness)
}

async fn key(State(witness): State<Arc<Witness>>) -> String {
    format!("{}\n", witness.key())
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Bytes) -> Response {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let judged = tokio::task::spawn_blocking(move || {
        let text = std::str::from_utf8(&body).map_err(|_| WitnessError::Refused(Refusal::Malformed))?;
        witness.add_checkpoint(text, now_s)
    });
    match judged.await {
        Ok(Ok(line)) => line.into_response(),
        Ok(Err(WitnessError::Refused(refusal))) => refused(&refusal),
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "nothing was cosigned");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    match refusal {
        Refusal::Stale { size } => {
            let kind = HeaderValue::from_static("text/x.tlog.size");
            (status, [(header::CONTENT_TYPE, kind)], format!("{size}\n")).into_response()
        }
        _ => (status, format!("{refusal}\n")).into_response(),
    }
}
