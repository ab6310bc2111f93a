//! Topics: what each means, and which peer may use it.

use clinical_model::{DeviceId, FrameKind};
use pipeline::Peer;

use super::limits::MAX_TOPIC_BYTES;

/// What every topic of this endpoint begins with.
pub const PREFIX: &str = "auscult/v1/";

/// What can be sent to a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Measurements, in one language.
    Frame(FrameKind),
    /// Whether the device is in reach.
    Status,
    /// What we tell the device.
    Command,
}

/// A topic of this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Of which device.
    pub device: DeviceId,
    /// What for.
    pub channel: Channel,
}

/// Why a topic cannot be published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not a topic that exists here, or no topic at all.
    #[error(
        "there is no such topic; there are auscult/v1/<device id>/envelope, /fhir, /gatt/XXXX and /status"
    )]
    Invalid,
    /// A topic that this peer may not publish to.
    #[error("a device may publish only below auscult/v1/<its own id>/, with the id as in its certificate")]
    NotYours,
}

impl Topic {
    /// Reads a topic name. It must be spelled exactly as `Display` of its parts would: one topic, one name.
    ///
    /// # Errors
    /// [`TopicError::Invalid`] for wildcards, control characters, more than [`MAX_TOPIC_BYTES`] or an unknown
    /// channel; [`TopicError::NotYours`] for a name outside [`PREFIX`].
    pub fn parse(name: &str) -> Result<Self, TopicError> {
        let garbage = |c: char| matches!(c, '+' | '#') || c.is_control();
        if name.is_empty() || name.len() > MAX_TOPIC_BYTES || name.contains(garbage) {
            return Err(TopicError::Invalid);
        }
        let rest = name.strip_prefix(PREFIX).ok_or(TopicError::NotYours)?;
        let (id, channel) = rest.split_once('/').ok_or(TopicError::Invalid)?;
        let device: DeviceId = id.parse().map_err(|_| TopicError::Invalid)?;
        if device.to_string() != id {
            return Err(TopicError::Invalid);
        }
        let channel = match channel {
            "status" => Channel::Status,
            "command" => Channel::Command,
            kind => kind
                .parse::<FrameKind>()
                .ok()
                .filter(|known| known.to_string() == kind)
                .map(Channel::Frame)
                .ok_or(TopicError::Invalid)?,
        };
        Ok(Self { device, channel })
    }

    /// Reads a topic name that `peer` wants to publish to.
    ///
    /// # Errors
    /// As [`Topic::parse`]; [`TopicError::NotYours`] also for another device's topic and for commands.
    pub fn for_publisher(name: &str, peer: &Peer) -> Result<Self, TopicError> {
        let topic = Self::parse(name)?;
        let own = match peer {
            Peer::Device(device) => *device == topic.device,
            Peer::Program(_) => true,
        };
        if own && topic.channel != Channel::Command { Ok(topic) } else { Err(TopicError::NotYours) }
    }
}

/// The only filter that a device can subscribe to.
pub fn command_topic(device: DeviceId) -> String {
    format!("{PREFIX}{device}/command")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11";
    const OTHER: &str = "01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b12";

    fn device() -> Peer {
        Peer::Device(OWN.parse().unwrap())
    }

    #[test]
    fn a_device_publishes_as_itself() {
        for (rest, channel) in [
            ("envelope", Channel::Frame(FrameKind::Envelope)),
            ("fhir", Channel::Frame(FrameKind::Fhir)),
            ("gatt/2a35", Channel::Frame(FrameKind::Gatt(0x2a35))),
            ("status", Channel::Status),
        ] {
            let topic = Topic::for_publisher(&format!("auscult/v1/{OWN}/{rest}"), &device()).unwrap();
            assert_eq!(topic, Topic { device: OWN.parse().unwrap(), channel });
        }
    }

    #[test]
    fn another_devices_topics_and_commands_are_refused() {
        for name in [
            format!("auscult/v1/{OTHER}/envelope"),
            format!("auscult/v1/{OWN}/command"),
            "home/gateway/BTtoMQTT".to_owned(),
            "$SYS/broker/uptime".to_owned(),
            "auscult/v2/x".to_owned(),
        ] {
            assert_eq!(Topic::for_publisher(&name, &device()), Err(TopicError::NotYours), "{name}");
        }
    }

    #[test]
    fn a_program_publishes_for_any_device_but_sends_no_commands() {
        let program = Peer::Program("hub".to_owned());
        assert!(Topic::for_publisher(&format!("auscult/v1/{OTHER}/envelope"), &program).is_ok());
        let command = Topic::for_publisher(&format!("auscult/v1/{OTHER}/command"), &program);
        assert_eq!(command, Err(TopicError::NotYours));
    }

    #[test]
    fn garbage_and_second_spellings_are_invalid() {
        let upper = OWN.to_uppercase();
        let plain = OWN.replace('-', "");
        for name in [
            String::new(),
            format!("auscult/v1/{OWN}"),
            format!("auscult/v1/{OWN}/"),
            format!("auscult/v1/{OWN}/envelope/"),
            format!("auscult/v1/{OWN}/Envelope"),
            format!("auscult/v1/{OWN}/gatt/2A35"),
            format!("auscult/v1/{OWN}/gatt/+2a3"),
            format!("auscult/v1/{OWN}/#"),
            "auscult/v1/+/envelope".to_owned(),
            format!("auscult/v1/{OWN}/envelope\0"),
            format!("auscult/v1/{OWN}/\u{7f}"),
            format!("auscult/v1/{upper}/envelope"),
            format!("auscult/v1/{plain}/envelope"),
            format!("auscult/v1/{{{OWN}}}/envelope"),
            format!("auscult/v1/{OWN}/{}", "x".repeat(MAX_TOPIC_BYTES)),
        ] {
            assert_eq!(Topic::for_publisher(&name, &device()), Err(TopicError::Invalid), "{name:?}");
        }
    }
}
