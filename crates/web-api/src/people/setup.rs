//! The first administrator: a link that is printed at first start, and works until somebody has a way in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pipeline::audited::Agent;
use pipeline::records;
use store::{AuditAction, Expected, KeyDomain, Kind, Store};
use trust::password;
use trust::{SecretText, TokenSecret};

use super::{NewUser, PeopleError, Role, User};
use crate::state::Web;

/// The setting that says that the first administrator was made.
const SETUP_DONE: [u8; 16] = *b"first-start-done";

/// The token of the setup link. Nodes that share a store must agree on it, since a balancer sends the link to any of them:
/// there it is made with the store's key for blind indexes, which nobody outside knows.
pub(super) fn first_start_token(store: &dyn Store) -> TokenSecret {
    if !store.shared() {
        return TokenSecret::generate();
    }
    let half = |which| store.blind("first-start", which);
    let text = URL_SAFE_NO_PAD.encode([half("one"), half("two")].concat());
    TokenSecret::parse(&text).unwrap_or_else(|_| TokenSecret::generate())
}

impl Web {
    /// The token of the one-time setup link, while nobody has a way in yet.
    pub fn first_start_token(&self) -> Option<SecretText> {
        let token = self.people.first_start.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        token.as_ref().filter(|_| self.people.is_setup_open()).map(TokenSecret::to_text)
    }

    /// Adds the first administrator with the token that was printed at first start, with a password or without any way in
    /// yet. Until somebody has one it works again, for whoever broke off after it. Blocks.
    ///
    /// # Errors
    /// [`PeopleError::SetupClosed`] for a wrong or spent token.
    pub(crate) fn set_up(
        &self,
        by: &Agent,
        token: &str,
        user: NewUser,
        new_password: Option<&str>,
    ) -> Result<User, PeopleError> {
        let mut first_start =
            self.people.first_start.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let given = TokenSecret::parse(token).map_err(|_| PeopleError::SetupClosed)?;
        let expected = first_start.as_ref().ok_or(PeopleError::SetupClosed)?.hash();
        if !expected.matches(&given) || !self.people.is_setup_open() {
            return Err(PeopleError::SetupClosed);
        }
        let password_hash = match new_password {
            Some(new) => {
                password::check_strength(new, &user.name).map_err(PeopleError::Weak)?;
                Some(password::hash(new, self.options.password_cost).map_err(PeopleError::Hash)?)
            }
            None => None,
        };
        let is_over = password_hash.is_some();
        let before = self.people.named(&user.name).filter(|kept| kept.record.role == Role::Administrator);
        let added = match before {
            Some(kept) => {
                let act = by
                    .act(AuditAction::Administer, "User")
                    .detail(format!("{} set up again", kept.record.id));
                self.change_user(kept.record.id, Some(act), &[], |record| {
                    record.password_hash.clone_from(&password_hash);
                    Ok(record.user())
                })?
            }
            None => self.add_first(by, user, password_hash)?,
        };
        if is_over {
            *first_start = None;
        }
        Ok(added)
    }

    fn add_first(
        &self,
        by: &Agent,
        user: NewUser,
        password_hash: Option<String>,
    ) -> Result<User, PeopleError> {
        let user =
            NewUser { role: Role::Administrator, wards: None, care_teams: Vec::new(), patient: None, ..user };
        // Of two nodes that are set up at one time, one is.
        let once = records::json_write(
            Kind::Setting,
            SETUP_DONE,
            Expected::Absent,
            KeyDomain::System,
            &self.site.clock().now(),
            Vec::new(),
        );
        let added = self.keep_user(by, user, vec![once], |record| record.password_hash = password_hash);
        added.map_err(|error| match error {
            PeopleError::Exists { .. } => PeopleError::SetupClosed,
            other => other,
        })
    }
}
