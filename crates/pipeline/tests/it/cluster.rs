//! Several nodes over one store: every node shows everything once and in order, one judges the alarms, and what people do
//! on one node holds on all. The real thing, over PostgreSQL, is tested with the binary; here the store is one process's,
//! with leases that are kept apart by holder and a link that can be cut.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clinical_model::{
    Alert, AlertKind, AlertState, Committed, DeviceId, Event, Patient, PatientId, Place, PlaceId, Private,
    QuarantineId, QuarantineItem, Reading, SeriesKey, Subject, Timestamp, Waveform,
};
use pipeline::audited::Act;
use pipeline::corrections::{CorrectedStatus, NewCorrection};
use pipeline::desk::DeskError;
use pipeline::live::{Happening, Since};
use pipeline::together::{FrameChange, PatientChange, Together};
use pipeline::{IntakeError, Site};
use store::sqlite::{Options, SqliteStore};
use store::{
    Actor, Appended, AuditAction, AuditQuery, AuditRecord, AuditRow, Document, DocumentChange, DocumentQuery,
    Expected, Folded, FrameRecord, GroupSummary, KeptFrame, Kind, News, QuarantineCount, RangeQuery,
    RestoreReport, SeriesFilter, Store, StoreError, StoredGroup, TransactError, Transaction, VerifyReport,
};
use trust::Kek;

use crate::site::{
    KEY, MONITOR, NURSE, PATIENT, SetClock, WARD, assignment, device, eventually, frame, furnish, heart_rate,
    quiet,
};

type Kept<T> = Result<T, StoreError>;

/// What all nodes share.
struct Database {
    store: SqliteStore,
    leases: Mutex<HashMap<&'static str, ([u8; 16], Instant)>>,
}

/// One node's way to the store.
#[derive(Clone)]
struct Link {
    kept: Arc<Database>,
    cut: Arc<AtomicBool>,
}

impl std::ops::Deref for Database {
    type Target = SqliteStore;

    fn deref(&self) -> &SqliteStore {
        &self.store
    }
}

impl Link {
    fn whole(&self, doing: &'static str) -> Kept<()> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable { doing, source: "the link is cut".into() });
        }
        Ok(())
    }

    fn holds(&self, name: &str, holder: [u8; 16]) -> bool {
        let leases = self.kept.leases.lock().unwrap();
        leases.get(name).is_some_and(|(held_by, until)| *held_by == holder && Instant::now() < *until)
    }
}

impl Store for Link {
    fn transact(&self, transaction: &Transaction) -> Result<(), TransactError> {
        self.whole("writing")?;
        if let Some((lease, holder)) = transaction.lease
            && !self.holds(lease, holder)
        {
            return Err(TransactError::LeaseLost { lease });
        }
        self.kept.transact(transaction)
    }

    fn append_with(&self, frames: &[FrameRecord], audit: &[AuditRecord], at: Timestamp) -> Kept<Appended> {
        self.whole("appending")?;
        self.kept.append_with(frames, audit, at)
    }

    fn groups_after(&self, after: u64, limit: usize) -> Kept<Vec<StoredGroup>> {
        self.whole("reading groups")?;
        self.kept.groups_after(after, limit)
    }

    fn shared(&self) -> bool {
        true
    }

    fn wait_for_news(&self, seen: News, timeout: Duration) -> Kept<News> {
        self.whole("waiting")?;
        self.kept.wait_for_news(seen, timeout)
    }

    fn changes_after(&self, change: u64, limit: usize) -> Kept<Vec<DocumentChange>> {
        self.whole("reading changes")?;
        self.kept.changes_after(change, limit)
    }

    fn hold_lease(&self, name: &'static str, holder: [u8; 16], life: Duration) -> Kept<bool> {
        self.whole("taking a lease")?;
        let mut leases = self.kept.leases.lock().unwrap();
        let now = Instant::now();
        let held = leases.entry(name).or_insert((holder, now));
        if held.0 != holder && now < held.1 {
            return Ok(false);
        }
        *held = (holder, now + life);
        Ok(true)
    }

