//! The form of packets, checked before the library sees them: it lets pass some of what the specification forbids.
//!
//! Each packet is walked from its first byte to its last: lengths, strings, flags, properties. What cannot be read is
//! malformed; what can be read and must not be is an error of the protocol.

use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::wire::Level;

mod connect;
#[cfg(test)]
mod tests;

pub(super) use connect::{ConnectFault, connect};

/// What stands at the beginning of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framed {
    /// Not yet a whole packet; of so many bytes, where its header is there.
    Partial { bytes: Option<usize> },
    /// A packet of so many bytes.
    Whole { bytes: usize },
    /// A packet that is larger than it may be.
    TooLarge,
    /// No packet.
    Malformed,
}

/// Finds the first packet of the input (MQTT 5.0, section 2.1).
pub(super) fn frame(input: &[u8], limit_bytes: usize) -> Framed {
    let Some((first, rest)) = input.split_first() else { return Framed::Partial { bytes: None } };
    if !has_valid_flags(*first) {
        return Framed::Malformed;
    }
    let mut reader = Reader { rest };
    match reader.varint() {
        Ok(body) => {
            let bytes = input.len() - reader.rest.len() + body;
            match bytes {
                _ if bytes > limit_bytes => Framed::TooLarge,
                _ if bytes > input.len() => Framed::Partial { bytes: Some(bytes) },
                _ => Framed::Whole { bytes },
            }
        }
        Err(_) if rest.len() < MAX_VARINT_BYTES => Framed::Partial { bytes: None },
        Err(_) => Framed::Malformed,
    }
}

/// Longest Variable Byte Integer, in bytes (MQTT 5.0, section 1.5.5).
const MAX_VARINT_BYTES: usize = 4;

/// Whether the low half of a packet's first byte is as its type demands (MQTT 5.0, section 2.1.3).
fn has_valid_flags(first: u8) -> bool {
    let flags = first & 0x0f;
    match first >> 4 {
        // [MQTT-3.3.1-4], [MQTT-3.3.1-2]: no QoS 3, and nothing of QoS 0 is ever repeated.
        3 => flags & 0b0110 != 0b0110 && flags & 0b1110 != 0b1000,
        6 | 8 | 10 => flags == 0b0010,
        _ => flags == 0,
    }
}

/// Checks a packet that is not CONNECT.
pub(super) fn check(level: Level, packet: &[u8]) -> Result<(), MqttError> {
    let (first, mut reader) = opened(packet)?;
    match first >> 4 {
        3 => publish(level, first, &mut reader),
        8 => subscribe(level, &mut reader),
        10 => unsubscribe(level, &mut reader),
        // PINGREQ, and DISCONNECT in version 3.1.1.
        12 => reader.end(),
        14 if level == Level::V3 => reader.end(),
        // The others hold no text that could be wrong; the library reads them.
        _ => Ok(()),
    }
}

/// The first byte of a whole packet, and a reader of its body.
fn opened(packet: &[u8]) -> Result<(u8, Reader<'_>), MqttError> {
    let (first, rest) = packet.split_first().ok_or(MqttError::MalformedPacket)?;
    let mut reader = Reader { rest };
    reader.varint()?;
    Ok((*first, reader))
}

fn publish(level: Level, first: u8, reader: &mut Reader<'_>) -> Result<(), MqttError> {
    let topic = reader.text()?;
    if first & 0b0110 != 0 {
        reader.packet_id()?;
    }
    let properties = reader.properties(level)?;
    if properties.iter().any(|property| property.id == SUBSCRIPTION_IDENTIFIER) {
        // [MQTT-3.3.4-6]: it says why a server sends; a client has no such reason.
        return Err(MqttError::ProtocolError);
    }
    if topic.is_empty() && !properties.iter().any(|property| property.id == TOPIC_ALIAS) {
        return Err(MqttError::ProtocolError);
    }
    let answer_to = properties.iter().find(|property| property.id == RESPONSE_TOPIC);
    match answer_to {
        // [MQTT-3.3.2-14]
        Some(property) if property.value.contains(&b'+') || property.value.contains(&b'#') => {
            Err(MqttError::ProtocolError)
        }
        _ => Ok(()),
    }
}

