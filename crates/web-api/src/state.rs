//! What every handler shares: the site, the options, and the doors against guessing.

use std::sync::Arc;
use std::time::Duration;

use pipeline::Site;
use store::{DocumentChange, Kind};
use trust::TokenHash;
use trust::password::PasswordCost;

use crate::guard::SignInGuard;
use crate::people::{People, PeopleError};
use crate::session::Sessions;

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
    /// Whether a TCP balancer stands before the web port and tells by the PROXY protocol whose a connection is.
    pub proxy_protocol: bool,
    /// A session without a request for so long ends.
    pub idle_timeout: Duration,
    /// A session ends after so long at the latest.
    pub session_limit: Duration,
}

impl Default for WebOptions {
    fn default() -> Self {
        WebOptions {
            site_name: "Auscult".to_owned(),
            demo: false,
            secure_cookies: false,
            password_cost: PasswordCost::default(),
            proxy_protocol: false,
            idle_timeout: Duration::from_secs(15 * 60),
            session_limit: Duration::from_secs(12 * 3_600),
        }
    }
}

/// The web side of one site.
pub struct Web {
    pub(crate) site: Arc<Site>,
    pub(crate) options: WebOptions,
    pub(crate) people: People,
    pub(crate) sessions: Sessions,
    pub(crate) exports: crate::fhir::Exports,
    pub(crate) guard: SignInGuard,
}

impl Web {
    /// Over a running site.
    ///
    /// # Errors
    /// [`PeopleError`] where the users cannot be read.
    pub fn new(site: Arc<Site>, options: WebOptions) -> Result<Arc<Self>, PeopleError> {
        let people = People::load(site.store())?;
        let sessions = Sessions::new(site.shared_store(), options.idle_timeout, options.session_limit);
        let guard = SignInGuard::new(site.shared_store());
        let web = Arc::new(Web {
            site,
            options,
            people,
            sessions,
            exports: crate::fhir::Exports::default(),
            guard,
        });
        let weak = Arc::downgrade(&web);
        web.site.observe(Box::new(move |change| {
            if let Some(web) = weak.upgrade() {
                web.changed_elsewhere(change);
            }
        }));
        // Whoever was added between reading the users and observing.
        web.changed_elsewhere(None);
        Ok(web)
    }

    /// Another node added a person or ended a session.
    fn changed_elsewhere(&self, change: Option<&DocumentChange>) {
        match change {
            Some(change) if change.kind == Kind::Session => {
                if change.removed {
                    self.sessions.forget(change.id);
                }
            }
            Some(change) if change.kind != Kind::User => {}
            _ => {
                if let Err(error) = self.people.refresh(self.site.store(), change.map(|change| change.id)) {
                    tracing::error!(error = &error as &dyn std::error::Error, "people were not read again");
                }
            }
        }
    }

    /// The site behind.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
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
