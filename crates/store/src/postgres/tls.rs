//! TLS to the database: version 1.3, and only to a server whose certificate the named authority signed.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Encrypted;

use crate::OpenError;

/// Most bytes of an authority's file; larger ones are not what they are taken for.
const AUTHORITY_LIMIT_BYTES: u64 = 1024 * 1024;

/// Makes encrypted connections.
#[derive(Clone)]
pub(super) struct Connect(Arc<ClientConfig>);

impl Connect {
    /// Believes servers of the authority in a PEM file.
    pub(super) fn believing(authority: &Path) -> Result<Self, OpenError> {
        let failed = |what: &str, source| OpenError::Path {
            path: authority.to_owned(),
            what: what.to_owned(),
            source,
        };
        let size = std::fs::metadata(authority).map_err(|e| failed("it cannot be read", Some(e)))?.len();
        if size > AUTHORITY_LIMIT_BYTES {
            return Err(failed("it is too large for an authority's certificate", None));
        }
        let pem = std::fs::read_to_string(authority).map_err(|e| failed("it cannot be read", Some(e)))?;
        let config =
            trust::tls::client_config(&pem, None, &[]).map_err(|error| failed(&error.to_string(), None))?;
        Ok(Connect(Arc::new(config)))
    }
}

impl MakeTlsConnect<Socket> for Connect {
    type Stream = Stream;
    type TlsConnect = ConnectTo;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<ConnectTo, InvalidDnsNameError> {
        Ok(ConnectTo { config: Arc::clone(&self.0), server: ServerName::try_from(host.to_owned())? })
    }
}

/// Makes one encrypted connection to a named server.
pub(super) struct ConnectTo {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl TlsConnect<Socket> for ConnectTo {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let connecting = TlsConnector::from(self.config).connect(self.server, socket);
        Box::pin(async move { Ok(Stream(Box::new(connecting.await?))) })
    }
}

/// An encrypted connection.
pub(super) struct Stream(Box<Encrypted<Socket>>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        // The certificate was verified already; without binding the password is proven by SCRAM all the same.
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
