//! A furnished site on a throw-away directory — wards, patients, devices with certificates, people — and the server over it
//! as a process of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clinical_model::patient::Gender;
use clinical_model::place::PlaceKind;
use clinical_model::{
    Assignment, AssignmentId, ClockRule, Device, DeviceId, Interval, Patient, PatientId, Place, PlaceId,
    Private, Subject, Timestamp,
};
use pipeline::{Site, SiteOptions, SystemClock};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use simulator::load::{self, Figures, Load};
use simulator::play::Credentials;
use store::Actor;
use store::sqlite::SqliteStore;
use tokio_util::sync::CancellationToken;
use trust::Kek;
use trust::password::PasswordCost;
use trust::pki::PeerUri;

use super::Settings;
use super::apart::Apart;
use crate::passkey::Passkey;
use crate::pki::{self, DEFAULT_DAYS, PkiDirectory, ServerIdentity};
use crate::provision::{self, ThrowAway};
use crate::running::{Flavour, Running};

/// The program that reads and writes over FHIR.
const PROGRAM: &str = "bench";
/// Since when devices are assigned: longer than any chart that is filled.
const ASSIGNED_FOR: Duration = Duration::from_secs(390 * 86_400);

/// A furnished site, not running.
pub struct Stage {
    throw_away: ThrowAway,
    kek: Option<Kek>,
    /// The devices, each assigned to the patient at its place in `patients`.
    pub devices: Vec<DeviceId>,
    /// The patients.
    pub patients: Vec<PatientId>,
    /// The devices' certificates.
    pub credentials: Credentials,
    /// TLS of a program with a certificate.
    pub program: Arc<ClientConfig>,
    /// The passkey of the nurse.
    pub passkey: Passkey,
    /// Name in the server's certificate.
    pub server_name: ServerName<'static>,
    /// The authority's certificate.
    pub authority_pem: String,
    /// Certificate and key of the server, which a peer may use as well.
    pub identity: ServerIdentity,
}

impl Stage {
    /// Furnishes a site with so many beds.
    ///
    /// # Errors
    /// When the directory cannot be made or filled.
    pub async fn set(settings: &Settings, beds: usize) -> anyhow::Result<Stage> {
        let (mut throw_away, kek) = ThrowAway::make_in(&settings.dir, "Measurement")?;
        throw_away.config.web.listen.set_port(0);
        let key_file = throw_away.config.key.file.clone().context("a throw-away site has a key file")?;
        let flavour = Flavour { demo: false, password_cost: PasswordCost::OWASP_MINIMUM };
        let running = Running::start(&throw_away.config, kek, flavour).await?;
        let (site, web, pki) =
            (Arc::clone(&running.site), Arc::clone(&running.web), running.authority.directory());
        let names = pki::server_names(&throw_away.config.tls.names);
        let furnished = tokio::task::spawn_blocking(move || {
            let (devices, patients) = add_ward(&site, beds)?;
            let people = provision::add_people(&web, None)?;
            let nurse = people.first().context("the nurse is the first")?;
            let passkey = Passkey::of(&web, nurse)?;
            let named = devices.iter().map(|device| (*device, device.to_string()));
            let credentials = provision::credentials(&pki, named)?;
            let program = program_tls(&pki)?;
            anyhow::Ok((devices, patients, passkey, credentials, program, pki.server_identity(&names)?))
        });
        let (devices, patients, passkey, credentials, program, identity) =
            furnished.await.context("furnishing was broken off")??;
        let authority_pem = running.authority.directory().certificate_pem().to_owned();
        running.stop().await?;
        let kek = Some(crate::keys::load(&throw_away.config.key, &throw_away.config.site.data_dir)?);
        debug_assert!(key_file.exists());
        let server_name = ServerName::try_from("localhost").context("localhost is a host name")?;
        Ok(Stage {
            throw_away,
            kek,
            devices,
            patients,
            credentials,
            program,
            passkey,
            server_name,
            authority_pem,
            identity,
        })
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.throw_away.config.site.data_dir.clone()
    }

