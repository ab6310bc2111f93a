//! A small MQTT server over TLS that does what a test tells it to, and remembers what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::Event;
use mqtt_protocol_core::mqtt::packet::{MaximumPacketSize, Packet, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, PubackReasonCode, PubcompReasonCode, PubrecReasonCode,
    SubackReasonCode, SubackReturnCode,
};
use mqtt_protocol_core::mqtt::role::Server;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use simulator::client::ConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Largest packet that the peer takes in MQTT 5, in bytes.
pub const MAX_PACKET_BYTES: u32 = 256 * 1024;

/// Certificates of a test: one authority, a server, a device.
pub struct Trust {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl Trust {
    pub fn new() -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let leaf = |name: &str| -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            (vec![certificate.der().clone()], key)
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority_certificate.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let (chain, key) = leaf("localhost");
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        let (chain, key) = leaf("device");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        Trust { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// A PUBLISH as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub connection: usize,
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
}

/// What the peer saw so far.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub connections: usize,
    pub published: Vec<Seen>,
    /// Will topic and payload of each CONNECT.
    pub wills: Vec<Option<(String, Vec<u8>)>>,
    /// For each ended connection: whether it ended with DISCONNECT.
    pub farewells: Vec<bool>,
}

impl Log {
    /// Payloads on topics that do not end in `status`.
    pub fn payloads(&self) -> Vec<String> {
        self.published
            .iter()
            .filter(|seen| !seen.topic.ends_with("/status"))
            .map(|seen| String::from_utf8_lossy(&seen.payload).into_owned())
            .collect()
    }
}

/// What the peer does with a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Acknowledges it.
    Accept,
    /// Refuses it (only MQTT 5 can say so).
    Refuse,
    /// Says nothing until the answer changes.
    Hold,
    /// Cuts the connection.
    Cut,
}

type Decide = dyn Fn(&Seen) -> Answer + Send + Sync;

/// The peer.
pub struct Peer {
    pub address: SocketAddr,
    pub trust: Trust,
    log: Arc<Mutex<Log>>,
    changed: watch::Receiver<u64>,
    release: watch::Sender<bool>,
}

struct Shared {
    log: Arc<Mutex<Log>>,
    change: watch::Sender<u64>,
    decide: Box<Decide>,
    released: watch::Receiver<bool>,
}

impl Shared {
    fn note(&self, write: impl FnOnce(&mut Log)) {
        write(&mut self.log.lock().unwrap());
        self.change.send_modify(|count| *count += 1);
    }
}

impl Peer {
    pub async fn start(decide: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Peer {
        let trust = Trust::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let (change, changed) = watch::channel(0);
        let (release, released) = watch::channel(false);
        let shared = Arc::new(Shared { log: log.clone(), change, decide: Box::new(decide), released });
        let acceptor = TlsAcceptor::from(trust.server.clone());
        tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let (acceptor, shared) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    serve(stream, &shared).await;
                });
            }
        });
        Peer { address, trust, log, changed, release }
    }

    /// Options for a device that connects to it.
    pub fn options(&self, client_id: &str) -> ConnectOptions {
        let name = ServerName::try_from("localhost").unwrap();
        ConnectOptions::new(self.address.to_string(), name, self.trust.client.clone(), client_id)
    }

    /// From now on held messages are accepted.
    pub fn release(&self) {
        self.release.send(true).unwrap();
    }

    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }

    /// Waits until what was seen fulfils a condition.
    pub async fn until(&self, fulfilled: impl Fn(&Log) -> bool) -> Log {
        let mut changed = self.changed.clone();
        let waiting = changed.wait_for(|_| fulfilled(&self.log.lock().unwrap()));
        let result = tokio::time::timeout(PATIENCE, waiting).await.map(|found| found.is_ok());
        let log = self.log();
        assert_eq!(result, Ok(true), "never came; {} connections, {:?}", log.connections, log.payloads());
        log
    }
}

struct Session<'a> {
    machine: mqtt::Connection<Server>,
    shared: &'a Shared,
    number: usize,
    outbox: Vec<u8>,
    held: Vec<(u16, u8)>,
    v5: bool,
    farewell: bool,
    cut: bool,
}

async fn serve(mut stream: TlsStream<TcpStream>, shared: &Shared) {
    // Only devices with a certificate come this far; the peer makes sure.
    assert!(stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty()));
    let mut number = 0;
    shared.note(|log| {
        log.connections += 1;
        number = log.connections;
    });
    let mut session = Session {
        machine: mqtt::Connection::<Server>::new(mqtt::Version::Undetermined),
        shared,
        number,
        outbox: Vec::new(),
        held: Vec::new(),
        v5: false,
        farewell: false,
        cut: false,
    };
    session.machine.set_auto_ping_response(true);
    let mut buffer = vec![0; 16 * 1024];
    let mut released = shared.released.clone();
    while !session.cut && !session.farewell {
        let waiting = !session.held.is_empty();
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(length) if length > 0 => session.receive(&buffer[..length]),
                _ => break,
            },
            _ = released.wait_for(|released| *released), if waiting => {
                for (packet_id, qos) in std::mem::take(&mut session.held) {
                    session.acknowledge(packet_id, qos, false);
                }
            }
        }
        if stream.write_all(&std::mem::take(&mut session.outbox)).await.is_err() {
            break;
        }
        let _ = stream.flush().await;
    }
    let farewell = session.farewell;
    shared.note(|log| log.farewells.push(farewell));
}

