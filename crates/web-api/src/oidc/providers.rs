//! Identity providers as they are kept, and what must be true of their settings.

use access::Role;
use clinical_model::PlaceId;
use pipeline::audited::Agent;
use pipeline::records::{self, RecordError};
use serde::{Deserialize, Serialize};
use store::{
    AuditAction, AuditOutcome, DocumentQuery, DocumentWrite, Expected, IndexEntry, KeyDomain, Kind, Order,
    Store, StoreError, TransactError, Transaction,
};

use crate::problem::Problem;
use crate::state::Web;

/// Providers of one site.
const PROVIDERS_LIMIT: usize = 20;
/// Longest texts of the settings, in bytes.
const TEXT_LIMIT_BYTES: usize = 500;
/// Most domains, roles and values of one provider.
const LIST_LIMIT: usize = 100;
/// The index of providers, which other documents of the kind are not in.
const BY_NAME: &str = "provider";

/// Who may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Provisioning {
    /// People whom an administrator added.
    #[default]
    Existing,
    /// Whoever the provider gives one of the mapped roles.
    JustInTime,
}

/// What a value of the role claim means here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleRule {
    pub value: String,
    pub role: Role,
    /// The wards of those who come by it; none: all.
    pub wards: Option<Vec<PlaceId>>,
}

/// A provider as it is kept, sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Provider {
    /// Lower-case letters, digits and hyphens.
    pub id: String,
    pub name: String,
    pub issuer: String,
    pub client_id: String,
    pub client_secret: Option<String>,
    /// Whether we prove ourselves with our own key.
    pub uses_key: bool,
    pub scopes: String,
    pub name_claim: String,
    pub allowed_domains: Vec<String>,
    pub provisioning: Provisioning,
    pub role_claim: Option<String>,
    pub roles: Vec<RoleRule>,
    pub trusts_mfa: bool,
    pub mfa_values: Vec<String>,
    pub enabled: bool,
}

/// Why a provider could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderError {
    /// The store failed.
    #[error("reading the identity providers failed")]
    Store(#[source] StoreError),
    /// A document does not say what it should.
    #[error("an identity provider cannot be read")]
    Record(#[source] RecordError),
    /// It could not be kept.
    #[error("the identity provider could not be kept")]
    Keep(#[source] TransactError),
    /// It is not there.
    #[error("there is no such identity provider")]
    NotFound,
    /// A setting cannot be used.
    #[error("the setting \"{setting}\" cannot be used: {what}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Why.
        what: &'static str,
    },
}

/// Whether an address may be asked: https, or http on this machine, with a plain host and without a person or fragment.
pub(super) fn is_safe_address(address: &str) -> bool {
    let is_plain = address.len() <= TEXT_LIMIT_BYTES
        && address.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#@".contains(&byte));
    let host = |rest: &str| {
        let host = rest.split(['/', '?']).next().unwrap_or("").to_owned();
        match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name.to_owned(),
            _ => host,
        }
    };
    is_plain
        && match address.split_once("://") {
            Some(("https", rest)) => !host(rest).is_empty(),
            Some(("http", rest)) => matches!(host(rest).as_str(), "localhost" | "127.0.0.1" | "[::1]"),
            _ => false,
        }
}

impl Provider {
    pub(super) fn check(&self) -> Result<(), ProviderError> {
        let wrong = |setting, what| Err(ProviderError::Setting { setting, what });
        let is_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.id.is_empty() || self.id.len() > 40 || !self.id.bytes().all(is_id) {
            return wrong("id", "it has 1 to 40 lower-case letters, digits and hyphens");
        }
        for (setting, text) in [
            ("name", &self.name),
            ("client_id", &self.client_id),
            ("name_claim", &self.name_claim),
            ("scopes", &self.scopes),
        ] {
            if text.trim().is_empty() || text.len() > TEXT_LIMIT_BYTES || text.chars().any(char::is_control) {
                return wrong(setting, "it is empty, too long, or has control characters");
            }
        }
        if !is_safe_address(&self.issuer) || self.issuer.contains('?') {
            return wrong("issuer", "it is no https address (or http on this machine)");
        }
        if !self.scopes.split_whitespace().any(|scope| scope == "openid") {
            return wrong("scopes", "\"openid\" is missing");
        }
        let lengths = [self.allowed_domains.len(), self.roles.len(), self.mfa_values.len()];
        if lengths.into_iter().any(|length| length > LIST_LIMIT) {
            return wrong("roles", "a list is too long");
        }
        if self.provisioning == Provisioning::JustInTime
            && (self.role_claim.is_none() || self.roles.is_empty())
        {
            return wrong(
                "provisioning",
                "whoever is added by the provider needs a role claim with its rules",
            );
        }
        if self.roles.iter().any(|rule| matches!(rule.role, Role::Administrator | Role::Patient)) {
            return wrong("roles", "administrators and patients are added here, by a person");
        }
        if self.uses_key && self.client_secret.is_some() {
            return wrong("client_secret", "with a key there is no secret");
        }
        Ok(())
    }

