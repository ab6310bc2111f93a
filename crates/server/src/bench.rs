//! `auscult bench`: measures this machine side by side — acknowledged readings, the disk's own limit, bytes kept,
//! publish to screen — and prints a table.

mod disk;
mod report;
mod screen;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clinical_model::patient::Gender;
use clinical_model::place::PlaceKind;
use clinical_model::{
    Assignment, AssignmentId, ClockRule, Device, DeviceId, Interval, Patient, PatientId, Place, PlaceId,
    Private, Subject, Timestamp,
};
use rustls_pki_types::ServerName;
use simulator::client::{Qos, Reconnect};
use simulator::load::{self, Figures, Load};
use simulator::play::Credentials;
use store::Actor;
use tokio_util::sync::CancellationToken;
use trust::password::PasswordCost;

use crate::provision::{self, ThrowAway};
use crate::running::{self, Flavour, Running};
use crate::{logging, serve, terminal};

/// Connections of a load: a large ward with two devices a bed.
const CONNECTIONS: usize = 50;
/// Readings of one message of the batch load: a gateway that sends every minute or so.
const BATCH: usize = 100;
/// Messages of one connection that wait for their acknowledgement, in the pipelined load of single readings.
const WINDOW: u16 = 16;
/// The same for batches: more would only wait in line.
const BATCH_WINDOW: u16 = 4;
/// Fewest runs of each load: a median of fewer says nothing.
const MIN_RUNS: usize = 3;
/// Most runs of each load.
const MAX_RUNS: usize = 50;
/// Length of one run.
const RUN: Duration = Duration::from_secs(10);
/// Length of one run with `--quick`.
const QUICK_RUN: Duration = Duration::from_secs(3);
/// Messages a second while what stays on disk is measured: paced, so that the journal stays small beside the blocks.
const KEPT_RATE_PER_S: f64 = 100.0;
/// How often the journal is folded meanwhile.
const KEPT_FOLD_EVERY: Duration = Duration::from_secs(1);
/// Length of the measurement of the disk after each run, a fraction of the run.
const DISK_SHARE: u32 = 3;

/// What `auscult bench` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult bench --quick
  auscult bench --runs 5 --dir /var/lib

Server, devices and screen run on this machine and share its cores. The table is Markdown. Use a release build.")]
pub struct BenchArguments {
    /// Shorter runs
    #[arg(long)]
    quick: bool,
    /// Runs of each load; the table shows their median and spread
    #[arg(long, value_name = "N", default_value_t = MIN_RUNS)]
    runs: usize,
    /// Directory on the disk to measure; a throw-away directory is made in it
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// One run of a load, and what the disk could do right after it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What the devices saw.
    pub figures: Figures,
    /// Groups that the server committed.
    pub groups: u64,
    /// Bytes of frames a group.
    pub bytes_per_group: u64,
    /// Appends of as many bytes with `fdatasync`, a second, in the same directory.
    pub disk_commits_per_s: f64,
}

/// What stays on disk.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Readings that were sent.
    pub readings: u64,
    /// Growth of the data file a reading, after the fold.
    pub bytes_per_reading: f64,
}

/// What one load is.
pub struct Shape {
    /// For the table.
    pub name: &'static str,
    batch: usize,
    window: u16,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "batches of 100 readings, 4 in flight", batch: BATCH, window: BATCH_WINDOW },
    Shape { name: "single readings, 16 in flight", batch: 1, window: WINDOW },
    Shape { name: "single readings, 1 in flight", batch: 1, window: 1 },
];

