//! One device of a load: sends at its pace, keeps what waits for an answer in bounds, and tells the fate of each message.

use std::time::Duration;

use clinical_model::{DeviceId, FrameKind};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::readings::{Reading, Readings, envelope, now};
use super::{Fate, Outcome};
use crate::client::{HttpsDevice, Publisher, Qos, Reconnect};

/// A device's way to the server.
pub(crate) enum Line {
    Mqtt(Publisher, Qos),
    Https(HttpsDevice),
}

pub(crate) struct Sender {
    pub device: DeviceId,
    pub line: Line,
    pub readings: Readings,
    pub repeat_every: u32,
    pub reconnect: Reconnect,
    pub pace: Option<Duration>,
    pub offset: Duration,
    pub began: Instant,
    pub until: Option<Instant>,
    pub acks: mpsc::Sender<Outcome>,
    pub stop: CancellationToken,
}

/// Messages that wait for their answer.
type Open = JoinSet<()>;

impl Sender {
    pub(crate) async fn run(mut self) {
        let topic = format!("auscult/v1/{}/{}", self.device, FrameKind::Envelope);
        let mut open = Open::new();
        let mut message = 0u32;
        while !self.stop.is_cancelled() && self.until.is_none_or(|until| Instant::now() < until) {
            let due = self.pace.map(|pace| self.began + self.offset + pace * message);
            if let Some(due) = due {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.stop.cancelled() => break,
                }
            }
            message = message.wrapping_add(1);
            let readings = self.readings.next_batch();
            let again = self.repeat_every > 0 && message.is_multiple_of(self.repeat_every);
            for is_repeat in [false, true].into_iter().take(1 + usize::from(again)) {
                // A paced message counts from when it was due, or a server that falls behind would look fast.
                let job = Job { readings: readings.clone(), due, is_repeat };
                let goes_on = match &self.line {
                    Line::Mqtt(publisher, qos) => self.publish(publisher, *qos, &topic, job, &mut open).await,
                    Line::Https(posting) => self.post(posting, job).await,
                };
                if !goes_on {
                    return self.finish(open).await;
                }
            }
            while open.try_join_next().is_some() {}
        }
        self.finish(open).await;
    }

    /// Waits for the answers to come, unless the load is to stop.
    async fn finish(self, mut open: Open) {
        let finished = async { while open.join_next().await.is_some() {} };
        tokio::select! {
            () = finished => {}
            () = self.stop.cancelled() => {}
        }
        if let Line::Mqtt(publisher, _) = self.line {
            publisher.disconnect().await;
        }
        // What is still open ends as lost, and is counted so.
        while open.join_next().await.is_some() {}
    }

    /// `false` when nothing more can be sent.
    async fn publish(&self, publisher: &Publisher, qos: Qos, topic: &str, job: Job, open: &mut Open) -> bool {
        let frame = envelope(&job.readings);
        // A server that is down must not keep the load from ending.
        let published = tokio::select! {
            published = publisher.publish(topic, frame.into_bytes(), qos) => published,
            () = self.stop.cancelled() => return false,
        };
        let Ok(pending) = published else { return false };
        let sent = job.due.unwrap_or_else(Instant::now);
        let (acks, device) = (self.acks.clone(), self.device);
        // The publisher's window bounds how many of these are open.
        open.spawn(async move {
            let fate = match pending.await {
                Ok(acked) if acked.is_refused() => Fate::Refused,
                Ok(acked) => Fate::Acked { resent: acked.resent },
                Err(_) => Fate::Lost,
            };
            // The writer outlives all senders.
            let _ = acks.send(job.outcome(device, sent, fate)).await;
        });
        true
    }

    /// Posts, again and again where there is no answer and the load reconnects. `false` when nothing more can be sent.
    async fn post(&self, posting: &HttpsDevice, job: Job) -> bool {
        let sent = job.due.unwrap_or_else(Instant::now);
        let frame = envelope(&job.readings).into_bytes();
        let mut resent = false;
        let (mut wait, longest, attempts) = match self.reconnect {
            Reconnect::Never => (Duration::ZERO, Duration::ZERO, 1),
            Reconnect::BackOff { first, longest, attempts } => (first, longest, attempts.max(1)),
        };
        let mut fate = Fate::Lost;
        for attempt in 1..=attempts {
            let posted = tokio::select! {
                posted = posting.post(FrameKind::Envelope, frame.clone()) => posted,
                () = self.stop.cancelled() => break,
            };
            match posted {
                Ok(posted) if posted.is_accepted() => {
                    fate = Fate::Acked { resent };
                    break;
                }
                Ok(posted) if !posted.is_passing() => {
                    fate = Fate::Refused;
                    break;
                }
                Ok(_) | Err(_) => {}
            }
            resent = true;
            if attempt < attempts {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.stop.cancelled() => break,
                }
                wait = (wait * 2).min(longest);
            }
        }
        // The writer outlives all senders.
        let _ = self.acks.send(job.outcome(self.device, sent, fate)).await;
        fate != Fate::Lost
    }
}

/// One message to send.
struct Job {
    readings: Vec<Reading>,
    due: Option<Instant>,
    is_repeat: bool,
}

impl Job {
    fn outcome(self, device: DeviceId, sent: Instant, fate: Fate) -> Outcome {
        let Job { readings, is_repeat, .. } = self;
        Outcome { device, readings, latency: sent.elapsed(), fate, at: now(), is_repeat }
    }
}
