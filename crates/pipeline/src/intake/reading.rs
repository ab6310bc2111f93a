//! Reading a frame: bytes to measurements, measurements to facts or to quarantine. Nothing is kept here.

use super::*;

/// Bytes to measurements, by the codec of their language; and whom an entry names as its subject, where it does.
/// Also the device's count of its messages, where it sends one.
pub(super) fn decode(kind: FrameKind, bytes: &[u8]) -> DecodedEntries {
    match kind {
        FrameKind::Gatt(_) | FrameKind::Envelope => {
            let decoded = device_codecs::decode(kind, bytes);
            (decoded.entries.into_iter().map(|entry| (entry, None)).collect(), decoded.message_number)
        }
        FrameKind::Fhir => {
            (health_codecs::fhir::read_frame(bytes).entries.into_iter().map(entry_of).collect(), None)
        }
    }
}

/// What the entries of a frame say, each with whom it names as its subject; and the device's count of its messages.
pub(super) type DecodedEntries = (Vec<(DecodedEntry, Option<String>)>, Option<u32>);

pub(super) fn entry_of(entry: ForeignEntry) -> (DecodedEntry, Option<String>) {
    let named = entry.result.as_ref().ok().and_then(|observation| observation.subject.clone());
    let result = entry.result.map(|observation| observation.decoded);
    (DecodedEntry { span: entry.span, result }, named)
}

/// Lets facts pass that are about whom the sender named. What a device says about itself is about the device, whoever
/// is named; anything else must not be charted to another than was meant.
pub(super) fn about(named: Option<&str>, facts: Vec<Fact>) -> Result<Vec<Fact>, Refused> {
    let Some(named) = named else { return Ok(facts) };
    let other = facts.iter().map(|fact| fact.series().subject).find(|subject| {
        let reference = match subject {
            Subject::Device(_) => return false,
            Subject::Patient(id) => format!("Patient/{id}"),
            Subject::Place(id) => format!("Location/{id}"),
        };
        !named.eq_ignore_ascii_case(&reference)
    });
    match other {
        None => Ok(facts),
        Some(_) => Err(Refused {
            reason: QuarantineReason::WrongSubject,
            what: "the sender names another subject than the device was assigned to then; mend the assignment and run \
                   it again, or discard it"
                .to_owned(),
            offset: 0,
        }),
    }
}

/// Why an entry goes to quarantine.
pub(super) struct Refused {
    pub reason: QuarantineReason,
    pub what: String,
    pub offset: usize,
}

/// All of an entry, or nothing: an entry is never half taken.
pub(super) fn believe(entry: DecodedEntry, moment: &Moment<'_>) -> Result<Vec<Fact>, Refused> {
    let start = entry.span.start;
    let decoded: Vec<Decoded> = entry.result.map_err(|fault| Refused {
        reason: QuarantineReason::Undecodable,
        what: fault.to_string(),
        offset: fault.offset.saturating_sub(start),
    })?;
    let refuse = |rejection: Rejection| Refused {
        reason: rejection.reason(),
        what: match std::error::Error::source(&rejection) {
            Some(cause) => format!("{rejection}: {cause}"),
            None => rejection.to_string(),
        },
        offset: 0,
    };
    decoded.into_iter().map(|one| validate(one, moment).map_err(refuse)).collect()
}

/// Whether only the time of receipt says when it was measured.
pub(super) fn is_untimed(decoded: &Decoded) -> bool {
    let (time, findings) = match decoded {
        Decoded::Scalar(scalar) => (scalar.time, scalar.findings),
        Decoded::Waveform(waveform) => (waveform.time, waveform.findings),
        Decoded::Event(event) => (event.time, Findings::empty()),
    };
    time == DeviceTime::Unknown || findings.contains(Findings::CLOCK_NOT_SET)
}

/// The id comes from sender and bytes, so that a repeat of the same trouble is the same item. Where the bytes do not say
/// when, the time of receipt belongs to it: 72 beats a minute at noon and 72 at night are two readings, and neither may
/// vanish behind the other.
pub(super) fn quarantine_item(
    frame: &Frame,
    bytes: &[u8],
    untimed: bool,
    refused: Refused,
) -> QuarantineItem {
    let kind = frame.kind.to_string();
    let received_ms = if untimed { frame.received_at.as_millis().to_be_bytes().to_vec() } else { Vec::new() };
    let digest = trust::digest::sha256(&[
        frame.device.as_uuid().as_bytes(),
        kind.as_bytes(),
        bytes,
        received_ms.as_slice(),
    ]);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    QuarantineItem {
        id: QuarantineId::from_bytes(id),
        device: frame.device,
        kind: frame.kind,
        received_at: frame.received_at,
        at_most_once: frame.delivery == Delivery::AtMostOnce,
        reason: refused.reason,
        what: refused.what,
        offset: refused.offset,
        state: QuarantineState::Waiting,
        bytes: bytes.to_vec(),
    }
}

pub(super) fn address(fact: &Fact) -> FactAddress {
    let (at, sequence) = match fact {
        Fact::Reading(reading) => (reading.measured_at(), reading.sequence()),
        Fact::Waveform(waveform) => (waveform.start, 0),
        Fact::Event(event) => (event.at, event.sequence),
    };
    FactAddress { series: fact.series(), at, sequence }
}

/// What validation asks about the moment of one frame.
pub(super) struct Moment<'a> {
    pub registry: &'a Registry,
    pub previous: &'a Mutex<PreviousValues>,
    pub device: &'a Device,
    pub frame: &'a Frame,
}

impl Context for Moment<'_> {
    fn device(&self) -> &Device {
        self.device
    }

    fn received_at(&self) -> Timestamp {
        self.frame.received_at
    }

    fn delivery(&self) -> Delivery {
        self.frame.delivery
    }

    fn subject_at(&self, at: Timestamp) -> Option<Subject> {
        self.registry.subject_at(self.device.id, at)
    }

    fn previous(&self, series: &SeriesKey) -> Option<(Timestamp, Decimal)> {
        self.previous.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(series)
    }
}
