//! The listeners: HTTP/1.1 and HTTP/2 over TLS, for people on the web port and for devices and programs on theirs.
//!
//! On the device port the certificate that the handshake verified is asked again at every request, and whenever one was
//! revoked: a connection whose certificate is believed no more is cut. Clients without a certificate, or with one that is
//! out of date, reach the paths of enrolment there, and nothing else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::BytesMut;
use clinical_model::Timestamp;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use pipeline::{AdmissionRefused, Peer, PeerCertificate};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use trust::pki::PeerIdentity;

use crate::encoded::refuse_packed;
use crate::enrol::Shown;
use crate::places::{NoPlace, Place, Places};
use crate::problem::{Code, Problem};
use crate::proxied::Balancers;
use crate::session::RemoteAddress;
use crate::state::Web;
use crate::{enrol, fhir, ingest, operations, proxied};

/// Connections of one port at one time: each costs about 50 KB; further ones are closed at once. Once half of them are in
/// use, one address gets 256 at most.
pub const CONNECTIONS_LIMIT: usize = 4_096;
/// Connections of clients without a certificate on the device port at one time: who has none must not take the place of
/// devices that have one.
pub const STRANGERS_LIMIT: usize = 512;
/// Time for the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the headers of a request, and for a kept connection to be idle.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the first request of a connection: who only keeps a place has nothing to say.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of the headers of one request.
pub const HEADER_LIMIT_BYTES: u32 = 32 << 10;
/// Bytes of a request body, unless its handler takes fewer.
pub const BODY_LIMIT_BYTES: usize = 1 << 20;
/// Requests of one HTTP/2 connection at one time.
pub const STREAMS_LIMIT: u32 = 128;
/// An HTTP/2 connection that is silent for so long is asked whether it lives.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// Time for the answer to that.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that requests under way have when the server stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two lines in the log that connections were closed for want of places: whoever floods the port must not
/// flood the log too.
const FULL_LOG_EVERY: Duration = Duration::from_secs(60);
/// Wait after a connection could not be accepted, for instance because all file descriptors are in use.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection of the device port; stands in the extensions of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePeer {
    /// The verified certificate.
    pub certificate: PeerCertificate,
    /// Whom it stands for.
    pub peer: Peer,
}

/// Resolves when the server stops: live streams end themselves then, for nobody else ends them. Stands in the extensions of
/// every request.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(CancellationToken);

impl Stopping {
    /// Of a request; one that came from no listener goes on for ever.
    pub(crate) fn of(extension: Option<Extension<Stopping>>) -> CancellationToken {
        extension.map_or_else(CancellationToken::new, |Extension(Stopping(token))| token)
    }
}

/// Serves people: the web app, its JSON API, live streams and FHIR, until `shutdown` resolves.
///
/// Without `tls` it speaks plain HTTP; the caller sees to it that this happens on loopback only.
///
/// # Errors
/// When the listener has no address, which means that it is no listening socket.
pub async fn serve_web(
    listener: TcpListener,
    web: Arc<Web>,
    tls: Option<Arc<ServerConfig>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = operations::router(&web);
    let balancers = web.options.balancers.clone();
    let port = Port {
        name: "web",
        router,
        tls: tls.map(TlsAcceptor::from),
        devices: None,
        balancers,
        strangers: Arc::new(Semaphore::new(0)),
    };
    run(listener, Arc::new(port), shutdown).await
}

/// Serves devices and programs, proven by client certificate: `/ingest/v1/…` and `/fhir/…`, until `shutdown` resolves.
///
/// `tls` must ask every client for a certificate; it may let some through without (see
/// [`trust::tls::LiveTls::enrolling_port`]): those can enrol, and nothing else.
///
/// # Errors
/// As [`serve_web`].
pub async fn serve_devices(
    listener: TcpListener,
    web: Arc<Web>,
    tls: Arc<ServerConfig>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = device_router(&web);
    let port = Port {
        name: "device",
        router,
        tls: Some(TlsAcceptor::from(tls)),
        devices: Some(web),
        balancers: Balancers::default(),
        strangers: Arc::new(Semaphore::new(STRANGERS_LIMIT)),
    };
    run(listener, Arc::new(port), shutdown).await
}

