//! The [`Care`] trait and its words: keys that are turned over, patients who are erased, and what is kept no longer.

use clinical_model::{DeviceId, Interval, PatientId, QuarantineItem, Timestamp};

use crate::StoreError;

/// A turn of the epoch of the key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekTurn {
    /// Fingerprint of the next key, 16 hexadecimal digits.
    pub to: String,
    /// Living nodes that do not hold the next key yet; data keys are wrapped anew once there are none.
    pub nodes_waiting: u64,
    /// Data keys that the next key wraps.
    pub done: u64,
    /// Data keys in all.
    pub all: u64,
}

/// A turn of the key of one patient, or of one purpose of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// Whose key; `None` for a purpose of the system.
    pub patient: Option<PatientId>,
    /// `patient/…` or `system/…`.
    pub domain: String,
    /// When it was asked for.
    pub begun_at: Timestamp,
    /// Rows sealed anew.
    pub done: u64,
    /// Rows that were sealed with earlier keys when it began.
    pub all: u64,
}

/// The state of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// Fingerprint of the key-encryption key in force, 16 hexadecimal digits.
    pub epoch: String,
    /// Since when; `None` where no epoch has turned yet.
    pub epoch_since: Option<Timestamp>,
    /// The turn that is under way.
    pub turn: Option<KekTurn>,
    /// Keys of patients, all versions.
    pub patient_keys: u64,
    /// Keys of the system, without those of the journal.
    pub system_keys: u64,
    /// Keys of the journal; each lives hours.
    pub journal_keys: u64,
    /// Turns of data keys that are under way, oldest first.
    pub rekeys: Vec<Rekey>,
}

/// A patient whose key was destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedPatient {
    /// Who; the random id says nothing.
    pub patient: PatientId,
    /// When the key was destroyed.
    pub begun_at: Timestamp,
    /// When the last row was gone; `None` while rows are being removed.
    pub purged_at: Option<Timestamp>,
    /// The epoch in which the key was destroyed: copies made in it open with its key-encryption key until that is
    /// destroyed.
    pub epoch: String,
    /// When that epoch ended; `None` while it is in force.
    pub epoch_ended_at: Option<Timestamp>,
}

/// What an erasure reaches beyond the patient's own rows: what devices sent while they were assigned to the patient.
#[derive(Clone, Debug, Default)]
pub struct ErasureScope {
    /// Devices and the times at which they were the patient's.
    pub devices: Vec<(DeviceId, Interval)>,
}

impl ErasureScope {
    /// Whether something that a device sent at an instant is in it.
    pub fn holds(&self, device: DeviceId, at: Timestamp) -> bool {
        self.devices.iter().any(|(each, interval)| *each == device && interval.contains(at))
    }
}

/// Rows by what they are, with their bytes and times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Blocks of readings.
    pub blocks: u64,
    /// Blocks of waveforms.
    pub curves: u64,
    /// Events.
    pub events: u64,
    /// Latest values.
    pub latest: u64,
    /// Bundles of raw frames.
    pub raw_frames: u64,
    /// Documents with all their versions.
    pub documents: u64,
    /// Quarantined items.
    pub quarantine: u64,
    /// Details of audit rows; the rows and their leaves stay.
    pub audit_details: u64,
    /// Sealed bytes of all of them.
    pub bytes: u64,
    /// The oldest measurement.
    pub oldest: Option<Timestamp>,
    /// The newest measurement.
    pub newest: Option<Timestamp>,
}

impl Rows {
    /// How many rows in all.
    pub fn total(&self) -> u64 {
        self.blocks
            + self.curves
            + self.events
            + self.latest
            + self.raw_frames
            + self.documents
            + self.quarantine
            + self.audit_details
    }

    /// Adds another count.
    pub fn add(&mut self, other: &Rows) {
        self.blocks += other.blocks;
        self.curves += other.curves;
        self.events += other.events;
        self.latest += other.latest;
        self.raw_frames += other.raw_frames;
        self.documents += other.documents;
        self.quarantine += other.quarantine;
        self.audit_details += other.audit_details;
        self.bytes += other.bytes;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
        self.newest = self.newest.max(other.newest);
    }
}

/// What is kept for a time of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeptClass {
    /// Waveforms, by the end of their samples.
    Waveforms,
    /// Readings, by their measured time.
    Readings,
    /// Events, by their time.
    Events,
    /// The exact bytes that devices sent, by time of receipt.
    RawFrames,
    /// Quarantined items that were dealt with, by time of receipt.
    Quarantine,
    /// What audit rows say beyond their plain columns; the rows and their leaves stay.
    AuditDetails,
}

