//! Whom a provider vouches for: the person who came from there before, the person of that name, or somebody new with a
//! role by the site's rules.

use clinical_model::{RecordId as _, UserId};
use pipeline::records;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Actor, Expected, IndexEntry, KeyDomain, Kind, StoreError, TransactError, Transaction};
use trust::jwt::Claims;

use super::providers::{Provider, Provisioning};
use crate::people::{NewUser, PeopleError, User};
use crate::session::Caller;
use crate::state::Web;

/// Longest subject, in bytes (OpenID Connect Core §2).
const SUBJECT_LIMIT_BYTES: usize = 255;
/// The unique index of a person at a provider: nobody comes as two subjects, so that a name that is given anew there
/// opens nothing here.
const BY_PERSON: &str = "person-provider";

/// That a subject of a provider is a person here.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Link {
    issuer: String,
    subject: String,
    user: UserId,
    /// Whether the person had ways in of their own when the provider first called them by name. Whoever can choose that
    /// name at the provider has not shown them: our own second factor is asked for, whatever the provider's was.
    #[serde(default)]
    has_own_ways: bool,
}

/// Why somebody whom a provider vouches for is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum StrangerError {
    /// The store failed.
    #[error("reading failed")]
    Store(#[source] StoreError),
    /// It could not be kept.
    #[error("it could not be kept")]
    Keep(#[source] TransactError),
    /// A claim is missing.
    #[error("the provider does not say \"{claim}\"")]
    Claim {
        /// Which.
        claim: String,
    },
    /// The mail address is of no domain that is let in, or not verified.
    #[error("the mail address is not of a domain that may sign in here")]
    Domain,
    /// Nobody here is called so.
    #[error("nobody here is known by that name; ask an administrator to add you")]
    Unknown,
    /// They may not sign in any more.
    #[error("this person may not sign in")]
    Disabled,
    /// Somebody else at the provider came as this person before.
    #[error("somebody else at the provider came as this person before; ask an administrator")]
    Taken,
    /// No rule gives them a role.
    #[error("no rule of this site gives you a role")]
    NoRole,
    /// They could not be added.
    #[error("the person could not be added")]
    Add(#[source] PeopleError),
}

/// The claims by which a provider's people are known, beside the subject.
pub(super) fn needs(provider: &Provider) -> Vec<&str> {
    let mut claims = vec![provider.name_claim.as_str()];
    claims
        .extend(provider.role_claim.as_deref().filter(|_| provider.provisioning == Provisioning::JustInTime));
    if !provider.allowed_domains.is_empty() {
        claims.extend(["email", "email_verified"]);
    }
    claims
}

fn digest(parts: &[&str]) -> [u8; 16] {
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let mut short = [0; 16];
    short.copy_from_slice(&trust::digest::sha256(&parts)[..16]);
    short
}

/// The person whom believed claims are about, and whether the provider's second factor can count for them. Blocks.
pub(super) fn of(
    web: &Web,
    provider: &Provider,
    claims: &Claims,
    from: &Caller,
) -> Result<(User, bool), StrangerError> {
    let missing = |claim: &str| StrangerError::Claim { claim: claim.to_owned() };
    let subject = claims.text("sub").filter(|text| !text.is_empty() && text.len() <= SUBJECT_LIMIT_BYTES);
    let subject = subject.ok_or_else(|| missing("sub"))?;
    check_domain(provider, claims)?;
    let store = web.site.store();
    let id = digest(&["subject", &provider.issuer, subject]);
    let linked = store.document(Kind::IdentityProvider, id).map_err(StrangerError::Store)?;
    let linked = linked.and_then(|document| records::json_from::<Link>(&document.body).ok());
    if let Some(link) = linked.filter(|link| link.issuer == provider.issuer && link.subject == subject) {
        return Ok((standing(web.people.by_id(link.user))?, !link.has_own_ways));
    }
    let name = claims.text(&provider.name_claim).ok_or_else(|| missing(&provider.name_claim))?;
    let user = match web.people.by_name(name) {
        Some(known) => standing(Some(known))?,
        None if provider.provisioning == Provisioning::JustInTime => {
            added(web, provider, claims, name, from)?
        }
        None => return Err(StrangerError::Unknown),
    };
    let has_own_ways = web.people.kept(user.id).is_some_and(|kept| kept.record.is_complete());
    let link =
        Link { issuer: provider.issuer.clone(), subject: subject.to_owned(), user: user.id, has_own_ways };
    let person = [&user.id.to_bytes()[..], &digest(&["provider", &provider.issuer])].concat();
    let index = vec![IndexEntry { name: BY_PERSON, value: person, unique: true }];
    let write =
        records::json_write(Kind::IdentityProvider, id, Expected::Absent, KeyDomain::System, &link, index);
    let at = web.site.clock().now();
    let transaction = Transaction { at, writes: vec![write], ..Transaction::default() };
    store.transact(&transaction).map_err(|error| match error {
        TransactError::Conflict { .. } => StrangerError::Taken,
        other => StrangerError::Keep(other),
    })?;
    Ok((user, !has_own_ways))
}

fn standing(user: Option<User>) -> Result<User, StrangerError> {
    user.filter(|user| !user.disabled).ok_or(StrangerError::Disabled)
}

fn check_domain(provider: &Provider, claims: &Claims) -> Result<(), StrangerError> {
    if provider.allowed_domains.is_empty() {
        return Ok(());
    }
    let is_verified = claims.get("email_verified") == Some(&Value::Bool(true));
    let domain = claims.text("email").and_then(|mail| mail.rsplit_once('@')).map(|(_, domain)| domain);
    let is_known = |domain: &str| provider.allowed_domains.iter().any(|one| one.eq_ignore_ascii_case(domain));
    (is_verified && domain.is_some_and(is_known)).then_some(()).ok_or(StrangerError::Domain)
}

fn added(
    web: &Web,
    provider: &Provider,
    claims: &Claims,
    name: &str,
    from: &Caller,
) -> Result<User, StrangerError> {
    let values = provider.role_claim.as_deref().map(|claim| claims.texts(claim)).unwrap_or_default();
    let rule = provider.roles.iter().find(|rule| values.contains(&rule.value.as_str()));
    let rule = rule.ok_or(StrangerError::NoRole)?;
    let display = claims.text("name").filter(|text| !text.trim().is_empty()).unwrap_or(name);
    let new = NewUser {
        name: name.to_owned(),
        display: display.to_owned(),
        role: rule.role,
        wards: rule.wards.clone(),
        care_teams: Vec::new(),
        patient: None,
    };
    let actor = Actor::Unproven(format!("identity provider {}", provider.id));
    web.add_user(from.by(actor), new).map_err(StrangerError::Add)
}

/// Whether the provider says that a second factor was used, as the site reads it.
pub(super) fn used_second_factor(provider: &Provider, claims: &Claims) -> bool {
    let said = claims.texts("amr").into_iter().chain(claims.text("acr"));
    provider.trusts_mfa && said.into_iter().any(|one| provider.mfa_values.iter().any(|value| value == one))
}