fn subscribe(level: Level, reader: &mut Reader<'_>) -> Result<(), MqttError> {
    reader.packet_id()?;
    if !reader.properties(level)?.is_empty_of(SUBSCRIPTION_IDENTIFIER) {
        // CONNACK said that there are none.
        return Err(MqttError::SubscriptionIdentifiersNotSupported);
    }
    if reader.rest.is_empty() {
        return Err(MqttError::ProtocolError);
    }
    while !reader.rest.is_empty() {
        let filter = reader.filter()?;
        let options = reader.byte()?;
        let reserved = if level == Level::V5 { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 || options & 0b11 == 0b11 {
            return Err(MqttError::MalformedPacket);
        }
        let no_local = level == Level::V5 && options & 0b100 != 0;
        // [MQTT-3.8.3-4], and the third way to handle retained messages that there is not.
        if no_local && filter.starts_with(SHARED) || options & 0b11_0000 == 0b11_0000 {
            return Err(MqttError::ProtocolError);
        }
    }
    Ok(())
}

fn unsubscribe(level: Level, reader: &mut Reader<'_>) -> Result<(), MqttError> {
    reader.packet_id()?;
    reader.properties(level)?;
    if reader.rest.is_empty() {
        return Err(MqttError::ProtocolError);
    }
    while !reader.rest.is_empty() {
        reader.filter()?;
    }
    Ok(())
}

/// What a shared subscription's filter begins with (MQTT 5.0, section 4.8.2).
pub(super) const SHARED: &str = "$share/";

const RESPONSE_TOPIC: u8 = 0x08;
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
const TOPIC_ALIAS: u8 = 0x23;

/// One property: its id and its value's bytes (MQTT 5.0, section 2.2.2.2).
struct Property<'a> {
    id: u8,
    value: &'a [u8],
}

/// The properties of one packet.
struct Properties<'a>(Vec<Property<'a>>);

impl<'a> Properties<'a> {
    fn iter(&self) -> impl Iterator<Item = &Property<'a>> {
        self.0.iter()
    }

    fn is_empty_of(&self, id: u8) -> bool {
        !self.has(id)
    }

    fn has(&self, id: u8) -> bool {
        self.iter().any(|property| property.id == id)
    }
}

/// Reads the fields of a packet, from its front.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, MqttError> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], MqttError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(MqttError::MalformedPacket)?;
        self.rest = rest;
        Ok(taken)
    }

    fn two_bytes(&mut self) -> Result<u16, MqttError> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn packet_id(&mut self) -> Result<(), MqttError> {
        // [MQTT-2.2.1-3]
        if self.two_bytes()? == 0 { Err(MqttError::ProtocolError) } else { Ok(()) }
    }

    fn binary(&mut self) -> Result<&'a [u8], MqttError> {
        let length = self.two_bytes()?;
        self.take(usize::from(length))
    }

    /// A string: UTF-8, without a null character ([MQTT-1.5.4-1], [MQTT-1.5.4-2]).
    fn text(&mut self) -> Result<&'a str, MqttError> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| MqttError::MalformedPacket)?;
        if text.contains('\0') { Err(MqttError::MalformedPacket) } else { Ok(text) }
    }

    /// A filter is not empty ([MQTT-4.7.3-1]).
    fn filter(&mut self) -> Result<&'a str, MqttError> {
        let filter = self.text()?;
        if filter.is_empty() { Err(MqttError::MalformedPacket) } else { Ok(filter) }
    }

    fn varint(&mut self) -> Result<usize, MqttError> {
        let mut value = 0;
        for position in 0..MAX_VARINT_BYTES {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(MqttError::MalformedPacket)
    }

    /// All properties of a packet; version 3.1.1 has none. Whether they belong into this packet, and stand there once,
    /// is checked by the library.
    fn properties(&mut self, level: Level) -> Result<Properties<'a>, MqttError> {
        let mut found = Vec::new();
        if level == Level::V3 {
            return Ok(Properties(found));
        }
        let length = self.varint()?;
        let mut inner = Reader { rest: self.take(length)? };
        while !inner.rest.is_empty() {
            let id = inner.byte()?;
            let before = inner.rest;
            match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => inner.take(1).map(drop),
                0x13 | 0x21 | 0x22 | TOPIC_ALIAS => inner.take(2).map(drop),
                0x02 | 0x11 | 0x18 | 0x27 => inner.take(4).map(drop),
                0x03 | RESPONSE_TOPIC | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => inner.text().map(drop),
                0x09 | 0x16 => inner.binary().map(drop),
                0x26 => inner.text().and_then(|_| inner.text()).map(drop),
                SUBSCRIPTION_IDENTIFIER => inner.varint().map(drop),
                _ => Err(MqttError::MalformedPacket),
            }?;
            found.push(Property { id, value: &before[..before.len() - inner.rest.len()] });
        }
        Ok(Properties(found))
    }

    fn end(&self) -> Result<(), MqttError> {
        if self.rest.is_empty() { Ok(()) } else { Err(MqttError::MalformedPacket) }
    }
}
