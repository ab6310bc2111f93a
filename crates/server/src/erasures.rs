//! The signed list of erased patients beside the key-encryption key: kept by the running server, applied by a restore.

use std::fs::File;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clinical_model::{PatientId, Timestamp};
use pipeline::Site;
use pipeline::audited::Act;
use serde::{Deserialize, Serialize};
use store::{Actor, AuditAction, AuditOutcome, AuditQuery, ErasureScope, Store, Transaction};
use trust::attest::Signer;

use crate::config::Config;

/// Largest list that is read, in bytes: 100,000 erasures.
const LIST_LIMIT_BYTES: u64 = 16 << 20;
/// How often it is looked whether somebody was erased.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// Rows removed in one step of a restore.
const STEP_LIMIT_ROWS: usize = 4_096;

/// One erased patient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    patient: PatientId,
    erased_at: Timestamp,
}

/// The file: the exact text of the list, its signature in DER as hexadecimal digits, and the signer's certificate.
#[derive(Serialize, Deserialize)]
struct Signed {
    list: String,
    signature: String,
    signer: String,
}

/// The list of erasures beside the key: written before anything is served, and again whenever somebody was erased.
pub struct ListKeeper {
    site: Arc<Site>,
    name: String,
    path: PathBuf,
    known: Option<usize>,
    is_told: bool,
}

impl ListKeeper {
    /// Of a site that starts.
    pub fn new(site: &Arc<Site>, config: &Config) -> Self {
        let path = config.key.erasures_file(&config.site.data_dir);
        ListKeeper {
            site: Arc::clone(site),
            name: config.site.name.clone(),
            path,
            known: None,
            is_told: false,
        }
    }

    /// Writes it where it is not what is known; says once that it cannot be written.
    ///
    /// # Errors
    /// When looking was broken off by a fault of this program.
    pub async fn look(&mut self) -> anyhow::Result<()> {
        let (site, name, path) = (Arc::clone(&self.site), self.name.clone(), self.path.clone());
        let known = self.known;
        let written = tokio::task::spawn_blocking(move || {
            let count = site.store().care().erasures().context("the erasures cannot be read")?.len();
            if known == Some(count) && path.exists() {
                return Ok(count);
            }
            write(site.store(), &name, &path, site.clock().now())
        });
        match written.await.context("writing the list of erasures was broken off")? {
            Ok(count) => (self.known, self.is_told) = (Some(count), false),
            Err(error) if !self.is_told => {
                tracing::error!("{error:#}; a restore would need it");
                self.is_told = true;
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Looks until `stop`.
    ///
    /// # Errors
    /// When looking was broken off by a fault of this program.
    pub async fn keep(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(LIST_EVERY);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(()),
                _ = tick.tick() => self.look().await?,
            }
        }
    }
}

/// Writes the list of a store beside the key; never over one that another signer signed.
///
/// # Errors
/// When the store cannot be read, the file not written, or a list stands there that this store's signer did not sign.
fn write(store: &dyn Store, site: &str, path: &Path, at: Timestamp) -> anyhow::Result<usize> {
    let erased = store.care().erasures().context("the erasures cannot be read")?;
    let entries: Vec<Entry> =
        erased.iter().map(|one| Entry { patient: one.patient, erased_at: one.begun_at }).collect();
    let list = serde_json::to_string(&entries)?;
    if is_there(path)? {
        // A store that has no signer yet did not sign it either.
        let own = pipeline::erasure::known_signer(store).context("the signer cannot be read")?;
        let kept = parse(path)?;
        if own.is_none_or(|own| own.check(kept.list.as_bytes(), &unhex(&kept.signature)).is_err()) {
            bail!(
                "the list of erasures {} was signed by another site's signer and is not written over. Where another site \
                 has this key, let key.erasures name a file of this site's own; where this is the site itself, put back to a \
                 state of before its list, whoever is on it was erased again: move it away, it is written anew then",
                path.display()
            );
        }
    }
    let signer = pipeline::erasure::signer(store, site, at).context("the list cannot be signed")?;
    let signature = signer.sign(list.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let text =
        serde_json::to_string(&Signed { list, signature, signer: signer.certificate_pem().to_owned() })?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    });
    written.with_context(|| {
        format!("the list of erasures {} cannot be written (key.erasures)", path.display())
    })?;
    Ok(entries.len())
}