/// What a class holds that is older than an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outdated {
    /// Rows that would go, or would be cut.
    pub rows: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// Patients whom they are about.
    pub patients: u64,
    /// The oldest.
    pub oldest: Option<Timestamp>,
    /// The newest.
    pub newest: Option<Timestamp>,
    /// Rows as old that stay because of a legal hold.
    pub held_rows: u64,
}

/// What one step of removing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Rows removed or cut.
    pub rows: u64,
    /// Sealed bytes that went with them.
    pub bytes: u64,
    /// Whether there may be more.
    pub more: bool,
}

/// Care of what is kept. Each step is bounded and may be repeated after a crash. All methods block.
pub trait Care {
    /// The state of the keys.
    ///
    /// # Errors
    /// [`StoreError`] on reading the key store.
    fn key_status(&self) -> Result<KeyStatus, StoreError>;

    /// Begins, or takes up again, a turn of the key-encryption key: the source makes the next key.
    ///
    /// # Errors
    /// [`StoreError::KeySource`] where the source cannot; [`StoreError`] on writing.
    fn begin_kek_turn(&self) -> Result<KekTurn, StoreError>;

    /// Wraps at most `limit_keys` data keys with the next key. When none is left the next key becomes the current one,
    /// the one before is destroyed, and `None` is given; also where no turn is under way.
    ///
    /// # Errors
    /// [`StoreError`]; the same again goes on where this ended.
    fn step_kek_turn(&self, limit_keys: usize, now: Timestamp) -> Result<Option<KekTurn>, StoreError>;

    /// Takes note of what another process did to the epoch: loads a next key that came, promotes one that is in force.
    ///
    /// # Errors
    /// [`StoreError`].
    fn follow_kek(&self, node: [u8; 16]) -> Result<(), StoreError>;

    /// Gives a patient a new key, used for everything written from now on; what earlier keys sealed follows in steps.
    ///
    /// # Errors
    /// [`StoreError`] on writing the key store.
    fn begin_rekey(&self, patient: PatientId, now: Timestamp) -> Result<Rekey, StoreError>;

    /// Seals at most `limit_rows` rows anew for the oldest turn that is under way, and destroys the earlier keys when
    /// none is left. `None` when there is nothing to do.
    ///
    /// # Errors
    /// [`StoreError`]; the same again goes on where this ended.
    fn step_rekey(&self, limit_rows: usize, now: Timestamp) -> Result<Option<Rekey>, StoreError>;

    /// What is kept of a patient.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn count_patient(&self, patient: PatientId, scope: &ErasureScope) -> Result<Rows, StoreError>;

    /// Destroys all keys of a patient, for good: from here on nothing of theirs can be read or written.
    ///
    /// # Errors
    /// [`StoreError`] on writing the key store.
    fn begin_erasure(&self, patient: PatientId, now: Timestamp) -> Result<ErasedPatient, StoreError>;

    /// Removes at most about `limit_rows` rows of an erased patient; `more` until nothing is left, journal included.
    ///
    /// # Errors
    /// [`StoreError`]; the same again goes on where this ended.
    fn step_erasure(
        &self,
        patient: PatientId,
        scope: &ErasureScope,
        limit_rows: usize,
    ) -> Result<(Rows, bool), StoreError>;

    /// Notes that nothing is left of an erased patient.
    ///
    /// # Errors
    /// [`StoreError`] on writing the key store.
    fn end_erasure(&self, patient: PatientId, now: Timestamp) -> Result<(), StoreError>;

    /// All erased patients, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn erasures(&self) -> Result<Vec<ErasedPatient>, StoreError>;

    /// What a class holds that is older than an instant, without what is about patients on hold.
    ///
    /// # Errors
    /// [`StoreError`] on reading.
    fn count_outdated(
        &self,
        class: KeptClass,
        before: Timestamp,
        held: &[PatientId],
    ) -> Result<Outdated, StoreError>;

    /// Removes at most about `limit_rows` rows of a class that are older than an instant. Blocks that reach beyond it
    /// are cut. `keep` says which quarantined items stay.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the step is changed then.
    fn remove_outdated(
        &self,
        class: KeptClass,
        before: Timestamp,
        held: &[PatientId],
        keep: &dyn Fn(&QuarantineItem) -> bool,
        limit_rows: usize,
        now: Timestamp,
    ) -> Result<Removed, StoreError>;

    /// Removes all earlier versions of documents, for good.
    ///
    /// # Errors
    /// [`StoreError`] on writing.
    fn forget_versions(&self, documents: &[(crate::Kind, [u8; 16])]) -> Result<(), StoreError>;
}
