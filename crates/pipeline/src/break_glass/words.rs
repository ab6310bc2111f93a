//! The words of breaking the glass: reasons, findings, the record that is kept, and why something is refused.

use clinical_model::{GlassId, PatientId, Private, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use store::StoreError;

use super::{REVIEW_WITHIN, TEXT_CHARS};
use crate::desk::DeskError;

/// Why a glass was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// An emergency.
    Emergency,
    /// The patient cannot say whether they agree.
    Unconscious,
    /// Standing in for somebody.
    Cover,
    /// The patient comes or goes to another ward.
    Transfer,
    /// Something else; the text says what.
    Other,
}

impl Reason {
    /// Every one.
    pub const ALL: &'static [Reason] =
        &[Reason::Emergency, Reason::Unconscious, Reason::Cover, Reason::Transfer, Reason::Other];

    /// The code.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::Emergency => "emergency",
            Reason::Unconscious => "unconscious",
            Reason::Cover => "cover",
            Reason::Transfer => "transfer",
            Reason::Other => "other",
        }
    }

    /// What a person reads.
    pub const fn display(self) -> &'static str {
        match self {
            Reason::Emergency => "Emergency",
            Reason::Unconscious => "The patient cannot be asked",
            Reason::Cover => "Standing in for a colleague",
            Reason::Transfer => "The patient is being moved",
            Reason::Other => "Another reason",
        }
    }
}

/// What a review found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// It was right to look.
    Justified,
    /// It was not.
    NotJustified,
}

impl Finding {
    /// The code.
    pub const fn code(self) -> &'static str {
        match self {
            Finding::Justified => "justified",
            Finding::NotJustified => "not-justified",
        }
    }
}

/// How a broken glass was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// What was found.
    pub finding: Finding,
    /// In words.
    pub note: Private<String>,
    /// When.
    pub at: Timestamp,
    /// By whom; never whoever broke it.
    pub by: UserId,
}

/// One glass that somebody broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Our id.
    pub id: GlassId,
    /// For which patient.
    pub patient: PatientId,
    /// By whom.
    pub by: UserId,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub text: Private<String>,
    /// When.
    pub opened_at: Timestamp,
    /// First instant at which it no longer stands.
    pub until: Timestamp,
    /// When it was ended before its time.
    pub ended_at: Option<Timestamp>,
    /// When it was said that its review is overdue.
    pub escalated_at: Option<Timestamp>,
    /// The review.
    pub review: Option<Review>,
}

impl BreakGlass {
    /// Whether it stands at an instant. A clock that was set back far makes it end, not last.
    pub fn stands_at(&self, at: Timestamp) -> bool {
        self.ended_at.is_none() && at < self.until && !self.opened_at.is_ahead_of(at)
    }

    /// When its review is due.
    pub fn review_due_at(&self) -> Timestamp {
        self.opened_at.plus(REVIEW_WITHIN)
    }

    /// Whether its review is overdue at an instant.
    pub fn is_overdue_at(&self, at: Timestamp) -> bool {
        self.review.is_none() && self.review_due_at() <= at
    }
}

/// What became of a broken glass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GlassState {
    /// It was broken.
    Opened,
    /// It was ended before its time.
    Ended,
    /// Its review is overdue.
    Overdue,
    /// It was reviewed.
    Reviewed,
}

impl GlassState {
    pub(super) fn of(glass: &BreakGlass) -> Self {
        match glass {
            BreakGlass { review: Some(_), .. } => GlassState::Reviewed,
            BreakGlass { escalated_at: Some(_), .. } => GlassState::Overdue,
            BreakGlass { ended_at: Some(_), .. } => GlassState::Ended,
            _ => GlassState::Opened,
        }
    }

    /// The code.
    pub const fn code(self) -> &'static str {
        match self {
            GlassState::Opened => "opened",
            GlassState::Ended => "ended",
            GlassState::Overdue => "overdue",
            GlassState::Reviewed => "reviewed",
        }
    }
}

/// Which of them a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Without a review.
    Open,
    /// Reviewed.
    Closed,
}

/// What somebody says who breaks the glass.
#[derive(Clone, Debug)]
pub struct Request {
    /// The exact record number.
    pub record_number: Private<String>,
    /// The birth date; `None` finds only patients of whom none is known.
    pub birth_date: Option<Private<String>>,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub text: Private<String>,
}

/// Why a glass was not broken, ended or reviewed.
#[derive(Debug, thiserror::Error)]
pub enum GlassError {
    /// Nobody has both the record number and the birth date.
    #[error("no patient has this record number and this birth date")]
    NoPatient,
    /// Too many tries.
    #[error(
        "too many tries without finding a patient; ask somebody who knows the record number, or wait an hour"
    )]
    TooManyTries,
    /// Nothing or too much was said.
    #[error("the {what} must have {} to {} characters", TEXT_CHARS.start(), TEXT_CHARS.end())]
    Text {
        /// The reason or the note.
        what: &'static str,
    },
    /// They see the patient already.
    #[error("you see this patient already; nothing has to be lifted")]
    NotNeeded,
    /// Nobody reviews themselves.
    #[error("who broke the glass cannot review it")]
    Own,
    /// It is still broken.
    #[error("the glass is still broken; review it when it has ended")]
    StillStands,
    /// It was dealt with already.
    #[error("it was reviewed or ended already")]
    Over,
    /// Something at the desk.
    #[error("it could not be kept")]
    Desk(#[source] DeskError),
}

impl From<StoreError> for GlassError {
    fn from(error: StoreError) -> Self {
        GlassError::Desk(DeskError::Store(error))
    }
}
