//! Ways in: checking and setting passwords, authenticator codes, recovery codes and passkeys.

use std::time::Duration;

use clinical_model::{RecordId as _, Timestamp, UserId};
use pipeline::audited::{Act, Agent};
use store::{AuditAction, DocumentWrite};
use trust::password::{self, MAX_PASSWORD_BYTES, PasswordError};
use trust::totp::TotpSecret;
use trust::webauthn::{self, CredentialKey, Registered, WebauthnError};
use trust::{SecretText, recovery};

use super::record::{PendingTotp, Totp, UserRecord};
use super::{PASSKEY_LIMIT, Passkey, PeopleError, User};
use crate::ceremony::Answered;
use crate::session::Stage;
use crate::state::Web;

/// How long a shown secret waits for its first code.
const TOTP_START_LIFE: Duration = Duration::from_secs(600);
/// Longest name of a passkey, in characters; longer ones are cut.
const PASSKEY_NAME_LIMIT_CHARS: usize = 60;

/// Ways in that a program sets for a person of a site it furnishes: the demonstration, a measurement, a test.
#[derive(Default)]
pub struct Ways<'a> {
    /// A password.
    pub password: Option<&'a str>,
    /// The secret of an authenticator app.
    pub totp: Option<TotpSecret>,
    /// A passkey.
    pub passkey: Option<Registered>,
}

/// The secret that an authenticator app is to take up.
pub(crate) struct TotpStart {
    pub secret: SecretText,
    pub otpauth_uri: SecretText,
}

/// What came of checking name and password.
pub(crate) enum Checked {
    /// They do not belong together.
    Wrong,
    /// They do, and a code is needed.
    CodeNeeded(User),
    /// They do, and there is no second factor yet.
    Incomplete(User),
}

fn own_act(by: Agent<UserId>, what: &str) -> Act {
    Agent::from(by).act(AuditAction::Administer, "way in").detail(what)
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis() / 1_000).unwrap_or_default()
}

fn passkey_of(registered: &Registered, name: &str, now: Timestamp) -> Passkey {
    let name: String =
        name.trim().chars().filter(|c| !c.is_control()).take(PASSKEY_NAME_LIMIT_CHARS).collect();
    Passkey {
        id: registered.id.clone(),
        key: registered.key.to_bytes(),
        name: if name.is_empty() { "Passkey".to_owned() } else { name },
        sign_count: registered.sign_count,
        is_backup_eligible: registered.is_backup_eligible,
        is_backed_up: registered.is_backed_up,
        added_at: now,
        last_used_at: None,
    }
}

impl Web {
    /// Whether name and password belong together. Takes as long for a name that nobody has, and for a person without a
    /// password. Blocks.
    pub(crate) fn check_password(&self, name: &str, given: &str) -> Result<Checked, PasswordError> {
        // Longer than any password may be: wrong, and no fault of ours. The check takes its time all the same.
        let given = if given.len() <= MAX_PASSWORD_BYTES { given } else { "" };
        let kept = self.people.named(name);
        let hash = kept.as_ref().and_then(|kept| kept.record.password_hash.as_deref());
        let Some((kept, hash)) = kept.as_ref().zip(hash) else {
            password::verify_nobody(given, self.options.password_cost)?;
            return Ok(Checked::Wrong);
        };
        let record = &kept.record;
        if !password::verify(given, hash)? || record.disabled {
            return Ok(Checked::Wrong);
        }
        let user = record.user();
        // A person with a passkey and a password is complete by the passkey; the password alone lets nobody in.
        Ok(if record.is_complete() { Checked::CodeNeeded(user) } else { Checked::Incomplete(user) })
    }

    /// Takes a code of a person's authenticator app, once. Blocks.
    pub(crate) fn take_totp(&self, id: UserId, code: &str) -> Result<(), PeopleError> {
        let now = self.site.clock().now();
        self.change_user(id, None, &[], |record| {
            let totp = record.totp.as_mut().filter(|_| !record.disabled).ok_or(PeopleError::BadCode)?;
            // A step that a clock ran ahead to is forgotten: it would lock the person out until then.
            let latest = seconds(now.plus(clinical_model::CLOCK_STEP_ENDURED)) / trust::totp::STEP_S;
            let last = totp.last_step.filter(|last| *last <= latest);
            let step = totp.secret().verify(code, seconds(now), last);
            totp.last_step = Some(step.ok_or(PeopleError::BadCode)?);
            Ok(())
        })
    }

