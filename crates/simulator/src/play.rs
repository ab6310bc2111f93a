//! A hospital in motion: every device of a plan as a task that speaks to the server over the wire.

mod bedside;
mod frames;
mod home;
mod telemetry;
mod uplink;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clinical_model::{DeviceId, Timestamp};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::hospital::{Plan, PlannedDevice, Role};
use crate::recordings::{self, RecordingError};
use crate::strip::{Strip, StripError};

pub(crate) use telemetry::frame as second_frame;

/// How much faster than life the recorded stays are played: one recorded hour a minute.
pub const DEFAULT_SPEED: f64 = 60.0;
/// Slowest and fastest play of the stays.
pub const SPEED_RANGE: (f64, f64) = (1.0, 3_600.0);

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// `host:port` of the MQTT port.
    pub mqtt: String,
    /// `https://host:port` of the device port.
    pub https: String,
    /// The name that the server's certificate carries.
    pub server_name: ServerName<'static>,
}

/// Hands out the TLS configuration with a device's certificate; `None` for a device that has none.
pub type Credentials = Arc<dyn Fn(DeviceId) -> Option<Arc<ClientConfig>> + Send + Sync>;

/// What happened so far; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    connected: AtomicU64,
    sent: AtomicU64,
    acked: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    connections: AtomicU64,
    commands: AtomicU64,
}

/// One look at [`Progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Devices that speak MQTT and are switched on now, those that are just reconnecting among them.
    pub connected: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames that the server acknowledged.
    pub acked: u64,
    /// Frames that the server refused.
    pub refused: u64,
    /// Frames without an answer.
    pub lost: u64,
    /// MQTT connections made, the first ones included.
    pub connections: u64,
    /// Commands that the server sent to devices.
    pub commands: u64,
}

impl Progress {
    /// The counts now.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connected: read(&self.connected),
            sent: read(&self.sent),
            acked: read(&self.acked),
            refused: read(&self.refused),
            lost: read(&self.lost),
            connections: read(&self.connections),
            commands: read(&self.commands),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why a plan cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A recording is missing or damaged.
    #[error("a recording of the plan cannot be had")]
    Recording(#[from] RecordingError),
    /// A recording has nothing to show.
    #[error("a recording of the plan cannot be played")]
    Strip(#[from] StripError),
    /// A device without a certificate.
    #[error("device {device} ({name}) has no certificate to connect with")]
    NoCredentials {
        /// Its id.
        device: DeviceId,
        /// Its name.
        name: String,
    },
}

/// What every device needs.
struct Stage {
    endpoints: Endpoints,
    progress: Arc<Progress>,
    shutdown: CancellationToken,
    speed: f64,
    seed: u64,
    strips: HashMap<String, Strip>,
    saturation: Vec<f64>,
}

/// Plays all devices of a plan until `shutdown`, which switches them all off at once, without a farewell.
///
/// Curves and heart rates run in real time; stays run `speed` times faster (cut to [`SPEED_RANGE`]).
/// Connections that fail are made again for as long as it takes.
///
/// # Errors
/// [`PlayError`], before anything is sent.
pub async fn play(
    plan: &Plan,
    endpoints: Endpoints,
    credentials: Credentials,
    speed: f64,
    progress: Arc<Progress>,
    shutdown: CancellationToken,
) -> Result<(), PlayError> {
    let speed = if speed.is_finite() { speed.clamp(SPEED_RANGE.0, SPEED_RANGE.1) } else { DEFAULT_SPEED };
    let stage = Arc::new(Stage {
        endpoints,
        progress,
        shutdown,
        speed,
        seed: plan.seed,
        strips: strips(plan)?,
        saturation: bedside::saturation_values()?,
    });
    let mut tasks = JoinSet::new();
    let mut ready = Vec::with_capacity(plan.devices.len());
    for planned in &plan.devices {
        let tls = credentials(planned.device.id).ok_or_else(|| PlayError::NoCredentials {
            device: planned.device.id,
            name: planned.device.name.clone(),
        })?;
        let stay = match &planned.role {
            Role::Bedside { stay, .. } => Some(recordings::stay(stay)?),
            _ => None,
        };
        ready.push((planned.clone(), tls, stay));
    }
    for (planned, tls, stay) in ready {
        let stage = Arc::clone(&stage);
        tasks.spawn(async move {
            let stop = stage.shutdown.clone();
            tokio::select! {
                () = perform(&stage, &planned, tls, stay) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::warn!(%error, "a simulated device stopped unexpectedly");
        }
    }
    Ok(())
}

async fn perform(
    stage: &Stage,
    planned: &PlannedDevice,
    tls: Arc<ClientConfig>,
    stay: Option<crate::stay::Stay>,
) {
    match (&planned.role, stay) {
        (Role::Telemetry { .. }, _) => telemetry::perform(stage, planned, tls).await,
        (Role::Bedside { saturation_from_row, .. }, Some(stay)) => {
            bedside::perform(stage, planned, tls, &stay, *saturation_from_row).await;
        }
        _ => home::perform(stage, planned, tls).await,
    }
}

/// Every strip that the plan names, read once.
fn strips(plan: &Plan) -> Result<HashMap<String, Strip>, PlayError> {
    let mut strips = HashMap::new();
    let mut want = |name: &String| -> Result<(), PlayError> {
        if !strips.contains_key(name) {
            strips.insert(name.clone(), Strip::two_leads(name, &recordings::record(name)?)?);
        }
        Ok(())
    };
    for planned in &plan.devices {
        match &planned.role {
            Role::Telemetry { record, scenes, .. } => {
                want(record)?;
                scenes.iter().try_for_each(|scene| want(&scene.record))?;
            }
            Role::HeartRateStrap { record } => want(record)?,
            _ => {}
        }
    }
    Ok(strips)
}

/// The wall clock, to the millisecond that the wire carries.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
