//! Packets of MQTT 3.1.1 and 5.0 behind one face: what came in, and what goes out.

use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, GenericPacket, Packet, Property, Qos, ReasonString, ReceiveMaximum,
    ServerKeepAlive, SessionExpiryInterval, SharedSubscriptionAvailable, SubscriptionIdentifierAvailable,
    TopicAliasMaximum, WildcardSubscriptionAvailable, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, ConnectReturnCode, DisconnectReasonCode, MqttError, PubackReasonCode,
    PubcompReasonCode, PubrecReasonCode, SubackReasonCode, SubackReturnCode, UnsubackReasonCode,
};

use super::limits::{RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM};

/// Which version a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    V3,
    V5,
}

/// A packet from the client, as far as this endpoint cares.
#[derive(Debug)]
pub(super) enum Incoming {
    Connect(Box<Connect>),
    Publish(Publish),
    Released(u16),
    Acknowledged(u16),
    Subscribe {
        packet_id: u16,
        filters: Vec<(String, Qos)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    Ping,
    Disconnect {
        with_will: bool,
        session_expiry_s: Option<u32>,
    },
    /// Of no use here: an acknowledgement of something that we never send, or an AUTH.
    Unexpected,
}

/// What a CONNECT asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connect {
    pub level: Level,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive_s: u16,
    /// How long the session shall outlive the connection; `u32::MAX` for as long as we like.
    pub session_expiry_s: u32,
    pub will_topic: Option<String>,
    pub authentication_method: bool,
    pub problem_information: bool,
    pub user_properties: usize,
}

/// A PUBLISH.
pub(super) struct Publish {
    pub packet_id: Option<u16>,
    pub qos: Qos,
    pub repeated: bool,
    pub topic: String,
    pub payload: Vec<u8>,
    pub user_properties: usize,
}

impl std::fmt::Debug for Publish {
    /// Without the payload, which is about a patient.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publish({:?}, {:?}, {} bytes)", self.packet_id, self.qos, self.payload.len())
    }
}

/// What a client is told about a CONNECT that is accepted; absent values are as it asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grant {
    pub session_present: bool,
    pub keep_alive_s: Option<u16>,
    pub session_expiry_s: Option<u32>,
    pub client_id: Option<String>,
}

/// Why a CONNECT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectRefusal {
    #[error("the certificate is not admitted")]
    NotAuthorized,
    #[error("the client id is another device's, too long, or empty with a session to keep")]
    ClientId,
    #[error("a will may go to the client's own status topic only")]
    Will,
    #[error("the certificate is the authentication; no other method is offered")]
    AuthenticationMethod,
    #[error("too many user properties")]
    TooManyProperties,
    #[error("the client's former connection has not ended yet")]
    Busy,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("not a topic that this certificate may publish to")]
    NotAuthorized,
    #[error("no such topic: auscult/v1/<device id>/envelope, /fhir, /gatt/XXXX or /status")]
    TopicInvalid,
    #[error("the status is online or offline")]
    PayloadInvalid,
    #[error("too many user properties")]
    TooManyProperties,
    #[error("the frame is too large; send it in parts")]
    TooLarge,
    #[error("quarantine or disk is full; somebody must look first")]
    Full,
    #[error("more urgent data goes first: keep it and send it again in some seconds")]
    Overloaded,
    #[error("the store could not keep it; send again")]
    NotKept,
    #[error("the server is stopping; send again later")]
    Stopping,
}

impl Refusal {
    /// Whether the message should be sent again: then it must stay unanswered, for an answer with an error
    /// ends its delivery.
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Refusal::NotKept | Refusal::Stopping)
    }

    pub(super) fn disconnect_reason(self) -> DisconnectReasonCode {
        match self {
            Refusal::NotAuthorized => DisconnectReasonCode::NotAuthorized,
            Refusal::TopicInvalid => DisconnectReasonCode::TopicNameInvalid,
            Refusal::PayloadInvalid => DisconnectReasonCode::PayloadFormatInvalid,
            Refusal::TooManyProperties => DisconnectReasonCode::ImplementationSpecificError,
            Refusal::TooLarge => DisconnectReasonCode::PacketTooLarge,
            Refusal::Full | Refusal::Overloaded => DisconnectReasonCode::QuotaExceeded,
            Refusal::NotKept => DisconnectReasonCode::UnspecifiedError,
            Refusal::Stopping => DisconnectReasonCode::ServerShuttingDown,
        }
    }

    /// PUBACK has no code for a message that is too large (MQTT 5.0, section 3.4.2.1): quota exceeded is nearest.
    fn puback_reason(self) -> PubackReasonCode {
        match self {
            Refusal::NotAuthorized => PubackReasonCode::NotAuthorized,
            Refusal::TopicInvalid => PubackReasonCode::TopicNameInvalid,
            Refusal::PayloadInvalid => PubackReasonCode::PayloadFormatInvalid,
            Refusal::TooManyProperties => PubackReasonCode::ImplementationSpecificError,
            Refusal::TooLarge | Refusal::Full | Refusal::Overloaded => PubackReasonCode::QuotaExceeded,
            Refusal::NotKept | Refusal::Stopping => PubackReasonCode::UnspecifiedError,
        }
    }

    fn pubrec_reason(self) -> PubrecReasonCode {
        match self.puback_reason() {
            PubackReasonCode::NotAuthorized => PubrecReasonCode::NotAuthorized,
            PubackReasonCode::TopicNameInvalid => PubrecReasonCode::TopicNameInvalid,
            PubackReasonCode::PayloadFormatInvalid => PubrecReasonCode::PayloadFormatInvalid,
            PubackReasonCode::ImplementationSpecificError => PubrecReasonCode::ImplementationSpecificError,
            PubackReasonCode::QuotaExceeded => PubrecReasonCode::QuotaExceeded,
            _ => PubrecReasonCode::UnspecifiedError,
        }
    }
}