    /// Takes a recovery code, once. Blocks.
    pub(crate) fn take_recovery_code(&self, by: Agent<UserId>, code: &str) -> Result<usize, PeopleError> {
        let id = by.who;
        let act = own_act(by, "a recovery code was used");
        self.change_user(id, Some(act), &[], |record| {
            if record.disabled {
                return Err(PeopleError::BadCode);
            }
            let found = recovery::find(&record.recovery_codes, &id.to_bytes(), code);
            record.recovery_codes.remove(found.ok_or(PeopleError::BadCode)?);
            Ok(record.recovery_codes.len())
        })
    }

    /// Takes the use of a passkey. `of` says whose it must be; `None`: whoever the user handle names. Blocks.
    pub(crate) fn take_passkey(
        &self,
        answered: &Answered,
        of: Option<UserId>,
        given: &GivenAssertion,
    ) -> Result<User, PeopleError> {
        let id = match (given.user, of) {
            (Some(named), Some(of)) if named != of => return Err(PeopleError::Ceremony),
            (named, of) => of.or(named).ok_or(PeopleError::Ceremony)?,
        };
        let now = self.site.clock().now();
        let extra = [answered.used.clone()];
        let party = &self.party;
        let taken = self.change_user(id, None, &extra, |record| {
            let unknown = PeopleError::Passkey(WebauthnError::Signature);
            if record.disabled {
                return Err(unknown);
            }
            let passkey = record.passkeys.iter_mut().find(|one| one.id == given.credential).ok_or(unknown)?;
            let key = CredentialKey::from_bytes(&passkey.key)
                .map_err(|error| PeopleError::Passkey(WebauthnError::Key(error)))?;
            let kept = webauthn::Kept {
                key: &key,
                sign_count: passkey.sign_count,
                is_backup_eligible: passkey.is_backup_eligible,
            };
            let used = webauthn::authenticate(
                party,
                &answered.challenge,
                kept,
                &given.client_data,
                &given.authenticator_data,
                &given.signature,
            );
            let used = used.map_err(PeopleError::Passkey)?;
            passkey.sign_count = used.sign_count;
            passkey.is_backed_up = used.is_backed_up;
            passkey.last_used_at = Some(now);
            Ok(record.user())
        });
        taken.map_err(|error| match error {
            PeopleError::NotFound => PeopleError::Passkey(WebauthnError::Signature),
            other => other,
        })
    }

    /// Adds a passkey that was just registered. Blocks.
    pub(crate) fn add_passkey(
        &self,
        by: Agent<UserId>,
        stage: Stage,
        used: DocumentWrite,
        registered: &Registered,
        name: &str,
    ) -> Result<(), PeopleError> {
        let id = by.who;
        let is_known = |kept: &super::Kept| kept.record.passkeys.iter().any(|one| one.id == registered.id);
        if self.people.list().iter().any(is_known) {
            return Err(PeopleError::PasskeyKnown);
        }
        let now = self.site.clock().now();
        let act = own_act(by, "a passkey was added");
        self.change_user(id, Some(act), &[used], |record| {
            may_change(record, stage)?;
            if record.passkeys.len() >= PASSKEY_LIMIT {
                return Err(PeopleError::TooManyPasskeys);
            }
            record.passkeys.push(passkey_of(registered, name, now));
            Ok(())
        })
    }

    /// Names a passkey anew. Blocks.
    pub(crate) fn rename_passkey(
        &self,
        by: Agent<UserId>,
        passkey: &[u8],
        name: &str,
    ) -> Result<(), PeopleError> {
        let id = by.who;
        super::changes::check_text("name", name)?;
        self.change_user(id, Some(own_act(by, "a passkey was renamed")), &[], |record| {
            let one =
                record.passkeys.iter_mut().find(|one| one.id == passkey).ok_or(PeopleError::NotFound)?;
            one.name = name.trim().chars().take(PASSKEY_NAME_LIMIT_CHARS).collect();
            Ok(())
        })
    }

    /// Removes a passkey, unless it is the last complete way in. Blocks.
    pub(crate) fn remove_passkey(&self, by: Agent<UserId>, passkey: &[u8]) -> Result<(), PeopleError> {
        let id = by.who;
        self.change_user(id, Some(own_act(by, "a passkey was removed")), &[], |record| {
            let before = record.passkeys.len();
            record.passkeys.retain(|one| one.id != passkey);
            if record.passkeys.len() == before {
                return Err(PeopleError::NotFound);
            }
            still_complete(record)
        })
    }

    /// Sets a password. Blocks.
    pub(crate) fn set_password(&self, by: Agent<UserId>, stage: Stage, new: &str) -> Result<(), PeopleError> {
        let id = by.who;
        let name = self.people.by_id(id).ok_or(PeopleError::NotFound)?.name;
        password::check_strength(new, &name).map_err(PeopleError::Weak)?;
        let hash = password::hash(new, self.options.password_cost).map_err(PeopleError::Hash)?;
        self.change_user(id, Some(own_act(by, "the password was set")), &[], |record| {
            may_change(record, stage)?;
            record.password_hash = Some(hash.clone());
            Ok(())
        })
    }

