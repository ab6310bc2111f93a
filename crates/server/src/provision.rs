//! Throw-away sites for the demonstration and the measurements: directories, people, patients, devices, certificates.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clinical_analytics::Limit;
use clinical_model::measure::{HEART_RATE, OXYGEN_SATURATION, RESPIRATORY_RATE};
use clinical_model::{
    Consent, ConsentActor, ConsentId, ConsentStatus, DeviceId, PatientId, Provision, Ruling, Timestamp,
};
use pipeline::Site;
use pipeline::audited::Act;
use rustls::ClientConfig;
use simulator::hospital::{Plan, Role};
use simulator::play::Credentials;
use store::{Actor, AuditAction, Expected};
use tempfile::TempDir;
use trust::Kek;
use trust::pki::PeerUri;
use trust::totp::TotpSecret;
use web_api::people::User;
use web_api::{NewUser, Ways, Web};

use crate::config::Config;
use crate::keys;
use crate::pki::{DEFAULT_DAYS, PkiDirectory};

/// Groups of five letters in a random password: 100 bits.
const PASSWORD_GROUPS: usize = 4;
/// Patients of the demonstration whose limits are tight, so that alerts occur.
const TIGHT_LIMIT_PATIENTS: usize = 3;

/// An encrypted data directory with its key elsewhere; both vanish with this value unless they are kept.
pub struct ThrowAway {
    /// Settings: loopback, free device ports, this directory.
    pub config: Config,
    kept: Option<PathBuf>,
    _directories: Vec<TempDir>,
}

impl ThrowAway {
    /// Makes directories and key; in `keep` where that is given, which must be empty or new.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(site: &str, keep: Option<&Path>) -> anyhow::Result<(ThrowAway, Kek)> {
        match keep {
            Some(keep) => {
                let occupied = std::fs::read_dir(keep).is_ok_and(|mut entries| entries.next().is_some());
                anyhow::ensure!(
                    !occupied,
                    "{} is not empty; name an empty or a new directory",
                    keep.display()
                );
                crate::pki::make_private_directory(keep)?;
                let (data, key) = (keep.join("data"), keep.join("key"));
                let (mut made, kek) = Self::at(site, data, key, Vec::new())?;
                made.kept = Some(keep.to_owned());
                Ok((made, kek))
            }
            None => Self::make_in(&std::env::temp_dir(), site),
        }
    }

    /// Makes the data directory in `base`, on whatever disk that is, and the key elsewhere.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make_in(base: &Path, site: &str) -> anyhow::Result<(ThrowAway, Kek)> {
        let data = temporary("auscult-data-", base)?;
        let key = temporary("auscult-key-", &std::env::temp_dir())?;
        let (data_path, key_path) = (data.path().to_owned(), key.path().join("key"));
        Self::at(site, data_path, key_path, vec![data, key])
    }

    fn at(
        site: &str,
        data: PathBuf,
        key: PathBuf,
        directories: Vec<TempDir>,
    ) -> anyhow::Result<(ThrowAway, Kek)> {
        let kek = keys::generate(&key)?;
        let mut config = Config::default();
        config.site.name = site.to_owned();
        config.site.data_dir = data;
        config.key.file = Some(key);
        config.mqtt.listen.set_port(0);
        config.devices.listen.set_port(0);
        Ok((ThrowAway { config, kept: None, _directories: directories }, kek))
    }

    /// Where it is kept.
    pub fn kept(&self) -> Option<&Path> {
        self.kept.as_deref()
    }
}

fn temporary(prefix: &str, base: &Path) -> anyhow::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(base)
        .with_context(|| format!("no temporary directory can be made in {}", base.display()))
}

/// A password that nobody guesses and everybody can type.
pub fn random_password() -> String {
    trust::recovery::readable(PASSWORD_GROUPS).expose().to_owned()
}

/// One person a role, who cannot sign in yet. Blocks.
///
/// # Errors
/// When one cannot be kept.
pub fn add_people(web: &Web, patient: Option<PatientId>) -> anyhow::Result<Vec<User>> {
    use web_api::Role as WebRole;
    let people = [
        ("nurse", "Demo Nurse", WebRole::Nurse),
        ("physician", "Demo Physician", WebRole::Physician),
        ("admin", "Demo Administrator", WebRole::Administrator),
        ("auditor", "Demo Auditor", WebRole::Auditor),
        ("biomed", "Demo Biomedical Engineer", WebRole::BiomedicalEngineer),
        ("caregiver", "Demo Caregiver", WebRole::Caregiver),
        ("integrator", "Demo Integrator", WebRole::Integrator),
    ];
    let themselves = patient.map(|patient| ("patient", "Demo Patient", WebRole::Patient, Some(patient)));
    let people = people.into_iter().map(|(name, display, role)| (name, display, role, None));
    let mut added = Vec::new();
    for (name, display, role, patient) in people.chain(themselves) {
        let new = NewUser {
            name: name.to_owned(),
            display: display.to_owned(),
            role,
            wards: None,
            care_teams: Vec::new(),
            patient,
        };
        let user = web.add_user(Actor::System, new);
        added.push(user.with_context(|| format!("the user {name} cannot be added"))?);
    }
    Ok(added)
}

