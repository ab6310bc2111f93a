//! What is true: readings, waveforms, events, devices, patients, assignments and alerts, with their ids, units, codes and times.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time arrives as an argument and new
//! identifiers are built from bytes that an edge supplies.
//!
//! Reading order: [`time`], [`decimal`], [`id`], [`measure`] (the one table of codes), [`unit`],
//! [`decoded`] (what a device said), [`finding`], [`reading`] (what we believe), [`validation`]
//! (the only way from one to the other), then the records of people, things and alerts.

pub mod alert;
pub mod assignment;
pub mod consent;
pub mod decimal;
pub mod decoded;
pub mod device;
pub mod finding;
pub mod frame;
pub mod id;
pub mod measure;
pub mod patient;
pub mod place;
pub mod private;
pub mod quarantine;
pub mod reading;
pub mod time;
pub mod unit;
pub mod validation;

pub use alert::{Alert, AlertKind, AlertState, Priority};
pub use assignment::Assignment;
pub use consent::{
    Consent, ConsentAction, ConsentActor, ConsentStatus, DataClass, Provision, Purpose, Ruling,
};
pub use decimal::Decimal;
pub use decoded::{Decoded, DecodedEvent, DecodedScalar, DecodedValue, DecodedWaveform, DeviceTime};
pub use device::{ClockRule, Device};
pub use finding::Findings;
pub use frame::{Delivery, Frame, FrameKind};
pub use id::{
    AlertId, AssignmentId, ConsentId, DeviceId, GlassId, PatientId, PlaceId, QuarantineId, RecordId, Subject,
    UserId,
};
pub use measure::{Measure, MeasureKind};
pub use patient::Patient;
pub use place::Place;
pub use private::Private;
pub use quarantine::{QuarantineItem, QuarantineReason};
pub use reading::{Absent, Committed, Event, Fact, Reading, SeriesKey, Value, Waveform};
pub use time::{CLOCK_STEP_ENDURED, Interval, Timestamp};
