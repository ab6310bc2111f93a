//! A device's way to publish: pipelined, with a bounded window, reconnecting and sending again what was not acknowledged.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::link::{ConnectError, Handed, Link, Notice, PACKET_TOO_LARGE};
use super::{ConnectOptions, INCOMING_LIMIT, MAX_SENDS, Message, Qos, Reconnect};
use crate::random::Random;

/// Messages taken from the queue before they are written: bounds one write to a few hundred kilobytes.
const GATHER_LIMIT: usize = 256;

/// The server's answer to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Reason code of MQTT 5: 0 to 127 accepted, from 128 refused; 0 for 3.1.1, and for QoS 0 once it is written.
    pub reason: u8,
    /// Whether it had to be sent more than once.
    pub resent: bool,
}

impl Acked {
    /// Whether the server refused the message for good.
    pub const fn is_refused(&self) -> bool {
        self.reason >= 0x80
    }
}

/// The connection is gone, and with it the answer to this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended before the server answered")]
pub struct Closed;

/// The answer to come.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Acked>);

impl Future for Pending {
    type Output = Result<Acked, Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| Closed)
    }
}

struct Outgoing {
    message: Message,
    answer: oneshot::Sender<Acked>,
    /// Returned to the window when this is dropped.
    _place: OwnedSemaphorePermit,
    order: u64,
    sends: u32,
}

enum Command {
    Publish(Outgoing),
    Disconnect(oneshot::Sender<()>),
}

/// A connected device.
///
/// Sessions are clean, so that a message of QoS 2 whose exchange was cut off is sent again as a whole: the
/// server's identities, not the packet ids, keep it from counting twice. Dropping it breaks the connection without a farewell, so that the will is published.
#[derive(Debug)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    window: Arc<Semaphore>,
    incoming: Mutex<mpsc::Receiver<Message>>,
    connections: watch::Receiver<u32>,
    stop: CancellationToken,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Publisher {
    /// Connects; returns when the server has accepted the first connection.
    ///
    /// # Errors
    /// [`ConnectError`] says which step failed. Later breaks are mended as `options.reconnect` says.
    pub async fn connect(options: ConnectOptions) -> Result<Publisher, ConnectError> {
        let link = Link::open(&options).await?;
        let window = usize::from(options.window.max(1));
        let (commands, queue) = mpsc::channel(window);
        let (deliver, incoming) = mpsc::channel(INCOMING_LIMIT);
        let (count, connections) = watch::channel(1);
        let stop = CancellationToken::new();
        let session = Session {
            options: Arc::new(options),
            queue,
            deliver,
            count,
            waiting: VecDeque::new(),
            in_flight: HashMap::new(),
            next_order: 0,
        };
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = session.run(link) => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Publisher {
            commands,
            window: Arc::new(Semaphore::new(window)),
            incoming: Mutex::new(incoming),
            connections,
            stop,
        })
    }

    /// Hands over one message; returns when it has a place in the window. The answer comes with [`Pending`].
    ///
    /// # Errors
    /// [`Closed`] after the connection ended for good.
    pub async fn publish(
        &self,
        topic: impl Into<String>,
        payload: impl Into<Arc<[u8]>>,
        qos: Qos,
    ) -> Result<Pending, Closed> {
        self.send(Message::new(topic, payload, qos)).await
    }

    /// [`Publisher::publish`] for a message that is already made.
    ///
    /// # Errors
    /// [`Closed`] after the connection ended for good.
    pub async fn send(&self, message: Message) -> Result<Pending, Closed> {
        let place = tokio::select! {
            place = self.window.clone().acquire_owned() => place.map_err(|_| Closed)?,
            () = self.commands.closed() => return Err(Closed),
        };
        let (answer, pending) = oneshot::channel();
        let outgoing = Outgoing { message, answer, _place: place, order: 0, sends: 0 };
        self.commands.send(Command::Publish(outgoing)).await.map_err(|_| Closed)?;
        Ok(Pending(pending))
    }

    /// The next message that the server sends on a subscribed topic; `None` after the end.
    pub async fn receive(&self) -> Option<Message> {
        self.incoming.lock().await.recv().await
    }

    /// How many connections were made so far; more than 1 after a reconnect.
    pub fn connections(&self) -> watch::Receiver<u32> {
        self.connections.clone()
    }

    /// Says farewell and closes; the will is not published. Messages without an answer are reported as [`Closed`].
    pub async fn disconnect(self) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::Disconnect(done)).await.is_ok() {
            // An error means that the connection ended by itself: the same result.
            let _ = finished.await;
        }
    }

    /// Breaks the connection as a dead battery would: no farewell, the will is published.
    pub fn abandon(self) {
        drop(self);
    }
}

/// What outlives one connection.
struct Session {
    options: Arc<ConnectOptions>,
    queue: mpsc::Receiver<Command>,
    deliver: mpsc::Sender<Message>,
    count: watch::Sender<u32>,
    waiting: VecDeque<Outgoing>,
    in_flight: HashMap<u16, Outgoing>,
    next_order: u64,
}

/// Why one connection ended.
enum End {
    /// On our wish.
    Wanted(oneshot::Sender<()>),
    /// Because nobody is left who could publish.
    Orphaned,
    /// It broke.
    Broken(ConnectError),
}