impl Session<'_> {
    fn receive(&mut self, bytes: &[u8]) {
        let mut cursor = Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() && !self.cut {
            let events = self.machine.recv(&mut cursor);
            self.take(events);
        }
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => self.outbox.extend(packet.to_continuous_buffer()),
                Event::NotifyPacketReceived(packet) => self.packet(packet),
                Event::NotifyError(error) => panic!("the device broke the protocol: {error:?}"),
                _ => {}
            }
        }
    }

    fn send(&mut self, packet: impl Into<Packet>) {
        let events = self.machine.send(packet.into());
        self.take(events);
    }

    fn packet(&mut self, packet: Packet) {
        match packet {
            Packet::V3_1_1Connect(c) => self.connected(c.will_topic(), c.will_payload()),
            Packet::V5_0Connect(c) => {
                self.v5 = true;
                self.connected(c.will_topic(), c.will_payload());
            }
            Packet::V3_1_1Publish(p) => {
                let seen =
                    self.seen(p.topic_name(), p.payload().as_slice(), p.qos() as u8, p.dup(), p.retain());
                self.published(seen, p.packet_id());
            }
            Packet::V5_0Publish(p) => {
                let seen =
                    self.seen(p.topic_name(), p.payload().as_slice(), p.qos() as u8, p.dup(), p.retain());
                self.published(seen, p.packet_id());
            }
            Packet::V3_1_1Pubrel(p) => {
                self.send(v3_1_1::Pubcomp::builder().packet_id(p.packet_id()).build().unwrap());
            }
            Packet::V5_0Pubrel(p) => {
                let done = v5_0::Pubcomp::builder()
                    .packet_id(p.packet_id())
                    .reason_code(PubcompReasonCode::Success)
                    .build();
                self.send(done.unwrap());
            }
            Packet::V3_1_1Subscribe(p) => {
                let granted = v3_1_1::Suback::builder()
                    .packet_id(p.packet_id())
                    .return_codes(vec![SubackReturnCode::SuccessMaximumQos1])
                    .build();
                self.send(granted.unwrap());
                let topic = p.entries()[0].topic_filter().to_owned();
                let hello = v3_1_1::Publish::builder()
                    .topic_name(topic.as_str())
                    .unwrap()
                    .qos(mqtt::packet::Qos::AtMostOnce)
                    .payload("hello".as_bytes())
                    .build();
                self.send(hello.unwrap());
            }
            Packet::V5_0Subscribe(p) => {
                let granted = v5_0::Suback::builder()
                    .packet_id(p.packet_id())
                    .reason_codes(vec![SubackReasonCode::GrantedQos1])
                    .build();
                self.send(granted.unwrap());
                let topic = p.entries()[0].topic_filter().to_owned();
                let hello = v5_0::Publish::builder()
                    .topic_name(topic.as_str())
                    .unwrap()
                    .qos(mqtt::packet::Qos::AtMostOnce)
                    .payload("hello".as_bytes())
                    .build();
                self.send(hello.unwrap());
            }
            Packet::V3_1_1Disconnect(_) | Packet::V5_0Disconnect(_) => self.farewell = true,
            _ => {}
        }
    }

    fn connected(&mut self, will_topic: Option<&str>, will_payload: Option<&[u8]>) {
        let will = will_topic.map(|topic| (topic.to_owned(), will_payload.unwrap_or_default().to_vec()));
        self.shared.note(|log| log.wills.push(will));
        if self.v5 {
            let accepted = v5_0::Connack::builder()
                .session_present(false)
                .reason_code(ConnectReasonCode::Success)
                .props(vec![MaximumPacketSize::new(MAX_PACKET_BYTES).unwrap().into()])
                .build();
            self.send(accepted.unwrap());
        } else {
            let accepted = v3_1_1::Connack::builder()
                .session_present(false)
                .return_code(ConnectReturnCode::Accepted)
                .build();
            self.send(accepted.unwrap());
        }
    }

    fn seen(&self, topic: &str, payload: &[u8], qos: u8, dup: bool, retain: bool) -> Seen {
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        Seen { connection: self.number, topic, payload, qos, dup, retain }
    }

    fn published(&mut self, seen: Seen, packet_id: Option<u16>) {
        let answer = (self.shared.decide)(&seen);
        let qos = seen.qos;
        self.shared.note(|log| log.published.push(seen));
        let released = *self.shared.released.borrow();
        match (answer, packet_id) {
            (Answer::Cut, _) => self.cut = true,
            (_, None) => {}
            (Answer::Hold, Some(id)) if !released => self.held.push((id, qos)),
            (Answer::Refuse, Some(id)) => self.acknowledge(id, qos, true),
            (_, Some(id)) => self.acknowledge(id, qos, false),
        }
    }

    fn acknowledge(&mut self, id: u16, qos: u8, refuse: bool) {
        match (self.v5, qos) {
            (false, 1) => self.send(v3_1_1::Puback::builder().packet_id(id).build().unwrap()),
            (false, _) => self.send(v3_1_1::Pubrec::builder().packet_id(id).build().unwrap()),
            (true, 1) => {
                let reason =
                    if refuse { PubackReasonCode::PayloadFormatInvalid } else { PubackReasonCode::Success };
                self.send(v5_0::Puback::builder().packet_id(id).reason_code(reason).build().unwrap());
            }
            (true, _) => {
                let reason =
                    if refuse { PubrecReasonCode::PayloadFormatInvalid } else { PubrecReasonCode::Success };
                self.send(v5_0::Pubrec::builder().packet_id(id).reason_code(reason).build().unwrap());
            }
        }
    }
}
