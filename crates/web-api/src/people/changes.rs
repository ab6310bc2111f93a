//! Adding and changing people, each change with its audit record in one transaction.

use clinical_model::{PatientId, PlaceId, Timestamp, UserId};
use pipeline::audited::{Act, Agent};
use serde::Deserialize;
use store::{Actor, AuditAction, AuditOutcome, DocumentWrite, Expected, TransactError, Transaction};
use trust::{SecretText, TokenSecret};

use super::record::Link;
use super::{CARE_TEAM_LIMIT, NAME_LIMIT_CHARS, NewUser, PeopleError, Role, User, UserRecord};
use crate::json::session::sign_in_act;
use crate::oauth::{end_grants_of, ending_grants_of};
use crate::session::Caller;
use crate::state::Web;

/// Times that a person is read again because another node or thread was faster to write.
const CHANGE_LIMIT_TRIES: usize = 8;
/// How long the link of an invitation or a reset works, in seconds: over a weekend.
const LINK_LIFE_S: u64 = 72 * 3_600;

/// The one-time link of a person who is to set how they sign in.
#[derive(Debug)]
pub struct Invitation {
    /// The token, shown once.
    pub token: SecretText,
    /// When it stops working.
    pub expires_at: Timestamp,
}

impl Invitation {
    /// The page it leads to; the token stands behind `#`, where no server and no log sees it.
    pub fn path(&self) -> String {
        format!("/invite#token={}", self.token.expose())
    }
}

/// What an administrator may change of a person.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// What others see.
    pub display: String,
    /// What they do here.
    pub role: Role,
    /// The wards that are theirs; `None`: all.
    pub wards: Option<Vec<PlaceId>>,
    /// The care teams they belong to, by name.
    #[serde(default)]
    pub care_teams: Vec<String>,
    /// Who they are themselves: for the role of a patient, and only there.
    #[serde(default)]
    pub patient: Option<PatientId>,
    /// May no longer sign in.
    pub disabled: bool,
    /// The version that was seen: how often an administrator had changed the person.
    pub version: u64,
}

pub(super) fn check_text(field: &'static str, value: &str) -> Result<(), PeopleError> {
    let length = value.trim().chars().count();
    if length == 0 || NAME_LIMIT_CHARS < length || value.chars().any(char::is_control) {
        return Err(PeopleError::Name { field });
    }
    Ok(())
}

fn check_rights(role: Role, care_teams: &[String], patient: Option<PatientId>) -> Result<(), PeopleError> {
    if care_teams.len() > CARE_TEAM_LIMIT {
        return Err(PeopleError::CareTeams);
    }
    care_teams.iter().try_for_each(|team| check_text("name of a care team", team))?;
    if (role == Role::Patient) != patient.is_some() {
        return Err(PeopleError::PatientOfRole);
    }
    Ok(())
}

/// The end of all sessions of a person, as it follows from another act.
pub(super) fn ending(by: &Agent, id: UserId, why: &str) -> Act {
    by.act(AuditAction::SignOut, "session").detail(format!("all of {id}, {why}"))
}

impl Web {
    /// Adds a person, who cannot sign in before an invitation (see [`Web::reset_user`]).
    ///
    /// # Errors
    /// [`PeopleError`].
    pub fn add_user(&self, by: impl Into<Agent>, new: NewUser) -> Result<User, PeopleError> {
        self.keep_user(&by.into(), new, Vec::new(), |_| {})
    }

