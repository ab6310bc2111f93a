//! Links of people to identity providers: as which subject somebody comes from there. A link is made when its owner has
//! proven themself here, or as an administrator allowed it; it goes with every other way in.

use clinical_model::{Timestamp, UserId};
use pipeline::audited::Agent;
use serde::{Deserialize, Serialize};
use store::{AuditAction, DocumentQuery, IndexEntry, Kind, Order, Store, StoreError};

use super::changes::ending;
use super::{NewUser, PeopleError, User};
use crate::state::Web;

/// The index of people by the subjects they are; unique, so that a subject is one person.
const BY_SUBJECT: &str = "provider-subject";

/// Somebody at an identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// The provider, by its issuer: not by our id of it, which may come to mean another.
    pub issuer: String,
    /// Their subject there (OpenID Connect Core §2), which is never given to somebody else.
    pub subject: String,
}

impl Subject {
    /// What the index holds: says nothing to whoever reads the database.
    fn blinded(&self, store: &dyn Store) -> Vec<u8> {
        store.blind(BY_SUBJECT, &format!("{}\n{}", self.issuer, self.subject)).to_vec()
    }

    pub(super) fn entry(&self, store: &dyn Store) -> IndexEntry {
        IndexEntry { name: BY_SUBJECT, value: self.blinded(store), unique: true }
    }
}

/// That a person is a subject of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProviderLink {
    #[serde(flatten)]
    pub subject: Subject,
    /// Since when.
    pub linked_at: Timestamp,
    /// Whether the person came by it first, with no way in of their own: what was set up since is the word of whoever came.
    #[serde(default)]
    pub brought_in: bool,
}

impl ProviderLink {
    /// By which an administrator names it.
    pub(crate) fn id(&self) -> String {
        let parts = [self.subject.issuer.as_bytes(), self.subject.subject.as_bytes()];
        crate::json::hex(&trust::digest::sha256(&parts)[..16])
    }
}

impl Web {
    /// The person who comes from a provider as this subject. Blocks.
    pub(crate) fn linked(&self, subject: &Subject) -> Result<Option<User>, PeopleError> {
        Ok(self.id_linked(subject).map_err(PeopleError::Store)?.and_then(|id| self.people.by_id(id)))
    }

    fn id_linked(&self, subject: &Subject) -> Result<Option<UserId>, StoreError> {
        let store = self.site.store();
        let query = DocumentQuery {
            kind: Kind::User,
            index: BY_SUBJECT,
            prefix: subject.blinded(store),
            after: None,
            order: Order::Ascending,
            limit: 1,
        };
        Ok(store.documents(&query)?.first().map(|document| UserId::from_bytes(document.id)))
    }

    /// Links a person to a subject: one who has proven themself here, or the first who comes where an administrator said
    /// so. Blocks.
    pub(crate) fn link_provider(
        &self,
        by: Agent<UserId>,
        is_proven: bool,
        subject: &Subject,
    ) -> Result<(), PeopleError> {
        let id = by.who;
        let act = Agent::from(by)
            .act(AuditAction::Administer, "way in")
            .detail(format!("linked to \"{}\" of the identity provider {}", subject.subject, subject.issuer));
        let now = self.site.clock().now();
        self.change_user(id, Some(act), &[], |record| {
            if self.id_linked(subject).map_err(PeopleError::Store)?.is_some_and(|linked| linked != id)
                || record.provider_links.iter().any(|link| link.subject.issuer == subject.issuer)
                || !(is_proven || (record.awaited_provider.is_some() && !record.has_begun()))
            {
                return Err(PeopleError::LinkTaken);
            }
            record.awaited_provider = None;
            let link = ProviderLink { subject: subject.clone(), linked_at: now, brought_in: !is_proven };
            record.provider_links.push(link);
            Ok(())
        })
    }

    /// Adds the person whom a provider vouches for, linked to their subject there. Blocks.
    pub(crate) fn add_linked(
        &self,
        by: impl Into<Agent>,
        new: NewUser,
        subject: Subject,
    ) -> Result<User, PeopleError> {
        let linked_at = self.site.clock().now();
        let link = ProviderLink { subject, linked_at, brought_in: true };
        self.keep_user(&by.into(), new, Vec::new(), |record| record.provider_links.push(link))
    }

    /// Lets the first who comes from a provider under a person's name become that person; `None` takes it back. Only where
    /// there is no way in that they could prove themself by; an open invitation is withdrawn, lest there be two. Blocks.
    ///
    /// # Errors
    /// [`PeopleError`].
    pub(crate) fn await_provider(
        &self,
        by: &Agent,
        id: UserId,
        provider: Option<&str>,
    ) -> Result<(), PeopleError> {
        let what = match provider {
            Some(provider) => format!("{id} may come by the identity provider {provider}, by name"),
            None => format!("{id} may come by no identity provider any more, by name"),
        };
        let act = by.act(AuditAction::Administer, "User").detail(what);
        self.change_user(id, Some(act), &[], |record| {
            if record.disabled {
                return Err(PeopleError::NotFound);
            }
            if provider.is_some() {
                if record.has_begun() || !record.provider_links.is_empty() {
                    return Err(PeopleError::HasWayIn);
                }
                record.link = None;
            }
            record.awaited_provider = provider.map(ToOwned::to_owned);
            record.edits += 1;
            Ok(())
        })
    }

    /// Nobody comes by name by a provider that went, or became another. Blocks.
    ///
    /// # Errors
    /// [`PeopleError`].
    pub(crate) fn await_no_more(&self, by: &Agent, provider: &str) -> Result<(), PeopleError> {
        let awaited = |kept: &super::Kept| kept.record.awaited_provider.as_deref() == Some(provider);
        let people = self.people.list();
        people
            .iter()
            .filter(|kept| awaited(kept))
            .try_for_each(|kept| self.await_provider(by, kept.record.id, None))
    }

    /// Removes a link, and ends the sessions of the person and what they let in: whoever came by it is out. Where they came
    /// by it first, the ways in that were set up since go too. Blocks.
    ///
    /// # Errors
    /// [`PeopleError`].
    pub(crate) fn unlink_provider(&self, by: &Agent, id: UserId, link: &str) -> Result<(), PeopleError> {
        let act = by
            .act(AuditAction::Administer, "User")
            .detail(format!("{id} unlinked from an identity provider, with the ways in that it had brought"));
        self.change_user(id, Some(act), &[], |record| {
            let at = record.provider_links.iter().position(|one| one.id() == link);
            let removed = record.provider_links.remove(at.ok_or(PeopleError::NoLink)?);
            if removed.brought_in {
                record.forget_ways();
            }
            record.edits += 1;
            Ok(())
        })?;
        self.end_sessions_of(id, None, ending(by, id, "for a link to an identity provider was removed"))?;
        self.end_grants_of(id)
    }
}
