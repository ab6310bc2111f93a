//! `auscult replay`: sends a recording on disk as a device, over the wire like any other.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clinical_model::{DeviceId, Timestamp};
use rustls_pki_types::ServerName;
use simulator::client::{ConnectOptions, Publisher, Reconnect};

use crate::terminal::{self, Progress};
use crate::{logging, serve};

/// Port of MQTT over TLS (IANA "secure-mqtt").
const DEFAULT_PORT: u16 = 8883;

/// What `auscult replay` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:
  auscult pki issue /var/lib/auscult/pki --device 01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11 --out certs
  auscult replay recordings/mitdb/208 --device 01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11 \\
    --cert certs/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11.pem --key certs/01930e6c-9e3c-7d1a-8f5b-2f1c5f0a9b11.key \\
    --authority certs/authority.pem --to mqtts://localhost:8883")]
pub struct ReplayArguments {
    /// The record: a WFDB header, with or without .hea
    #[arg(value_name = "RECORD")]
    record: PathBuf,
    /// The device that sends it; it must be registered
    #[arg(long, value_name = "UUID")]
    device: DeviceId,
    /// The device's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The authority's certificate (PEM)
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    /// The server: mqtts://HOST[:PORT]
    #[arg(long, value_name = "URL")]
    to: String,
    /// How much faster than life it is sent (0.1 to 1000)
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// Time of the first sample (RFC 3339); default: now, or as long ago as the record would have taken
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    terminal::parse_within(text, simulator::replay::SPEED_RANGE)
}

/// Replays.
///
/// # Errors
/// What cannot be read, or where the connection failed.
pub fn run(arguments: &ReplayArguments) -> anyhow::Result<ExitCode> {
    logging::start("warn")?;
    let (host, port) = parse_target(&arguments.to)?;
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let (certificate, key) = (read(&arguments.cert)?, trust::SecretText::new(read(&arguments.key)?));
    let tls = trust::tls::client_config(
        &read(&arguments.authority)?,
        Some((&certificate, key.expose())),
        &[b"mqtt"],
    )
    .context("the certificates cannot be used")?;
    let name = ServerName::try_from(host.clone()).with_context(|| format!("\"{host}\" is no host name"))?;
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut options = ConnectOptions::new(address, name, Arc::new(tls), arguments.device.to_string());
    options.reconnect = Reconnect::Never;
    let record = arguments.record.with_extension("");
    let path = if arguments.record.extension().is_some_and(|found| found == "hea") {
        &record
    } else {
        &arguments.record
    };
    let from = match arguments.from {
        Some(from) => from,
        None => start_of(path, arguments.speed)?,
    };
    serve::block_on(async {
        let publisher = Publisher::connect(options)
            .await
            .with_context(|| format!("cannot send to {host}:{port} as the device {}", arguments.device))?;
        let mut line = Progress::new("replaying");
        let total = duration_s(path)?;
        let replayed =
            simulator::replay::replay(path, &publisher, arguments.device, from, arguments.speed, |seen| {
                line.at(seen.sent, total);
            })
            .await?;
        line.end();
        publisher.disconnect().await;
        terminal::println(&format!(
            "{} seconds sent, {} acknowledged, {} refused",
            replayed.sent, replayed.acked, replayed.refused
        ));
        Ok(if replayed.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn duration_s(path: &std::path::Path) -> anyhow::Result<u64> {
    let record = simulator::wfdb::Record::open(path)
        .with_context(|| format!("the record {} cannot be read", path.display()))?;
    Ok(record.duration_s() as u64)
}

/// Sent faster than life, a record that began now would lie in the future: it ends now instead.
fn start_of(path: &std::path::Path, speed: f64) -> anyhow::Result<Timestamp> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let back = if speed > 1.0 { Duration::from_secs(duration_s(path)?) } else { Duration::ZERO };
    let at = since.saturating_sub(back);
    Ok(Timestamp::from_millis(i64::try_from(at.as_millis()).unwrap_or(i64::MAX)))
}

fn parse_target(url: &str) -> anyhow::Result<(String, u16)> {
    let Some(rest) = url.strip_prefix("mqtts://") else {
        bail!("\"{url}\" must begin with mqtts://, because devices always speak TLS");
    };
    let rest = rest.trim_end_matches('/');
    // The last colon begins the port, unless it is one of an address in brackets.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().with_context(|| format!("\"{port}\" is no port"))?)
        }
        _ => (rest, DEFAULT_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        bail!("\"{url}\" names no host");
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let parsed = |text: &str| parse_target(text).unwrap();
        assert_eq!(parsed("mqtts://localhost:1883"), ("localhost".into(), 1883));
        assert_eq!(parsed("mqtts://ward.example/"), ("ward.example".into(), 8883));
        assert_eq!(parsed("mqtts://[::1]:9"), ("::1".into(), 9));
        assert_eq!(parsed("mqtts://[::1]"), ("::1".into(), 8883));
        for wrong in ["mqtt://localhost", "localhost", "mqtts://", "mqtts://h:x"] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }
}
