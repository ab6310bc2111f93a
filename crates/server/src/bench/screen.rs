//! From a device's publish to the event on a screen, through the whole server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use clinical_model::decoded::DecodedScalar;
use clinical_model::measure::HEART_RATE;
use clinical_model::{
    Decimal, DecodedValue, DeviceId, DeviceTime, Findings, FrameKind, PatientId, Timestamp,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use simulator::client::{ConnectOptions, Publisher, Qos, Reconnect};

use crate::passkey::Passkey;

/// Time between two publishes: far longer than the latency, so that each is measured alone.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// Longest wait for the last event.
const LAST_LIMIT: Duration = Duration::from_secs(5);
/// Largest event that is read, in bytes.
const EVENT_LIMIT_BYTES: usize = 1 << 20;

/// Who watches, and what.
pub struct Watched<'a> {
    /// Address of the web app.
    pub web: String,
    /// With which passkey.
    pub passkey: &'a Passkey,
    /// `host:port` of the MQTT port.
    pub mqtt: String,
    /// Name in the server's certificate.
    pub server_name: ServerName<'static>,
    /// The device that publishes.
    pub device: DeviceId,
    /// Its patient.
    pub patient: PatientId,
    /// Its certificate.
    pub tls: Arc<ClientConfig>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half came faster.
    pub p50: Duration,
    /// 99 of 100 came faster.
    pub p99: Duration,
}

/// Publishes single readings for `length` and waits for each on the live events of a signed-in screen.
///
/// # Errors
/// When signing in, connecting or reading fails, or nothing is seen.
pub async fn measure(watched: Watched<'_>, length: Duration) -> anyhow::Result<Latency> {
    let mut events = sign_in_and_watch(&watched).await?;
    let mut options =
        ConnectOptions::new(&watched.mqtt, watched.server_name, watched.tls, watched.device.to_string());
    options.reconnect = Reconnect::Never;
    let publisher = Publisher::connect(options).await.context("the device cannot connect")?;
    let topic = format!("auscult/v1/{}/{}", watched.device, FrameKind::Envelope);
    let mut waiting: BTreeMap<Timestamp, Instant> = BTreeMap::new();
    let mut latencies = Vec::new();
    let began = Instant::now();
    let mut tick = tokio::time::interval(PUBLISH_EVERY);
    let mut acks = tokio::task::JoinSet::new();
    let mut sequence = 0;
    loop {
        let over = began.elapsed() >= length;
        if over && (waiting.is_empty() || began.elapsed() >= length + LAST_LIMIT) {
            break;
        }
        tokio::select! {
            event = events.next() => {
                let seen = Instant::now();
                for at in event? {
                    // What a newer value overtook in the same commit is known with that one.
                    let later = waiting.split_off(&at.plus_micros(1));
                    latencies.extend(std::mem::replace(&mut waiting, later).into_values().map(|sent| seen - sent));
                }
            }
            _ = tick.tick() => if !over {
                let (at, payload) = reading(sequence);
                sequence += 1;
                waiting.insert(at, Instant::now());
                let pending = publisher.publish(topic.clone(), payload.into_bytes(), Qos::AtLeastOnce).await?;
                acks.spawn(pending);
            }
        }
    }
    while let Some(acked) = acks.join_next().await {
        ensure!(!acked??.is_refused(), "a reading was refused");
    }
    publisher.disconnect().await;
    latencies.sort_unstable();
    let at = |share: f64| {
        latencies.get(((latencies.len() as f64 * share) as usize).min(latencies.len() - 1)).copied()
    };
    ensure!(
        waiting.is_empty() && !latencies.is_empty(),
        "{} readings were published and not seen on the screen, {} were",
        waiting.len(),
        latencies.len()
    );
    let (p50, p99) = (at(0.5).unwrap_or_default(), at(0.99).unwrap_or_default());
    Ok(Latency { p50, p99 })
}

fn reading(sequence: u32) -> (Timestamp, String) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    (at, entry(at, sequence))
}