/// Erases in a restored store whoever is on the list, before anything serves it. The list must be the site's own.
///
/// # Errors
/// When the list is not one, is not signed by the site, or the store fails.
pub fn apply(store: &Arc<dyn Store>, path: &Path, at: Timestamp) -> anyhow::Result<usize> {
    let entries = read(store.as_ref(), path)?;
    let known = store.care().erasures().context("the erasures cannot be read")?;
    let is_done =
        |entry: &Entry| known.iter().any(|one| one.patient == entry.patient && one.purged_at.is_some());
    Ok(erase(store.as_ref(), entries.iter().filter(|entry| !is_done(entry)), at)?.len())
}

/// Erases at the start of a server whoever is on the list and unknown to the store as erased: its data was put back to an
/// earlier state by other means than a restore. Without a list there is nothing to do: it is written then.
///
/// # Errors
/// When the list cannot be read, is not the site's own, or the store fails: nothing may be served then, and the list is
/// not written over.
fn apply_at_start(store: &dyn Store, path: &Path, at: Timestamp) -> anyhow::Result<Vec<PatientId>> {
    if !is_there(path)? {
        return Ok(Vec::new());
    }
    let entries = read(store, path)
        .context("patients who were erased might be served; if the list is another site's, move it away")?;
    let known = store.care().erasures().context("the erasures cannot be read")?;
    let is_known = |entry: &Entry| known.iter().any(|one| one.patient == entry.patient);
    erase(store, entries.iter().filter(|entry| !is_known(entry)), at)
}

/// A store that was just made has nothing to do with the list of a site that is older than it: most often the data directory
/// or the database is not the one that was meant.
///
/// # Errors
/// When the store holds nothing and a list stands beside its key.
fn refuse_new_store(store: &dyn Store, path: &Path, place: &str) -> anyhow::Result<()> {
    if !is_there(path)?
        || pipeline::erasure::known_signer(store).context("the signer cannot be read")?.is_some()
    {
        return Ok(());
    }
    let acts = store.audit_rows(&AuditQuery { limit: 1, ..AuditQuery::default() });
    if store.last_group() > 0 || !acts.context("the audit log cannot be read")?.is_empty() {
        return Ok(());
    }
    bail!(
        "the store in {place} is new and empty, and a site with this key stood before: {} is its list of erasures. Is \
         this the right data directory (site.data_dir, --data) or database? Where a new site is meant, give it a key of its \
         own (`auscult key generate`), or another list (key.erasures); keep this list with the backups of the site before",
        path.display()
    )
}

/// Refuses a store that was just made where a site with its key stood before. Nothing was served then.
///
/// # Errors
/// When it is so, or nobody can say.
pub async fn refuse_strange(config: &Config, store: Arc<dyn Store>) -> anyhow::Result<()> {
    let path = config.key.erasures_file(&config.site.data_dir);
    let place = match config.store.url()? {
        Some(url) => url.to_string(),
        None => config.site.data_dir.display().to_string(),
    };
    let looked = tokio::task::spawn_blocking(move || refuse_new_store(store.as_ref(), &path, &place));
    looked.await.context("looking at the list of erasures was broken off")?
}

/// Whoever was erased stays so, where the data was put back to an earlier state.
///
/// # Errors
/// When the list is not the site's own or the store fails: nothing may be served then.
pub async fn erase_again(config: &Config, store: Arc<dyn Store>) -> anyhow::Result<Vec<PatientId>> {
    let path = config.key.erasures_file(&config.site.data_dir);
    let at = crate::pki::timestamp(SystemTime::now());
    let erased = tokio::task::spawn_blocking(move || apply_at_start(store.as_ref(), &path, at));
    erased.await.context("applying the list of erasures was broken off")?
}

/// Says loudly who was erased again.
pub fn tell_erased_again(erased: &[PatientId]) {
    for patient in erased {
        tracing::error!(
            %patient,
            "the data is older than an erasure: the patient was erased again; look how it came to be put back"
        );
    }
}

fn is_there(path: &Path) -> anyhow::Result<bool> {
    path.try_exists().with_context(|| format!("{} cannot be looked at", path.display()))
}

/// A list as it was written, whoever signed it.
fn parse(path: &Path) -> anyhow::Result<Signed> {
    let shown = path.display();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LIST_LIMIT_BYTES).read_to_string(&mut text))
        .with_context(|| format!("the list of erasures {shown} cannot be read"))?;
    serde_json::from_str(&text).with_context(|| format!("{shown} is no list of erasures"))
}

/// The list, where it is the site's own.
fn read(store: &dyn Store, path: &Path) -> anyhow::Result<Vec<Entry>> {
    let shown = path.display();
    let signed = parse(path)?;
    let signature = unhex(&signed.signature);
    check(store, &signed, &signature).with_context(|| format!("{shown} is not the list of this site"))?;
    serde_json::from_str(&signed.list).with_context(|| format!("{shown} is no list of erasures"))
}