impl Session {
    async fn run(mut self, mut link: Link) {
        loop {
            match self.serve(&mut link).await {
                End::Wanted(done) => {
                    if link.disconnect().is_ok() {
                        link.close().await;
                    }
                    // The asker may have stopped waiting.
                    let _ = done.send(());
                    return;
                }
                End::Orphaned => return,
                End::Broken(error) => {
                    tracing::debug!(client = %self.options.client_id, %error, "device connection lost");
                }
            }
            self.requeue();
            match self.reopen().await {
                Some(next) => link = next,
                None => return,
            }
            self.count.send_modify(|count| *count += 1);
        }
    }

    async fn serve(&mut self, link: &mut Link) -> End {
        if let Some(message) = self.options.announce.clone()
            && let Err(error) = link.publish(&message, false)
        {
            return End::Broken(error);
        }
        loop {
            if let Err(error) = self.pump(link).await {
                return End::Broken(error);
            }
            tokio::select! {
                notices = link.next() => match notices {
                    Ok(notices) => notices.into_iter().for_each(|notice| self.notice(notice)),
                    Err(error) => return End::Broken(error),
                },
                // The window bounds what is taken from here and not yet answered.
                command = self.queue.recv() => match command {
                    None => return End::Orphaned,
                    Some(Command::Disconnect(done)) => return End::Wanted(done),
                    Some(Command::Publish(outgoing)) => {
                        self.enqueue(outgoing);
                        if let Some(done) = self.gather() {
                            // What was handed over before the farewell is still written.
                            if let Err(error) = self.pump(link).await {
                                return End::Broken(error);
                            }
                            return End::Wanted(done);
                        }
                    }
                },
            }
        }
    }

    /// Takes what else is in the queue, so that one write carries it all.
    fn gather(&mut self) -> Option<oneshot::Sender<()>> {
        while self.waiting.len() < GATHER_LIMIT {
            match self.queue.try_recv() {
                Ok(Command::Publish(outgoing)) => self.enqueue(outgoing),
                Ok(Command::Disconnect(done)) => return Some(done),
                Err(_) => break,
            }
        }
        None
    }

    fn enqueue(&mut self, mut outgoing: Outgoing) {
        outgoing.order = self.next_order;
        self.next_order += 1;
        self.waiting.push_back(outgoing);
    }

    /// Sends as much as the server takes.
    async fn pump(&mut self, link: &mut Link) -> Result<(), ConnectError> {
        let mut settled = Vec::new();
        while let Some(first) = self.waiting.front() {
            if first.message.qos != Qos::AtMostOnce && link.vacancy() == 0 {
                break;
            }
            let handed = link.publish(&first.message, first.sends > 0 && self.options.mark_resent)?;
            let Some(mut outgoing) = self.waiting.pop_front() else { break };
            outgoing.sends += 1;
            match handed {
                Handed::Awaits(packet_id) => drop(self.in_flight.insert(packet_id, outgoing)),
                Handed::ForGood => settled.push((outgoing, 0)),
                Handed::TooLarge => settled.push((outgoing, PACKET_TOO_LARGE)),
            }
        }
        link.flush().await?;
        for (outgoing, reason) in settled {
            // Nobody may be waiting for the end of a message without acknowledgement.
            let _ = outgoing.answer.send(Acked { reason, resent: outgoing.sends > 1 });
        }
        Ok(())
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Answered { packet_id, reason } => {
                // The announcement is acknowledged too, and nobody waits for it.
                if let Some(outgoing) = self.in_flight.remove(&packet_id) {
                    let _ = outgoing.answer.send(Acked { reason, resent: outgoing.sends > 1 });
                }
            }
            Notice::Message(message) => {
                if self.deliver.try_send(message).is_err() {
                    tracing::debug!(client = %self.options.client_id, "a message of the server found no room");
                }
            }
        }
    }

    /// Puts what was sent but not acknowledged back to the front, in its order.
    fn requeue(&mut self) {
        let mut again: Vec<Outgoing> = self.in_flight.drain().map(|(_, outgoing)| outgoing).collect();
        again.sort_by_key(|outgoing| std::cmp::Reverse(outgoing.order));
        for outgoing in again {
            if outgoing.sends < MAX_SENDS {
                self.waiting.push_front(outgoing);
            } else {
                tracing::warn!(client = %self.options.client_id, sends = outgoing.sends, "a message is given up");
            }
        }
    }

    /// Connects again; `None` when it gives up or nobody wants it any more.
    async fn reopen(&mut self) -> Option<Link> {
        let Reconnect::BackOff { first, longest, attempts } = self.options.reconnect else { return None };
        let mut random = Random::for_part(self.next_order, &self.options.client_id);
        let mut wait = first;
        for attempt in 1..=attempts {
            let pause = wait + wait.mul_f64(random.between(0.0, 0.25));
            let options = Arc::clone(&self.options);
            let opening = async move {
                tokio::time::sleep(pause).await;
                Link::open(&options).await
            };
            tokio::pin!(opening);
            let opened = loop {
                tokio::select! {
                    opened = &mut opening => break opened,
                    command = self.queue.recv() => match command {
                        None => return None,
                        Some(Command::Publish(outgoing)) => self.enqueue(outgoing),
                        Some(Command::Disconnect(done)) => {
                            // The asker may have stopped waiting.
                            let _ = done.send(());
                            return None;
                        }
                    },
                }
            };
            match opened {
                Ok(link) => return Some(link),
                Err(error) => {
                    tracing::debug!(client = %self.options.client_id, attempt, %error, "reconnecting failed");
                }
            }
            wait = (wait * 2).min(longest);
        }
        None
    }
}