fn entry(at: Timestamp, sequence: u32) -> String {
    let scalar = DecodedScalar {
        measure: HEART_RATE,
        value: DecodedValue::Number(Decimal::from_integer(60 + (sequence % 60) as i32)),
        unit: HEART_RATE.unit.to_owned(),
        time: DeviceTime::Utc(at),
        sequence: 0,
        findings: Findings::empty(),
    };
    device_codecs::envelope::encode_scalar(&scalar)
}

/// Bytes of a message of so many readings, as the loads send it.
pub fn message_bytes(batch: usize) -> u64 {
    let one = entry(Timestamp::from_micros(1_795_680_000_123_456), 7);
    let message =
        if batch == 1 { one } else { device_codecs::envelope::encode_batch(&vec![one; batch], None) };
    message.len() as u64
}

/// The live events of a screen.
struct Events {
    answer: reqwest::Response,
    buffer: Vec<u8>,
    patient: String,
}

/// Signs a person in with a passkey and returns their cookies.
///
/// # Errors
/// When it is refused.
pub async fn sign_in(client: &reqwest::Client, base: &str, passkey: &Passkey) -> anyhow::Result<String> {
    let post = async |path: &str, body: serde_json::Value| {
        let request =
            client.post(format!("{base}/api/v1/sign-in/{path}")).header("x-auscult", "1").json(&body);
        let answer = request.send().await.context("no answer to the sign-in")?;
        answer.error_for_status().context("the sign-in was refused")
    };
    let begun = post("passkey/begin", serde_json::json!({})).await?.json().await?;
    let signed_in = post("passkey", passkey.answer(&begun)?).await?;
    let cookies: Vec<String> = signed_in
        .headers()
        .get_all("set-cookie")
        .iter()
        .filter_map(|cookie| Some(cookie.to_str().ok()?.split(';').next()?.to_owned()))
        .collect();
    Ok(cookies.join("; "))
}

async fn sign_in_and_watch(watched: &Watched<'_>) -> anyhow::Result<Events> {
    let client = reqwest::Client::builder().build().context("no HTTP client")?;
    let cookie = sign_in(&client, &watched.web, watched.passkey).await?;
    let answer = client
        .get(format!("{}/api/v1/live", watched.web))
        .header("cookie", cookie)
        .send()
        .await
        .context("no answer from the live events")?
        .error_for_status()
        .context("the live events were refused")?;
    let mut events = Events { answer, buffer: Vec::new(), patient: watched.patient.to_string() };
    // The first event: from here on nothing is missed.
    events.next().await?;
    Ok(events)
}

impl Events {
    /// The times of the readings in the next event; empty for an event without any. Cancelled safely: what was read
    /// stays in the buffer.
    async fn next(&mut self) -> anyhow::Result<Vec<Timestamp>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(measured_times(&String::from_utf8_lossy(&event), &self.patient));
            }
            ensure!(
                self.buffer.len() <= EVENT_LIMIT_BYTES,
                "a live event is larger than {EVENT_LIMIT_BYTES} bytes"
            );
            let chunk = self.answer.chunk().await.context("the live events broke off")?;
            self.buffer.extend_from_slice(&chunk.context("the live events ended")?);
        }
    }
}

fn measured_times(event: &str, patient: &str) -> Vec<Timestamp> {
    let field = |name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.strip_prefix(' ').unwrap_or(value))
    };
    if field("event:") != Some("vitals") {
        return Vec::new();
    }
    let data: Value = field("data:").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
    if data["patient_id"] != patient {
        return Vec::new();
    }
    let vitals = data["vitals"].as_array().cloned().unwrap_or_default();
    vitals.iter().filter_map(|vital| vital["measured_at"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_the_patients_vitals_only() {
        let event = "id: e.1\nevent: vitals\ndata: {\"patient_id\":\"p\",\
                     \"vitals\":[{\"measured_at\":\"2026-11-22T08:00:00.250Z\"}]}\n\n";
        let at: Timestamp = "2026-11-22T08:00:00.25Z".parse().unwrap();
        assert_eq!(measured_times(event, "p"), [at]);
        assert_eq!(measured_times(event, "q"), []);
        assert_eq!(measured_times("event: beat\ndata: {\"position\":\"e.1\"}\n\n", "p"), []);
    }
}