/// Gives people a password and the secret of an authenticator app. Blocks.
///
/// # Errors
/// When one cannot be kept.
pub fn equip(web: &Web, people: &[User], password: &str, totp: &TotpSecret) -> anyhow::Result<()> {
    for user in people {
        let ways = Ways { password: Some(password), totp: Some(totp.clone()), passkey: None };
        let equipped = web.equip(Actor::System, user.id, ways);
        equipped.with_context(|| format!("{} cannot be equipped", user.name))?;
    }
    Ok(())
}

/// Writes down that a patient named a caregiver, who then sees everything of them. Blocks.
///
/// # Errors
/// When it cannot be kept.
pub fn name_caregiver(site: &Site, patient: PatientId, caregiver: &User) -> anyhow::Result<()> {
    let provision =
        Provision { actors: vec![ConsentActor::Caregiver(caregiver.id)], ..Provision::of(Ruling::Permit) };
    let consent = Consent {
        id: ConsentId::from_bytes(pipeline::new_id(site.clock().now())),
        patient,
        status: ConsentStatus::Active,
        dated_at: Some(site.clock().now()),
        base: None,
        provision: Some(provision),
    };
    let resource = health_codecs::fhir::consent::render(&consent, Some(&format!("Patient/{patient}")));
    let act = Act::new(Actor::System, AuditAction::Consent, "Consent").patient(patient);
    site.put_consent(act, consent, &resource, Expected::Absent).context("a consent cannot be kept")?;
    Ok(())
}

/// Places, patients, devices and assignments of a plan; then tight limits for a few patients. Blocks.
///
/// # Errors
/// When one cannot be kept.
pub fn add_hospital(site: &Site, plan: &Plan, since: Timestamp) -> anyhow::Result<()> {
    for place in &plan.places {
        site.add_place(Actor::System, place.clone()).context("a place cannot be added")?;
    }
    for patient in &plan.patients {
        site.add_patient(Actor::System, patient.clone()).context("a patient cannot be added")?;
    }
    for planned in plan.devices() {
        site.add_device(Actor::System, planned.device.clone())
            .with_context(|| format!("{} cannot be added", planned.device.name))?;
    }
    for assignment in plan.assignments(since) {
        site.assign(Actor::System, assignment).context("a device cannot be assigned")?;
    }
    for patient in patients_to_watch(plan) {
        site.set_limits(Actor::System, patient, tight_limits()).context("limits cannot be set")?;
    }
    Ok(())
}

/// Patients whose recordings have something to show: those with scenes first.
fn patients_to_watch(plan: &Plan) -> Vec<PatientId> {
    let telemetry = |with_scenes: bool| {
        plan.devices().iter().filter_map(move |planned| match &planned.role {
            Role::Telemetry { scenes, .. } if scenes.is_empty() != with_scenes => {
                planned.assigned_to?.patient()
            }
            _ => None,
        })
    };
    telemetry(true).chain(telemetry(false)).take(TIGHT_LIMIT_PATIENTS).collect()
}

/// The limits for adults, so tight that ordinary restlessness is an alert.
fn tight_limits() -> Vec<Limit> {
    let mut limits = Limit::adult_defaults();
    for limit in &mut limits {
        if limit.measure == HEART_RATE {
            (limit.low, limit.high) = (Some(60.0), Some(85.0));
        } else if limit.measure == OXYGEN_SATURATION {
            limit.low = Some(95.0);
        } else if limit.measure == RESPIRATORY_RATE {
            limit.high = Some(22.0);
        }
    }
    limits
}

/// A certificate for each device, ready to connect with. Blocks.
///
/// # Errors
/// When one cannot be issued.
pub fn credentials(
    pki: &PkiDirectory,
    devices: impl IntoIterator<Item = (DeviceId, String)>,
) -> anyhow::Result<Credentials> {
    let mut configs: HashMap<DeviceId, Arc<ClientConfig>> = HashMap::new();
    for (device, name) in devices {
        let issued = pki.issue_client(PeerUri::Device(*device.as_uuid()), &name, DEFAULT_DAYS)?;
        let identity = (issued.certificate_pem.as_str(), issued.key_pem.expose());
        let config = trust::tls::client_config(pki.certificate_pem(), Some(identity), &[])
            .with_context(|| format!("the certificate of {name} cannot be used"))?;
        configs.insert(device, Arc::new(config));
    }
    Ok(Arc::new(move |device| configs.get(&device).cloned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_strong_and_new_each_time() {
        let password = random_password();
        assert_eq!(password.len(), 23, "{password}");
        assert!(password.chars().all(|c| c == '-' || trust::recovery::LETTERS.contains(&(c as u8))));
        trust::password::check_strength(&password, "nurse").unwrap();
        assert_ne!(password, random_password());
    }

    #[test]
    fn tight_limits_make_sense() {
        for limit in tight_limits() {
            limit.check().unwrap();
        }
        assert_eq!(patients_to_watch(&Plan::seeded(1, 24, 12)).len(), TIGHT_LIMIT_PATIENTS);
    }

    #[test]
    fn a_directory_in_use_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("mine"), "x").unwrap();
        assert!(ThrowAway::make("Demo", Some(directory.path())).is_err());
        let (made, kek) = ThrowAway::make("Demo", None).unwrap();
        let loaded = keys::load(&made.config.key, &made.config.site.data_dir).unwrap();
        assert_eq!(loaded.fingerprint_text(), kek.fingerprint_text());
        let (data, key) = (made.config.site.data_dir.clone(), made.config.key.file.clone().unwrap());
        drop(made);
        assert!(!data.exists() && !key.exists(), "both vanish");
    }
}
