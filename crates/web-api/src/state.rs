//! What every handler shares: the site, the options, and the doors against guessing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeline::Site;
use pipeline::audited::Act;
use store::{AuditOutcome, DocumentChange, Kind, StoreError, TransactError};
use tokio::sync::Semaphore;
use trust::password::PasswordCost;
use trust::webauthn::{OriginError, RelyingParty};
use trust::{SecretText, TokenHash, TokenSecret};

use crate::access::{Looks, Policies, PoliciesError};
use crate::download::Downloads;
use crate::flood::Flood;
use crate::guard::SignInGuard;
use crate::oauth::{ClientsError, OAuth};
use crate::oidc::Remote;
use crate::people::{People, PeopleError};
use crate::session::{Binding, Caller, Sessions};

/// Passwords that are checked at one time: each takes tens of megabytes and a core for a fraction of a second.
const HASHES_AT_ONCE: usize = 4;

/// Bytes of a blinded text that stand in the audit log: two texts of a site fall together once in 2^32.
const BLIND_SHOWN_BYTES: usize = 8;

/// How the web side runs.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// What the site calls itself.
    pub site_name: String,
    /// Whether this is a demonstration with invented patients.
    pub demo: bool,
    /// Whether the web app is served over TLS, so that cookies can be bound to it.
    pub secure_cookies: bool,
    /// How costly a password is to check.
    pub password_cost: PasswordCost,
    /// TCP balancers before the web port, which tell by the PROXY protocol whose a connection is.
    pub balancers: crate::proxied::Balancers,
    /// A session without a request for so long ends.
    pub idle_timeout: Duration,
    /// A session ends after so long at the latest.
    pub session_limit: Duration,
    /// How firmly a session is bound to where it began.
    pub binding: Binding,
    /// The addresses at which browsers open the web app (`https://auscult.example.org`); passkeys are bound to the host of
    /// the first. None: this machine alone, `http://localhost` at any port.
    pub public_addresses: Vec<String>,
    /// Where the key-encryption key lives.
    pub key_home: crate::json::keys::KeyHome,
    /// Where the site's own policies stand.
    pub policies: Option<PathBuf>,
    /// What one request may cost.
    pub costs: CostLimits,
}

/// Most observations that one `_has` looks at, where no series alone answers it: some seconds of work.
pub const HAS_LIMIT_OBSERVATIONS: usize = 500_000;
/// Most versions that one history of a type puts into order: they are held together, a few KiB each.
pub const TYPE_HISTORY_LIMIT_VERSIONS: usize = 20_000;

/// What one request over FHIR may cost before it is refused with `too-costly`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostLimits {
    /// Observations that one `_has` looks at: [`HAS_LIMIT_OBSERVATIONS`].
    pub has_observations: usize,
    /// Versions that one history of a type puts into order: [`TYPE_HISTORY_LIMIT_VERSIONS`].
    pub type_history_versions: usize,
}

impl Default for CostLimits {
    fn default() -> Self {
        CostLimits {
            has_observations: HAS_LIMIT_OBSERVATIONS,
            type_history_versions: TYPE_HISTORY_LIMIT_VERSIONS,
        }
    }
}

impl Default for WebOptions {
    fn default() -> Self {
        WebOptions {
            site_name: "Auscult".to_owned(),
            demo: false,
            secure_cookies: false,
            password_cost: PasswordCost::default(),
            balancers: crate::proxied::Balancers::default(),
            idle_timeout: Duration::from_secs(15 * 60),
            session_limit: Duration::from_secs(12 * 3_600),
            binding: Binding::Address,
            public_addresses: Vec::new(),
            key_home: crate::json::keys::KeyHome::default(),
            policies: None,
            costs: CostLimits::default(),
        }
    }
}