    /// Draws a secret for an authenticator app, which counts once a code of it was given. Blocks.
    pub(crate) fn start_totp(&self, id: UserId) -> Result<TotpStart, PeopleError> {
        let secret = TotpSecret::generate();
        let expires_at = self.site.clock().now().plus(TOTP_START_LIFE);
        self.change_user(id, None, &[], |record| {
            record.pending_totp = Some(PendingTotp { secret: *secret.bytes(), expires_at });
            let otpauth_uri = secret.otpauth_uri(&self.options.site_name, &record.name);
            Ok(TotpStart { secret: secret.to_base32(), otpauth_uri })
        })
    }

    /// Takes up the secret that was shown, with the first code of it. Blocks.
    pub(crate) fn finish_totp(&self, by: Agent<UserId>, stage: Stage, code: &str) -> Result<(), PeopleError> {
        let id = by.who;
        let now = self.site.clock().now();
        let act = own_act(by, "an authenticator app was added");
        self.change_user(id, Some(act), &[], |record| {
            may_change(record, stage)?;
            let pending = record.pending_totp.take().filter(|pending| pending.expires_at > now);
            let secret = TotpSecret::from_bytes(pending.ok_or(PeopleError::Ceremony)?.secret);
            let step = secret.verify(code, seconds(now), None).ok_or(PeopleError::BadCode)?;
            record.totp = Some(Totp::new(&secret, now, Some(step)));
            Ok(())
        })
    }

    /// Removes the authenticator app, unless it belongs to the last complete way in. Blocks.
    pub(crate) fn remove_totp(&self, by: Agent<UserId>) -> Result<(), PeopleError> {
        let id = by.who;
        self.change_user(id, Some(own_act(by, "the authenticator app was removed")), &[], |record| {
            record.totp.take().ok_or(PeopleError::NotFound)?;
            still_complete(record)
        })
    }

    /// Draws ten recovery codes; those before are void. Blocks.
    pub(crate) fn draw_recovery_codes(&self, by: Agent<UserId>) -> Result<Vec<SecretText>, PeopleError> {
        let id = by.who;
        let act = own_act(by, "recovery codes were drawn");
        self.change_user(id, Some(act), &[], |record| {
            let (codes, hashes) = recovery::generate(&id.to_bytes()).into_iter().unzip();
            record.recovery_codes = hashes;
            Ok(codes)
        })
    }

    /// Writes down that a person signed in. Blocks.
    pub(crate) fn signed_in_now(&self, id: UserId) -> Result<(), PeopleError> {
        let now = self.site.clock().now();
        self.change_user(id, None, &[], |record| {
            record.last_sign_in_at = Some(now);
            Ok(())
        })
    }

    /// Sets ways in of a person, for programs that furnish a site of their own. Blocks.
    ///
    /// # Errors
    /// [`PeopleError`].
    pub fn equip(&self, by: impl Into<Agent>, id: UserId, ways: Ways<'_>) -> Result<(), PeopleError> {
        let cost = self.options.password_cost;
        let hash =
            ways.password.map(|new| password::hash(new, cost)).transpose().map_err(PeopleError::Hash)?;
        let now = self.site.clock().now();
        let act = by.into().act(AuditAction::Administer, "way in").detail(format!("{id} was equipped"));
        self.change_user(id, Some(act), &[], |record| {
            if let Some(hash) = &hash {
                record.password_hash = Some(hash.clone());
            }
            if let Some(secret) = &ways.totp {
                record.totp = Some(Totp::new(secret, now, None));
            }
            if let Some(registered) = &ways.passkey {
                record.passkeys.push(passkey_of(registered, "", now));
            }
            Ok(())
        })
    }
}

/// Whoever has still to make a way in complete changes none that somebody else has completed meanwhile.
fn may_change(record: &UserRecord, stage: Stage) -> Result<(), PeopleError> {
    if stage == Stage::Whole || !record.is_complete() { Ok(()) } else { Err(PeopleError::Completed) }
}

fn still_complete(record: &UserRecord) -> Result<(), PeopleError> {
    if record.is_complete() { Ok(()) } else { Err(PeopleError::LastWayIn) }
}

/// What a passkey answered, as the browser sent it.
pub(crate) struct GivenAssertion {
    /// The credential's id.
    pub credential: Vec<u8>,
    /// Whose, by the user handle.
    pub user: Option<UserId>,
    /// The client data.
    pub client_data: Vec<u8>,
    /// The authenticator data.
    pub authenticator_data: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}
