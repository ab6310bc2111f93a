//! What happens to a reading: decode, identify, validate, commit, acknowledge; then chart, alert and show.
//!
//! Read in this order: [`intake`] is the way of one frame from the wire to the disk; [`queue`] is where it waits,
//! fair and bounded, and [`shedding`] what gives way there; [`commit`] makes one commit of many frames; [`after`] carries committed facts to alerts and live screens; [`registry`]
//! knows devices, places, patients and assignments; [`desk`] holds the acts of people; [`chart`] reads back.

pub mod admission;
pub mod after;
pub mod alarms;
mod audit_group;
pub mod audited;
pub mod break_glass;
pub mod chart;
pub mod checkpoints;
pub mod clock;
pub mod cluster;
pub mod commit;
pub mod consents;
pub mod corrections;
pub mod desk;
pub mod enrolment;
pub mod erasure;
pub mod gaps;
pub mod holds;
pub mod identifiers;
pub mod intake;
pub mod line;
pub mod live;
#[cfg(feature = "planted")]
mod planted;
pub mod queue;
pub mod records;
pub mod registry;
pub mod rekeying;
pub mod restored;
pub mod retention;
pub mod search;
pub mod shedding;
pub mod site;
pub mod together;
pub mod witness;

pub use admission::{Admission, AdmissionRefused, Peer, PeerCertificate};
pub use clock::{Clock, SystemClock, new_id};
pub use intake::{EntryOutcome, FactAddress, Intake, IntakeError, Pending, Receipt};
pub use registry::Registry;
pub use site::{Site, SiteOptions};