/// Reads a packet of either version.
pub(super) fn incoming(packet: Packet) -> Incoming {
    match packet {
        GenericPacket::V3_1_1Connect(p) => Incoming::Connect(Box::new(connect_v3(&p))),
        GenericPacket::V5_0Connect(p) => Incoming::Connect(Box::new(connect_v5(&p))),
        GenericPacket::V3_1_1Publish(p) => Incoming::Publish(Publish {
            packet_id: p.packet_id(),
            qos: p.qos(),
            repeated: p.dup(),
            topic: p.topic_name().to_owned(),
            payload: p.payload().as_slice().to_vec(),
            user_properties: 0,
        }),
        GenericPacket::V5_0Publish(p) => Incoming::Publish(Publish {
            packet_id: p.packet_id(),
            qos: p.qos(),
            repeated: p.dup(),
            topic: p.topic_name().to_owned(),
            payload: p.payload().as_slice().to_vec(),
            user_properties: user_properties(p.props()),
        }),
        GenericPacket::V3_1_1Pubrel(p) => Incoming::Released(p.packet_id()),
        GenericPacket::V5_0Pubrel(p) => Incoming::Released(p.packet_id()),
        GenericPacket::V3_1_1Puback(p) => Incoming::Acknowledged(p.packet_id()),
        GenericPacket::V5_0Puback(p) => Incoming::Acknowledged(p.packet_id()),
        GenericPacket::V3_1_1Subscribe(p) => Incoming::Subscribe {
            packet_id: p.packet_id(),
            filters: p.entries().iter().map(|e| (e.topic_filter().to_owned(), e.sub_opts().qos())).collect(),
        },
        GenericPacket::V5_0Subscribe(p) => Incoming::Subscribe {
            packet_id: p.packet_id(),
            filters: p.entries().iter().map(|e| (e.topic_filter().to_owned(), e.sub_opts().qos())).collect(),
        },
        GenericPacket::V3_1_1Unsubscribe(p) => Incoming::Unsubscribe {
            packet_id: p.packet_id(),
            filters: p.entries().iter().map(|e| e.as_str().to_owned()).collect(),
        },
        GenericPacket::V5_0Unsubscribe(p) => Incoming::Unsubscribe {
            packet_id: p.packet_id(),
            filters: p.entries().iter().map(|e| e.as_str().to_owned()).collect(),
        },
        GenericPacket::V3_1_1Pingreq(_) | GenericPacket::V5_0Pingreq(_) => Incoming::Ping,
        GenericPacket::V3_1_1Disconnect(_) => {
            Incoming::Disconnect { with_will: false, session_expiry_s: None }
        }
        GenericPacket::V5_0Disconnect(p) => Incoming::Disconnect {
            with_will: p.reason_code().is_some_and(|code| code != DisconnectReasonCode::NormalDisconnection),
            session_expiry_s: p.props().as_deref().and_then(session_expiry_s),
        },
        _ => Incoming::Unexpected,
    }
}

fn connect_v3(p: &v3_1_1::Connect) -> Connect {
    Connect {
        level: Level::V3,
        client_id: p.client_id().to_owned(),
        clean: p.clean_session(),
        keep_alive_s: p.keep_alive(),
        session_expiry_s: if p.clean_session() { 0 } else { u32::MAX },
        will_topic: p.will_topic().map(str::to_owned),
        authentication_method: false,
        problem_information: false,
        user_properties: 0,
    }
}

