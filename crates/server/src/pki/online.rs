//! The issuing key of a running server: what enrolment asks, and what changes while the server runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clinical_model::Timestamp;
use pipeline::Site;
use pipeline::enrolment::{
    AuthorityFault, CERTIFICATE_LIFE, CertificateAuthority, IssuedTo, IssuingKey, NewCertificate, Outline,
    Program, Revoked,
};
use trust::KekRing;
use trust::pki::{PeerUri, RevokedSerials, SigningRequest};
use trust::tls::{LiveTls, Now};

use super::shared::RevokedLists;
use super::{LIST_LIFE, PkiDirectory, ProgramLine, append_programs, read_programs, system_time, timestamp};

/// How old a signed list may be that is given out once more; a new revocation makes a new one at once.
const LIST_AGE: Duration = Duration::from_secs(3_600);

/// The authority of a running server.
pub struct OnlineAuthority {
    directory: RwLock<Arc<PkiDirectory>>,
    keks: KekRing,
    lists: Arc<RevokedLists>,
    revoked: RwLock<Arc<RevokedSerials>>,
    site: Arc<Site>,
    tls: Arc<LiveTls>,
    /// Names in the server's certificate; `None` where the operator brings one.
    names: Option<Vec<String>>,
    now: Now,
    /// One at a time reads a file, changes it and writes it.
    writing: Mutex<()>,
    /// The signed lists as they were made last, by issuing key.
    signed: Mutex<HashMap<String, Signed>>,
}

/// A signed list, and of what it is.
struct Signed {
    of: Arc<RevokedSerials>,
    at: SystemTime,
    der: Vec<u8>,
}

impl OnlineAuthority {
    /// Over an opened directory.
    pub fn new(
        directory: PkiDirectory,
        keks: KekRing,
        lists: Arc<RevokedLists>,
        site: Arc<Site>,
        tls: Arc<LiveTls>,
        names: Option<Vec<String>>,
        now: Now,
    ) -> Self {
        OnlineAuthority {
            directory: RwLock::new(Arc::new(directory)),
            keks,
            lists,
            revoked: RwLock::default(),
            site,
            tls,
            names,
            now,
            writing: Mutex::default(),
            signed: Mutex::default(),
        }
    }

    /// The directory as it was opened last.
    pub fn directory(&self) -> Arc<PkiDirectory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lists that it watches.
    pub fn lists(&self) -> &RevokedLists {
        &self.lists
    }

    /// Reads the lists again: what was revoked is believed no more from now on, and programs may what stands there.
    /// Gives how many certificates are revoked. Blocks.
    ///
    /// # Errors
    /// When one cannot be read; the earlier ones stay in force.
    pub fn read_lists(&self) -> anyhow::Result<usize> {
        let revoked = Arc::new(self.lists.read()?);
        self.site.admission().set_revoked(revoked.iter().map(|(serial, _)| serial.to_owned()));
        let count = revoked.len();
        let mut known = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        if **known != *revoked {
            *known = revoked;
        }
        drop(known);
        let programs = read_programs(&self.lists.programs)?;
        let scopes = programs.into_iter().map(|(name, line)| (name, line.scopes));
        self.site.admission().set_program_scopes(scopes);
        Ok(count)
    }

    /// Looks whether the issuing key was turned over, here or on another node, and whether the server's certificate is
    /// due: what is new serves from the next handshake on. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be used; what serves goes on serving.
    pub fn refresh(&self) -> anyhow::Result<()> {
        let path = self.directory().path().to_owned();
        // The key-encryption key may have turned over meanwhile.
        let mut keks = self.keks.clone();
        keks.reload().context("the key-encryption key cannot be had")?;
        let opened = match &self.lists.shared {
            Some(store) => super::shared::settle(store.as_ref(), &path, "", &keks)?,
            None => PkiDirectory::open(&path, &keks)?,
        };
        let opened = Arc::new(opened.with_clock(Arc::clone(&self.now)));
        self.tls.replace_issuing(&opened.issuing_pem())?;
        if let Some(names) = &self.names {
            let identity = opened.server_identity(names)?;
            self.tls.replace_identity(&identity.chain_pem, identity.key_pem.expose())?;
        }
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(())
    }
}

fn fault(what: &str, source: anyhow::Error) -> AuthorityFault {
    AuthorityFault { what: what.to_owned(), source: Some(source.into()) }
}

impl CertificateAuthority for OnlineAuthority {
    fn issue(
        &self,
        peer: &PeerUri,
        common_name: &str,
        request: &SigningRequest,
    ) -> Result<NewCertificate, AuthorityFault> {
        let (issued, not_before, not_after) = self
            .directory()
            .sign_request(request, peer.clone(), common_name, CERTIFICATE_LIFE)
            .map_err(|error| fault("the certificate cannot be issued", error))?;
        Ok(NewCertificate {
            chain_pem: issued.certificate_pem,
            serial_hex: issued.serial_hex,
            not_before: timestamp(not_before),
            not_after: timestamp(not_after),
        })
    }

