//! The policies in force: loaded at start, loaded again when told to, and never replaced by a set with a mistake in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ::access::rules::{BadPolicies, FILE_LIMIT_BYTES, FILES_LIMIT, Source};
use ::access::{Asker, Engine, Principal};
use clinical_model::Timestamp;
use pipeline::audited::Agent;
use store::{AuditAction, AuditOutcome, TransactError};

use crate::state::Web;

/// Principals whose decisions are remembered between requests; beyond it all are forgotten.
const ASKERS_LIMIT: usize = 2_000;

/// Why policies could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    /// A file or the directory cannot be read.
    #[error("the policies in {path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There are too many files, or one is too large.
    #[error("{path} is too much: at most {FILES_LIMIT} files of {FILE_LIMIT_BYTES} bytes are taken")]
    TooMuch {
        /// What.
        path: PathBuf,
    },
    /// They were loaded, and it could not be noted in the audit log.
    #[error("loading the policies could not be noted in the audit log")]
    Unrecorded(#[source] TransactError),
    /// They say something wrong; each mistake with file, line and column.
    #[error("the policies cannot be used:\n{0}")]
    Bad(BadPolicies),
}

/// When the last attempt was made, and what was wrong with it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// When the set in force was loaded.
    pub at: Timestamp,
    /// Why a later attempt was not taken.
    pub error: Option<String>,
}

/// The policies of one site.
pub struct Policies {
    directory: Option<PathBuf>,
    engine: RwLock<Arc<Engine>>,
    loaded: Mutex<Loaded>,
    askers: Mutex<HashMap<Principal, Arc<Asker>>>,
    #[cfg(feature = "bench-off")]
    permitting_all: std::sync::OnceLock<Arc<Asker>>,
}

/// The files of a site's directory, by name.
///
/// # Errors
/// [`PoliciesError`] for what cannot be read or is too much.
pub fn sources_of(directory: &Path) -> Result<Vec<Source>, PoliciesError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| PoliciesError::Read { path, source }
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            paths.push(path);
        }
    }
    if paths.len() > FILES_LIMIT {
        return Err(PoliciesError::TooMuch { path: directory.to_owned() });
    }
    paths.sort();
    let mut sources = Vec::with_capacity(paths.len());
    for path in paths {
        let size = std::fs::metadata(&path).map_err(unreadable(&path))?.len();
        if size > FILE_LIMIT_BYTES as u64 {
            return Err(PoliciesError::TooMuch { path });
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        sources.push(Source { name, text });
    }
    Ok(sources)
}

/// The engine over the built-in policies and those of a directory.
///
/// # Errors
/// [`PoliciesError`]: then nothing may start, or what is in force stays.
pub fn engine_of(directory: Option<&Path>) -> Result<Engine, PoliciesError> {
    let sources = match directory {
        Some(directory) => sources_of(directory)?,
        None => Vec::new(),
    };
    Engine::with(&sources).map_err(PoliciesError::Bad)
}

impl Web {
    /// Loads the policies again, and notes it in the audit log. With a mistake in them those in force stay. Blocks.
    ///
    /// # Errors
    /// [`PoliciesError`] with every mistake; [`PoliciesError::Unrecorded`] where the log cannot be written.
    pub fn reload_policies(&self, by: impl Into<Agent>) -> Result<(), PoliciesError> {
        let result = self.policies.reload(self.site.clock().now());
        let act = by.into().act(AuditAction::Administer, "Policies");
        let (act, outcome) = match &result {
            Ok(()) => (act.detail("loaded again"), AuditOutcome::Success),
            Err(error) => (act.detail(error.to_string()), AuditOutcome::Failed),
        };
        self.site.record(act, outcome).map_err(PoliciesError::Unrecorded)?;
        result
    }
}

impl Policies {
    /// Loads what is in force from the start.
    ///
    /// # Errors
    /// [`PoliciesError`]: a site with a mistake in its policies does not start.
    pub(crate) fn load(directory: Option<PathBuf>, now: Timestamp) -> Result<Self, PoliciesError> {
        let engine = engine_of(directory.as_deref())?;
        Ok(Policies {
            directory,
            engine: RwLock::new(Arc::new(engine)),
            loaded: Mutex::new(Loaded { at: now, error: None }),
            askers: Mutex::default(),
            #[cfg(feature = "bench-off")]
            permitting_all: std::sync::OnceLock::new(),
        })
    }

    /// The policies in force.
    pub fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the site's own stand.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// When they were loaded, and what was wrong with a later attempt.
    pub fn loaded(&self) -> Loaded {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads them again. With a mistake in them the set in force stays, and health says so. Blocks.
    ///
    /// # Errors
    /// [`PoliciesError`] with every mistake.
    pub fn reload(&self, now: Timestamp) -> Result<(), PoliciesError> {
        let result = engine_of(self.directory());
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(engine) => {
                *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(engine);
                self.askers.lock().unwrap_or_else(PoisonError::into_inner).clear();
                *loaded = Loaded { at: now, error: None };
                Ok(())
            }
            Err(error) => {
                loaded.error = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Whoever asks, with what was decided for them under these policies.
    pub(crate) fn asker(&self, principal: Principal) -> Arc<Asker> {
        #[cfg(feature = "bench-off")]
        if super::is_off() {
            let made = || Arc::new(Asker::permitting_all(self.engine(), principal));
            return Arc::clone(self.permitting_all.get_or_init(made));
        }
        let engine = self.engine();
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = askers.get(&principal)
            && Arc::ptr_eq(known.engine(), &engine)
        {
            return Arc::clone(known);
        }
        if askers.len() >= ASKERS_LIMIT {
            askers.clear();
        }
        let asker = Arc::new(Asker::new(engine, principal.clone()));
        askers.insert(principal, Arc::clone(&asker));
        asker
    }
}