    /// Where it is kept.
    fn document(id: &str) -> [u8; 16] {
        let digest = trust::digest::sha256(&[b"identity provider", id.as_bytes()]);
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        short
    }
}

fn read(document: &store::Document) -> Result<(Provider, u64), ProviderError> {
    let provider = records::json_from(&document.body).map_err(ProviderError::Record)?;
    Ok((provider, document.version))
}

/// All providers by their id. Blocks.
pub(super) fn all(store: &dyn Store) -> Result<Vec<(Provider, u64)>, ProviderError> {
    let query = DocumentQuery {
        kind: Kind::IdentityProvider,
        index: BY_NAME,
        prefix: Vec::new(),
        after: None,
        order: Order::Ascending,
        limit: PROVIDERS_LIMIT,
    };
    store.documents(&query).map_err(ProviderError::Store)?.iter().map(read).collect()
}

/// One provider. Blocks.
pub(super) fn one(store: &dyn Store, id: &str) -> Result<(Provider, u64), ProviderError> {
    let document =
        store.document(Kind::IdentityProvider, Provider::document(id)).map_err(ProviderError::Store)?;
    read(&document.ok_or(ProviderError::NotFound)?)
}

/// Refuses a provider that is not there. Blocks.
///
/// # Errors
/// [`Problem`].
pub(crate) fn check_known(web: &Web, id: &str) -> Result<(), Problem> {
    one(web.site.store(), id)?;
    Ok(())
}

/// One provider that people may come from. Blocks.
pub(super) fn enabled(store: &dyn Store, id: &str) -> Result<Provider, ProviderError> {
    one(store, id).and_then(|(found, _)| if found.enabled { Ok(found) } else { Err(ProviderError::NotFound) })
}

/// Keeps the settings of a provider. Blocks.
pub(super) fn keep(
    web: &Web,
    by: &Agent,
    provider: &Provider,
    expected: Expected,
) -> Result<(), ProviderError> {
    provider.check()?;
    let store = web.site.store();
    if expected == Expected::Absent && all(store)?.len() >= PROVIDERS_LIMIT {
        return Err(ProviderError::Setting {
            setting: "id",
            what: "there are as many providers as there may be",
        });
    }
    let at = web.site.clock().now();
    let index = vec![IndexEntry { name: BY_NAME, value: provider.id.as_bytes().to_vec(), unique: true }];
    let id = Provider::document(&provider.id);
    let write = records::json_write(Kind::IdentityProvider, id, expected, KeyDomain::System, provider, index);
    // Without the secret: the log is read by others.
    let detail = format!("{}: {}, enabled: {}", provider.id, provider.issuer, provider.enabled);
    let act = by.act(AuditAction::Update, "identity provider").detail(detail);
    let audit = vec![act.record(at, AuditOutcome::Success)];
    let transaction = Transaction { at, writes: vec![write], audit, ..Transaction::default() };
    store.transact(&transaction).map_err(ProviderError::Keep)
}

/// Removes a provider. Blocks.
pub(super) fn remove(web: &Web, by: &Agent, id: &str) -> Result<(), ProviderError> {
    let store = web.site.store();
    one(store, id)?;
    let at = web.site.clock().now();
    let write = DocumentWrite::removal(Kind::IdentityProvider, Provider::document(id));
    let act = by.act(AuditAction::Delete, "identity provider").detail(id);
    let audit = vec![act.record(at, AuditOutcome::Success)];
    let transaction = Transaction { at, writes: vec![write], audit, ..Transaction::default() };
    store.transact(&transaction).map_err(ProviderError::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_addresses_are_asked() {
        for good in [
            "https://id.example.org",
            "https://id.example.org:8443/realms/a",
            "http://localhost:4000",
            "http://[::1]:1/",
        ] {
            assert!(is_safe_address(good), "{good}");
        }
        for bad in [
            "http://id.example.org",
            "http://169.254.169.254/latest/meta-data",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "https://user@id.example.org",
            "https://",
            "file:///etc/passwd",
            "gopher://id.example.org",
            "https://id.example.org/#x",
            "https://id.example.org/ x",
        ] {
            assert!(!is_safe_address(bad), "{bad}");
        }
    }
}
