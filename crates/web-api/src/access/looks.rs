//! Looks that go on: who has a patient before their eyes on a board, in a list or over a live stream gets a row of that
//! patient when the look begins, and again when it has lasted for a while; not with every question of a screen.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clinical_model::{PatientId, RecordId as _, Timestamp};
use pipeline::audited::{Act, ReadError};
use store::Actor;

use super::Access;
use crate::state::Web;

/// A look at a board or a list that is taken again within so long goes on, and so does that of a stream that is opened anew.
pub(crate) const LOOK_LASTS: Duration = Duration::from_secs(15 * 60);
/// A stream that stays open gets a row of each patient that it shows so often.
pub(crate) const STREAM_LASTS: Duration = Duration::from_secs(60 * 60);
/// Looks that are remembered, of about 200 bytes each; beyond it the oldest are forgotten, which costs rows more and never
/// one less.
const LOOKS_LIMIT: usize = 65_536;

/// What makes two looks one: the same person or program at the same place, in the same role, for the same purpose and under
/// the same broken glass, at the same patient in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Look {
    actor: Actor,
    role: Option<String>,
    purpose: Option<String>,
    address: Option<String>,
    glass: Option<[u8; 16]>,
    object: &'static str,
    patient: PatientId,
}

/// When each look that may still go on was recorded last.
#[derive(Default)]
pub(crate) struct Looks(Mutex<HashMap<Look, Timestamp>>);

impl Looks {
    fn is_recorded(&self, look: &Look, now: Timestamp, lasts: Duration) -> bool {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What lies ahead was written by a clock that ran ahead, and counts no longer.
        looks.get(look).is_some_and(|at| *at <= now && now.duration_since(*at) < lasts)
    }

    fn recorded(&self, all: Vec<Look>, now: Timestamp) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() + all.len() > LOOKS_LIMIT {
            looks.retain(|_, at| *at <= now && now.duration_since(*at) < LOOK_LASTS);
        }
        if looks.len() + all.len() > LOOKS_LIMIT {
            looks.clear();
        }
        looks.extend(all.into_iter().map(|look| (look, now)));
    }
}

/// Looks of which a row is due.
#[must_use]
pub(crate) struct Due {
    looks: Vec<Look>,
    at: Timestamp,
    acts: Vec<Act>,
}

impl Due {
    /// Whether nothing has to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.looks.is_empty()
    }

    /// The acts to be recorded.
    pub(crate) fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// Remembers that they were recorded: to be called when they were, and not before.
    pub(crate) fn recorded(self, web: &Web) {
        web.looks.recorded(self.looks, self.at);
    }

    /// Records them, if there are any. Blocks. Nothing may be shown before it returns.
    ///
    /// # Errors
    /// [`ReadError::Audit`] when the rows could not be written: nothing may be shown then.
    pub(crate) fn write(mut self, web: &Web) -> Result<(), ReadError> {
        if !self.is_empty() {
            web.site.read_each(self.take_acts(), |_| Ok(()))?;
            self.recorded(web);
        }
        Ok(())
    }
}

impl Access {
    /// Of these patients those of whom this look is not in the log yet, or was put there longer ago than it lasts.
    pub(crate) fn due_looks(
        &self,
        web: &Web,
        act: &Act,
        patients: impl IntoIterator<Item = (PatientId, Duration)>,
    ) -> Due {
        let at = web.site.clock().now();
        let mut due = Due { looks: Vec::new(), at, acts: Vec::new() };
        let mut once = HashSet::new();
        for (patient, lasts) in patients.into_iter().filter(|(patient, _)| once.insert(*patient)) {
            let glass = self.user().and_then(|user| web.site.broken_glass(user, patient));
            let look = Look {
                actor: act.actor.clone(),
                role: act.role.clone(),
                purpose: act.purpose.clone(),
                address: act.address.clone(),
                glass: glass.map(|glass| glass.id.to_bytes()),
                object: act.object,
                patient,
            };
            if !web.looks.is_recorded(&look, at, lasts) {
                due.acts.push(self.reading(web, act.clone().patient(patient)));
                due.looks.push(look);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(number: u32) -> Look {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let (role, purpose, address, glass) = (None, None, None, None);
        let patient = PatientId::from_bytes(id);
        Look { actor: Actor::System, role, purpose, address, glass, object: "ward board", patient }
    }

    #[test]
    fn a_look_lasts_and_ends_and_what_is_remembered_has_a_bound() {
        let (looks, at) = (Looks::default(), Timestamp::from_seconds);
        assert!(!looks.is_recorded(&look(1), at(0), LOOK_LASTS));
        looks.recorded(vec![look(1)], at(0));
        assert!(looks.is_recorded(&look(1), at(899), LOOK_LASTS));
        assert!(!looks.is_recorded(&look(1), at(900), LOOK_LASTS));
        assert!(looks.is_recorded(&look(1), at(900), STREAM_LASTS));
        assert!(!looks.is_recorded(&look(1), at(-1), LOOK_LASTS), "the clock was set back");
        let other = Look { glass: Some([1; 16]), ..look(1) };
        assert!(!looks.is_recorded(&other, at(1), LOOK_LASTS), "a broken glass is another look");
        for number in 0..100_000 {
            looks.recorded(vec![look(number)], at(1_000));
        }
        assert!(looks.0.lock().unwrap().len() <= LOOKS_LIMIT);
        assert!(looks.is_recorded(&look(99_999), at(1_000), LOOK_LASTS));
    }
}
