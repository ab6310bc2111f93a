//! What we tell a device: its subscription, and the commands on their way to it.

use mqtt_protocol_core::mqtt::packet::{Packet, Qos};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use pipeline::Peer;

use super::{Command, Protocol};
use crate::mqtt::limits::{MAX_COMMANDS_IN_FLIGHT, MAX_FILTERS};
use crate::mqtt::strict::SHARED;
use crate::mqtt::topic::command_topic;
use crate::mqtt::wire::{self, NoSubscription};

impl Protocol {
    /// Whether the client would take a command now.
    pub(in crate::mqtt) fn takes_command(&self) -> bool {
        self.closing.is_none()
            && self.kept.subscription.is_some()
            && self.kept.commands.len() < MAX_COMMANDS_IN_FLIGHT
            && self.link.get_receive_maximum_vacancy_for_send() != Some(0)
    }

    /// Whether the client listens to its commands.
    pub(in crate::mqtt) fn is_subscribed(&self) -> bool {
        self.kept.subscription.is_some()
    }

    /// Sends a command to the device.
    pub(in crate::mqtt) fn send_command(&mut self, bytes: Vec<u8>) {
        if self.kept.subscription == Some(Qos::AtMostOnce) {
            let Some(topic) = self.own_command_topic() else { return };
            self.send_publish(wire::command(self.level, &topic, None, false, &bytes));
            return;
        }
        let Ok(packet_id) = self.link.acquire_packet_id() else {
            tracing::warn!("no packet id is free; a command was dropped");
            return;
        };
        self.kept.commands.push_back(Command { packet_id, bytes, sent: false, repeated: false });
        self.send_waiting_commands();
    }

    pub(super) fn subscribe(&mut self, packet_id: u16, filters: &[(String, Qos)]) {
        let own = self.own_command_topic();
        let mut granted = Vec::with_capacity(filters.len());
        for (filter, qos) in filters {
            if filters.len() > MAX_FILTERS {
                granted.push(Err(NoSubscription::TooMany));
            } else if own.as_deref() == Some(filter) {
                let qos = (*qos).min(Qos::AtLeastOnce);
                self.kept.subscription = Some(qos);
                granted.push(Ok(qos));
            } else {
                granted.push(Err(why_not(filter)));
            }
        }
        self.send(wire::suback(self.level, packet_id, &granted));
    }

    pub(super) fn unsubscribe(&mut self, packet_id: u16, filters: &[String]) {
        let own = self.own_command_topic();
        let existed: Vec<bool> = filters
            .iter()
            .map(|filter| own.as_ref() == Some(filter) && self.kept.subscription.take().is_some())
            .collect();
        self.send(wire::unsuback(self.level, packet_id, &existed));
    }

    fn own_command_topic(&self) -> Option<String> {
        match &self.peer {
            Some(Peer::Device(device)) => Some(command_topic(*device)),
            _ => None,
        }
    }

    pub(super) fn send_waiting_commands(&mut self) {
        let Some(topic) = self.own_command_topic() else { return };
        while self.closing.is_none() && self.link.get_receive_maximum_vacancy_for_send() != Some(0) {
            let Some(command) = self.kept.commands.iter_mut().find(|command| !command.sent) else { return };
            command.sent = true;
            let packet_id = command.packet_id;
            let packet = wire::command(self.level, &topic, Some(packet_id), command.repeated, &command.bytes);
            if !self.send_publish(packet) {
                self.kept.commands.retain(|command| command.packet_id != packet_id);
                self.link.release_packet_id(packet_id);
            }
        }
    }

    /// Sends a command; gives whether it could be. A client may have asked for smaller packets.
    fn send_publish(&mut self, packet: Result<Packet, MqttError>) -> bool {
        let sent = packet.and_then(|packet| {
            let (_, error) = {
                let events = self.link.send(packet);
                self.take(events)
            };
            error.map_or(Ok(()), Err)
        });
        if let Err(error) = sent {
            tracing::warn!(%error, "a command could not be sent and was dropped");
        }
        sent.is_ok()
    }
}

/// Why a client cannot subscribe to a filter that is not its own command topic.
fn why_not(filter: &str) -> NoSubscription {
    let levels: Vec<&str> = filter.split('/').collect();
    let alone = |level: &&str| !level.contains(['+', '#']) || level.len() == 1;
    let many_before_end = levels.iter().rev().skip(1).any(|level| *level == "#");
    match filter {
        // [MQTT-4.7.1-1], [MQTT-4.7.1-2]
        _ if many_before_end || !levels.iter().all(alone) => NoSubscription::Invalid,
        _ if filter.starts_with(SHARED) => NoSubscription::Shared,
        _ if filter.contains(['+', '#']) => NoSubscription::Wildcard,
        _ => NoSubscription::NotAuthorized,
    }
}
