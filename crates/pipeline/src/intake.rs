//! Intake: the way of one frame from the wire to the disk — decode, identify, validate, commit, acknowledge.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use clinical_model::decoded::DecodedEntry;
use clinical_model::quarantine::QuarantineState;
use clinical_model::validation::{Context, Rejection, validate};
use clinical_model::{
    Decimal, Decoded, Delivery, Device, DeviceId, DeviceTime, Fact, Findings, Frame, FrameKind, QuarantineId,
    QuarantineItem, QuarantineReason, SeriesKey, Subject, Timestamp, UserId,
};
use health_codecs::fhir::foreign::{ForeignEntry, ForeignFrame};
use store::{AuditOutcome, AuditRecord, FrameRecord, Store};
use tokio::sync::oneshot;

use crate::admission::{Admission, AdmissionRefused, Peer, PeerCertificate};
use crate::audited::Act;
use crate::clock::Clock;
use crate::gaps::{Counted, MessageNumbers};
use crate::line::{EndsOn, Line};
use crate::live::Live;
use crate::queue::{CommitQueue, Patience, Submission};
use crate::registry::{PreviousValues, Registry};
use crate::shedding::{Bounds, Class, Load};

mod reading;

use reading::{
    DecodedEntries, Moment, about, address, believe, decode, entry_of, is_untimed, quarantine_item,
};

/// Largest frame in bytes: a minute of twelve leads at 500 Hz in the JSON envelope stays below it.
pub const FRAME_LIMIT_BYTES: usize = 1 << 20;

/// Most items that may wait in quarantine. A site that has so many must look at them before it takes more.
pub const QUARANTINE_LIMIT_ITEMS: u64 = 100_000;
/// Most bytes that may wait in quarantine.
pub const QUARANTINE_LIMIT_BYTES: u64 = 1 << 30;

/// Why a frame was not taken. Nothing of it was kept, and the sender must keep it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// The frame is too large.
    #[error("the frame has {size_bytes} bytes; at most {FRAME_LIMIT_BYTES} are taken, send it in parts")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// The device is not registered here.
    #[error("device {device} is not registered here; register it and send again")]
    UnknownDevice {
        /// Which.
        device: DeviceId,
    },
    /// The device was taken out of service.
    #[error("device {device} is retired")]
    Retired {
        /// Which.
        device: DeviceId,
    },
    /// The frame would have to be quarantined, and quarantine is full.
    #[error("the quarantine is full; somebody must look through it first, then send again")]
    QuarantineFull,
    /// The disk is full.
    #[error("the disk is full; send again later")]
    StorageFull,
    /// More comes than can be kept, and something more urgent goes first.
    #[error("more comes than the disk can keep, and {} data has to wait; keep it and send again", class.name())]
    Overloaded {
        /// What the frame holds.
        class: Class,
    },
    /// The device has its share of what may wait, and more of it has to wait at its sender.
    #[error("device {device} has its share of what may wait; keep it and send again")]
    Busy {
        /// Which.
        device: DeviceId,
    },
    /// The store refused it for another reason.
    #[error("the store could not keep it; send again later")]
    NotKept,
    /// The server is stopping.
    #[error("the server is stopping; send again later")]
    Stopping,
}

/// Where a fact is found: its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FactAddress {
    /// Its series.
    pub series: SeriesKey,
    /// Its instant.
    pub at: Timestamp,
    /// Its sequence.
    pub sequence: u32,
}

/// What became of one entry of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryOutcome {
    /// Committed to the chart.
    Committed {
        /// The facts of the entry, in order.
        facts: Vec<FactAddress>,
    },
    /// Committed to quarantine.
    Quarantined {
        /// Under which id.
        id: QuarantineId,
        /// Why.
        reason: QuarantineReason,
        /// A sentence for a person.
        what: String,
    },
}

/// What is known when a frame is on stable storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// Number of the group that carried it.
    pub group: u64,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
    /// One outcome an entry, in the frame's order.
    pub entries: Vec<EntryOutcome>,
    /// Whether the acts by which it came were recorded in the same commit.
    pub(crate) is_recorded: bool,
}

impl Receipt {
    /// Whether the acts by which the frame came were recorded in its own commit; then it is read back by
    /// [`crate::Site::read_back`], without a second record.
    pub fn is_recorded(&self) -> bool {
        self.is_recorded
    }
}

