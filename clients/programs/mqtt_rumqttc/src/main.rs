//! rumqttc publishes in 3.1.1 and 5 with every quality of service over mutual TLS, and says what was acknowledged.

use std::error::Error;
use std::time::{Duration, Instant};

use rumqttc::{TlsConfiguration, Transport};
use serde::Deserialize;

/// Longest wait for an acknowledgement.
const WAIT_LIMIT: Duration = Duration::from_secs(20);
/// Messages of each version and quality of service.
const MESSAGES: usize = 20;

/// What the runner tells a client program about the server.
#[derive(Deserialize)]
struct Site {
    mqtt_host: String,
    mqtt_port: u16,
    authority: String,
    devices: Vec<Device>,
}

#[derive(Clone, Deserialize)]
struct Device {
    id: String,
    certificate: String,
    key: String,
}

impl Site {
    fn transport(&self, device: &Device) -> Result<Transport, Box<dyn Error>> {
        let identity = (std::fs::read(&device.certificate)?, std::fs::read(&device.key)?);
        let ca = std::fs::read(&self.authority)?;
        Ok(Transport::tls_with_config(TlsConfiguration::Simple {
            ca,
            alpn: None,
            client_auth: Some(identity),
        }))
    }
}

/// What the broker answered to each publish, until all have been answered.
struct Acknowledged {
    /// Acknowledgements that end a publish: PUBACK, PUBCOMP, or that it was written (QoS 0).
    count: usize,
    /// The first answer that was a refusal.
    refused: Option<String>,
}

/// The same steps for both versions, whose types have the same names in different modules.
macro_rules! publisher {
    ($module:ident, $options:path, $client:path, $qos:path, $event:path, $packet:path, $refusal:expr) => {
        mod $module {
            use super::{Acknowledged, Device, Instant, Site, WAIT_LIMIT};
            use rumqttc::Outgoing;
            use $client as Client;
            use $event as Event;
            use $options as MqttOptions;
            use $packet as Incoming;
            use $qos as QoS;

            pub fn publish(
                site: &Site,
                device: &Device,
                level: u8,
                messages: &[(String, String)],
            ) -> Result<Acknowledged, Box<dyn std::error::Error>> {
                let qos = match level {
                    0 => QoS::AtMostOnce,
                    1 => QoS::AtLeastOnce,
                    _ => QoS::ExactlyOnce,
                };
                let mut options = MqttOptions::new(&device.id, &site.mqtt_host, site.mqtt_port);
                options.set_transport(site.transport(device)?);
                options.set_keep_alive(std::time::Duration::from_secs(30));
                let (client, mut connection) = Client::new(options, messages.len() + 4);
                for (topic, payload) in messages {
                    let sent = client.publish(topic, qos, false, payload.clone());
                    sent.map_err(|error| error.to_string())?;
                }
                let mut acknowledged = Acknowledged { count: 0, refused: None };
                let deadline = Instant::now() + WAIT_LIMIT;
                while acknowledged.count < messages.len() && acknowledged.refused.is_none() {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let event = connection.recv_timeout(left).map_err(|error| format!("{error:?}"))?;
                    let event = event.map_err(|error| format!("the connection ended: {error}"))?;
                    match event {
                        Event::Outgoing(Outgoing::Publish(_)) if level == 0 => acknowledged.count += 1,
                        Event::Incoming(Incoming::PubAck(answer)) if level == 1 => {
                            acknowledged.count += 1;
                            acknowledged.refused = $refusal(format!("{answer:?}"));
                        }
                        Event::Incoming(Incoming::PubComp(_)) if level == 2 => acknowledged.count += 1,
                        _ => {}
                    }
                }
                client.disconnect()?;
                // The farewell is written by the loop.
                while connection
                    .recv_timeout(std::time::Duration::from_secs(2))
                    .is_ok_and(|event| event.is_ok())
                {}
                Ok(acknowledged)
            }
        }
    };
}

publisher!(v4, rumqttc::MqttOptions, rumqttc::Client, rumqttc::QoS, rumqttc::Event, rumqttc::Packet, |_| {
    None
});
publisher!(
    v5,
    rumqttc::v5::MqttOptions,
    rumqttc::v5::Client,
    rumqttc::v5::mqttbytes::QoS,
    rumqttc::v5::Event,
    rumqttc::v5::Incoming,
    |answer: String| (!answer.contains("Success")).then_some(answer)
);

/// Prints the result of one check in the form that the runner reads.
fn report(check: &str, result: Result<(), String>) {
    let (ok, detail) = match result {
        Ok(()) => (true, String::new()),
        Err(detail) => (false, detail),
    };
    println!("{}", serde_json::json!({ "check": check, "ok": ok, "detail": detail }));
}

fn main() -> Result<(), Box<dyn Error>> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a provider is installed already")?;
    let path = std::env::args().nth(1).ok_or("the file that describes the server is missing")?;
    let site: Site = serde_json::from_slice(&std::fs::read(path)?)?;
    let (device, other) = (site.devices[3].clone(), site.devices[1].clone());
    let mut sent: Vec<String> = Vec::new();
    for version in ["3.1.1", "5"] {
        for level in 0..=2 {
            let mut values = Vec::new();
            let mut messages = Vec::new();
            for _ in 0..MESSAGES {
                let number = sent.len() + values.len();
                let value = format!("{}.{}", 80 + number / 10, number % 10);
                let payload = format!(
                    r#"{{"measure":"oxygen_saturation","value":{value},"unit":"%","sequence":{number}}}"#
                );
                messages.push((format!("auscult/v1/{}/envelope", device.id), payload));
                values.push(value);
            }
            let done = match version {
                "5" => v5::publish(&site, &device, level, &messages),
                _ => v4::publish(&site, &device, level, &messages),
            };
            let result = match done {
                Ok(Acknowledged { refused: Some(answer), .. }) => Err(answer),
                Ok(Acknowledged { count, .. }) if count == MESSAGES => Ok(()),
                Ok(Acknowledged { count, .. }) => Err(format!("{count} of {MESSAGES} were acknowledged")),
                Err(error) => Err(error.to_string()),
            };
            if result.is_ok() {
                sent.extend(values);
            }
            report(&format!("{version}: {MESSAGES} messages with QoS {level}"), result);
        }
    }
    let foreign = [(format!("auscult/v1/{}/envelope", other.id), "{}".to_owned())];
    let refused = match v5::publish(&site, &device, 1, &foreign)?.refused {
        Some(answer) if answer.contains("NotAuthorized") => Ok(()),
        answer => Err(format!("{answer:?}")),
    };
    report("5: another device's topic is refused as not authorized", refused);
    println!("{}", serde_json::json!({ "published": sent, "device": device.id, "measure": "2708-6" }));
    Ok(())
}