/// The router of the device port. Its requests carry a [`DevicePeer`] in their extensions.
pub fn device_router(web: &Arc<Web>) -> Router {
    ingest::router(web)
        .merge(fhir::device_router(web))
        .merge(enrol::device_router(web))
        .fallback(async || Problem::not_found("address on the device port"))
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(middleware::from_fn(refuse_packed))
}

/// Every operation of the device port: methods, and paths with their parameters in braces.
pub fn device_operations() -> Vec<(Method, &'static str)> {
    let ingest = ingest::paths().map(|path| (Method::POST, path));
    let fhir = fhir::interactions().into_iter().map(|interaction| (interaction.method, interaction.path));
    ingest.chain(enrol::paths()).chain(fhir).collect()
}

struct Port {
    name: &'static str,
    router: Router,
    tls: Option<TlsAcceptor>,
    /// Set on the port where every request needs a certificate.
    devices: Option<Arc<Web>>,
    /// Whose connections begin with a line by which a balancer says for whom they are.
    balancers: Balancers,
    /// Places for clients of the device port without a certificate.
    strangers: Arc<Semaphore>,
}

async fn run(listener: TcpListener, port: Arc<Port>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let address = listener.local_addr()?;
    let places = Places::new(CONNECTIONS_LIMIT);
    let stopping = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut full = Full::default();
    tracing::info!(%address, port = port.name, "HTTP is served");
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((socket, from)) => {
                    let known = (!port.balancers.contains(from.ip())).then(|| from.ip());
                    match places.take(known) {
                        Ok(place) => {
                            let (port, stopping) = (Arc::clone(&port), stopping.clone());
                            connections.spawn(serve_one(socket, from, place, port, stopping));
                        }
                        Err(why) => full.note(&port, from, why),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, port = port.name, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    drop(listener);
    stopping.cancel();
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(
            port = port.name,
            connections = connections.len(),
            "connections did not end in time and are cut"
        );
        connections.shutdown().await;
    }
    Ok(())
}

/// Connections that were closed for want of places.
#[derive(Default)]
struct Full {
    closed: u64,
    logged_at: Option<Instant>,
}

impl Full {
    fn note(&mut self, port: &Port, from: SocketAddr, why: NoPlace) {
        self.closed += 1;
        if self.logged_at.is_none_or(|at| at.elapsed() >= FULL_LOG_EVERY) {
            self.logged_at = Some(Instant::now());
            tracing::warn!(port = port.name, %from, closed = self.closed, "connections are closed at once: {why}");
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection ended by a fault of this program; its client can connect again");
    }
}

/// What is known of the other end of one connection.
struct Caller {
    address: SocketAddr,
    /// The certificate that was shown, if one was; or why it cannot be used.
    shown: Option<Result<Shown, String>>,
    stopping: Stopping,
    /// Whether a refusal was logged: once a connection is enough.
    is_logged: AtomicBool,
}

async fn serve_one(
    mut socket: TcpStream,
    mut from: SocketAddr,
    mut place: Place,
    port: Arc<Port>,
    stopping: CancellationToken,
) {
    // Answers are small and waited for; a failure to set this only costs time.
    let _ = socket.set_nodelay(true);
    if port.balancers.contains(from.ip()) {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, proxied::client_of(&mut socket)).await {
            Ok(Ok(client)) => from = client.unwrap_or(from),
            Ok(Err(error)) => return tracing::debug!(%from, %error, "no line of the PROXY protocol came"),
            Err(_) => return tracing::debug!(%from, "no line of the PROXY protocol came in time"),
        }
        if let Err(why) = place.belongs_to(from.ip()) {
            return tracing::debug!(%from, "a connection is closed at once: {why}");
        }
    }
    let Some(acceptor) = port.tls.clone() else {
        let stopping_too = Stopping(stopping.clone());
        let caller =
            Caller { address: from, shown: None, stopping: stopping_too, is_logged: AtomicBool::new(false) };
        return converse(socket, false, caller, port, stopping).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket));
    let stream = tokio::select! {
        () = stopping.cancelled() => return,
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%from, %error, port = port.name, "a TLS handshake failed"),
            Err(_) => return tracing::debug!(%from, port = port.name, "a TLS handshake took too long"),
        },
    };
    let session = stream.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let shown = session.peer_certificates().and_then(|chain| chain.first());
    let shown = shown.map(|der| peer_certificate(der));
    let _place = match (&port.devices, &shown) {
        (Some(_), None) => match Arc::clone(&port.strangers).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                return tracing::debug!(%from, "all places for clients without a certificate are in use");
            }
        },
        _ => None,
    };
    let caller = Caller {
        address: from,
        shown,
        stopping: Stopping(stopping.clone()),
        is_logged: AtomicBool::new(false),
    };
    converse(stream, is_http2, caller, port, stopping).await;
}

