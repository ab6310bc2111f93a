//! A device's way to the server, whichever transport it has, with every frame counted.

use std::sync::Arc;
use std::time::Duration;

use clinical_model::{DeviceId, FrameKind};
use rustls::ClientConfig;

use super::{Progress, Stage, count};
use crate::client::{ConnectOptions, HttpsDevice, Message, Publisher, Qos};
use crate::hospital::{PlannedDevice, Transport};
use crate::random::Random;

/// Waits before the next try after a failed first connection.
const RETRY_WAIT: Duration = Duration::from_secs(2);
/// Tries of one post: with doubled waits they span a quarter of a minute, as long as a restart of the server.
const POST_ATTEMPTS: u32 = 6;
/// Wait after the first failed post.
const FIRST_POST_WAIT: Duration = Duration::from_millis(500);
/// Devices start within this, so that a hundred handshakes do not come at once.
const START_SPREAD: Duration = Duration::from_millis(2_500);

/// One way to the server.
pub(super) enum Uplink {
    Mqtt { publisher: Arc<Publisher>, device: DeviceId, _present: Present },
    Https(HttpsDevice),
}

/// Counts a device as connected for as long as it lives.
pub(super) struct Present(Arc<Progress>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The topic of a device's frames, status or commands.
pub(super) fn topic(device: DeviceId, last: &str) -> String {
    format!("auscult/v1/{device}/{last}")
}

impl Uplink {
    /// Connects, for as long as it takes.
    pub(super) async fn open(stage: &Stage, planned: &PlannedDevice, tls: &Arc<ClientConfig>) -> Uplink {
        let mut random = Random::for_part(stage.seed, &format!("start {}", planned.device.id));
        tokio::time::sleep(START_SPREAD.mul_f64(random.between(0.0, 1.0))).await;
        loop {
            match Self::try_open(stage, planned, tls).await {
                Ok(uplink) => return uplink,
                Err(error) => {
                    tracing::debug!(device = %planned.device.id, error = error.as_ref(), "no connection");
                }
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    async fn try_open(
        stage: &Stage,
        planned: &PlannedDevice,
        tls: &Arc<ClientConfig>,
    ) -> Result<Uplink, Box<dyn std::error::Error + Send + Sync>> {
        let device = planned.device.id;
        let version = match planned.transport {
            Transport::Https => {
                return Ok(Uplink::Https(HttpsDevice::new(&stage.endpoints.https, (**tls).clone())?));
            }
            Transport::Mqtt(version) => version,
        };
        // Not retained: an ingest endpoint keeps no messages for later subscribers.
        let status = |text: &str| Message::new(topic(device, "status"), text.as_bytes(), Qos::AtLeastOnce);
        let mut options = ConnectOptions::new(
            stage.endpoints.mqtt.clone(),
            stage.endpoints.server_name.clone(),
            Arc::clone(tls),
            device.to_string(),
        );
        options.version = version;
        options.will = Some(status("offline"));
        options.announce = Some(status("online"));
        options.subscribe = vec![topic(device, "command")];
        let publisher = Arc::new(Publisher::connect(options).await?);
        count(&stage.progress.connected);
        count(&stage.progress.connections);
        tokio::spawn(watch_commands(Arc::downgrade(&publisher), Arc::clone(&stage.progress)));
        Ok(Uplink::Mqtt { publisher, device, _present: Present(Arc::clone(&stage.progress)) })
    }

    /// Sends one frame. `false` when this way is closed for good.
    pub(super) async fn send(&self, progress: &Arc<Progress>, kind: FrameKind, bytes: Vec<u8>) -> bool {
        count(&progress.sent);
        match self {
            Uplink::Mqtt { publisher, device, .. } => {
                let topic = topic(*device, &kind.to_string());
                let Ok(pending) = publisher.publish(topic, bytes, Qos::AtLeastOnce).await else {
                    count(&progress.lost);
                    return false;
                };
                let progress = Arc::clone(progress);
                // The publisher's window bounds how many of these wait.
                tokio::spawn(async move {
                    match pending.await {
                        Ok(acked) if acked.is_refused() => count(&progress.refused),
                        Ok(_) => count(&progress.acked),
                        Err(_) => count(&progress.lost),
                    }
                });
            }
            Uplink::Https(device) => post(device, progress, kind, bytes).await,
        }
        true
    }
}

/// Posts until there is an answer that will not change by itself, or [`POST_ATTEMPTS`] are used up.
async fn post(device: &HttpsDevice, progress: &Progress, kind: FrameKind, bytes: Vec<u8>) {
    let mut wait = FIRST_POST_WAIT;
    for attempt in 1..=POST_ATTEMPTS {
        match device.post(kind, bytes.clone()).await {
            Ok(posted) if posted.is_accepted() => return count(&progress.acked),
            Ok(posted) if !posted.is_passing() => {
                tracing::debug!(status = posted.status, text = posted.text, "a frame was refused");
                return count(&progress.refused);
            }
            Ok(posted) => tracing::debug!(attempt, status = posted.status, "the server has no room now"),
            Err(error) => tracing::debug!(attempt, %error, "a frame was not answered"),
        }
        if attempt < POST_ATTEMPTS {
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
    count(&progress.lost);
}

/// Counts what the server sends, and reconnects, until the publisher is gone.
async fn watch_commands(publisher: std::sync::Weak<Publisher>, progress: Arc<Progress>) {
    /// How long the publisher is held while nothing comes.
    const HOLD: Duration = Duration::from_millis(500);
    let mut seen = 1;
    while let Some(held) = publisher.upgrade() {
        let connections = *held.connections().borrow();
        for _ in seen..connections {
            count(&progress.connections);
        }
        seen = connections;
        match tokio::time::timeout(HOLD, held.receive()).await {
            Ok(Some(message)) => {
                tracing::debug!(topic = message.topic, bytes = message.payload.len(), "command");
                count(&progress.commands);
            }
            Ok(None) => return,
            Err(_) => {}
        }
    }
}