fn connect_v5(p: &v5_0::Connect) -> Connect {
    let has = |wanted: fn(&Property) -> bool| p.props().iter().any(wanted);
    Connect {
        level: Level::V5,
        client_id: p.client_id().to_owned(),
        clean: p.clean_start(),
        keep_alive_s: p.keep_alive(),
        session_expiry_s: session_expiry_s(p.props()).unwrap_or(0),
        will_topic: p.will_topic().map(str::to_owned),
        authentication_method: has(|prop| matches!(prop, Property::AuthenticationMethod(_))),
        problem_information: !has(
            |prop| matches!(prop, Property::RequestProblemInformation(v) if v.val() == 0),
        ),
        user_properties: user_properties(p.props()) + user_properties(p.will_props()),
    }
}

fn user_properties(props: &[Property]) -> usize {
    props.iter().filter(|prop| matches!(prop, Property::UserProperty(_))).count()
}

fn session_expiry_s(props: &[Property]) -> Option<u32> {
    props.iter().find_map(|prop| match prop {
        Property::SessionExpiryInterval(interval) => Some(interval.val()),
        _ => None,
    })
}

/// CONNACK for an accepted connection.
pub(super) fn connack(level: Level, grant: &Grant) -> Result<Packet, MqttError> {
    if level == Level::V3 {
        let packet = v3_1_1::Connack::builder()
            .session_present(grant.session_present)
            .return_code(ConnectReturnCode::Accepted)
            .build()?;
        return Ok(packet.into());
    }
    let mut props: Vec<Property> = vec![
        ReceiveMaximum::new(RECEIVE_MAXIMUM)?.into(),
        TopicAliasMaximum::new(TOPIC_ALIAS_MAXIMUM)?.into(),
        WildcardSubscriptionAvailable::new(0)?.into(),
        SubscriptionIdentifierAvailable::new(0)?.into(),
        SharedSubscriptionAvailable::new(0)?.into(),
    ];
    if let Some(seconds) = grant.keep_alive_s {
        props.push(ServerKeepAlive::new(seconds)?.into());
    }
    if let Some(seconds) = grant.session_expiry_s {
        props.push(SessionExpiryInterval::new(seconds)?.into());
    }
    if let Some(client_id) = &grant.client_id {
        props.push(AssignedClientIdentifier::new(client_id)?.into());
    }
    let packet = v5_0::Connack::builder()
        .session_present(grant.session_present)
        .reason_code(ConnectReasonCode::Success)
        .props(props)
        .build()?;
    Ok(packet.into())
}

/// CONNACK for a refused connection.
pub(super) fn connack_refused(
    level: Level,
    refusal: ConnectRefusal,
    explain: bool,
) -> Result<Packet, MqttError> {
    if level == Level::V3 {
        let code = match refusal {
            ConnectRefusal::ClientId => ConnectReturnCode::IdentifierRejected,
            ConnectRefusal::Busy => ConnectReturnCode::ServerUnavailable,
            _ => ConnectReturnCode::NotAuthorized,
        };
        return Ok(v3_1_1::Connack::builder().session_present(false).return_code(code).build()?.into());
    }
    let code = match refusal {
        ConnectRefusal::NotAuthorized | ConnectRefusal::Will => ConnectReasonCode::NotAuthorized,
        ConnectRefusal::ClientId => ConnectReasonCode::ClientIdentifierNotValid,
        ConnectRefusal::AuthenticationMethod => ConnectReasonCode::BadAuthenticationMethod,
        ConnectRefusal::TooManyProperties => ConnectReasonCode::ImplementationSpecificError,
        ConnectRefusal::Busy => ConnectReasonCode::ServerBusy,
    };
    let why = if explain { vec![ReasonString::new(refusal.to_string())?.into()] } else { Vec::new() };
    let packet = v5_0::Connack::builder().session_present(false).reason_code(code).props(why).build()?;
    Ok(packet.into())
}

/// PUBACK (QoS 1) or PUBREC (QoS 2). MQTT 3.1.1 cannot say why it refuses: there, do not ask for a refusal.
pub(super) fn answer(
    level: Level,
    qos: Qos,
    packet_id: u16,
    refusal: Option<Refusal>,
    explain: bool,
) -> Result<Packet, MqttError> {
    let why = |refusal: Refusal| -> Result<Vec<Property>, MqttError> {
        Ok(if explain { vec![ReasonString::new(refusal.to_string())?.into()] } else { Vec::new() })
    };
    Ok(match (level, qos) {
        (Level::V3, Qos::ExactlyOnce) => v3_1_1::Pubrec::builder().packet_id(packet_id).build()?.into(),
        (Level::V3, _) => v3_1_1::Puback::builder().packet_id(packet_id).build()?.into(),
        (Level::V5, Qos::ExactlyOnce) => {
            let mut builder = v5_0::Pubrec::builder().packet_id(packet_id);
            if let Some(refusal) = refusal {
                builder = builder.reason_code(refusal.pubrec_reason()).props(why(refusal)?);
            }
            builder.build()?.into()
        }
        (Level::V5, _) => {
            let mut builder = v5_0::Puback::builder().packet_id(packet_id);
            if let Some(refusal) = refusal {
                builder = builder.reason_code(refusal.puback_reason()).props(why(refusal)?);
            }
            builder.build()?.into()
        }
    })
}