fn peer_certificate(der: &[u8]) -> Result<Shown, String> {
    let identity = PeerIdentity::from_der(der).map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })?;
    let instant = |at: std::time::SystemTime| {
        let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_seconds(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    };
    Ok(Shown {
        certificate: PeerCertificate {
            uri: identity.uri.to_string(),
            serial_hex: identity.serial_hex,
            common_name: identity.common_name,
        },
        not_before: instant(identity.not_before),
        not_after: instant(identity.not_after),
    })
}

/// The protocol is what TLS agreed on, and HTTP/1.1 without it: to find it out from the first bytes would let a
/// silent client wait for ever.
async fn converse<S>(stream: S, is_http2: bool, caller: Caller, port: Arc<Port>, stopping: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_LIMIT)
        .max_header_list_size(HEADER_LIMIT_BYTES);
    let builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
    let caller = Arc::new(caller);
    let revoked = is_cut_off(port.devices.clone(), Arc::clone(&caller));
    let asked = Arc::new(Notify::new());
    let silent = stays_silent(Arc::clone(&asked));
    let service = service_fn(move |request: Request<Incoming>| {
        let (port, caller) = (Arc::clone(&port), Arc::clone(&caller));
        asked.notify_one();
        async move {
            Ok::<Response, std::convert::Infallible>(answer(request.map(Body::new), &port, &caller).await)
        }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = revoked => {
            return tracing::warn!("a connection is cut: its certificate is revoked, or its device out of service");
        }
        () = silent => return tracing::debug!("a connection is cut: no request came"),
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Resolves when no first request came in time; never where one did.
async fn stays_silent(asked: Arc<Notify>) {
    if tokio::time::timeout(FIRST_REQUEST_TIMEOUT, asked.notified()).await.is_ok() {
        std::future::pending().await
    }
}

/// Resolves when the certificate of an open connection of the device port is believed no more; never for others.
async fn is_cut_off(web: Option<Arc<Web>>, caller: Arc<Caller>) {
    if let (Some(web), Some(Ok(shown))) = (web, &caller.shown) {
        let mut changes = web.site.admission().changes();
        while changes.changed().await.is_ok() {
            let admitted = web.site.admission().admit(&shown.certificate);
            if let Err(AdmissionRefused::Revoked { .. } | AdmissionRefused::Retired { .. }) = admitted {
                return;
            }
        }
    }
    std::future::pending().await
}

async fn answer(request: Request<Body>, port: &Port, caller: &Caller) -> Response {
    let is_http1 = request.version() <= Version::HTTP_11;
    let (request, rest) = watched(request);
    let mut response = routed(request, port, caller).await;
    if is_http1 {
        // What is left of the body would be taken for the next request, so the connection ends; a client that is not
        // told sends its next request into it, and cannot know whether that was heard.
        if !rest.is_read() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    } else if let Some(body) = rest.take() {
        // A stream that is dropped with its body half read is reset, and the answer often lost with it.
        discard(body).await;
    }
    response
}

async fn routed(mut request: Request<Body>, port: &Port, caller: &Caller) -> Response {
    let address = caller.address.ip();
    request.extensions_mut().insert(RemoteAddress(address));
    request.extensions_mut().insert(caller.stopping.clone());
    match &port.devices {
        _ if enrol::is_open(request.uri().path()) => {
            request.extensions_mut().insert(enrol::Caller { shown: caller.shown.clone(), address });
        }
        // Proven by its token, which the FHIR interface looks at.
        Some(_) if caller.shown.is_none() && has_bearer_token(&request) => {}
        Some(web) => match admitted(web, caller) {
            Ok(peer) => drop(request.extensions_mut().insert(peer)),
            Err(problem) => return problem.into_response(),
        },
        None => {}
    }
    match port.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The request, and what becomes of its body.
fn watched(request: Request<Body>) -> (Request<Body>, Rest) {
    let is_read = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let rest = Rest { is_read, left: Arc::default() };
    let seen = rest.clone();
    (request.map(|body| Body::new(Watched { body: Some(body), rest })), seen)
}

/// Whether a body has been read to its end, and what was left of it when it was dropped.
#[derive(Clone)]
struct Rest {
    is_read: Arc<AtomicBool>,
    left: Arc<Mutex<Option<Body>>>,
}

impl Rest {
    fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Body> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A body that says when it has been read to its end, and is kept where it was not.
struct Watched {
    body: Option<Body>,
    rest: Rest,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.rest.is_read() {
            *self.rest.left.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
            self.rest.is_read.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

/// Whether a request to the FHIR interface brings a bearer token (RFC 6750).
fn has_bearer_token(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    let value = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_bearer = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    is_bearer && (path == "/fhir" || path.starts_with("/fhir/"))
}

fn admitted(web: &Web, caller: &Caller) -> Result<DevicePeer, Problem> {
    let refuse = |why: String| {
        if !caller.is_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(from = %caller.address, why, "a certificate was refused");
        }
        Problem::new(Code::Forbidden, why)
    };
    let certificate = match &caller.shown {
        Some(Ok(shown)) => match shown.out_of_date(web.site.clock().now()) {
            None => shown.certificate.clone(),
            Some(why) => return Err(refuse(why)),
        },
        Some(Err(why)) => return Err(refuse(why.clone())),
        None => return Err(refuse("a client certificate is needed here".to_owned())),
    };
    let peer = web.site.admission().admit(&certificate).map_err(|refused| refuse(refused.to_string()))?;
    Ok(DevicePeer { certificate, peer })
}

/// Time for a whole request body: a MiB over a slow mobile link.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is too large.
    #[error("the body has more than {limit_bytes} bytes; send it in parts")]
    TooLarge {
        /// Most that is taken.
        limit_bytes: usize,
    },
    /// It did not arrive in time.
    #[error("the body did not arrive within {} s", BODY_TIMEOUT.as_secs())]
    Slow,
    /// The connection broke.
    #[error("the body broke off")]
    Broken,
}

/// Bytes of a refused body that are read and dropped: a client that is cut off while it sends often misses the
/// answer, and would send the same again.
const DISCARD_LIMIT_BYTES: usize = 32 << 20;
/// Time for that.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a whole body, up to a limit in size and time.
pub(crate) async fn read_body(
    mut body: Body,
    headers: &HeaderMap,
    limit_bytes: usize,
) -> Result<Bytes, BodyError> {
    let stated =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large = BodyError::TooLarge { limit_bytes };
    if stated.is_some_and(|length| length > limit_bytes as u64) {
        // One who asks before sending is told, and does not send.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large);
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if bytes.len() + data.len() > limit_bytes {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Some(bytes.freeze()))
    });
    match read.await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            discard(body).await;
            Err(too_large)
        }
        Ok(Err(broken)) => Err(broken),
        Err(_) => Err(BodyError::Slow),
    }
}

/// Reads a refused body up to a limit in size and time, and drops it.
pub(crate) async fn discard(mut body: Body) {
    // Whether all of it came does not matter: the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARD_LIMIT_BYTES {
                break;
            }
        }
    })
    .await;
}
