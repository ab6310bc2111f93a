//! News of other nodes: a connection that listens and rings the bell.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};

use super::io::Connector;
use crate::rules::news::Bell;
use crate::words::News;

/// A connection that broke is made again after so long; meanwhile those who wait ask for themselves.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Listens until the bell is gone, or the thread ends.
pub(super) fn start(connector: Arc<Connector>, bell: Weak<Bell>) {
    let handle = connector.handle.clone();
    // Only what is needed: the task must not keep the connector's owner alive.
    let (config, tls) = connector.parts();
    handle.spawn(async move {
        while bell.strong_count() > 0 {
            let ended = match tls.clone() {
                None => match config.connect(NoTls).await {
                    Ok((client, connection)) => listen(client, connection, &bell).await,
                    Err(error) => Err(error),
                },
                Some(tls) => match config.connect(tls).await {
                    Ok((client, connection)) => listen(client, connection, &bell).await,
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(error = %error, "the connection that listens for news ended");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    });
}

async fn listen<S, T>(
    client: Client,
    mut connection: Connection<S, T>,
    bell: &Weak<Bell>,
) -> Result<(), tokio_postgres::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    let ask = async {
        let schema = client.query_one("SELECT 'auscult_' || current_schema()", &[]).await?;
        let channel: String = schema.get(0);
        client.batch_execute(&format!("LISTEN \"{}\"", channel.replace('"', "\"\""))).await
    };
    let mut ask = Box::pin(ask);
    let mut asked = false;
    loop {
        let message = tokio::select! {
            outcome = poll_fn(|context| ask.as_mut().poll(context)), if !asked => {
                outcome?;
                asked = true;
                continue;
            }
            message = messages.next() => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                let Some(bell) = bell.upgrade() else { return Ok(()) };
                if let Some(news) = read(notification.payload()) {
                    bell.tell(news);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

/// Two numbers: the last group and the last change.
fn read(payload: &str) -> Option<News> {
    let (group, change) = payload.split_once(' ')?;
    Some(News { group: group.parse().ok()?, change: change.parse().ok()? })
}