/// PUBCOMP; `known` says whether the released message was.
pub(super) fn pubcomp(level: Level, packet_id: u16, known: bool) -> Result<Packet, MqttError> {
    Ok(match level {
        Level::V3 => v3_1_1::Pubcomp::builder().packet_id(packet_id).build()?.into(),
        Level::V5 if known => v5_0::Pubcomp::builder().packet_id(packet_id).build()?.into(),
        Level::V5 => v5_0::Pubcomp::builder()
            .packet_id(packet_id)
            .reason_code(PubcompReasonCode::PacketIdentifierNotFound)
            .build()?
            .into(),
    })
}

/// Why there is no subscription for a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSubscription {
    /// Not the client's own.
    NotAuthorized,
    /// A wildcard stands where it cannot.
    Invalid,
    /// A wildcard; CONNACK said that there are none.
    Wildcard,
    /// A shared subscription; the same.
    Shared,
    /// Too many filters at once.
    TooMany,
}

/// SUBACK: the granted QoS, or why there is none, for each filter.
pub(super) fn suback(
    level: Level,
    packet_id: u16,
    granted: &[Result<Qos, NoSubscription>],
) -> Result<Packet, MqttError> {
    Ok(match level {
        Level::V3 => {
            let codes = granted.iter().map(|granted| match granted {
                Ok(Qos::AtMostOnce) => SubackReturnCode::SuccessMaximumQos0,
                Ok(_) => SubackReturnCode::SuccessMaximumQos1,
                Err(_) => SubackReturnCode::Failure,
            });
            v3_1_1::Suback::builder().packet_id(packet_id).return_codes(codes.collect()).build()?.into()
        }
        Level::V5 => {
            let codes = granted.iter().map(|granted| match granted {
                Ok(Qos::AtMostOnce) => SubackReasonCode::GrantedQos0,
                Ok(_) => SubackReasonCode::GrantedQos1,
                Err(NoSubscription::NotAuthorized) => SubackReasonCode::NotAuthorized,
                Err(NoSubscription::Invalid) => SubackReasonCode::TopicFilterInvalid,
                Err(NoSubscription::Wildcard) => SubackReasonCode::WildcardSubscriptionsNotSupported,
                Err(NoSubscription::Shared) => SubackReasonCode::SharedSubscriptionsNotSupported,
                Err(NoSubscription::TooMany) => SubackReasonCode::QuotaExceeded,
            });
            v5_0::Suback::builder().packet_id(packet_id).reason_codes(codes.collect()).build()?.into()
        }
    })
}

/// UNSUBACK: whether each filter was subscribed to.
pub(super) fn unsuback(level: Level, packet_id: u16, existed: &[bool]) -> Result<Packet, MqttError> {
    Ok(match level {
        Level::V3 => v3_1_1::Unsuback::builder().packet_id(packet_id).build()?.into(),
        Level::V5 => {
            let codes = existed.iter().map(|existed| {
                if *existed { UnsubackReasonCode::Success } else { UnsubackReasonCode::NoSubscriptionExisted }
            });
            v5_0::Unsuback::builder().packet_id(packet_id).reason_codes(codes.collect()).build()?.into()
        }
    })
}

/// PINGRESP.
pub(super) fn pingresp(level: Level) -> Packet {
    match level {
        Level::V3 => v3_1_1::Pingresp::new().into(),
        Level::V5 => v5_0::Pingresp::new().into(),
    }
}

/// DISCONNECT, which only version 5 servers can send.
pub(super) fn disconnect(reason: DisconnectReasonCode) -> Result<Packet, MqttError> {
    Ok(v5_0::Disconnect::builder().reason_code(reason).build()?.into())
}

/// A command for a device: QoS 1 with a packet id, QoS 0 without.
pub(super) fn command(
    level: Level,
    topic: &str,
    packet_id: Option<u16>,
    repeated: bool,
    bytes: &[u8],
) -> Result<Packet, MqttError> {
    let qos = if packet_id.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce };
    Ok(match level {
        Level::V3 => {
            let builder =
                v3_1_1::Publish::builder().topic_name(topic)?.qos(qos).dup(repeated).payload(bytes.to_vec());
            match packet_id {
                Some(id) => builder.packet_id(id).build()?.into(),
                None => builder.build()?.into(),
            }
        }
        Level::V5 => {
            let builder =
                v5_0::Publish::builder().topic_name(topic)?.qos(qos).dup(repeated).payload(bytes.to_vec());
            match packet_id {
                Some(id) => builder.packet_id(id).build()?.into(),
                None => builder.build()?.into(),
            }
        }
    })
}
