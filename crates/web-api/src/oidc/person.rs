//! Whom a provider vouches for: the person who is linked to that subject, the person of that name once they have proven
//! themself here, or somebody new with a role by the site's rules.

use serde_json::Value;
use store::Actor;
use trust::jwt::Claims;

use super::providers::{Provider, Provisioning};
use crate::people::{NewUser, PeopleError, Subject, User};
use crate::session::Caller;
use crate::state::Web;

/// Longest subject, in bytes (OpenID Connect Core §2).
const SUBJECT_LIMIT_BYTES: usize = 255;

/// Somebody whom a provider vouches for.
pub(super) struct Vouched {
    pub user: User,
    /// Who they are there, where that is to be linked once they are in.
    pub to_link: Option<Subject>,
    /// Whether a second factor at the provider can count. Not for somebody who has ways in of their own and was not linked
    /// yet: whoever can choose that name at the provider has not shown them.
    pub factor_counts: bool,
}

/// Why somebody whom a provider vouches for is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum StrangerError {
    /// Reading failed.
    #[error("reading failed")]
    Read(#[source] PeopleError),
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
    /// They have an invitation, or a way in that is not complete, and nobody said that they come by the provider.
    #[error(
        "somebody is expected by that name, but not by this way: use the link of your invitation first, or ask an \
         administrator"
    )]
    NotAwaited,
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

/// The person whom believed claims are about. Blocks.
pub(super) fn of(
    web: &Web,
    provider: &Provider,
    claims: &Claims,
    from: &Caller,
) -> Result<Vouched, StrangerError> {
    let missing = |claim: &str| StrangerError::Claim { claim: claim.to_owned() };
    let subject = claims.text("sub").filter(|text| !text.is_empty() && text.len() <= SUBJECT_LIMIT_BYTES);
    let subject = subject.ok_or_else(|| missing("sub"))?.to_owned();
    check_domain(provider, claims)?;
    let subject = Subject { issuer: provider.issuer.clone(), subject };
    if let Some(user) = web.linked(&subject).map_err(StrangerError::Read)? {
        return Ok(Vouched { user: standing(user)?, to_link: None, factor_counts: true });
    }
    let name = claims.text(&provider.name_claim).ok_or_else(|| missing(&provider.name_claim))?;
    match web.people.by_name(name) {
        Some(known) => expected(web, provider, standing(known)?, subject),
        None if provider.provisioning == Provisioning::JustInTime => {
            let user = added(web, provider, claims, name, (from, subject))?;
            Ok(Vouched { user, to_link: None, factor_counts: true })
        }
        None => Err(StrangerError::Unknown),
    }
}

/// Somebody who is known by name only so far: nothing is kept of it before they are in.
fn expected(web: &Web, provider: &Provider, user: User, subject: Subject) -> Result<Vouched, StrangerError> {
    let record = web.people.kept(user.id).ok_or(StrangerError::Unknown)?.record;
    if record.provider_links.iter().any(|link| link.subject.issuer == provider.issuer) {
        return Err(StrangerError::Taken);
    }
    let is_complete = record.is_complete();
    if !is_complete && record.awaited_provider.as_ref() != Some(&provider.id) {
        return Err(StrangerError::NotAwaited);
    }
    Ok(Vouched { user, to_link: Some(subject), factor_counts: !is_complete })
}

fn standing(user: User) -> Result<User, StrangerError> {
    if user.disabled { Err(StrangerError::Disabled) } else { Ok(user) }
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
    (from, subject): (&Caller, Subject),
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
    web.add_linked(from.by(actor), new, subject).map_err(StrangerError::Add)
}

/// Whether the provider says that a second factor was used, as the site reads it.
pub(super) fn used_second_factor(provider: &Provider, claims: &Claims) -> bool {
    let said = claims.texts("amr").into_iter().chain(claims.text("acr"));
    provider.trusts_mfa && said.into_iter().any(|one| provider.mfa_values.iter().any(|value| value == one))
}
