//! The accounts of patients who are erased: nobody signs in with them any more, and they say no longer whose they were.

use std::collections::HashSet;

use clinical_model::{PatientId, RecordId as _};
use pipeline::audited::Act;
use store::{Actor, AuditAction, Kind};

use super::PeopleError;
use crate::state::Web;

impl Web {
    /// Ends the accounts that are tied to a patient who is erased, with their names, ways in, sessions and earlier versions. To
    /// be called after an erasure, and at the start, for an erasure may have come with a restored copy. Blocks.
    ///
    /// # Errors
    /// [`PeopleError`]; what was not ended then is at the next call.
    pub(crate) fn end_accounts_of_erased(&self) -> Result<usize, PeopleError> {
        let care = self.site.store().care();
        let erased: HashSet<PatientId> =
            care.erasures().map_err(PeopleError::Store)?.iter().map(|erased| erased.patient).collect();
        let is_theirs = |patient: Option<PatientId>| patient.is_some_and(|patient| erased.contains(&patient));
        let mut ended = 0;
        for kept in self.people.list().iter().filter(|kept| is_theirs(kept.record.patient)) {
            let id = kept.record.id;
            let what = format!("{id} disabled, for the patient was erased");
            let act = Act::new(Actor::System, AuditAction::Update, "User").detail(what);
            self.change_user(id, Some(act), &[], |record| {
                record.name = format!("erased {id}");
                record.display = "erased".to_owned();
                record.patient = None;
                record.disabled = true;
                record.forget_ways();
                record.edits += 1;
                Ok(())
            })?;
            let detail = format!("all of {id}, for the patient was erased");
            let ending = Act::new(Actor::System, AuditAction::SignOut, "session").detail(detail);
            self.end_sessions_of(id, None, ending)?;
            self.end_grants_of(id)?;
            care.forget_versions(&[(Kind::User, id.to_bytes())]).map_err(PeopleError::Store)?;
            ended += 1;
        }
        Ok(ended)
    }

    /// As [`Web::end_accounts_of_erased`], where what was asked for is done already: a failure goes to the log, and the next
    /// start makes up for it.
    pub(crate) fn follow_erasures(&self) {
        if let Err(error) = self.end_accounts_of_erased() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an account of somebody who is erased still works"
            );
        }
    }
}
