//! Admission: which device or program a client certificate stands for, and whether it may still send.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};

use access::scopes::{Ceiling, Cruds, Scopes};
use clinical_model::DeviceId;
use tokio::sync::watch;

use crate::registry::Registry;

/// Prefix of the URI in a device's certificate; the device's UUID follows.
pub const DEVICE_URI_PREFIX: &str = "urn:auscult:device:";
/// Certificates of devices whose use waits to be written down; one that finds no place is noted when it is used again.
const USES_LIMIT: usize = 1_024;
/// Prefix of the URI in a program's certificate; the program's name follows.
pub const PROGRAM_URI_PREFIX: &str = "urn:auscult:program:";

/// What a program may do whose registration does not say it: read and search.
pub const DEFAULT_PROGRAM_SCOPE: &str = "system/*.rs";
/// The least that a program must be allowed to hand in measurements: what it hands in becomes Observations.
pub const SENDING_SCOPE: &str = "system/Observation.c";

/// What is used of a client certificate that the TLS handshake has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The URI subject alternative name.
    pub uri: String,
    /// Serial number in lower-case hexadecimal.
    pub serial_hex: String,
    /// Subject common name, for messages to people.
    pub common_name: String,
}

/// Who is at the other end, proven by certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A device; may send as itself only.
    Device(DeviceId),
    /// A program; may send for any device, where its scopes let it: [`Admission::admit_sender`].
    Program(String),
}

/// Why a certificate is not admitted although its chain is sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionRefused {
    /// The device is not registered here.
    #[error("device {device} is not registered here; register it and connect again")]
    UnknownDevice {
        /// The id in the certificate.
        device: DeviceId,
    },
    /// The device was taken out of service.
    #[error("device {device} is retired")]
    Retired {
        /// The id in the certificate.
        device: DeviceId,
    },
    /// The certificate was revoked.
    #[error("certificate {serial_hex} is revoked")]
    Revoked {
        /// Its serial number.
        serial_hex: String,
    },
    /// A program whose scopes do not let it hand in measurements.
    #[error("the program {program} has no scope to send measurements: it needs {SENDING_SCOPE}")]
    MayNotSend {
        /// Its name.
        program: String,
    },
    /// The certificate names neither a device nor a program of ours.
    #[error("the certificate's URI \"{uri}\" names neither a device ({DEVICE_URI_PREFIX}…) nor a program")]
    NotForUs {
        /// What it names, cut to 200 characters.
        uri: String,
    },
}

/// Decides who may send.
#[derive(Clone)]
pub struct Admission {
    registry: Arc<Registry>,
    known: Arc<Known>,
}

/// What all clones share.
struct Known {
    revoked: RwLock<BTreeSet<String>>,
    programs: RwLock<BTreeMap<String, Registration>>,
    unregistered: Arc<[String]>,
    changes: watch::Sender<u64>,
    uses: Uses,
}

/// A device and the serial number of the certificate that it came with.
pub(crate) type CertificateUse = (DeviceId, String);

/// Which certificate each device came with last, as far as this node knows.
struct Uses {
    last: RwLock<HashMap<DeviceId, String>>,
    to_note: SyncSender<CertificateUse>,
}

impl Uses {
    fn note(&self, device: DeviceId, serial_hex: &str) {
        let is_known =
            |last: &HashMap<DeviceId, String>| last.get(&device).is_some_and(|one| one == serial_hex);
        if is_known(&self.last.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        if !is_known(&last) && self.to_note.try_send((device, serial_hex.to_owned())).is_ok() {
            last.insert(device, serial_hex.to_owned());
        }
    }
}

/// What a registered program may do.
#[derive(Debug, PartialEq, Eq)]
struct Registration {
    scopes: Arc<[String]>,
    /// Whether the scopes let it hand in measurements; looked up before each frame, so worked out once.
    may_send: bool,
}

impl Registration {
    fn of(scopes: Vec<String>) -> Self {
        Registration { may_send: may_send(&scopes), scopes: Arc::from(scopes) }
    }
}

/// Whether scopes open the creation of Observations of every category: what a frame holds is not known before it is
/// decoded, so a scope of one category does not do. What cannot be read opens nothing.
fn may_send(scopes: &[String]) -> bool {
    let read = scopes.join(" ").parse::<Scopes>().unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "the scopes of a program cannot be read");
        Scopes::default()
    });
    Ceiling { scopes: read, patient: None }.reach("Observation", Cruds::CREATE).is_everything()
}

impl Admission {
    /// Over the registry of devices; nothing is revoked yet. With what tells which certificates come into use.
    pub(crate) fn new(registry: Arc<Registry>) -> (Self, Receiver<CertificateUse>) {
        let (to_note, uses) = sync_channel(USES_LIMIT);
        let known = Known {
            uses: Uses { last: RwLock::default(), to_note },
            revoked: RwLock::default(),
            programs: RwLock::default(),
            unregistered: Arc::from([DEFAULT_PROGRAM_SCOPE.to_owned()]),
            changes: watch::Sender::new(0),
        };
        (Admission { registry, known: Arc::new(known) }, uses)
    }

