//! The server: accepts connections up to a limit, and stops so that what is under way is still acknowledged.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pipeline::Intake;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::connection;
use super::limits::{
    ACCEPT_RETRY, CONNECT_TIMEOUT, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HOLD, LARGE_ROOM_BYTES, MAX_CONNECTIONS,
    MAX_HANDSHAKES, MAX_KEEP_ALIVE_S, MAX_SESSION_EXPIRY_S, MAX_SESSIONS, RECHECK_ADMISSION,
    TAKEOVER_TIMEOUT, WRITE_TIMEOUT,
};
use super::sessions::Sessions;

/// How often sessions whose time is over are forgotten: their memory is small, so rarely.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What a site may choose about the endpoint. The defaults are the constants in [`super::limits`].
#[derive(Clone, Debug)]
pub struct MqttOptions {
    /// Connections at one time; further ones are closed at once.
    pub max_connections: usize,
    /// Time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time from the handshake to a complete CONNECT.
    pub connect_timeout: Duration,
    /// Time for a client to take what was written to it.
    pub write_timeout: Duration,
    /// Time for which a message that has to give way is held where its client cannot be told.
    pub hold: Duration,
    /// TLS handshakes at one time; further ones wait for their turn.
    pub max_handshakes: usize,
    /// Bytes of large packets that all connections together may be reading; at least one largest packet.
    pub large_room_bytes: usize,
    /// Time that commits under way have when a connection ends or the server stops.
    pub drain_timeout: Duration,
    /// How often a quiet connection's certificate is looked at again.
    pub recheck_admission: Duration,
    /// Keep-alive for clients that ask for none, and the most that MQTT 5 clients are granted, in seconds.
    pub max_keep_alive_s: u16,
    /// Longest that a session outlives its connection, in seconds.
    pub max_session_expiry_s: u32,
}

impl Default for MqttOptions {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            hold: HOLD,
            max_handshakes: MAX_HANDSHAKES,
            large_room_bytes: LARGE_ROOM_BYTES,
            drain_timeout: DRAIN_TIMEOUT,
            recheck_admission: RECHECK_ADMISSION,
            max_keep_alive_s: MAX_KEEP_ALIVE_S,
            max_session_expiry_s: MAX_SESSION_EXPIRY_S,
        }
    }
}

/// What all connections share.
pub(super) struct Shared {
    pub acceptor: TlsAcceptor,
    pub intake: Intake,
    pub options: MqttOptions,
    pub sessions: Arc<Sessions>,
    pub handshakes: Semaphore,
    /// Room for large packets, in KiB.
    pub large_room: Arc<Semaphore>,
    pub stopping: CancellationToken,
}

/// Serves MQTT on `listener` until `shutdown` resolves.
///
/// `tls` must ask every client for a certificate (see [`trust::tls::server_config_mutual`]); a client without one
/// is refused. On shutdown no connection is accepted any more, nothing more is read, commits under way are
/// acknowledged (for at most [`MqttOptions::drain_timeout`]), and MQTT 5 clients are told that the server stops.
///
/// # Errors
/// When the listener has no address, which means that it is no listening socket. Errors of single connections are
/// logged and end those connections only.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    intake: Intake,
    options: MqttOptions,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let places = Arc::new(Semaphore::new(options.max_connections));
    let shared = Arc::new(Shared {
        acceptor: TlsAcceptor::from(tls),
        intake,
        sessions: Sessions::new(MAX_SESSIONS, TAKEOVER_TIMEOUT.max(options.drain_timeout)),
        handshakes: Semaphore::new(options.max_handshakes),
        large_room: Arc::new(Semaphore::new(options.large_room_bytes / 1_024)),
        stopping: CancellationToken::new(),
        options,
    });
    let mut connections = JoinSet::new();
    let mut forget = tokio::time::interval(FORGET_EVERY);
    let mut full = false;
    tracing::info!(%address, "MQTT is served");
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => report(ended),
            _ = forget.tick() => shared.sessions.forget_expired(),
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        full = false;
                        let shared = Arc::clone(&shared);
                        connections.spawn(async move {
                            let _place = place;
                            serve_one(socket, peer, &shared).await;
                        });
                    }
                    Err(_) => {
                        // Once, not for each: whoever floods the port must not flood the log too.
                        if !std::mem::replace(&mut full, true) {
                            tracing::warn!(limit = shared.options.max_connections, "all connections are in use");
                        }
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    drop(listener);
    shared.stopping.cancel();
    tracing::info!(connections = connections.len(), "MQTT is stopping");
    let rest = shared.options.drain_timeout + shared.options.write_timeout.min(shared.options.drain_timeout);
    let drained = tokio::time::timeout(rest, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
        connections.shutdown().await;
    }
    Ok(())
}

async fn serve_one(socket: TcpStream, peer: SocketAddr, shared: &Shared) {
    let span = tracing::info_span!("mqtt", %peer, device = tracing::field::Empty);
    connection::run(socket, shared).instrument(span).await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection ended by a fault of this program; its client can connect again");
    }
}
