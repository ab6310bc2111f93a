//! The thread that moves bytes to and from the database, and waiting for it from any other thread.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};

use super::address::{Address, Tls};
use super::tls::Connect;
use crate::OpenError;
use crate::sql::{DbError, Fault, lock};

/// A connection is given up when it is not made after so long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After a server could not be reached it is not tried again for so long.
const NOT_AGAIN_FOR: Duration = Duration::from_millis(500);
/// A silent connection is asked for a sign of life after so long, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A thread with a runtime of its own: our callers may be threads of another runtime, which must not block on theirs.
pub(crate) struct Io {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Io {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("postgres".to_owned()).spawn(move || {
            // Ends when told to, or when nobody is left who could tell.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Io { handle, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that talked to the database had panicked");
        }
    }
}

/// Makes connections.
pub(super) struct Connector {
    config: tokio_postgres::Config,
    tls: Option<Connect>,
    pub(super) handle: Handle,
    /// When the server could not be reached last.
    failed_at: Mutex<Option<Instant>>,
}

impl Connector {
    pub(super) fn new(address: Address, handle: Handle) -> Result<Self, OpenError> {
        let mut config = address.config;
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE)
            .keepalives_retries(2)
            .tcp_user_timeout(KEEPALIVE * 3);
        if config.get_application_name().is_none() {
            config.application_name("auscult");
        }
        let tls = match address.tls {
            Tls::Disabled => None,
            Tls::Verified { authority } => Some(Connect::believing(&authority)?),
        };
        Ok(Connector { config, tls, handle, failed_at: Mutex::default() })
    }

    /// Refuses at once where the server could not be reached a moment ago: else everybody who asks would wait in turn.
    pub(super) fn was_reachable(&self) -> Result<(), DbError> {
        let failed_at = *lock(&self.failed_at);
        if failed_at.is_some_and(|failed_at| failed_at.elapsed() < NOT_AGAIN_FOR) {
            return Err(DbError::new(Fault::Unreachable, "the database could not be reached a moment ago"));
        }
        Ok(())
    }

    /// Remembers that it could not be reached.
    pub(super) fn is_unreachable(&self, error: &DbError) {
        if error.fault == Fault::Unreachable {
            *lock(&self.failed_at) = Some(Instant::now());
        }
    }

    /// A connection, moved along by the thread until its client is dropped.
    pub(super) fn connect(&self) -> Result<Client, DbError> {
        let (config, tls, handle) = (self.config.clone(), self.tls.clone(), self.handle.clone());
        let connecting = self.handle.spawn(async move {
            let connect = async {
                match tls {
                    None => {
                        let (client, connection) = config.connect(NoTls).await?;
                        handle.spawn(run(connection));
                        Ok(client)
                    }
                    Some(tls) => {
                        let (client, connection) = config.connect(tls).await?;
                        handle.spawn(run(connection));
                        Ok(client)
                    }
                }
            };
            tokio::time::timeout(CONNECT_TIMEOUT, connect).await
        });
        match block_on(connecting) {
            Ok(Ok(Ok(client))) => Ok(client),
            Ok(Ok(Err(error))) => Err(super::session::meaning(error)),
            Ok(Err(elapsed)) => Err(DbError { fault: Fault::Unreachable, source: elapsed.into() }),
            Err(ended) => Err(DbError { fault: Fault::Unreachable, source: ended.into() }),
        }
    }

    /// The configuration and TLS, for a connection that somebody moves along themselves.
    pub(super) fn parts(&self) -> (tokio_postgres::Config, Option<Connect>) {
        (self.config.clone(), self.tls.clone())
    }
}

/// Moves a connection along; what ends it, its client is told.
async fn run<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if let Err(error) = connection.await {
        tracing::debug!(error = %error, "a connection to the database ended");
    }
}

/// Unparks a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future that the thread above moves along. Unlike a runtime's own function it may be called anywhere,
/// also on a thread of another runtime, which then simply waits.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