/// A frame on its way to the disk: resolves when it is there.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Receipt, IntakeError>>);

impl Future for Pending {
    type Output = Result<Receipt, IntakeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(IntakeError::Stopping)))
    }
}

/// The one way in for measurements, whatever the protocol.
#[derive(Clone)]
pub struct Intake {
    pub(crate) registry: Arc<Registry>,
    pub(crate) admission: Admission,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: CommitQueue,
    pub(crate) previous: Arc<Mutex<PreviousValues>>,
    pub(crate) numbers: Arc<Mutex<MessageNumbers>>,
    pub(crate) live: Live,
    pub(crate) quarantine_limit_items: u64,
    pub(crate) bounds: Bounds,
    pub(crate) line: Option<Line>,
}

impl Intake {
    /// The same intake for one connection, whose frames come one behind another: once one of them is refused such that
    /// the connection ends, those behind it are refused too, so that what is sent again stays in order.
    #[must_use]
    pub fn for_connection(&self, ends_on: EndsOn) -> Self {
        Intake { line: Some(Line::new(ends_on)), ..self.clone() }
    }

    /// The same intake with room for fewer waiting items than [`QUARANTINE_LIMIT_ITEMS`].
    #[must_use]
    pub fn with_quarantine_limit(mut self, items: u64) -> Self {
        self.quarantine_limit_items = items.min(QUARANTINE_LIMIT_ITEMS);
        self
    }

    /// Now, by the injected clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whom a verified certificate stands for, where that one may hand in measurements.
    ///
    /// # Errors
    /// [`AdmissionRefused`].
    pub fn admit_sender(&self, certificate: &PeerCertificate) -> Result<Peer, AdmissionRefused> {
        self.admission.admit_sender(certificate)
    }