    /// Bytes of everything that is kept.
    pub fn kept_bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.data_dir()).into_iter().flatten().flatten();
        let data = files.filter(|file| file.file_name().to_string_lossy().starts_with("data.db"));
        data.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The store itself, for filling it and for measuring it without a server.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_store(&mut self) -> anyhow::Result<SqliteStore> {
        let kek = match self.kek.take() {
            Some(kek) => kek,
            None => crate::keys::load(&self.throw_away.config.key, &self.data_dir())?,
        };
        SqliteStore::open(&self.data_dir(), kek, store::sqlite::Options::default())
            .context("the store cannot be opened")
    }

    /// The site over its store, without ports; folded only when asked to.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn open_site(&mut self) -> anyhow::Result<Arc<Site>> {
        let store = Arc::new(self.open_store()?);
        let options = SiteOptions {
            fold_every: Duration::from_secs(86_400),
            on_durability_failure: Box::new(|error| eprintln!("{error}")),
        };
        Site::start(store, Arc::new(SystemClock), options).context("the site cannot start")
    }

    /// Starts the server over the site.
    ///
    /// # Errors
    /// When it does not begin to serve.
    pub fn serve(&self) -> anyhow::Result<Server> {
        self.serve_with(&[])
    }

    /// As [`Stage::serve`], with variables of the environment.
    ///
    /// # Errors
    /// As [`Stage::serve`].
    pub fn serve_with(&self, environment: &[(&str, &str)]) -> anyhow::Result<Server> {
        let key = self.throw_away.config.key.file.as_ref().context("a throw-away site has a key file")?;
        let program = std::env::current_exe().context("this program is somewhere")?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(self.data_dir()).arg("--key-file").arg(key);
        for port in ["--web", "--mqtt", "--devices"] {
            command.args([port, "127.0.0.1:0"]);
        }
        command.arg("--print-json").env("AUSCULT_LOG_LEVEL", "warn").envs(environment.iter().copied());
        let began = Instant::now();
        let (apart, line) = Apart::start_and_hear("the server", &mut command)?;
        let ready_after = began.elapsed();
        let said: serde_json::Value =
            serde_json::from_str(&line).with_context(|| format!("the server said {line:?}"))?;
        let address = |name: &str| {
            let text = said[name].as_str().map(str::to_owned);
            text.with_context(|| format!("the server did not say its address `{name}`"))
        };
        let (web, mqtt, devices) = (address("address")?, address("mqtt")?, address("devices")?);
        // The certificate names the host, not the address.
        let port = devices.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
        Ok(Server { apart, web, mqtt, devices: format!("https://localhost:{port}"), ready_after })
    }

    /// Makes a load against an MQTT port: ours or a peer's.
    ///
    /// # Errors
    /// When it cannot be made, or was not served whole.
    pub async fn load(&self, mqtt: &str, load: &Load) -> anyhow::Result<Figures> {
        let credentials = Arc::clone(&self.credentials);
        let figures = load::run(load, mqtt, self.server_name.clone(), credentials, CancellationToken::new())
            .await
            .context("the load failed")?;
        anyhow::ensure!(
            figures.refused_messages == 0 && figures.lost_messages == 0 && figures.acked_messages > 0,
            "the load was not served whole: {figures:?}"
        );
        Ok(figures)
    }
}

/// The running server.
pub struct Server {
    /// Its process.
    pub apart: Apart,
    /// Base address of the web port.
    pub web: String,
    /// `host:port` of MQTT.
    pub mqtt: String,
    /// Base address of the device port.
    pub devices: String,
    /// From its start to its word that it is ready.
    pub ready_after: Duration,
}

fn program_tls(directory: &PkiDirectory) -> anyhow::Result<Arc<ClientConfig>> {
    // It writes too: what is measured is the way in.
    let everything = ["system/*.cruds".to_owned()];
    let line = pki::ProgramLine::new(pki::timestamp(std::time::SystemTime::now()), PROGRAM, &everything)?;
    pki::append_programs(&directory.programs_file(), &[line])?;
    let issued = directory.issue_client(PeerUri::program(PROGRAM)?, PROGRAM, DEFAULT_DAYS)?;
    let identity = (issued.certificate_pem.as_str(), issued.key_pem.expose());
    let config = trust::tls::client_config(directory.certificate_pem(), Some(identity), &[])?;
    Ok(Arc::new(config))
}

/// One ward with a patient and a device a bed, each device assigned to its patient.
fn add_ward(site: &Site, beds: usize) -> anyhow::Result<(Vec<DeviceId>, Vec<PatientId>)> {
    let now = site.clock().now();
    let id = || trust::uuid_v7(u64::try_from(now.as_millis()).unwrap_or(0));
    let since = Timestamp::from_seconds(now.as_seconds()).minus(ASSIGNED_FOR);
    let ward = Place { id: PlaceId::from_uuid(id()), name: "Ward".into(), kind: PlaceKind::Ward, ward: None };
    site.add_place(Actor::System, ward.clone())?;
    let (mut devices, mut patients) = (Vec::with_capacity(beds), Vec::with_capacity(beds));
    for number in 1..=beds {
        let bed = Place {
            id: PlaceId::from_uuid(id()),
            name: format!("Bed {number:04}"),
            kind: PlaceKind::Bed,
            ward: Some(ward.id),
        };
        site.add_place(Actor::System, bed.clone())?;
        let patient = Patient {
            id: PatientId::from_uuid(id()),
            family: Private::new(format!("Measured {number:04}")),
            given: Private::new("Nobody".to_owned()),
            birth_date: None,
            gender: Gender::Unknown,
            record_number: Private::new(format!("M{number:05}")),
            place: Some(bed.id),
            active: true,
        };
        let patient = site.add_patient(Actor::System, patient)?;
        let device = Device {
            id: DeviceId::from_uuid(id()),
            name: format!("Load {number:04}"),
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
        patients.push(patient.id);
    }
    Ok((devices, patients))
}