    fn release_lease(&self, name: &'static str, holder: [u8; 16]) -> Kept<()> {
        self.whole("giving a lease back")?;
        self.kept.leases.lock().unwrap().retain(|held, (by, _)| *held != name || *by != holder);
        Ok(())
    }

    the_rest_as_kept!();
}

pub struct Node {
    pub site: Arc<Site>,
    link: Link,
}

pub struct Cluster {
    clock: Arc<SetClock>,
    database: Arc<Database>,
}

impl Cluster {
    pub fn new(directory: &Path) -> Self {
        let store = SqliteStore::open(directory, Kek::from_bytes(&KEY), Options::default()).unwrap();
        Cluster { clock: SetClock::new(), database: Arc::new(Database { store, leases: Mutex::default() }) }
    }

    fn node(&self) -> Node {
        let link = Link { kept: Arc::clone(&self.database), cut: Arc::default() };
        let site = Site::start(Arc::new(link.clone()), self.clock.clone(), quiet()).unwrap();
        Node { site, link }
    }

    /// Two nodes, of which the first judges the alarms.
    pub async fn two(&self) -> (Node, Node) {
        let one = self.node();
        eventually("the first judges", || one.site.judges_alarms()).await;
        (one, self.node())
    }
}

fn open_alerts(site: &Site) -> Vec<Alert> {
    let act = Act::new(Actor::System, AuditAction::Read, "Alert");
    site.read(act, |chart| Ok(chart.open_alerts())).unwrap()
}

/// The groups whose vitals a node has shown, in the order in which it did.
fn shown(site: &Site) -> Vec<u64> {
    let Since::Events(events) = site.live().since(0) else { panic!("lost") };
    let groups = events.iter().filter_map(|event| match &event.happening {
        Happening::Vitals { readings, .. } => Some(readings[0].group()),
        _ => None,
    });
    groups.collect()
}

fn alert_steps(site: &Site) -> Vec<(AlertState, bool)> {
    let Since::Events(events) = site.live().since(0) else { panic!("lost") };
    let alerts = events.iter().filter_map(|event| match &event.happening {
        Happening::Alert(alert) => Some((alert.state, alert.condition_active)),
        _ => None,
    });
    alerts.collect()
}