    pub(super) fn keep_user(
        &self,
        by: &Agent,
        new: NewUser,
        mut writes: Vec<DocumentWrite>,
        finish: impl FnOnce(&mut UserRecord),
    ) -> Result<User, PeopleError> {
        check_text("name", &new.name)?;
        check_text("display name", &new.display)?;
        check_rights(new.role, &new.care_teams, new.patient)?;
        let at = self.site.clock().now();
        let mut record = UserRecord {
            id: UserId::from_bytes(pipeline::new_id(at)),
            name: new.name.trim().to_owned(),
            display: new.display.trim().to_owned(),
            role: new.role,
            wards: new.wards,
            care_teams: new.care_teams,
            patient: new.patient,
            disabled: false,
            password_hash: None,
            totp: None,
            pending_totp: None,
            passkeys: Vec::new(),
            recovery_codes: Vec::new(),
            link: None,
            provider_links: Vec::new(),
            awaited_provider: None,
            last_sign_in_at: None,
            edits: 0,
        };
        finish(&mut record);
        let mut act =
            by.act(AuditAction::Create, "User").detail(format!("{} as {:?}", record.name, record.role));
        // The name of a patient is sealed with their own key, and goes with it.
        if let Some(patient) = record.patient {
            act = act.patient(patient);
        }
        let act = act.record(at, AuditOutcome::Success);
        writes.push(record.write(self.site.store(), Expected::Absent));
        let transaction = Transaction { at, writes, audit: vec![act], ..Transaction::default() };
        self.site.store().transact(&transaction).map_err(|error| match error {
            TransactError::Conflict { .. } => PeopleError::Exists { name: record.name.clone() },
            error => PeopleError::Keep(error),
        })?;
        let user = record.user();
        self.people.put(record, 1);
        Ok(user)
    }

    /// Changes a person as they stand now, with an audit record and whatever else belongs into the same transaction.
    /// `change` may run several times, each time on what another node has made of the person meanwhile. Blocks.
    pub(super) fn change_user<T>(
        &self,
        id: UserId,
        act: Option<Act>,
        extra: &[DocumentWrite],
        mut change: impl FnMut(&mut UserRecord) -> Result<T, PeopleError>,
    ) -> Result<T, PeopleError> {
        let store = self.site.store();
        for _ in 0..CHANGE_LIMIT_TRIES {
            let found = self.people.read_one(store, id)?;
            let (mut record, version) = found.ok_or(PeopleError::NotFound)?;
            let out = change(&mut record)?;
            let at = self.site.clock().now();
            let mut writes = vec![record.write(store, Expected::Version(version))];
            writes.extend_from_slice(extra);
            let audit = act.iter().map(|act| act.clone().record(at, AuditOutcome::Success)).collect();
            match store.transact(&Transaction { at, writes, audit, ..Transaction::default() }) {
                Ok(()) => {
                    self.people.put(record, version + 1);
                    return Ok(out);
                }
                Err(TransactError::Conflict { .. }) => {
                    // What is written once only, and stands there already: an attempt that was used.
                    for write in extra.iter().filter(|write| write.expected == Expected::Absent) {
                        if store.document(write.kind, write.id).map_err(PeopleError::Store)?.is_some() {
                            return Err(PeopleError::Ceremony);
                        }
                    }
                }
                Err(error) => return Err(PeopleError::Keep(error)),
            }
        }
        Err(PeopleError::Changed)
    }

    /// Changes what an administrator may change. It takes effect at once: the person's sessions end where their rights
    /// change, and the programs that they let in are let in no longer where they are let out or get another role. Blocks.
    ///
    /// # Errors
    /// [`PeopleError`].
    pub fn update_user(&self, by: impl Into<Agent>, id: UserId, to: UserChange) -> Result<User, PeopleError> {
        let by = by.into();
        check_text("display name", &to.display)?;
        check_rights(to.role, &to.care_teams, to.patient)?;
        let stays = to.role == Role::Administrator && !to.disabled;
        let detail = format!("as {:?}{}", to.role, if to.disabled { ", disabled" } else { "" });
        let act = by.act(AuditAction::Update, "User").detail(format!("{id} {detail}"));
        let ending = ending(&by, id, "for the person was changed");
        let others = self.people.has_administrator_but(id);
        let store = self.site.store();
        // What they let in ends in the same transaction, when they are let out and when they are let in again, so that
        // nothing is left to revive; and with another role, for it was let in under the one before.
        let (known, _) = self.people.read_one(store, id)?.ok_or(PeopleError::NotFound)?;
        let is_another = (known.disabled, known.role, known.patient) != (to.disabled, to.role, to.patient);
        let ended = match is_another {
            true => ending_grants_of(store, id).map_err(PeopleError::Store)?,
            false => Vec::new(),
        };
        let (user, has_changed) = self.change_user(id, Some(act), &ended, |record| {
            if record.edits != to.version {
                return Err(PeopleError::Changed);
            }
            if record.role == Role::Administrator && !record.disabled && !stays && !others {
                return Err(PeopleError::LastAdministrator);
            }
            let before = record.user();
            record.display = to.display.trim().to_owned();
            record.role = to.role;
            record.wards.clone_from(&to.wards);
            record.care_teams.clone_from(&to.care_teams);
            record.patient = to.patient;
            record.disabled = to.disabled;
            record.edits += 1;
            if to.disabled {
                record.link = None;
                record.forget_providers();
            }
            let after = record.user();
            let has_changed = User { display: before.display.clone(), ..after.clone() } != before;
            Ok((after, has_changed))
        })?;
        if has_changed {
            self.end_sessions_of(id, None, ending)?;
        }
        if is_another {
            self.end_grants_of(id)?;
        }
        Ok(user)
    }