/// Why the web side does not start.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The people who may sign in cannot be read.
    #[error("the people who may sign in cannot be read")]
    People(#[from] PeopleError),
    /// The policies cannot be used.
    #[error("the policies cannot be used")]
    Policies(#[from] PoliciesError),
    /// The registered programs cannot be read.
    #[error("the registered programs cannot be read")]
    Programs(#[from] ClientsError),
    /// A public address cannot be used.
    #[error("a public address cannot be used")]
    PublicAddress(#[from] OriginError),
}

/// The web side of one site.
pub struct Web {
    pub(crate) site: Arc<Site>,
    pub(crate) options: WebOptions,
    pub(crate) people: People,
    /// To whom passkeys are bound.
    pub(crate) party: RelyingParty,
    /// Passwords that are checked at one time.
    pub(crate) hashing: Semaphore,
    /// The token of the demonstration's link, which exists nowhere else.
    pub(crate) demo_token: Option<TokenSecret>,
    pub(crate) policies: Policies,
    pub(crate) sessions: Sessions,
    pub(crate) exports: crate::fhir::Exports,
    pub(crate) downloads: Downloads,
    /// Looks that go on, of which a row was written.
    pub(crate) looks: Looks,
    pub(crate) guard: SignInGuard,
    pub(crate) flood: Flood,
    pub(crate) enrolling: crate::enrol::Enrolling,
    pub(crate) oauth: OAuth,
    pub(crate) remote: Remote,
}

impl Web {
    /// Over a running site.
    ///
    /// # Errors
    /// [`WebError`] where the users cannot be read, or the policies have a mistake in them.
    pub fn new(site: Arc<Site>, options: WebOptions) -> Result<Arc<Self>, WebError> {
        let policies = Policies::load(options.policies.clone(), site.clock().now())?;
        let party = match options.public_addresses.as_slice() {
            [] => RelyingParty::localhost(),
            addresses => RelyingParty::at(addresses)?,
        };
        let people = People::load(site.store())?;
        let sessions = Sessions::new(site.shared_store(), options.idle_timeout, options.session_limit);
        let guard = SignInGuard::new(site.shared_store());
        let oauth = OAuth::load(site.store())?;
        let web = Arc::new(Web {
            site,
            demo_token: options.demo.then(TokenSecret::generate),
            options,
            people,
            party,
            hashing: Semaphore::new(HASHES_AT_ONCE),
            policies,
            sessions,
            exports: crate::fhir::Exports::default(),
            downloads: Downloads::default(),
            looks: Looks::default(),
            guard,
            flood: Flood::default(),
            enrolling: crate::enrol::Enrolling::default(),
            oauth,
            remote: Remote::default(),
        });
        let weak = Arc::downgrade(&web);
        web.site
            .observe(Box::new(move |change| weak.upgrade().map_or(Ok(()), |web| Ok(web.followed(change)?))));
        // Whoever was added between reading the users and observing.
        web.changed_elsewhere(None)?;
        web.follow_erasures();
        Ok(web)
    }

    /// Records that a stranger was refused, unless too many come from there. Blocks.
    pub(crate) fn stranger_refused(&self, from: &Caller, act: Act) -> Result<(), TransactError> {
        match self.flood.recorded(from.address, act, self.site.clock().now()) {
            Some(act) => self.site.record(act, AuditOutcome::Refused),
            None => Ok(()),
        }
    }

    /// As [`Web::changed_elsewhere`]. What cannot be read will not be readable by being read again: it is named, and the
    /// node goes on; a store that does not answer now is asked again.
    fn followed(&self, change: Option<&DocumentChange>) -> Result<(), WebError> {
        let done = self.changed_elsewhere(change);
        let is_unreadable = matches!(
            &done,
            Err(WebError::People(PeopleError::Record(_) | PeopleError::Store(StoreError::Damaged { .. }))
                | WebError::Programs(
                    ClientsError::Record(_) | ClientsError::Store(StoreError::Damaged { .. })
                ))
        );
        match done {
            Err(error) if is_unreadable => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a change of another node cannot be read"
                );
                Ok(())
            }
            done => done,
        }
    }

    /// Another node added a person or ended a session.
    fn changed_elsewhere(&self, change: Option<&DocumentChange>) -> Result<(), WebError> {
        let store = self.site.store();
        match change {
            Some(change) if change.kind == Kind::Session => {
                if change.removed {
                    self.sessions.forget(change.id);
                } else {
                    self.sessions.outdated(change.id);
                }
            }
            Some(change) if change.kind == Kind::Client => {
                self.oauth.clients.refresh(store, Some(change.id))?
            }
            Some(change) if change.kind == Kind::User => self.people.refresh(store, Some(change.id))?,
            Some(_) => {}
            None => {
                self.oauth.clients.refresh(store, None)?;
                self.people.refresh(store, None)?;
            }
        }
        Ok(())
    }

    /// The token of the demonstration's link: it signs in as any of its people until the demonstration ends. `None` for
    /// every other site.
    pub fn demo_token(&self) -> Option<SecretText> {
        self.demo_token.as_ref().map(TokenSecret::to_text)
    }

    /// The person of a name, not told apart by case.
    pub fn user_named(&self, name: &str) -> Option<crate::people::User> {
        self.people.by_name(name)
    }

    /// The addresses at which browsers open the web app; none: this machine alone.
    pub fn public_addresses(&self) -> &[String] {
        &self.options.public_addresses
    }

    /// The policies in force.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The site behind.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// What somebody typed, for a row of the audit log that is about no patient in particular: the same text gives the same
    /// word, and without the key of the site no word leads back to it. A name of somebody who is erased later must not
    /// stay readable there.
    pub(crate) fn blinded(&self, text: &str) -> String {
        let blind = self.site.store().blind("audit-text", &text.trim().to_lowercase());
        format!("#{}", crate::json::hex(&blind[..BLIND_SHOWN_BYTES]))
    }

    /// Whether a session still runs, for a stream that asks from time to time.
    pub(crate) async fn session_runs(self: &Arc<Self>, hash: &TokenHash) -> bool {
        let hash = *hash;
        // What could not be asked is no end of the session: the next beat asks again.
        self.blocking(move |web| web.sessions.runs(&hash, web.site.clock().now())).await.unwrap_or(true)
    }

    /// Runs something that blocks (the store, a password) off the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&Web) -> T + Send + 'static,
    ) -> Result<T, crate::problem::Problem> {
        let web = Arc::clone(self);
        tokio::task::spawn_blocking(move || run(&web)).await.map_err(|_| crate::problem::Problem::internal())
    }
}
