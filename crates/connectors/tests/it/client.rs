//! Clients: one that speaks raw bytes, and one that follows the protocol by the library's client role.

use std::sync::Arc;

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{
    GenericPacketTrait as _, Packet, Qos, SessionExpiryInterval, SubEntry, SubOpts, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::{Connection, Version, role};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::pki::Issued;

use crate::house::{House, Registered, within};

/// The versions that every promise is tested in.
pub const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5_0];

/// A packet from the server: first byte and body.
pub type Raw = (u8, Vec<u8>);

/// A TLS connection to the endpoint.
pub struct Line {
    stream: TlsStream<TcpStream>,
    input: BytesMut,
}

impl Line {
    /// Connects with a certificate.
    pub async fn open(house: &House, certificate: &Issued) -> Self {
        Self::try_open(house, Some(certificate)).await.unwrap()
    }

    /// Connects, perhaps without a certificate.
    pub async fn try_open(house: &House, certificate: Option<&Issued>) -> std::io::Result<Self> {
        let connector = TlsConnector::from(Arc::new(house.client_tls(certificate)));
        let socket = TcpStream::connect(house.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = within(connector.connect(name, socket)).await?;
        Ok(Self { stream, input: BytesMut::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within(self.stream.write_all(bytes)).await?;
        self.stream.flush().await
    }

    /// The next packet; `None` when the server has closed.
    pub async fn receive(&mut self) -> Option<Raw> {
        loop {
            if let Some(packet) = self.split_packet() {
                return Some(packet);
            }
            match within(self.stream.read_buf(&mut self.input)).await {
                Ok(1..) => {}
                // Closed, by a farewell of TLS or without.
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// All packets until the server closes.
    pub async fn receive_to_end(&mut self) -> Vec<Raw> {
        let mut packets = Vec::new();
        while let Some(packet) = self.receive().await {
            packets.push(packet);
        }
        packets
    }

    /// Drops the connection without a word.
    pub fn cut(self) {
        drop(self.stream.into_inner().0);
    }

    fn split_packet(&mut self) -> Option<Raw> {
        let tail = self.input.get(1..)?;
        let digits = tail.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
        let length = tail[..digits].iter().rev().fold(0, |sum, byte| sum * 128 + usize::from(byte & 0x7f));
        if tail.len() < digits + length {
            return None;
        }
        let packet = self.input.split_to(1 + digits + length);
        Some((packet[0], packet[1 + digits..].to_vec()))
    }
}

/// A client that keeps to the protocol.
pub struct Client {
    pub line: Line,
    link: Connection<role::Client>,
    version: Version,
}

/// What a client asks for in CONNECT.
pub struct Wish {
    pub version: Version,
    pub clean: bool,
    pub keep_alive_s: u16,
}

impl Wish {
    pub fn of(version: Version) -> Self {
        Self { version, clean: true, keep_alive_s: 60 }
    }

    /// Wants to go on with its session.
    pub fn resuming(version: Version) -> Self {
        Self { clean: false, ..Self::of(version) }
    }

    fn packet(&self, client_id: &str) -> Packet {
        match self.version {
            Version::V5_0 => {
                let expiry = if self.clean { 0 } else { 3600 };
                v5_0::Connect::builder()
                    .client_id(client_id)
                    .unwrap()
                    .clean_start(self.clean)
                    .keep_alive(self.keep_alive_s)
                    .props(vec![SessionExpiryInterval::new(expiry).unwrap().into()])
                    .build()
                    .unwrap()
                    .into()
            }
            _ => v3_1_1::Connect::builder()
                .client_id(client_id)
                .unwrap()
                .clean_session(self.clean)
                .keep_alive(self.keep_alive_s)
                .build()
                .unwrap()
                .into(),
        }
    }

    /// CONNECT as bytes.
    pub fn bytes(&self, client_id: &str) -> Vec<u8> {
        self.packet(client_id).to_continuous_buffer()
    }
}

impl Client {
    /// Connects as a device; gives CONNACK's "session present" too.
    pub async fn open(house: &House, device: &Registered, wish: &Wish) -> (Self, bool) {
        let line = Line::open(house, &device.certificate).await;
        let mut client = Self { line, link: Connection::new(wish.version), version: wish.version };
        client.link.set_auto_pub_response(true);
        client.send(wish.packet(&device.id.to_string())).await;
        let present = match client.receive().await {
            Some(Packet::V3_1_1Connack(connack)) => {
                assert!(connack.return_code().is_success(), "{connack}");
                connack.session_present()
            }
            Some(Packet::V5_0Connack(connack)) => {
                assert_eq!(connack.reason_code() as u8, 0, "{connack}");
                connack.session_present()
            }
            other => panic!("expected CONNACK, got {other:?}"),
        };
        (client, present)
    }

    /// Sends a message and gives its packet id; does not wait for the answer.
    pub async fn publish(&mut self, topic: &str, qos: Qos, payload: &[u8]) -> u16 {
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { self.link.acquire_packet_id().unwrap() };
        let packet = publish(self.version, topic, qos, packet_id, false, payload);
        self.send(packet).await;
        packet_id
    }

    /// Subscribes with QoS 1 and waits for the grant.
    pub async fn subscribe(&mut self, filter: &str) {
        let packet_id = self.link.acquire_packet_id().unwrap();
        let entries = vec![SubEntry::new(filter, SubOpts::new().set_qos(Qos::AtLeastOnce)).unwrap()];
        let packet: Packet = match self.version {
            Version::V5_0 => {
                v5_0::Subscribe::builder().packet_id(packet_id).entries(entries).build().unwrap().into()
            }
            _ => v3_1_1::Subscribe::builder().packet_id(packet_id).entries(entries).build().unwrap().into(),
        };
        self.send(packet).await;
        let granted = match self.receive().await {
            Some(Packet::V3_1_1Suback(ack)) => ack.return_codes()[0] as u8,
            Some(Packet::V5_0Suback(ack)) => ack.reason_codes()[0] as u8,
            other => panic!("expected SUBACK, got {other:?}"),
        };
        assert_eq!(granted, 1);
    }

    pub async fn send(&mut self, packet: Packet) {
        let events = self.link.send(packet);
        self.act(events).await;
    }

    /// The next packet, with the protocol's own answers given; `None` when the server has closed.
    pub async fn receive(&mut self) -> Option<Packet> {
        loop {
            let (first, body) = self.line.receive().await?;
            let mut bytes = vec![first];
            let mut rest = body.len();
            loop {
                let digit = u8::try_from(rest % 128).unwrap();
                rest /= 128;
                bytes.push(if rest > 0 { digit | 0x80 } else { digit });
                if rest == 0 {
                    break;
                }
            }
            bytes.extend(body);
            let events = self.link.recv(&mut Cursor::new(bytes.as_slice()));
            if let Some(packet) = self.act(events).await {
                return Some(packet);
            }
        }
    }

    /// Waits for the end of a QoS 1 or 2 delivery: PUBACK or PUBCOMP of the packet id.
    pub async fn await_delivery(&mut self, packet_id: u16) {
        loop {
            let done = match self.receive().await {
                Some(Packet::V3_1_1Puback(ack)) => ack.packet_id(),
                Some(Packet::V5_0Puback(ack)) => {
                    assert_eq!(ack.reason_code().map_or(0, |code| code as u8), 0, "{ack}");
                    ack.packet_id()
                }
                Some(Packet::V3_1_1Pubcomp(comp)) => comp.packet_id(),
                Some(Packet::V5_0Pubcomp(comp)) => comp.packet_id(),
                Some(_) => continue,
                None => panic!("the server closed before it answered"),
            };
            if done == packet_id {
                return;
            }
        }
    }

    /// Takes leave.
    pub async fn goodbye(mut self) {
        let packet = match self.version {
            Version::V5_0 => v5_0::Disconnect::builder().build().unwrap().into(),
            _ => v3_1_1::Disconnect::builder().build().unwrap().into(),
        };
        self.send(packet).await;
        assert_eq!(self.line.receive_to_end().await, []);
    }

    async fn act(&mut self, events: Vec<Event>) -> Option<Packet> {
        let mut received = None;
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    // A server that is closing may not take it any more.
                    let _ = self.line.try_send(&packet.to_continuous_buffer()).await;
                }
                Event::NotifyPacketReceived(packet) => received = Some(packet),
                Event::NotifyError(error) => panic!("the server broke the protocol: {error}"),
                _ => {}
            }
        }
        received
    }
}

/// PUBLISH.
pub fn publish(version: Version, topic: &str, qos: Qos, packet_id: u16, dup: bool, payload: &[u8]) -> Packet {
    match version {
        Version::V5_0 => {
            let builder = v5_0::Publish::builder().topic_name(topic).unwrap().qos(qos).dup(dup);
            let builder = if packet_id == 0 { builder } else { builder.packet_id(packet_id) };
            builder.payload(payload.to_vec()).build().unwrap().into()
        }
        _ => {
            let builder = v3_1_1::Publish::builder().topic_name(topic).unwrap().qos(qos).dup(dup);
            let builder = if packet_id == 0 { builder } else { builder.packet_id(packet_id) };
            builder.payload(payload.to_vec()).build().unwrap().into()
        }
    }
}

/// One heart rate as the JSON envelope has it.
pub fn heart_rate(per_min: u32) -> Vec<u8> {
    format!(r#"{{"measure":"heart_rate","value":{per_min}}}"#).into_bytes()
}