    /// Turns whenever somebody may be admitted no more, so that open connections ask again.
    pub fn admission_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.admission.changes()
    }

    /// Whether a certificate that was admitted to send would be admitted to it now.
    pub fn may_still_send(&self, certificate: &PeerCertificate, peer: &Peer) -> bool {
        self.admission.may_still_send(certificate, peer)
    }

    /// Tells the live screens that a device's connection came up or was lost.
    pub fn device_status(&self, device: DeviceId, online: bool) {
        self.live.device_link(device, online, self.now());
    }

    /// The commands for a device, for the one connection that it has; a later call ends the earlier receiver.
    pub fn take_commands(&self, device: DeviceId) -> tokio::sync::mpsc::Receiver<Vec<u8>> {
        self.live.take_commands(device)
    }

    /// Decodes, identifies, validates and hands a frame to the commit, waiting for room in the queue. The answer
    /// resolves when it is on stable storage.
    ///
    /// # Errors
    /// [`IntakeError`] where it is refused before the commit.
    pub async fn submit(&self, frame: Frame) -> Result<Pending, IntakeError> {
        self.submit_as(frame, None, Patience::ByClass).await
    }

    /// As [`Intake::submit`], for a sender that can be told to come again: where its device has its share of the queue,
    /// it does not wait.
    ///
    /// # Errors
    /// As [`Intake::submit`]; [`IntakeError::Busy`] too.
    pub async fn submit_or_refuse(&self, frame: Frame) -> Result<Pending, IntakeError> {
        self.submit_as(frame, None, Patience::ByShare).await
    }

    /// As [`Intake::submit`], for a sender that cannot be told to come again: a frame that has to give way is held for
    /// `hold` before it is refused, and its sender held back with it.
    ///
    /// # Errors
    /// As [`Intake::submit`].
    pub async fn submit_patiently(&self, frame: Frame, hold: Duration) -> Result<Pending, IntakeError> {
        self.submit_as(frame, None, Patience::Hold(hold)).await
    }

    /// As [`Intake::submit`], for what was promised already: it waits for as long as it takes.
    ///
    /// # Errors
    /// As [`Intake::submit`], but never [`IntakeError::Overloaded`].
    pub async fn submit_promised(&self, frame: Frame) -> Result<Pending, IntakeError> {
        self.submit_as(frame, None, Patience::Endless).await
    }

    /// As [`Intake::submit_promised`], for an item that a person runs again from quarantine: the record of that is kept in
    /// the same commit, or neither is.
    pub(crate) async fn submit_released(
        &self,
        frame: Frame,
        released: (QuarantineId, UserId),
        record: AuditRecord,
    ) -> Result<Pending, IntakeError> {
        self.submit_as(frame, Some((released, record)), Patience::Endless).await
    }

    async fn submit_as(
        &self,
        frame: Frame,
        again: Option<((QuarantineId, UserId), AuditRecord)>,
        patience: Patience,
    ) -> Result<Pending, IntakeError> {
        if self.line.as_ref().is_some_and(Line::is_broken) {
            return Err(IntakeError::NotKept);
        }
        let submitted = self.hand_over(frame, again, patience).await;
        if let (Some(line), Err(refusal)) = (&self.line, &submitted) {
            line.note(refusal);
        }
        submitted
    }

    async fn hand_over(
        &self,
        frame: Frame,
        again: Option<((QuarantineId, UserId), AuditRecord)>,
        patience: Patience,
    ) -> Result<Pending, IntakeError> {
        let (released, record_of_it) = again.unzip();
        let (record, receipt, counted) = self.read(frame, released, Counting::On)?;
        remember(&self.previous, &record.facts);
        let class = Class::of(&record, &self.registry);
        let line = self.line.clone();
        let audit = record_of_it.into_iter().collect();
        let submission = Submission { record, receipt, class, counted, line, audit };
        self.queue.submit(submission, patience, &self.bounds, self.now()).await.map(Pending)
    }

    /// How much waits for the disk, and what had to give way.
    pub fn load(&self) -> Load {
        self.queue.load()
    }

    /// The same intake with other bounds for giving way.
    #[must_use]
    pub fn with_bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// What would become of each entry of a frame if it were submitted now; nothing is kept. For what is taken
    /// whole or not at all.
    ///
    /// # Errors
    /// [`IntakeError`] where it would be refused before the commit.
    pub fn preview(&self, frame: Frame) -> Result<Vec<EntryOutcome>, IntakeError> {
        self.read(frame, None, Counting::Off).map(|(_, receipt, _)| receipt.entries)
    }

    /// As [`Intake::preview`], for a frame of kind FHIR whose entries the caller has read already; what comes of it can be
    /// submitted as it is, and is not read again.
    ///
    /// # Errors
    /// As [`Intake::preview`].
    pub fn prepare(&self, frame: Frame, entries: ForeignFrame) -> Result<Prepared, IntakeError> {
        let decoded = (entries.entries.into_iter().map(entry_of).collect(), None);
        let (record, receipt, _) = self.judge(frame, None, Counting::Off, |_| decoded)?;
        Ok(Prepared { record, receipt })
    }

    /// As [`Intake::submit`], for what was prepared: it is charted as it was judged then.
    ///
    /// # Errors
    /// As [`Intake::submit`].
    pub async fn submit_prepared(&self, prepared: Prepared) -> Result<Pending, IntakeError> {
        self.submit_recorded(prepared, Vec::new()).await
    }

    /// As [`Intake::submit_prepared`], with the acts by which it came: they are recorded in its own commit, or neither
    /// is kept.
    ///
    /// # Errors
    /// As [`Intake::submit`].
    pub async fn submit_recorded(&self, prepared: Prepared, acts: Vec<Act>) -> Result<Pending, IntakeError> {
        let Prepared { record, mut receipt } = prepared;
        receipt.is_recorded = !acts.is_empty();
        let at = self.clock.now();
        let audit = acts.into_iter().map(|act| act.record(at, AuditOutcome::Success)).collect();
        self.heard_here(&record.frame);
        remember(&self.previous, &record.facts);
        let class = Class::of(&record, &self.registry);
        let submission = Submission { record, receipt, class, counted: None, line: None, audit };
        self.queue.submit(submission, Patience::ByClass, &self.bounds, self.now()).await.map(Pending)
    }

    /// The gap before a message, as a fact about whom the device is assigned to now; where it is nobody, nobody's data
    /// is missing.
    fn gap_before(&self, number: u32, moment: &Moment<'_>) -> (Option<Fact>, Counted) {
        let device = moment.device.id;
        let mut numbers = self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = numbers.last(device);
        let gap = numbers.observe(device, number, moment.frame.received_at);
        drop(numbers);
        let counted = Counted::new(Arc::clone(&self.numbers), device, number, before);
        (gap.and_then(|gap| validate(gap, moment).ok()), counted)
    }

    fn heard_here(&self, frame: &Frame) {
        let mut numbers = self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        numbers.heard_here(frame.device, frame.received_at);
    }

    /// What a frame would become, without committing anything.
    fn read(
        &self,
        frame: Frame,
        released: Option<(QuarantineId, UserId)>,
        counting: Counting,
    ) -> Result<(FrameRecord, Receipt, Option<Counted>), IntakeError> {
        self.judge(frame, released, counting, |frame| decode(frame.kind, &frame.bytes))
    }

    /// As [`Intake::read`], with what the entries of the frame say.
    fn judge(
        &self,
        frame: Frame,
        released: Option<(QuarantineId, UserId)>,
        counting: Counting,
        decoded: impl FnOnce(&Frame) -> DecodedEntries,
    ) -> Result<(FrameRecord, Receipt, Option<Counted>), IntakeError> {
        if frame.bytes.len() > FRAME_LIMIT_BYTES {
            return Err(IntakeError::TooLarge { size_bytes: frame.bytes.len() });
        }
        let device =
            self.registry.device(frame.device).ok_or(IntakeError::UnknownDevice { device: frame.device })?;
        if device.retired {
            return Err(IntakeError::Retired { device: frame.device });
        }
        let moment =
            Moment { registry: &self.registry, previous: &self.previous, device: &device, frame: &frame };
        let mut facts = Vec::new();
        let mut quarantined = Vec::new();
        let mut entries = Vec::new();
        let (decoded, number) = decoded(&frame);
        let mut counted = None;
        match (counting, number, released) {
            (Counting::On, Some(number), None) => {
                let (gap, this) = self.gap_before(number, &moment);
                facts.extend(gap);
                counted = Some(this);
            }
            (Counting::On, None, None) => self.heard_here(&frame),
            _ => {}
        }
        #[cfg(feature = "planted")]
        let decoded = crate::planted::spoil_identity(decoded, frame.received_at);
        for (entry, named) in decoded {
            let bytes = frame.bytes.get(entry.span.clone()).unwrap_or(&frame.bytes);
            let untimed = entry.result.as_ref().is_ok_and(|decoded| decoded.iter().any(is_untimed));
            match believe(entry, &moment).and_then(|facts| about(named.as_deref(), facts)) {
                Ok(believed) => {
                    entries.push(EntryOutcome::Committed { facts: believed.iter().map(address).collect() });
                    facts.extend(believed);
                }
                Err(refused) => {
                    let item = quarantine_item(&frame, bytes, untimed, refused);
                    entries.push(EntryOutcome::Quarantined {
                        id: item.id,
                        reason: item.reason,
                        what: item.what.clone(),
                    });
                    quarantined.push(item);
                }
            }
        }
        if !quarantined.is_empty() {
            let count = self.store.quarantine_count();
            if count.items >= self.quarantine_limit_items || count.bytes >= QUARANTINE_LIMIT_BYTES {
                return Err(IntakeError::QuarantineFull);
            }
        }
        // An item is released only when all of it went to the chart.
        let released = released.filter(|_| quarantined.is_empty()).into_iter().collect();
        let receipt = Receipt {
            group: 0,
            committed_at: frame.received_at,
            received_at: frame.received_at,
            entries,
            is_recorded: false,
        };
        Ok((FrameRecord { frame, facts, quarantined, released }, receipt, counted))
    }
}

/// A frame that was read and judged, and can be submitted as it is.
#[derive(Clone, Debug)]
pub struct Prepared {
    record: FrameRecord,
    receipt: Receipt,
}

impl Prepared {
    /// What will become of each entry.
    pub fn outcomes(&self) -> &[EntryOutcome] {
        &self.receipt.entries
    }

    /// The frame.
    pub const fn frame(&self) -> &Frame {
        &self.record.frame
    }
}

/// The fields of a frame with their meaning, for a person who looks at raw bytes.
pub fn explain(kind: FrameKind, bytes: &[u8]) -> Vec<device_codecs::ExplainedField> {
    device_codecs::explain(kind, bytes)
}

/// Whether a message's number counts: not when it is only tried, nor when it is run again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counting {
    On,
    Off,
}

/// Remembers the numbers of facts for the check of fast change.
pub(crate) fn remember(previous: &Mutex<PreviousValues>, facts: &[Fact]) {
    let mut previous = previous.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for fact in facts {
        if let Fact::Reading(reading) = fact
            && let Some(value) = reading.value().number()
        {
            previous.put(reading.series(), reading.measured_at(), value);
        }
    }
}
