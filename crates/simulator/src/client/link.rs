//! One connection: TCP, TLS, the MQTT state machine, its timers, and nothing that outlives them.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{Packet, SubEntry, SubOpts, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::result_code::MqttError;
use mqtt_protocol_core::mqtt::role::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{
    CONNECT_TIMEOUT, ConnectOptions, MAX_INCOMING_PACKET_BYTES, Message, MqttVersion, PING_TIMEOUT, Qos,
    WRITE_TIMEOUT,
};

/// Bytes read from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// Why a connection could not be made or did not last.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("cannot reach {address}")]
    Tcp {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No TLS: the server's certificate, or ours, was not accepted.
    #[error("TLS with {address} failed")]
    Tls {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A step took longer than [`CONNECT_TIMEOUT`].
    #[error("{address} did not answer within {} s while {step}", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// `host:port`.
        address: String,
        /// What was under way.
        step: &'static str,
    },
    /// The server refused CONNECT.
    #[error("{address} refused the connection: {reason} (code {code})")]
    Refused {
        /// `host:port`.
        address: String,
        /// The code of the protocol version in use.
        code: u8,
        /// Its name.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection to {address} broke")]
    Broken {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server closed the connection.
    #[error("{address} closed the connection{}", reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Closed {
        /// `host:port`.
        address: String,
        /// The reason of MQTT 5, where one was given.
        reason: Option<String>,
    },
    /// One of the two broke the protocol.
    #[error("the MQTT protocol was broken in the connection to {address}: {error}")]
    Protocol {
        /// `host:port`.
        address: String,
        /// Name of the error.
        error: String,
    },
}

/// What a connection tells its owner.
pub(super) enum Notice {
    /// A message was answered for good.
    Answered {
        /// Its packet id.
        packet_id: u16,
        /// Reason code of MQTT 5; 0 for 3.1.1.
        reason: u8,
    },
    /// The server sent a message.
    Message(Message),
}

/// What became of a message that was handed over.
pub(super) enum Handed {
    /// Nothing more will be heard of it: QoS 0.
    ForGood,
    /// It waits for its acknowledgement under this packet id.
    Awaits(u16),
    /// The server said that it takes no packet of this size; it was not sent.
    TooLarge,
}

/// Reason code "packet too large" of MQTT 5.
pub(super) const PACKET_TOO_LARGE: u8 = 0x95;

/// One connection.
pub(super) struct Link {
    protocol: mqtt::Connection<Client>,
    version: MqttVersion,
    stream: TlsStream<TcpStream>,
    inbox: BytesMut,
    outbox: Vec<u8>,
    ping_at: Option<Instant>,
    pong_by: Option<Instant>,
    address: String,
    connected: bool,
    goodbye: Option<String>,
    failure: Option<ConnectError>,
}

impl Link {
    /// Connects, and waits until the server has accepted.
    pub(super) async fn open(options: &ConnectOptions) -> Result<Link, ConnectError> {
        let address = options.address.clone();
        let late = |step| ConnectError::Timeout { address: options.address.clone(), step };
        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(&options.address))
            .await
            .map_err(|_| late("connecting"))?
            .map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
        // Without this an acknowledgement may wait for a packet that waits for the acknowledgement.
        tcp.set_nodelay(true).map_err(|source| ConnectError::Tcp { address: address.clone(), source })?;
        let connector = TlsConnector::from(options.tls.clone());
        let stream = timeout(CONNECT_TIMEOUT, connector.connect(options.server_name.clone(), tcp))
            .await
            .map_err(|_| late("setting up TLS"))?
            .map_err(|source| ConnectError::Tls { address: address.clone(), source })?;

        let version = match options.version {
            MqttVersion::V311 => mqtt::Version::V3_1_1,
            MqttVersion::V5 => mqtt::Version::V5_0,
        };
        let limits = ConnectionOptions::new().maximum_packet_size_recv(MAX_INCOMING_PACKET_BYTES);
        let mut machine = mqtt::Connection::<Client>::with_options(version, limits);
        machine.set_auto_pub_response(true);
        machine.set_auto_ping_response(true);
        machine.set_pingresp_recv_timeout(PING_TIMEOUT.as_millis() as u64);
        let mut link = Link {
            protocol: machine,
            version: options.version,
            stream,
            inbox: BytesMut::with_capacity(READ_BYTES),
            outbox: Vec::new(),
            ping_at: None,
            pong_by: None,
            address,
            connected: false,
            goodbye: None,
            failure: None,
        };
        let connect = connect_packet(options).map_err(|error| protocol(&options.address, error))?;
        let events = link.protocol.send(connect);
        link.obey(events)?;
        timeout(CONNECT_TIMEOUT, link.until_accepted()).await.map_err(|_| late("waiting for CONNACK"))??;
        if !options.subscribe.is_empty() {
            link.subscribe(&options.subscribe)?;
        }
        Ok(link)
    }

    async fn until_accepted(&mut self) -> Result<(), ConnectError> {
        while !self.connected {
            self.flush().await?;
            // Nothing but CONNACK can come before CONNACK, so no notice is lost here.
            self.next().await?;
        }
        Ok(())
    }

    /// How many more messages with an acknowledgement the server takes now.
    pub(super) fn vacancy(&self) -> u16 {
        self.protocol.get_receive_maximum_vacancy_for_send().unwrap_or(u16::MAX)
    }

    /// Puts a message into the outbox.
    pub(super) fn publish(&mut self, message: &Message, again: bool) -> Result<Handed, ConnectError> {
        let broken = |error| protocol(&self.address, error);
        let packet_id = match message.qos {
            Qos::AtMostOnce => None,
            _ => Some(self.protocol.acquire_packet_id().map_err(broken)?),
        };
        let packet = publish_packet(self.version, message, packet_id, again)
            .map_err(|error| protocol(&self.address, error))?;
        let events = self.protocol.send(packet);
        let too_large = |event: &Event| matches!(event, Event::NotifyError(MqttError::PacketTooLarge));
        if events.iter().any(too_large) {
            // Nothing was sent, and the id can be used again.
            let released = packet_id.map(|id| self.protocol.release_packet_id(id));
            return self.obey(released.unwrap_or_default()).map(|()| Handed::TooLarge);
        }
        self.obey(events)?;
        Ok(packet_id.map_or(Handed::ForGood, Handed::Awaits))
    }

    /// Puts a DISCONNECT into the outbox.
    pub(super) fn disconnect(&mut self) -> Result<(), ConnectError> {
        let packet: Packet = match self.version {
            MqttVersion::V311 => v3_1_1::Disconnect::new().into(),
            MqttVersion::V5 => {
                v5_0::Disconnect::builder().build().map_err(|error| protocol(&self.address, error))?.into()
            }
        };
        // The state machine asks for the connection to be closed after this, which the caller does.
        for event in self.protocol.send(packet) {
            if let Event::RequestSendPacket { packet, .. } = event {
                self.outbox.extend(packet.to_continuous_buffer());
            }
        }
        Ok(())
    }

    /// Closes in order: what is written arrives, then the end of TLS.
    pub(super) async fn close(mut self) {
        // The peer may be gone already; there is nobody left to tell.
        let _ = timeout(PING_TIMEOUT, async {
            self.flush().await.ok();
            self.stream.shutdown().await.ok();
        })
        .await;
    }

    /// Writes what is in the outbox.
    pub(super) async fn flush(&mut self) -> Result<(), ConnectError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let outbox = std::mem::take(&mut self.outbox);
        let writing = async {
            self.stream.write_all(&outbox).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE_TIMEOUT, writing)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
        written.map_err(|source| ConnectError::Broken { address: self.address.clone(), source })?;
        self.outbox = outbox;
        self.outbox.clear();
        Ok(())
    }

    /// Waits for bytes or for a timer, and says what came of it; the caller flushes. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Vec<Notice>, ConnectError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let far = Instant::now() + Duration::from_secs(86_400);
        let (ping_at, pong_by) = (self.ping_at.unwrap_or(far), self.pong_by.unwrap_or(far));
        self.inbox.reserve(READ_BYTES);
        // No branch waits again after it was chosen, so that a dropped wait loses nothing; answers stay in the outbox.
        tokio::select! {
            read = self.stream.read_buf(&mut self.inbox) => {
                let length = read
                    .map_err(|source| ConnectError::Broken { address: self.address.clone(), source })?;
                if length == 0 {
                    return Err(self.closed());
                }
                Ok(self.receive())
            }
            () = sleep_until(ping_at) => {
                self.ping_at = None;
                let events = self.protocol.notify_timer_fired(TimerKind::PingreqSend);
                self.obey(events).map(|()| Vec::new())
            }
            () = sleep_until(pong_by) => {
                self.pong_by = None;
                let source = io::Error::new(io::ErrorKind::TimedOut, "no answer to a ping");
                Err(ConnectError::Broken { address: self.address.clone(), source })
            }
        }
    }

    /// What was read before a failure is told first, the failure with the next wait.
    fn receive(&mut self) -> Vec<Notice> {
        let bytes = self.inbox.split();
        let mut cursor = Cursor::new(&bytes[..]);
        let mut notices = Vec::new();
        while (cursor.position() as usize) < bytes.len() && self.failure.is_none() {
            let events = self.protocol.recv(&mut cursor);
            self.failure = self.take(events, &mut notices).err();
        }
        notices
    }

    /// Does what the state machine asks for outside of a read, where nothing can have been received.
    fn obey(&mut self, events: Vec<Event>) -> Result<(), ConnectError> {
        self.take(events, &mut Vec::new())
    }

    fn take(&mut self, events: Vec<Event>, notices: &mut Vec<Notice>) -> Result<(), ConnectError> {
        let mut failure = None;
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => self.outbox.extend(packet.to_continuous_buffer()),
                Event::NotifyPacketReceived(packet) => notices.extend(self.packet(packet)?),
                Event::RequestTimerReset { kind, duration_ms } => {
                    self.set_timer(kind, Some(Instant::now() + Duration::from_millis(duration_ms)));
                }
                Event::RequestTimerCancel(kind) => self.set_timer(kind, None),
                Event::NotifyError(error) => failure = Some(protocol(&self.address, error)),
                Event::RequestClose => failure = failure.or_else(|| Some(self.closed())),
                Event::NotifyPacketIdReleased(_) => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn set_timer(&mut self, kind: TimerKind, at: Option<Instant>) {
        match kind {
            TimerKind::PingreqSend => self.ping_at = at,
            TimerKind::PingrespRecv => self.pong_by = at,
            // A server's timer.
            TimerKind::PingreqRecv => {}
        }
    }

    fn closed(&self) -> ConnectError {
        ConnectError::Closed { address: self.address.clone(), reason: self.goodbye.clone() }
    }

    fn packet(&mut self, packet: Packet) -> Result<Option<Notice>, ConnectError> {
        let answered = |packet_id, reason| Ok(Some(Notice::Answered { packet_id, reason }));
        let refused = |code: u8, reason: String| {
            Err(ConnectError::Refused { address: self.address.clone(), code, reason })
        };
        match packet {
            Packet::V3_1_1Connack(ack) => match ack.return_code() {
                mqtt::result_code::ConnectReturnCode::Accepted => {
                    self.connected = true;
                    Ok(None)
                }
                code => refused(code as u8, format!("{code:?}")),
            },
            Packet::V5_0Connack(ack) => match ack.reason_code() {
                mqtt::result_code::ConnectReasonCode::Success => {
                    self.connected = true;
                    Ok(None)
                }
                code => refused(code as u8, format!("{code:?}")),
            },
            Packet::V3_1_1Puback(ack) => answered(ack.packet_id(), 0),
            Packet::V5_0Puback(ack) => {
                answered(ack.packet_id(), ack.reason_code().map_or(0, |code| code as u8))
            }
            // A refusal ends the exchange; else PUBREL has been sent and PUBCOMP is what counts.
            Packet::V5_0Pubrec(ack) => match ack.reason_code().map_or(0, |code| code as u8) {
                reason if reason >= 0x80 => answered(ack.packet_id(), reason),
                _ => Ok(None),
            },
            Packet::V3_1_1Pubcomp(ack) => answered(ack.packet_id(), 0),
            Packet::V5_0Pubcomp(ack) => {
                answered(ack.packet_id(), ack.reason_code().map_or(0, |code| code as u8))
            }
            Packet::V3_1_1Publish(p) => Ok(Some(Notice::Message(received(
                p.topic_name(),
                p.payload().as_slice(),
                p.qos(),
                p.retain(),
            )))),
            Packet::V5_0Publish(p) => Ok(Some(Notice::Message(received(
                p.topic_name(),
                p.payload().as_slice(),
                p.qos(),
                p.retain(),
            )))),
            Packet::V5_0Disconnect(goodbye) => {
                self.goodbye = goodbye.reason_code().map(|code| format!("{code:?}"));
                Err(self.closed())
            }
            _ => Ok(None),
        }
    }

    fn subscribe(&mut self, filters: &[String]) -> Result<(), ConnectError> {
        let broken = |error| protocol(&self.address, error);
        let entries = filters
            .iter()
            .map(|filter| {
                SubEntry::new(filter.as_str(), SubOpts::new().set_qos(mqtt::packet::Qos::AtLeastOnce))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(broken)?;
        let packet_id = self.protocol.acquire_packet_id().map_err(broken)?;
        let packet: Packet = match self.version {
            MqttVersion::V311 => v3_1_1::Subscribe::builder()
                .packet_id(packet_id)
                .entries(entries)
                .build()
                .map_err(broken)?
                .into(),
            MqttVersion::V5 => v5_0::Subscribe::builder()
                .packet_id(packet_id)
                .entries(entries)
                .build()
                .map_err(broken)?
                .into(),
        };
        let events = self.protocol.send(packet);
        self.obey(events)
    }
}

fn protocol(address: &str, error: MqttError) -> ConnectError {
    ConnectError::Protocol { address: address.to_owned(), error: format!("{error:?}") }
}

fn wire(qos: Qos) -> mqtt::packet::Qos {
    match qos {
        Qos::AtMostOnce => mqtt::packet::Qos::AtMostOnce,
        Qos::AtLeastOnce => mqtt::packet::Qos::AtLeastOnce,
        Qos::ExactlyOnce => mqtt::packet::Qos::ExactlyOnce,
    }
}

fn received(topic: &str, payload: &[u8], qos: mqtt::packet::Qos, retain: bool) -> Message {
    let qos = match qos {
        mqtt::packet::Qos::AtMostOnce => Qos::AtMostOnce,
        mqtt::packet::Qos::AtLeastOnce => Qos::AtLeastOnce,
        mqtt::packet::Qos::ExactlyOnce => Qos::ExactlyOnce,
    };
    Message { topic: topic.to_owned(), payload: payload.into(), qos, retain }
}

/// Sessions are always clean: what must be sent again is kept here, not in the server.
fn connect_packet(options: &ConnectOptions) -> Result<Packet, MqttError> {
    macro_rules! build {
        ($module:ident) => {{
            let mut builder = $module::Connect::builder()
                .client_id(options.client_id.as_str())?
                .clean_start(true)
                .keep_alive(options.keep_alive_s);
            if let Some(will) = &options.will {
                builder = builder.will_message(
                    will.topic.as_str(),
                    will.payload.to_vec(),
                    wire(will.qos),
                    will.retain,
                )?;
            }
            builder.build()?.into()
        }};
    }
    Ok(match options.version {
        MqttVersion::V311 => build!(v3_1_1),
        MqttVersion::V5 => build!(v5_0),
    })
}

fn publish_packet(
    version: MqttVersion,
    message: &Message,
    packet_id: Option<u16>,
    again: bool,
) -> Result<Packet, MqttError> {
    macro_rules! build {
        ($module:ident) => {
            $module::Publish::builder()
                .topic_name(message.topic.as_str())?
                .qos(wire(message.qos))
                .retain(message.retain)
                .dup(again && packet_id.is_some())
                .packet_id(packet_id)
                .payload(message.payload.clone())
                .build()?
                .into()
        };
    }
    Ok(match version {
        MqttVersion::V311 => build!(v3_1_1),
        MqttVersion::V5 => build!(v5_0),
    })
}
