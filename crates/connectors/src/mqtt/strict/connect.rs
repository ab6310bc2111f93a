//! The form of CONNECT (MQTT 3.1.1 and 5.0, section 3.1).

use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::{Level, Reader, opened};

/// Why a CONNECT cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) enum ConnectFault {
    /// It is of another protocol or version.
    OtherVersion,
    /// It is malformed, or its fields contradict each other. The version is known where a word can be said about it.
    Unsound(Option<Level>, MqttError),
}

/// Bits of the connect flags.
const CLEAN: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;

/// Checks a CONNECT, and gives it without user name and password: the certificate says who a client is, and what is not
/// used is not kept. (The library also refuses a password without a user name, which version 5 allows.)
pub(in crate::mqtt) fn connect(packet: &[u8]) -> Result<Vec<u8>, ConnectFault> {
    let unsound = |error| ConnectFault::Unsound(None, error);
    let (first, mut reader) = opened(packet).map_err(unsound)?;
    let body = reader.rest;
    match reader.binary().map_err(unsound)? {
        b"MQTT" => {}
        // Version 3.1 called itself so; it is told that it is too old.
        b"MQIsdp" => return Err(ConnectFault::OtherVersion),
        _ => return Err(unsound(MqttError::UnsupportedProtocolVersion)),
    }
    let level = match reader.byte().map_err(unsound)? {
        4 => Level::V3,
        5 => Level::V5,
        _ => return Err(ConnectFault::OtherVersion),
    };
    let credentials =
        payload(level, &mut reader).map_err(|error| ConnectFault::Unsound(Some(level), error))?;
    let mut kept = body[..body.len() - credentials].to_vec();
    // The flags stand behind the protocol's name and level.
    if let Some(flags) = kept.get_mut(7) {
        *flags &= !(USER_NAME | PASSWORD);
    }
    let mut sound = vec![first];
    let mut length = kept.len();
    while length >= 0x80 {
        sound.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    sound.push(length as u8);
    sound.append(&mut kept);
    Ok(sound)
}

/// Checks what follows the level, and gives how many bytes at the end are user name and password.
fn payload(level: Level, reader: &mut Reader<'_>) -> Result<usize, MqttError> {
    let flags = reader.byte()?;
    let reserved = !(CLEAN | WILL | WILL_QOS | WILL_RETAIN | PASSWORD | USER_NAME);
    let wills = flags & (WILL_QOS | WILL_RETAIN);
    if flags & reserved != 0
        || wills & WILL_QOS == WILL_QOS
        || (flags & WILL == 0 && wills != 0)
        // [MQTT-3.1.2-22] of version 3.1.1.
        || (level == Level::V3 && flags & PASSWORD != 0 && flags & USER_NAME == 0)
    {
        return Err(MqttError::MalformedPacket);
    }
    reader.two_bytes()?;
    let properties = reader.properties(level)?;
    if properties.has(AUTHENTICATION_DATA) && !properties.has(AUTHENTICATION_METHOD) {
        return Err(MqttError::ProtocolError);
    }
    reader.text()?;
    if flags & WILL != 0 {
        reader.properties(level)?;
        reader.filter()?;
        reader.binary()?;
    }
    let credentials = reader.rest.len();
    if flags & USER_NAME != 0 {
        reader.text()?;
    }
    if flags & PASSWORD != 0 {
        reader.binary()?;
    }
    reader.end()?;
    Ok(credentials)
}
