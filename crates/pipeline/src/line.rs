//! A connection over which frames come one behind another: when one of them is refused and the connection ends for it,
//! none of those behind it may be committed, for the sender will send all of them again, from the refused one on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::intake::IntakeError;

/// Which refusals end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndsOn {
    /// Every one: the protocol has no word for a refusal (MQTT 3.1.1).
    Anything,
    /// Those after which the same frame is to be sent again.
    Passing,
}

/// One connection; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    ends_on: EndsOn,
    broken: Arc<AtomicBool>,
}

impl Line {
    pub(crate) fn new(ends_on: EndsOn) -> Self {
        Line { ends_on, broken: Arc::default() }
    }

    /// Whether a frame of it was refused such that it ends.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// A frame of it was refused.
    pub(crate) fn note(&self, refusal: &IntakeError) {
        let is_passing = matches!(refusal, IntakeError::NotKept | IntakeError::Stopping);
        if is_passing || self.ends_on == EndsOn::Anything {
            self.broken.store(true, Ordering::Release);
        }
    }
}