    fn revoke(&self, serials: &[String], reason: &str) -> Result<(), AuthorityFault> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = self.directory();
        let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
        let mut reason = reason.trim().to_owned();
        while reason.len() > trust::pki::MAX_REASON_BYTES {
            reason.pop();
        }
        let reason = if reason.is_empty() { "no reason given" } else { &reason };
        for serial in serials {
            directory
                .revoke(serial, reason)
                .map_err(|error| fault("the certificate cannot be revoked", error))?;
        }
        self.read_lists().map_err(|error| fault("the lists cannot be read back", error))?;
        Ok(())
    }

    fn revocation(&self, serial_hex: &str) -> Option<Revoked> {
        let revoked = Arc::clone(&self.revoked.read().unwrap_or_else(PoisonError::into_inner));
        let found = revoked.get(serial_hex)?;
        Some(Revoked { at: timestamp(found.revoked_at), reason: found.reason.clone() })
    }

    fn issued_to(&self, uri: &str) -> Result<Vec<IssuedTo>, AuthorityFault> {
        let issued = self.directory().issued();
        let issued = issued.map_err(|error| fault("the list of what was issued cannot be read", error))?;
        let of_them = issued.into_iter().filter(|line| line.purpose == uri);
        Ok(of_them.map(|line| IssuedTo { serial_hex: line.serial_hex, not_after: line.not_after }).collect())
    }

    fn outline(&self) -> Outline {
        let directory = self.directory();
        let now = timestamp((self.now)());
        let (anchor_sha256, anchor_not_after) = directory.tiers().anchor();
        let believed = directory.tiers().issuing.iter().filter(|one| one.is_believed(now));
        Outline {
            name: directory.name().to_owned(),
            anchors_pem: directory.certificate_pem().to_owned(),
            anchor_sha256,
            anchor_not_after,
            issuing: believed
                .map(|one| IssuingKey {
                    id: one.id.clone(),
                    certificate_pem: one.pem.clone(),
                    not_after: one.believed_until.unwrap_or(one.not_after).min(one.not_after),
                })
                .collect(),
            is_root_key_here: directory.is_root_key_here(),
            address: directory.address(),
        }
    }

    fn revocation_list(&self, id: &str) -> Result<Option<Vec<u8>>, AuthorityFault> {
        let cannot = |error: anyhow::Error| fault("the list of revoked certificates cannot be signed", error);
        let revoked = Arc::clone(&self.revoked.read().unwrap_or_else(PoisonError::into_inner));
        let now = (self.now)();
        // Signed once, not for everybody who asks.
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = signed.get(id)
            && Arc::ptr_eq(&known.of, &revoked)
            && now.duration_since(known.at).is_ok_and(|age| age < LIST_AGE)
        {
            return Ok(Some(known.der.clone()));
        }
        let Some(authority) = self.directory().issuing_key(id).map_err(cannot)? else { return Ok(None) };
        let list = authority.revocation_list(&revoked, now, LIST_LIFE);
        let der = list.map_err(|error| cannot(error.into()))?;
        signed.insert(id.to_owned(), Signed { of: revoked, at: now, der: der.clone() });
        Ok(Some(der))
    }

    fn programs(&self) -> Result<Vec<Program>, AuthorityFault> {
        let programs = read_programs(&self.lists.programs);
        let programs = programs.map_err(|error| fault("the list of programs cannot be read", error))?;
        let program =
            |line: ProgramLine| Program { name: line.name, scopes: line.scopes, registered_at: line.at };
        Ok(programs.into_values().map(program).collect())
    }

    fn register_program(&self, name: &str, scopes: &[String]) -> Result<(), AuthorityFault> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let at: Timestamp = timestamp((self.now)());
        let line = ProgramLine::new(at, name, scopes)
            .map_err(|error| fault("the program cannot be registered with these scopes", error))?;
        append_programs(&self.lists.programs, &[line])
            .and_then(|()| self.read_lists())
            .map_err(|error| fault("the program cannot be registered", error))?;
        Ok(())
    }
}

/// The clock that the server goes by: the system's, where it shows a time that can be right. A machine whose battery is
/// empty starts in 1970, and would believe certificates that ended long ago and issue ones that have ended: there time
/// goes on from the floor.
///
/// A time that can be right is believed though rows of later times are kept: they may have been written while the clock
/// ran ahead, and to go on from there would refuse every certificate and every one-time code.
pub fn floored_clock(released_at: Timestamp, floor: Timestamp) -> Now {
    let released_at = system_time(released_at);
    let (floor, started) = (system_time(floor).max(released_at), std::time::Instant::now());
    Arc::new(move || {
        let shown = SystemTime::now();
        if shown < released_at { floor + started.elapsed() } else { shown }
    })
}