async fn tachycardia(site: &Site, clock: &SetClock) {
    for _ in 0..15 {
        heart_rate(site, 170).await;
        clock.advance(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_shows_what_all_of_them_commit_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    eventually("the registry follows", || two.site.registry().device(MONITOR).is_some()).await;
    eventually("the assignment follows", || !two.site.registry().assignments(MONITOR).is_empty()).await;
    let mut sent = Vec::new();
    for round in 0..40 {
        let node = if round % 3 == 0 { &one } else { &two };
        sent.push(heart_rate(&node.site, 70 + round % 5).await.group);
        cluster.clock.advance(1);
    }
    for node in [&one, &two] {
        eventually("all shown", || shown(&node.site).len() == sent.len()).await;
        assert_eq!(shown(&node.site), sent);
        assert_eq!(
            node.site.live().heard(MONITOR).last_heard_at,
            one.site.live().heard(MONITOR).last_heard_at
        );
    }
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cause_raises_one_alert_and_an_answer_on_another_node_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    assert!(!two.site.judges_alarms());
    furnish(&one.site);
    eventually("the assignment follows", || !two.site.registry().assignments(MONITOR).is_empty()).await;
    tachycardia(&two.site, &cluster.clock).await;
    eventually("shown on both", || [&one, &two].iter().all(|node| open_alerts(&node.site).len() == 1)).await;
    let alert = open_alerts(&two.site).remove(0);
    let taken = two.site.acknowledge(NURSE, alert.id, Some("at the bed".into())).unwrap();
    assert_eq!(taken.state, AlertState::Acknowledged);
    // Perhaps before the judge has heard of the answer: neither of the two may be lost.
    heart_rate(&one.site, 70).await;
    for node in [&one, &two] {
        eventually("over", || open_alerts(&node.site).is_empty()).await;
        let act = Act::new(Actor::System, AuditAction::Read, "Alert");
        let kept = node.site.read(act, |chart| chart.alert(alert.id)).unwrap().unwrap();
        let steps: Vec<_> = kept.steps.iter().map(|step| (step.state, step.by)).collect();
        let expected = [
            (AlertState::Raised, None),
            (AlertState::Acknowledged, Some(NURSE)),
            (AlertState::Resolved, None),
        ];
        assert_eq!(steps, expected);
        let expected =
            [(AlertState::Raised, true), (AlertState::Acknowledged, true), (AlertState::Resolved, false)];
        eventually("shown", || alert_steps(&node.site).len() >= 3).await;
        assert_eq!(alert_steps(&node.site), expected);
    }
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_judges_when_the_judge_is_cut_off_and_none_is_lost_or_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    eventually("the assignment follows", || !two.site.registry().assignments(MONITOR).is_empty()).await;
    one.link.cut.store(true, Ordering::SeqCst);
    tachycardia(&two.site, &cluster.clock).await;
    // Nobody judges until the lease has run out.
    eventually("the other judges", || two.site.judges_alarms()).await;
    eventually("what was committed meanwhile is judged", || open_alerts(&two.site).len() == 1).await;
    assert!(!one.site.is_ready(), "a node that is cut off says so");
    let refused = {
        let intake = one.site.intake().unwrap();
        let now = intake.now().truncated_to_millis();
        let kind = clinical_model::FrameKind::Envelope;
        let body = format!(r#"{{"measure":"heart_rate","value":70,"time":"{now}"}}"#);
        intake.submit(frame(MONITOR, kind, body.as_bytes(), now)).await.unwrap().await
    };
    assert_eq!(refused, Err(IntakeError::NotKept), "it takes nothing that it cannot keep");
    one.link.cut.store(false, Ordering::SeqCst);
    eventually("it comes back", || one.site.is_ready() && !one.site.judges_alarms()).await;
    eventually("it knows of the alert", || open_alerts(&one.site) == open_alerts(&two.site)).await;
    assert_eq!(open_alerts(&one.site).len(), 1);
    heart_rate(&one.site, 70).await;
    eventually("ended once", || {
        [&one, &two].iter().all(|node| open_alerts(&node.site).iter().all(Alert::is_latched))
    })
    .await;
    eventually("all shown", || shown(&one.site) == shown(&two.site) && shown(&one.site).len() == 16).await;
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_the_alarms_over_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    heart_rate(&one.site, 70).await;
    eventually("heard on both", || two.site.live().heard(MONITOR).last_heard_at.is_some()).await;
    one.site.stop();
    eventually("handed over", || two.site.judges_alarms()).await;
    cluster.clock.advance(36);
    eventually("silence is noticed", || open_alerts(&two.site).len() == 1).await;
    assert!(two.site.live().heard(MONITOR).silent);
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_retired_on_one_node_is_refused_on_all() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    eventually("known", || two.site.registry().device(MONITOR).is_some()).await;
    let (known, version) = one.site.registry().device_versioned(MONITOR).unwrap();
    let retired = clinical_model::Device { retired: true, ..(*known).clone() };
    one.site.update_device(Actor::System, retired, version).unwrap();
    eventually("retired", || two.site.registry().device(MONITOR).is_some_and(|known| known.retired)).await;
    let stale = device(MONITOR, "Monitor 1");
    assert!(two.site.update_device(Actor::System, stale, version).is_err(), "nobody's change is overwritten");
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_assign_a_device_at_one_time_one_does() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    let nodes = [&one, &two];
    for round in 0..20u8 {
        let id = DeviceId::from_bytes([0x80 + round; 16]);
        one.site.add_device(Actor::System, device(id, &format!("Pump {round}"))).unwrap();
        let patient = clinical_model::Subject::Device(id);
        eventually("known", || two.site.registry().device(id).is_some()).await;
        let done: usize = std::thread::scope(|scope| {
            let assign = |number: usize| {
                let node = nodes[number];
                let now = node.site.clock().now();
                let assignment = clinical_model::Assignment {
                    subject: patient,
                    ..assignment(0x40 + 2 * round + number as u8, id, now)
                };
                scope.spawn(move || usize::from(node.site.assign(Actor::System, assignment).is_ok()))
            };
            [assign(0), assign(1)].into_iter().map(|done| done.join().unwrap()).sum()
        });
        assert_eq!(done, 1, "round {round}");
        eventually("both know the same", || {
            nodes.iter().all(|node| node.site.registry().assignments(id).len() == 1)
        })
        .await;
    }
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_end_an_assignment_at_one_time_one_does() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    let nodes = [&one, &two];
    let now = one.site.clock().now();
    for round in 0..20u8 {
        let device_id = DeviceId::from_bytes([0x80 + round; 16]);
        one.site.add_device(Actor::System, device(device_id, &format!("Pump {round}"))).unwrap();
        let held = clinical_model::Assignment {
            subject: Subject::Device(device_id),
            ..assignment(0x40 + round, device_id, now)
        };
        one.site.assign(Actor::System, held).unwrap();
        eventually("known", || two.site.registry().assignment(held.id).is_some()).await;
        let done: Vec<_> = std::thread::scope(|scope| {
            let end = |number: usize| {
                let (site, end) = (&nodes[number].site, now.plus_micros(1 + number as i64));
                scope.spawn(move || site.end_assignment(Actor::System, held.id, end))
            };
            [end(0), end(1)].into_iter().filter_map(|done| done.join().unwrap().ok()).collect()
        });
        assert_eq!(done.len(), 1, "round {round}");
        eventually("both know the same", || {
            nodes.iter().all(|node| node.site.registry().assignments(device_id) == done)
        })
        .await;
    }
    one.site.stop();
    two.site.stop();
}

/// An alert that a correction ended on a node that does not judge the alarms must be raised anew by the one that does.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_raised_anew_after_a_correction_on_a_node_that_does_not_judge() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    eventually("the assignment follows", || !two.site.registry().assignments(MONITOR).is_empty()).await;
    tachycardia(&one.site, &cluster.clock).await;
    let active = |node: &Node| open_alerts(&node.site).iter().filter(|alert| alert.condition_active).count();
    eventually("raised on both", || [&one, &two].iter().all(|node| active(node) == 1)).await;
    let alert = open_alerts(&two.site).remove(0);
    let AlertKind::Threshold { measure, measured_at, .. } = alert.what else { panic!("{alert:?}") };
    let series = clinical_model::SeriesKey { subject: alert.subject, measure, device: alert.device };
    let position = pipeline::search::Position { at: measured_at, series, sequence: 0 };
    let in_error = NewCorrection {
        status: CorrectedStatus::EnteredInError,
        withdrawn: false,
        values: Vec::new(),
        reason: None,
    };
    let act = Act::new(Actor::User(NURSE), AuditAction::Update, "Observation");
    two.site.correct(act.clone(), &position, 1, &in_error).unwrap();
    eventually("ended on both", || [&one, &two].iter().all(|node| active(node) == 0)).await;
    for node in [&one, &two] {
        eventually("the correction is known", || {
            node.site.read(act.clone(), |chart| chart.correction(&position)).unwrap().is_some()
        })
        .await;
    }
    tachycardia(&one.site, &cluster.clock).await;
    eventually("raised anew", || [&one, &two].iter().all(|node| active(node) == 1)).await;
    one.site.stop();
    two.site.stop();
}

/// What somebody saw of a device before it was assigned anew must not be written back: it would be another patient's.
#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_is_a_new_version_of_its_device_on_all_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    let id = DeviceId::from_bytes([0x90; 16]);
    one.site.add_device(Actor::System, device(id, "Pump")).unwrap();
    let version = |node: &Node| node.site.registry().device_versioned(id).map(|(_, version)| version);
    assert_eq!(version(&one), Some(1));
    let now = one.site.clock().now();
    let subject = clinical_model::Subject::Device(id);
    let assigned = clinical_model::Assignment { subject, ..assignment(0x50, id, now) };
    one.site.assign(Actor::System, assigned).unwrap();
    eventually("known", || version(&two) == Some(2) && two.site.registry().assignment(assigned.id).is_some())
        .await;
    assert!(one.site.update_device(Actor::System, device(id, "Pump"), 1).is_err(), "seen before");
    two.site.end_assignment(Actor::System, assigned.id, now.plus(Duration::from_secs(1))).unwrap();
    eventually("ended", || version(&one) == Some(3)).await;
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_admit_to_one_bed_at_one_time_one_does() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    let nodes = [&one, &two];
    let known = one.site.registry().patient(PATIENT).unwrap();
    for round in 0..20u8 {
        let bed = PlaceId::from_bytes([0x80 + round; 16]);
        let name = format!("Bed {round}");
        let place = Place { id: bed, name, kind: clinical_model::place::PlaceKind::Bed, ward: Some(WARD) };
        one.site.add_place(Actor::System, place).unwrap();
        eventually("known", || two.site.registry().place(bed).is_some()).await;
        let coming = |number: usize| Patient {
            id: PatientId::from_bytes([2 * round + number as u8 + 0x20; 16]),
            record_number: Private::new(format!("MRN-{round}-{number}")),
            place: Some(bed),
            ..(*known).clone()
        };
        let done: Vec<_> = std::thread::scope(|scope| {
            let admit = |number: usize| {
                let (site, patient) = (&nodes[number].site, coming(number));
                scope.spawn(move || site.add_patient(Actor::System, patient))
            };
            [admit(0), admit(1)].into_iter().map(|done| done.join().unwrap()).collect()
        });
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "round {round}: {done:?}");
        assert!(done.iter().any(|done| matches!(done, Err(DeskError::Taken { .. }))), "{done:?}");
        // Who is discharged leaves the bed to the next, in the same act.
        let (lies, waits) = if done[0].is_ok() { (coming(0), coming(1)) } else { (coming(1), coming(0)) };
        let change = |patient: Patient, expected| PatientChange {
            resource: health_codecs::fhir::patient::render(&patient),
            patient,
            expected,
        };
        let discharged = change(Patient { active: false, ..lies }, Expected::Version(1));
        let admitted = change(waits, Expected::Absent);
        let patients = vec![discharged, admitted];
        eventually("both know who lies there", || {
            nodes.iter().all(|node| node.site.registry().patients().iter().any(|one| one.place == Some(bed)))
        })
        .await;
        two.site.decide(Together { patients, ..Together::default() }).unwrap();
    }
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_observer_could_not_take_up_is_told_again() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    // Fails twice at the first person, as if the store were away just then.
    two.site.observe(Box::new(move |change| {
        let Some(change) = change.filter(|change| change.kind == Kind::User) else { return Ok(()) };
        let mut noted = noted.lock().unwrap();
        noted.push(change.id[0]);
        if noted.len() <= 2 { Err("the store does not answer".into()) } else { Ok(()) }
    }));
    for person in [1, 2] {
        let write = store::DocumentWrite {
            kind: Kind::User,
            id: [person; 16],
            expected: Expected::Absent,
            domain: store::KeyDomain::System,
            body: Some(b"{}".to_vec()),
            index: Vec::new(),
        };
        let at = one.site.clock().now();
        let transaction = Transaction { at, writes: vec![write], ..Transaction::default() };
        cluster.database.store.transact(&transaction).unwrap();
    }
    eventually("both were told", || told.lock().unwrap().last() == Some(&2)).await;
    assert_eq!(*told.lock().unwrap(), [1, 1, 1, 2], "nothing is passed over");
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_ends_after_a_correction_on_a_node_that_has_not_heard_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    eventually("the assignment follows", || !two.site.registry().assignments(MONITOR).is_empty()).await;
    // The second node follows nothing until it is let go: it stands at a setting.
    let (let_go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let (gate, held) = (Mutex::new(gate), Arc::new(AtomicBool::new(false)));
    let tell = Arc::clone(&held);
    two.site.observe(Box::new(move |_| {
        tell.store(true, Ordering::SeqCst);
        // Until the other end is gone.
        let _ = gate.lock().unwrap().recv();
        Ok(())
    }));
    let setting = store::DocumentWrite {
        kind: Kind::Setting,
        id: [9; 16],
        expected: Expected::Absent,
        domain: store::KeyDomain::System,
        body: Some(b"{}".to_vec()),
        index: Vec::new(),
    };
    let at = one.site.clock().now();
    let transaction = Transaction { at, writes: vec![setting], ..Transaction::default() };
    cluster.database.store.transact(&transaction).unwrap();
    eventually("it stands", || held.load(Ordering::SeqCst)).await;
    tachycardia(&one.site, &cluster.clock).await;
    let raised = || {
        let Since::Events(events) = one.site.live().since(0) else { panic!("lost") };
        events.iter().rev().find_map(|event| match &event.happening {
            Happening::Alert(alert) => Some((**alert).clone()),
            _ => None,
        })
    };
    eventually("raised", || raised().is_some()).await;
    let alert = raised().unwrap();
    assert!(alert.condition_active);
    let AlertKind::Threshold { measure, measured_at, .. } = alert.what else { panic!("{alert:?}") };
    let series = SeriesKey { subject: alert.subject, measure, device: alert.device };
    let position = pipeline::search::Position { at: measured_at, series, sequence: 0 };
    let in_error = NewCorrection {
        status: CorrectedStatus::EnteredInError,
        withdrawn: false,
        values: Vec::new(),
        reason: None,
    };
    let act = Act::new(Actor::User(NURSE), AuditAction::Update, "Observation");
    two.site.correct(act, &position, 1, &in_error).unwrap();
    eventually("the judge ends it", || raised().is_some_and(|alert| alert.is_latched())).await;
    drop(let_go);
    eventually("the other node follows", || open_alerts(&two.site).iter().any(Alert::is_latched)).await;
    tachycardia(&two.site, &cluster.clock).await;
    eventually("raised anew", || raised().is_some_and(|alert| alert.condition_active)).await;
    one.site.stop();
    two.site.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_decided_and_did_not_finish_another_finishes() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(directory.path());
    let (one, two) = cluster.two().await;
    furnish(&one.site);
    eventually("the assignment follows", || !two.site.registry().assignments(MONITOR).is_empty()).await;
    let now = two.site.clock().now().truncated_to_millis();
    let observation = |device: DeviceId| {
        format!(
            r#"{{"resourceType":"Observation","status":"final",
            "code":{{"coding":[{{"system":"http://loinc.org","code":"8867-4"}}]}},
            "device":{{"reference":"Device/{device}"}},"effectiveDateTime":"{now}",
            "valueQuantity":{{"value":77,"unit":"/min","system":"http://unitsofmeasure.org","code":"/min"}}}}"#
        )
    };
    // The first is of a device that nobody knows: it is never finished, and keeps nothing from the second.
    let frames = [DeviceId::from_bytes([0x77; 16]), MONITOR].map(|device| {
        let kind = clinical_model::FrameKind::Fhir;
        FrameChange {
            frame: frame(device, kind, observation(device).as_bytes(), now),
            patient: None,
            acts: Vec::new(),
        }
    });
    let together = Together { frames: frames.to_vec(), ..Together::default() };
    let _decided = two.site.decide(together).unwrap();
    two.site.stop();
    assert!(shown(&one.site).is_empty());
    cluster.clock.advance(40);
    eventually("charted by the other", || shown(&one.site).len() == 1).await;
    one.site.stop();
}