    /// Forgets every way in of a person, ends their sessions and what they let in, and makes a one-time link with which they set new ones.
    /// Blocks.
    ///
    /// # Errors
    /// [`PeopleError`].
    pub fn reset_user(&self, by: impl Into<Agent>, id: UserId) -> Result<Invitation, PeopleError> {
        let by = by.into();
        let token = TokenSecret::generate();
        let expires_at = self.site.clock().now().plus(std::time::Duration::from_secs(LINK_LIFE_S));
        let ending = ending(&by, id, "for the ways in were reset");
        let act = by.act(AuditAction::Administer, "User").detail(format!("{id} one-time link"));
        let ended = ending_grants_of(self.site.store(), id).map_err(PeopleError::Store)?;
        self.change_user(id, Some(act), &ended, |record| {
            if record.disabled {
                return Err(PeopleError::NotFound);
            }
            record.forget_ways();
            record.edits += 1;
            record.link = Some(Link { hash: token.hash().0, expires_at });
            Ok(())
        })?;
        self.end_sessions_of(id, None, ending)?;
        self.end_grants_of(id)?;
        // The id tells whose link it is, so that no index of tokens is needed.
        Ok(Invitation { token: SecretText::new(format!("{id}.{}", token.to_text().expose())), expires_at })
    }

    /// Spends a one-time link and answers with whose it is. Blocks.
    pub(crate) fn spend_link(&self, text: &str, from: &Caller) -> Result<User, PeopleError> {
        let (id, token) = text.split_once('.').ok_or(PeopleError::LinkSpent)?;
        let id: UserId = id.parse().map_err(|_| PeopleError::LinkSpent)?;
        let token = TokenSecret::parse(token).map_err(|_| PeopleError::LinkSpent)?;
        let now = self.site.clock().now();
        let act = sign_in_act(from, Actor::User(id), "one-time link");
        let spent = self.change_user(id, Some(act), &[], |record| {
            let link = record.link.take().ok_or(PeopleError::LinkSpent)?;
            let is_it =
                trust::TokenHash(link.hash).matches(&token) && link.expires_at > now && !record.disabled;
            if is_it { Ok(record.user()) } else { Err(PeopleError::LinkSpent) }
        });
        spent.map_err(|error| match error {
            PeopleError::NotFound => PeopleError::LinkSpent,
            other => other,
        })
    }

    /// Ends what a person let in, and what was being let in just then. Blocks.
    pub(crate) fn end_grants_of(&self, id: UserId) -> Result<(), PeopleError> {
        end_grants_of(self.site.store(), id, self.site.clock().now()).map_err(PeopleError::Keep)
    }

    /// Ends the sessions of a person, but one; where there were any, with the row of the act. Blocks.
    pub(crate) fn end_sessions_of(
        &self,
        id: UserId,
        but: Option<&trust::TokenHash>,
        act: Act,
    ) -> Result<usize, PeopleError> {
        self.sessions.end_all_of(id, but, act, self.site.clock().now()).map_err(PeopleError::Keep)
    }
}