fn erase<'a>(
    store: &dyn Store,
    entries: impl Iterator<Item = &'a Entry>,
    at: Timestamp,
) -> anyhow::Result<Vec<PatientId>> {
    let care = store.care();
    let mut erased = Vec::new();
    for entry in entries {
        care.begin_erasure(entry.patient, at).context("an erasure could not be applied")?;
        while care.step_erasure(entry.patient, &ErasureScope::default(), STEP_LIMIT_ROWS)?.0.total() > 0 {}
        // The row of the erasure itself is gone with what was put back; without one, rows that lost their content would look
        // as if somebody hid them.
        let act = Act::new(Actor::System, AuditAction::Erase, "erasure").patient(entry.patient);
        let act = act.detail("erased again: the data was put back to before the erasure");
        let audit = vec![act.record(at, AuditOutcome::Success)];
        let noted = store.transact(&Transaction { at, audit, ..Transaction::default() });
        noted.context("an erasure could not be recorded")?;
        erased.push(entry.patient);
    }
    Ok(erased)
}

/// A list that the site signed, by the signer that the restored store knows; one older than its first erasure knows none,
/// and then the list proves itself only against its own certificate.
fn check(store: &dyn Store, signed: &Signed, signature: &[u8]) -> anyhow::Result<()> {
    match pipeline::erasure::known_signer(store).context("the signer cannot be read")? {
        Some(signer) => signer.check(signed.list.as_bytes(), signature)?,
        None => Signer::check_by(&signed.signer, signed.list.as_bytes(), signature)?,
    }
    Ok(())
}

fn unhex(digits: &str) -> Vec<u8> {
    let two = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    (0..digits.len()).step_by(2).filter_map(two).collect()
}

/// The list that a restore is to apply: the one that was named, or the one beside the key.
///
/// # Errors
/// When there is none and nobody said that there is none.
pub fn for_restore(
    named: Option<&Path>,
    beside_key: &Path,
    without: bool,
) -> anyhow::Result<Option<PathBuf>> {
    match named {
        Some(path) => Ok(Some(path.to_owned())),
        None if beside_key.exists() => Ok(Some(beside_key.to_owned())),
        None if without => Ok(None),
        None => bail!(
            "there is no list of erasures {}: patients who were erased since this backup would come back; name the list \
             with --erasures FILE, or say --without-erasures when nobody was ever erased",
            beside_key.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ATTACK, 21:03: a store without a signer signed the list anew, and the site whose list it was could not start again.
    #[test]
    fn the_list_of_another_signer_is_applied_and_never_written_over() {
        let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [ours, other, beside] = &directories;
        let keks = trust::KekRing::from(trust::Kek::generate());
        let open = |directory: &tempfile::TempDir| {
            crate::opening::directory(directory.path(), keks.clone()).unwrap()
        };
        let (store, list) = (open(ours), beside.path().join("key.erasures"));
        let at = Timestamp::from_seconds(1_800_000_000);
        store.care().begin_erasure(PatientId::from_bytes([7; 16]), at).unwrap();
        assert_eq!(write(&store, "Site", &list, at).unwrap(), 1);
        let kept = std::fs::read(&list).unwrap();

        // New and empty: most likely not the store that was meant.
        let strange = open(other);
        let told = format!("{:#}", refuse_new_store(&strange, &list, "there").unwrap_err());
        assert!(told.contains("new and empty"), "{told}");
        // Older than its first signer: the list is applied, and stays as it is.
        let act = Act::new(Actor::System, AuditAction::Administer, "Test").record(at, AuditOutcome::Success);
        strange.transact(&Transaction { at, audit: vec![act], ..Transaction::default() }).unwrap();
        refuse_new_store(&strange, &list, "there").unwrap();
        assert_eq!(apply_at_start(&strange, &list, at).unwrap(), [PatientId::from_bytes([7; 16])]);
        let told = format!("{:#}", write(&strange, "Site", &list, at).unwrap_err());
        assert!(told.contains("not written over") && told.contains("move it away"), "{told}");
        assert_eq!(std::fs::read(&list).unwrap(), kept);
        // Moved away, it is written with everybody who was on it.
        std::fs::rename(&list, beside.path().join("moved")).unwrap();
        assert_eq!(write(&strange, "Site", &list, at).unwrap(), 1);
        // By now it has a signer, and the list of the other one keeps it from starting.
        std::fs::write(&list, &kept).unwrap();
        assert!(apply_at_start(&strange, &list, at).is_err());
        assert!(write(&strange, "Site", &list, at).is_err());
        assert_eq!(write(&store, "Site", &list, at).unwrap(), 1, "its own it writes as often as it likes");
    }
}
