//! The opening of a connection: from the certificate to CONNACK.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::mqtt::limits::{MAX_CLIENT_ID_BYTES, MAX_USER_PROPERTIES};
use crate::mqtt::server::MqttOptions;
use crate::mqtt::topic::{Channel, Topic};
use crate::mqtt::wire::Level;

/// What the TLS handshake proved.
pub(super) struct Proven {
    certificate: PeerCertificate,
    not_after: Timestamp,
}

/// Reads the verified client certificate.
pub(super) fn certificate(stream: &TlsStream<TcpStream>) -> Option<Proven> {
    let chain = stream.get_ref().1.peer_certificates()?;
    let identity = PeerIdentity::from_der(chain.first()?)
        .inspect_err(|error| tracing::warn!(%error, "the client certificate is not one of ours"))
        .ok()?;
    Some(Proven {
        certificate: PeerCertificate {
            uri: identity.uri.to_string(),
            serial_hex: identity.serial_hex,
            common_name: identity.common_name,
        },
        not_after: timestamp(identity.not_after),
    })
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Waits for CONNECT and answers it. `None` when the client was refused or is gone.
pub(super) async fn open(
    stream: &mut TlsStream<TcpStream>,
    protocol: &mut Protocol,
    input: &mut BytesMut,
    proven: Proven,
    shared: &Shared,
) -> Option<Opened> {
    let asked = tokio::select! {
        () = shared.stopping.cancelled() => return None,
        asked = timeout(shared.options.connect_timeout, first_packet(stream, protocol, input)) => asked,
    };
    let Ok(connect) = asked else {
        tracing::info!("no CONNECT came in time");
        return None;
    };
    let connect = connect?;
    match accept(&connect, proven, shared).await {
        Ok((opened, grant, kept)) => {
            protocol.accept(opened.peer.clone(), &grant, kept);
            Some(opened)
        }
        Err(refusal) => {
            tracing::warn!(%refusal, "the client was refused");
            protocol.refuse(refusal);
            None
        }
    }
}

async fn first_packet(
    stream: &mut TlsStream<TcpStream>,
    protocol: &mut Protocol,
    input: &mut BytesMut,
) -> Option<Box<Connect>> {
    loop {
        match protocol.advance(input) {
            Step::Asks(Request::Connect(connect)) => return Some(connect),
            Step::NeedsInput => {}
            Step::Handled | Step::Asks(_) => {
                tracing::warn!(closing = ?protocol.closing(), "the first packet was no sound CONNECT");
                return None;
            }
        }
        if !matches!(read_some(stream, input).await, Ok(1..)) {
            return None;
        }
    }
}

async fn accept(
    connect: &Connect,
    proven: Proven,
    shared: &Shared,
) -> Result<(Opened, Grant, Kept), ConnectRefusal> {
    let Proven { certificate, not_after } = proven;
    let peer = shared.intake.admit_sender(&certificate).map_err(|error| {
        tracing::warn!(%error, "the certificate is not admitted");
        ConnectRefusal::NotAuthorized
    })?;
    tracing::Span::current().record("device", tracing::field::display(name(&peer)));
    let terms = terms(connect, &peer, &shared.options)?;
    let leased = tokio::select! {
        () = shared.stopping.cancelled() => return Err(ConnectRefusal::Busy),
        leased = shared.sessions.lease(&terms.client) => leased,
    };
    let (lease, session) = leased.map_err(|_| ConnectRefusal::Busy)?;
    let session = session.filter(|session| !connect.clean && session.client_id == terms.client_id);
    let grant = Grant { session_present: session.is_some(), ..terms.grant };
    let Session { kept, commands, .. } = session.unwrap_or_default();
    let opened = Opened {
        certificate,
        not_after,
        peer,
        client_id: terms.client_id,
        lease,
        commands,
        keep_alive: Duration::from_secs(u64::from(terms.keep_alive_s)) * 3 / 2,
        session_expiry_s: terms.session_expiry_s,
        will_of: terms.will_of,
    };
    Ok((opened, grant, kept))
}

fn name(peer: &Peer) -> String {
    match peer {
        Peer::Device(device) => device.to_string(),
        Peer::Program(name) => name.clone(),
    }
}

/// What a client gets of what it asked for.
#[derive(Debug, PartialEq, Eq)]
struct Terms {
    client: ClientKey,
    client_id: String,
    keep_alive_s: u16,
    session_expiry_s: u32,
    will_of: Option<DeviceId>,
    grant: Grant,
}

fn terms(connect: &Connect, peer: &Peer, options: &MqttOptions) -> Result<Terms, ConnectRefusal> {
    if connect.authentication_method {
        return Err(ConnectRefusal::AuthenticationMethod);
    }
    if connect.user_properties > MAX_USER_PROPERTIES {
        return Err(ConnectRefusal::TooManyProperties);
    }
    let mut grant = Grant::default();
    let (client, client_id) = client(connect, peer, &mut grant)?;
    let will_of = match &connect.will_topic {
        None => None,
        Some(topic) => match Topic::for_publisher(topic, peer) {
            Ok(Topic { device, channel: Channel::Status }) => Some(device),
            _ => return Err(ConnectRefusal::Will),
        },
    };
    let is_v5 = connect.level == Level::V5;
    let keep_alive_s = match connect.keep_alive_s {
        0 => options.max_keep_alive_s,
        // Version 3.1.1 cannot tell a client that it must be heard more often than it asked.
        asked if is_v5 => asked.min(options.max_keep_alive_s),
        asked => asked,
    };
    let session_expiry_s = connect.session_expiry_s.min(options.max_session_expiry_s);
    if is_v5 {
        grant.keep_alive_s = (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s);
        grant.session_expiry_s = (session_expiry_s != connect.session_expiry_s).then_some(session_expiry_s);
    }
    Ok(Terms { client, client_id, keep_alive_s, session_expiry_s, will_of, grant })
}

/// The client's session key and id; a client without an id is told the one it gets.
///
/// The certificate says who a client is, so that it may call itself as it likes [MQTT-3.1.3-5] — but not as another
/// device, which can only be a mistake.
fn client(connect: &Connect, peer: &Peer, grant: &mut Grant) -> Result<(ClientKey, String), ConnectRefusal> {
    let own = name(peer);
    let asked = connect.client_id.as_str();
    if asked.is_empty() {
        // Version 3.1.1 cannot tell the id, so that such a client could not find its session [MQTT-3.1.3-8].
        if connect.level == Level::V3 && !connect.clean {
            return Err(ConnectRefusal::ClientId);
        }
        grant.client_id = (connect.level == Level::V5).then(|| own.clone());
    }
    let id = if asked.is_empty() { own.clone() } else { asked.to_owned() };
    let is_of_another = id != own && id.parse::<DeviceId>().is_ok();
    if is_of_another || id.len() > MAX_CLIENT_ID_BYTES {
        return Err(ConnectRefusal::ClientId);
    }
    let key = match peer {
        Peer::Device(device) => ClientKey::Device(*device),
        Peer::Program(program) => ClientKey::Program { name: program.clone(), client_id: id.clone() },
    };
    Ok((key, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11";

    fn device() -> Peer {
        Peer::Device(OWN.parse().unwrap())
    }

    fn connect(level: Level) -> Connect {
        Connect {
            level,
            client_id: OWN.to_owned(),
            clean: true,
            keep_alive_s: 60,
            session_expiry_s: 0,
            will_topic: None,
            authentication_method: false,
            problem_information: true,
            user_properties: 0,
        }
    }

    fn judged(connect: &Connect, peer: &Peer) -> Result<Terms, ConnectRefusal> {
        terms(connect, peer, &MqttOptions::default())
    }

    #[test]
    fn a_client_that_asks_for_the_usual_gets_it_unchanged() {
        let terms = judged(&connect(Level::V5), &device()).unwrap();
        assert_eq!(terms.keep_alive_s, 60);
        assert_eq!(terms.grant, Grant::default());
    }

    #[test]
    fn keep_alive_is_bounded_where_the_client_can_be_told() {
        for (level, asked, given, told) in [
            (Level::V5, 0, 300, Some(300)),
            (Level::V5, 3600, 300, Some(300)),
            (Level::V3, 0, 300, None),
            (Level::V3, 3600, 3600, None),
        ] {
            let terms = judged(&Connect { keep_alive_s: asked, ..connect(level) }, &device()).unwrap();
            assert_eq!((terms.keep_alive_s, terms.grant.keep_alive_s), (given, told), "{level:?} {asked}");
        }
    }

    #[test]
    fn a_session_is_kept_for_a_day_at_most() {
        let asked = Connect { clean: false, session_expiry_s: u32::MAX, ..connect(Level::V5) };
        let terms = judged(&asked, &device()).unwrap();
        assert_eq!((terms.session_expiry_s, terms.grant.session_expiry_s), (86_400, Some(86_400)));
    }

    #[test]
    fn a_client_calls_itself_as_it_likes_but_not_as_another_device() {
        let other = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b12";
        let hub = Peer::Program("hub".to_owned());
        for (peer, client_id, fits) in [
            (device(), OWN, true),
            (device(), other, false),
            (device(), "cuff", true),
            (hub.clone(), "hub", true),
            (hub.clone(), "hub-live", true),
            (hub.clone(), "hubble", true),
            (hub.clone(), other, false),
        ] {
            let asked = Connect { client_id: client_id.to_owned(), ..connect(Level::V5) };
            let judged = judged(&asked, &peer);
            assert_eq!(judged.as_ref().err(), (!fits).then_some(&ConnectRefusal::ClientId), "{client_id}");
        }
    }

    #[test]
    fn an_empty_client_id_is_assigned() {
        let asked = Connect { client_id: String::new(), ..connect(Level::V5) };
        assert_eq!(judged(&asked, &device()).unwrap().grant.client_id.as_deref(), Some(OWN));
        let asked = Connect { client_id: String::new(), ..connect(Level::V3) };
        assert_eq!(judged(&asked, &device()).unwrap().client, ClientKey::Device(OWN.parse().unwrap()));
        let asked = Connect { clean: false, ..asked };
        assert_eq!(judged(&asked, &device()), Err(ConnectRefusal::ClientId));
    }

    #[test]
    fn a_will_goes_to_the_own_status_only() {
        let with = |topic: &str| Connect { will_topic: Some(topic.to_owned()), ..connect(Level::V5) };
        assert!(judged(&with(&format!("auscult/v1/{OWN}/status")), &device()).unwrap().will_of.is_some());
        for topic in ["status", "auscult/v1/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b12/status"] {
            assert_eq!(judged(&with(topic), &device()), Err(ConnectRefusal::Will));
        }
        let envelope = with(&format!("auscult/v1/{OWN}/envelope"));
        assert_eq!(judged(&envelope, &device()), Err(ConnectRefusal::Will));
    }

    #[test]
    fn foreign_authentication_and_a_flood_of_properties_are_refused() {
        let asked = Connect { authentication_method: true, ..connect(Level::V5) };
        assert_eq!(judged(&asked, &device()), Err(ConnectRefusal::AuthenticationMethod));
        let asked = Connect { user_properties: MAX_USER_PROPERTIES + 1, ..connect(Level::V5) };
        assert_eq!(judged(&asked, &device()), Err(ConnectRefusal::TooManyProperties));
    }
}
