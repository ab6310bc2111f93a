//! A session as handlers see it, and how fresh its proof is.

use clinical_model::{Timestamp, UserId};
use tokio::sync::watch;
use trust::TokenHash;

use super::{By, Caller, FRESH_SECOND_FACTOR, Stage};
use crate::people::Subject;
use crate::problem::{Code, Problem};

/// A session as a handler sees it.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub user: UserId,
    pub hash: TokenHash,
    pub expires_at: Timestamp,
    pub stage: Stage,
    pub by: By,
    /// When the second factor was last used in this session.
    pub second_factor_at: Option<Timestamp>,
    /// As whom an identity provider vouches for somebody who has still to prove themself here.
    pub vouched: Option<Subject>,
    /// Where it began.
    pub caller: Caller,
    /// Turns true when the session ends, for streams that outlive their request.
    pub ended: watch::Receiver<bool>,
}

impl Current {
    /// Until when acts pass that need the second factor to have been used just now.
    pub(crate) fn fresh_until(&self) -> Option<Timestamp> {
        self.second_factor_at.map(|at| at.plus(FRESH_SECOND_FACTOR))
    }

    /// Whether the second factor was used just now.
    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        self.fresh_until().is_some_and(|until| now < until)
            && !self.second_factor_at.is_some_and(|at| at.is_ahead_of(now))
    }

    /// Refuses where the second factor was not used just now, with the code that makes the web app ask for it.
    pub(crate) fn require_fresh(&self, now: Timestamp) -> Result<(), Problem> {
        if self.is_fresh(now) {
            return Ok(());
        }
        let detail =
            "this needs your passkey or a code of your authenticator app again, for it was not used lately";
        Err(Problem::new(Code::StepUpNeeded, detail))
    }
}