/// Measures and prints.
///
/// # Errors
/// What failed.
pub fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        (MIN_RUNS..=MAX_RUNS).contains(&arguments.runs),
        "--runs {} must be {MIN_RUNS} to {MAX_RUNS}",
        arguments.runs
    );
    logging::start("warn")?;
    running::raise_file_limit();
    let length = if arguments.quick { QUICK_RUN } else { RUN };
    let (mut throw_away, kek) = ThrowAway::make_in(&arguments.dir, "Measurement")?;
    throw_away.config.web.listen.set_port(0);
    let data_dir = throw_away.config.site.data_dir.clone();
    serve::block_on(async {
        let flavour = Flavour { demo: true, password_cost: PasswordCost::OWASP_MINIMUM };
        let running = Running::start(&throw_away.config, kek, flavour).await?;
        let stage = Stage::set(&running).await?;
        // First, while the file has no free pages that would hide growth.
        eprintln!("kept on disk");
        let runs = u32::try_from(arguments.runs).unwrap_or(1);
        let kept = stage.kept(&running, length * runs, &data_dir).await?;
        let mut measured = Vec::new();
        for shape in &SHAPES {
            let mut runs = Vec::new();
            for number in 1..=arguments.runs {
                eprintln!("{} – run {number} of {}", shape.name, arguments.runs);
                runs.push(stage.measure(&running, shape, length, &data_dir).await?);
            }
            measured.push((shape.name, runs));
        }
        let mut screens = Vec::new();
        for (name, load) in [("otherwise idle", None), ("beside 1,000 readings a second", Some(1_000.0))] {
            eprintln!("publish to screen, {name}");
            screens.push((name, stage.screen(&running, load, length).await?));
        }
        running.stop().await?;
        terminal::print(&report::render(&data_dir, arguments.runs, length, &measured, &kept, &screens));
        Ok(ExitCode::SUCCESS)
    })
}

/// Devices with patients, certificates and a person who looks.
struct Stage {
    devices: Vec<DeviceId>,
    credentials: Credentials,
    password: String,
    server_name: ServerName<'static>,
}

impl Stage {
    async fn set(running: &Running) -> anyhow::Result<Stage> {
        let (site, web, pki) =
            (Arc::clone(&running.site), Arc::clone(&running.web), Arc::clone(&running.pki));
        let password = provision::random_password();
        let theirs = password.clone();
        let set = tokio::task::spawn_blocking(move || {
            let devices = add_ward(&site, CONNECTIONS)?;
            provision::add_people(&web, &theirs)?;
            let named = devices.iter().map(|device| (*device, device.to_string()));
            let credentials = provision::credentials(&pki, named)?;
            anyhow::Ok((devices, credentials))
        });
        let (devices, credentials) = set.await.context("setting up was broken off")??;
        let server_name = ServerName::try_from("localhost").context("localhost is a host name")?;
        Ok(Stage { devices, credentials, password, server_name })
    }

    async fn load(&self, running: &Running, load: &Load) -> anyhow::Result<Figures> {
        let mqtt = running.addresses.mqtt.to_string();
        let credentials = Arc::clone(&self.credentials);
        load::run(load, &mqtt, self.server_name.clone(), credentials, CancellationToken::new())
            .await
            .context("the load failed")
    }

    async fn measure(
        &self,
        running: &Running,
        shape: &Shape,
        length: Duration,
        data_dir: &Path,
    ) -> anyhow::Result<Run> {
        let load = Load {
            batch: shape.batch,
            qos: Qos::AtLeastOnce,
            window: shape.window,
            duration: Some(length),
            reconnect: Reconnect::Never,
            ..Load::new(self.devices.clone())
        };
        fold(running).await?;
        let group_before = running.site.store().last_group();
        let figures = self.load(running, &load).await?;
        anyhow::ensure!(
            figures.refused_messages == 0 && figures.lost_messages == 0 && figures.acked_messages > 0,
            "the load was not served whole: {figures:?}"
        );
        let groups = (running.site.store().last_group() - group_before).max(1);
        fold(running).await?;
        let bytes_per_group = figures.acked_messages * screen::message_bytes(shape.batch) / groups;
        let directory = data_dir.to_owned();
        let disk = tokio::task::spawn_blocking(move || {
            disk::commits_per_s(&directory, bytes_per_group, length / DISK_SHARE)
        });
        Ok(Run {
            figures,
            groups,
            bytes_per_group,
            disk_commits_per_s: disk.await.context("measuring the disk was broken off")??,
        })
    }

    /// Growth of the data file under a paced load of batches, folded each second: at both ends the journal has left
    /// about the same room behind, so that the difference is what stays.
    async fn kept(&self, running: &Running, length: Duration, data_dir: &Path) -> anyhow::Result<Kept> {
        let paced = |duration| Load {
            batch: BATCH,
            rate_per_s: Some(KEPT_RATE_PER_S),
            duration: Some(duration),
            reconnect: Reconnect::Never,
            ..Load::new(self.devices.clone())
        };
        self.folded(running, &paced(KEPT_FOLD_EVERY * 2)).await?;
        let before = data_bytes(data_dir);
        let figures = self.folded(running, &paced(length)).await?;
        let grown = data_bytes(data_dir).saturating_sub(before);
        let readings = figures.acked_readings;
        anyhow::ensure!(readings > 0, "nothing was acknowledged: {figures:?}");
        Ok(Kept { readings, bytes_per_reading: grown as f64 / readings as f64 })
    }