    /// Replaces the set of revoked serial numbers (lower-case hexadecimal). Live connections are told at once, see
    /// [`Admission::changes`].
    pub fn set_revoked(&self, serials: impl IntoIterator<Item = String>) {
        let serials: BTreeSet<String> = serials.into_iter().collect();
        let mut revoked = self.known.revoked.write().unwrap_or_else(PoisonError::into_inner);
        if *revoked != serials {
            *revoked = serials;
            drop(revoked);
            self.note_change();
        }
    }

    /// Replaces what registered programs may do: SMART system scopes by name. Live connections are told at once, see
    /// [`Admission::changes`].
    pub fn set_program_scopes(&self, programs: impl IntoIterator<Item = (String, Vec<String>)>) {
        let programs = programs.into_iter().map(|(name, scopes)| (name, Registration::of(scopes))).collect();
        let mut known = self.known.programs.write().unwrap_or_else(PoisonError::into_inner);
        if *known != programs {
            *known = programs;
            drop(known);
            self.note_change();
        }
    }

    /// The SMART system scopes of a program; [`DEFAULT_PROGRAM_SCOPE`] where it is not registered.
    pub fn program_scopes(&self, name: &str) -> Arc<[String]> {
        let programs = self.known.programs.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(programs.get(name).map_or(&self.known.unregistered, |program| &program.scopes))
    }

    /// Whether whoever was admitted may hand in measurements: a device its own, a program where its scopes let it
    /// create Observations.
    ///
    /// # Errors
    /// [`AdmissionRefused::MayNotSend`].
    pub fn may_send(&self, peer: &Peer) -> Result<(), AdmissionRefused> {
        let Peer::Program(name) = peer else { return Ok(()) };
        let programs = self.known.programs.read().unwrap_or_else(PoisonError::into_inner);
        if programs.get(name).is_some_and(|program| program.may_send) {
            return Ok(());
        }
        Err(AdmissionRefused::MayNotSend { program: name.clone() })
    }

    /// Turns whenever somebody may be admitted no more, so that open connections ask again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.known.changes.subscribe()
    }

    /// Lets open connections ask again.
    pub fn note_change(&self) {
        self.known.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whom the certificate stands for.
    ///
    /// # Errors
    /// [`AdmissionRefused`].
    pub fn admit(&self, certificate: &PeerCertificate) -> Result<Peer, AdmissionRefused> {
        if self.is_revoked(&certificate.serial_hex) {
            return Err(AdmissionRefused::Revoked { serial_hex: certificate.serial_hex.clone() });
        }
        if let Some(name) = certificate.uri.strip_prefix(PROGRAM_URI_PREFIX) {
            return Ok(Peer::Program(name.to_owned()));
        }
        let not_for_us = || AdmissionRefused::NotForUs { uri: certificate.uri.chars().take(200).collect() };
        let id = certificate.uri.strip_prefix(DEVICE_URI_PREFIX).ok_or_else(not_for_us)?;
        let device: DeviceId = id.parse().map_err(|_| not_for_us())?;
        match self.registry.device(device) {
            None => Err(AdmissionRefused::UnknownDevice { device }),
            Some(known) if known.retired => Err(AdmissionRefused::Retired { device }),
            Some(_) => {
                self.known.uses.note(device, &certificate.serial_hex);
                Ok(Peer::Device(device))
            }
        }
    }

    /// As [`Admission::admit`], for whoever comes to hand in measurements.
    ///
    /// # Errors
    /// [`AdmissionRefused`].
    pub fn admit_sender(&self, certificate: &PeerCertificate) -> Result<Peer, AdmissionRefused> {
        let peer = self.admit(certificate)?;
        self.may_send(&peer).map(|()| peer)
    }

    /// Whether a certificate that was admitted to send would be admitted to it now: cheap, asked before each publish.
    pub fn may_still_send(&self, certificate: &PeerCertificate, peer: &Peer) -> bool {
        #[cfg(feature = "bench-off")]
        if trust::bench_off::is_off(trust::bench_off::Part::Authorisation) {
            return true;
        }
        !self.is_revoked(&certificate.serial_hex)
            && match peer {
                Peer::Device(device) => self.registry.device(*device).is_some_and(|known| !known.retired),
                Peer::Program(_) => self.may_send(peer).is_ok(),
            }
    }

    fn is_revoked(&self, serial_hex: &str) -> bool {
        self.known.revoked.read().unwrap_or_else(PoisonError::into_inner).contains(serial_hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scopes_that_create_every_observation_let_a_program_send() {
        for (scopes, sends) in [
            (&["system/*.cruds"][..], true),
            (&["system/Observation.c"], true),
            (&["system/Patient.r", "system/Observation.write"], true),
            (&[DEFAULT_PROGRAM_SCOPE], false),
            (&["system/Observation.ruds"], false),
            (&["system/Patient.cruds"], false),
            (&["system/Observation.cruds?category=vital-signs"], false),
            (&["patient/Observation.cruds"], false),
            (&["system/*.cruds", "nonsense"], false),
            (&[], false),
        ] {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            assert_eq!(may_send(&scopes), sends, "{scopes:?}");
        }
        assert!(may_send(&[SENDING_SCOPE.to_owned()]));
    }
}
