//! A store whose audit can be made to fail: what cannot be recorded must not be done, and not be seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clinical_model::{DeviceId, FrameKind, Subject, Timestamp};
use pipeline::Site;
use pipeline::audited::{Act, ReadError};
use pipeline::desk::DeskError;
use store::sqlite::{Options, SqliteStore};
use store::{Actor, AuditAction, AuditQuery};
use trust::Kek;

use crate::kept::Refusing;
use crate::site::{
    KEY, MONITOR, NURSE, PATIENT, START_S, SetClock, assignment, device, furnish, heart_rate, quiet, send,
};

/// A furnished site, its directory, and what makes its audit log fail.
fn site() -> (tempfile::TempDir, Arc<Site>, Arc<AtomicBool>) {
    let directory = tempfile::tempdir().unwrap();
    let kept = SqliteStore::open(directory.path(), Kek::from_bytes(&KEY), Options::default()).unwrap();
    let refuse = Arc::new(AtomicBool::new(false));
    let store = Refusing::new(kept, Arc::clone(&refuse));
    let site = Site::start(Arc::new(store), SetClock::new(), quiet()).unwrap();
    furnish(&site);
    (directory, site, refuse)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_not_seen_and_not_done() {
    let (_directory, site, refuse) = site();
    heart_rate(&site, 70).await;
    refuse.store(true, Ordering::SeqCst);

    let act = || Act::new(Actor::User(NURSE), AuditAction::Read, "Patient").patient(PATIENT);
    let mut seen = false;
    let read = site.read(act(), |chart| {
        seen = true;
        chart.latest(Subject::Patient(PATIENT))
    });
    assert!(matches!(read, Err(ReadError::Audit(_))), "{read:?}");
    assert!(!seen, "nothing was read");

    let limits = site.set_limits(Actor::User(NURSE), PATIENT, Vec::new());
    assert!(matches!(limits, Err(DeskError::Store(_))), "{limits:?}");
    assert!(!site.registry().limits(PATIENT).is_empty(), "nothing was changed");
    let history = site.registry().assignments(MONITOR);
    let ended =
        site.end_assignment(Actor::User(NURSE), assignment(1, MONITOR, Timestamp::MIN).id, Timestamp::MAX);
    assert!(matches!(ended, Err(DeskError::Store(_))), "{ended:?}");
    assert_eq!(site.registry().assignments(MONITOR), history);

    // Ingest is audited by its group, and goes on.
    heart_rate(&site, 71).await;
    refuse.store(false, Ordering::SeqCst);
    let latest = site.read(act(), |chart| chart.latest(Subject::Patient(PATIENT))).unwrap();
    assert_eq!(latest.len(), 1);
    site.stop();
}

/// The record of the act stands in the commit of what it charts: nothing is charted without it, and it says nothing that
/// did not happen.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_run_again_from_quarantine_is_kept_with_its_record_or_not_at_all() {
    let (_directory, site, refuse) = site();
    let cuff = DeviceId::from_bytes([77; 16]);
    site.add_device(Actor::System, device(cuff, "Thermometer 2")).unwrap();
    send(&site, cuff, FrameKind::Envelope, br#"{"measure":"heart_rate","value":61}"#).await;
    let id = site.store().quarantine(true, None, 9).unwrap()[0].id;
    site.assign(Actor::User(NURSE), assignment(2, cuff, Timestamp::from_seconds(START_S - 60))).unwrap();
    let rows = || {
        let all = AuditQuery { actions: vec![AuditAction::Quarantine], limit: 99, ..AuditQuery::default() };
        site.store().audit_rows(&all).unwrap()
    };

    refuse.store(true, Ordering::SeqCst);
    let refused = site.rerun(NURSE, id).await;
    assert!(matches!(refused, Err(DeskError::Intake(_))), "{refused:?}");
    refuse.store(false, Ordering::SeqCst);
    assert_eq!((rows().len(), site.store().quarantine_count().items), (0, 1));
    assert_eq!(site.store().latest(Subject::Patient(PATIENT)).unwrap(), []);

    site.rerun(NURSE, id).await.unwrap();
    let (row, group) = (rows().remove(0), site.store().last_group());
    assert_eq!((rows().len(), site.store().quarantine_count().items), (1, 0));
    assert_eq!((row.record.device, row.record.actor), (Some(cuff), Actor::User(NURSE)));
    assert_eq!(site.store().group_summaries(None, 1).unwrap()[0].group, group);
    site.stop();
}