    /// A load beside which the journal is folded each second, and once more at its end.
    async fn folded(&self, running: &Running, load: &Load) -> anyhow::Result<Figures> {
        let folding = async {
            let mut tick = tokio::time::interval(KEPT_FOLD_EVERY);
            loop {
                tick.tick().await;
                if let Err(error) = fold(running).await {
                    return error;
                }
            }
        };
        let figures = tokio::select! {
            figures = self.load(running, load) => figures?,
            error = folding => return Err(error),
        };
        fold(running).await?;
        Ok(figures)
    }

    /// Latency from publishing to the event on a screen, beside a load of the other devices where one is given.
    async fn screen(
        &self,
        running: &Running,
        load: Option<f64>,
        length: Duration,
    ) -> anyhow::Result<screen::Latency> {
        let (first, others) = self.devices.split_first().context("there are devices")?;
        let tls = (self.credentials)(*first).context("the device has a certificate")?;
        let watched = screen::Watched {
            web: running.web_url(),
            user: "nurse",
            password: &self.password,
            mqtt: running.addresses.mqtt.to_string(),
            server_name: self.server_name.clone(),
            device: *first,
            tls,
        };
        let Some(rate) = load else { return screen::measure(watched, length).await };
        let load = Load {
            rate_per_s: Some(rate),
            // Begins before and ends after the measurement.
            duration: Some(length + Duration::from_secs(2)),
            reconnect: Reconnect::Never,
            ..Load::new(others.to_vec())
        };
        let (latency, loaded) = tokio::join!(screen::measure(watched, length), self.load(running, &load));
        loaded?;
        latency
    }
}

async fn fold(running: &Running) -> anyhow::Result<()> {
    let site = Arc::clone(&running.site);
    tokio::task::spawn_blocking(move || site.fold_now()).await.context("folding was broken off")??;
    Ok(())
}

fn data_bytes(data_dir: &Path) -> u64 {
    std::fs::metadata(data_dir.join("data.db")).map_or(0, |file| file.len())
}

/// One ward with a patient and a device a bed, each device assigned to its patient.
fn add_ward(site: &pipeline::Site, beds: usize) -> anyhow::Result<Vec<DeviceId>> {
    let now = site.clock().now();
    let id = || trust::uuid_v7(u64::try_from(now.as_millis()).unwrap_or(0));
    let since = Timestamp::from_seconds(now.as_millis() / 1_000 - 3_600);
    let ward = Place { id: PlaceId::from_uuid(id()), name: "Ward".into(), kind: PlaceKind::Ward, ward: None };
    site.add_place(Actor::System, ward.clone())?;
    let mut devices = Vec::with_capacity(beds);
    for number in 1..=beds {
        let bed = Place {
            id: PlaceId::from_uuid(id()),
            name: format!("Bed {number:02}"),
            kind: PlaceKind::Bed,
            ward: Some(ward.id),
        };
        site.add_place(Actor::System, bed.clone())?;
        let patient = Patient {
            id: PatientId::from_uuid(id()),
            family: Private::new(format!("Measured {number:02}")),
            given: Private::new("Nobody".to_owned()),
            birth_date: None,
            gender: Gender::Unknown,
            record_number: Private::new(format!("M{number:04}")),
            place: Some(bed.id),
            active: true,
        };
        let patient = site.add_patient(Actor::System, patient)?;
        let device = Device {
            id: DeviceId::from_uuid(id()),
            name: format!("Load {number:02}"),
            kind: "load".into(),
            manufacturer: "Auscult".into(),
            model: "load".into(),
            serial: number.to_string(),
            clock: ClockRule::Trust,
            utc_offset_min: 0,
            expected_interval_s: None,
            retired: false,
        };
        let device = site.add_device(Actor::System, device)?;
        let assignment = Assignment {
            id: AssignmentId::from_uuid(id()),
            device: device.id,
            subject: Subject::Patient(patient.id),
            interval: Interval::since(since),
        };
        site.assign(Actor::System, assignment)?;
        devices.push(device.id);
    }
    Ok(devices)
}
