//! What only a database with several processes on it can get wrong: order, claims, lost answers, leases, nodes.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clinical_model::Fact;
use store::postgres::{Options, PgStore};
use store::testing::Cluster;
use store::{
    DocumentWrite, Expected, KeyDomain, Kind, News, OpenError, Store, StoreError, TransactError, Transaction,
};
use trust::Kek;
use trust::pki::{Authority, IssueServerRequest};

use crate::support::*;

const LONG: Duration = Duration::from_secs(60);

fn one(number: u8, ms: i64) -> store::FrameRecord {
    readings(vec![reading(series(number), ms, 0, "70")])
}

fn setting(id: u8, expected: Expected) -> DocumentWrite {
    DocumentWrite {
        kind: Kind::Setting,
        id: [id; 16],
        expected,
        domain: KeyDomain::System,
        body: Some(vec![id]),
        index: vec![],
    }
}

fn transaction(id: u8) -> Transaction {
    Transaction { at: at(0), writes: vec![setting(id, Expected::Any)], ..Transaction::default() }
}

fn count(store: &dyn Store, number: u8) -> usize {
    store.readings(&series(number), &ALL).unwrap().len()
}

#[test]
fn three_nodes_append_in_one_order_and_each_sees_all() {
    const EACH: u64 = 40;
    let factory = PgFactory::new();
    let nodes = [factory.postgres(), factory.postgres(), factory.postgres()];
    let together = Barrier::new(nodes.len());
    let mut groups = BTreeSet::new();
    std::thread::scope(|scope| {
        let appending: Vec<_> = (1..)
            .zip(&nodes)
            .map(|(number, node)| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    let append = |i: u64| {
                        // Every node numbers series of its own, and all of them one in common.
                        let frames = [one(number, i as i64 * 1_000), one(9, i as i64 * 1_000)];
                        let group = node.append(&frames, at(i as i64)).unwrap().group;
                        assert_eq!(count(node, number), i as usize + 1, "what was acknowledged is seen");
                        group
                    };
                    (0..EACH).map(append).collect::<Vec<_>>()
                })
            })
            .collect();
        for node in appending {
            let mine = node.join().unwrap();
            assert!(mine.is_sorted());
            groups.extend(mine);
        }
    });
    assert_eq!(groups, (1..=3 * EACH).collect());
    for node in &nodes {
        assert_eq!(node.last_group(), 3 * EACH);
        let kept = node.groups_after(0, usize::MAX).unwrap();
        assert!(kept.iter().map(|group| group.group).eq(1..=3 * EACH));
        assert_eq!([1, 2, 3, 9].map(|number| count(node, number) as u64), [EACH; 4]);
        assert_eq!(node.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    }
    let identifier = nodes[0].identifier(&series(3), at(0), 0).unwrap();
    assert_eq!(nodes[1].open_identifier(&identifier).unwrap(), Some((series(3), at(0), 0)));
}

#[test]
fn what_one_node_commits_another_reads_at_once_folded_or_not() {
    let factory = PgFactory::new();
    let (writing, reading_node, folding) = (factory.postgres(), factory.postgres(), factory.postgres());
    for i in 0..60 {
        writing.append(&[one(1, i * 1_000)], at(i)).unwrap();
        if i % 7 == 3 {
            folding.fold(5, at(i)).unwrap();
        }
        let seen = reading_node.readings(&series(1), &ALL).unwrap();
        assert_eq!(seen.len() as i64, i + 1);
        assert_eq!(reading_node.latest(series(1).subject).unwrap()[0].measured_at(), at(i * 1_000));
        assert_eq!(reading_node.frames(device(1), at(i * 1_000 + 40)).unwrap().len(), 1);
    }
    fold_all(&folding);
    for node in [&writing, &reading_node, &folding] {
        assert_eq!(count(node, 1), 60);
        assert_eq!(node.groups_after(0, 9).unwrap().len(), 0, "all are folded");
    }
}

#[test]
fn folding_on_every_node_beside_readers_is_never_seen() {
    let factory = PgFactory::new();
    let nodes = [factory.postgres(), factory.postgres(), factory.postgres()];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for node in &nodes[1..] {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    node.fold(3, at(0)).unwrap();
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let committed = node.last_group();
                    let seen = node.readings(&series(1), &ALL).unwrap();
                    assert!(seen.len() as u64 >= committed, "{} of {committed}", seen.len());
                    let times: Vec<i64> = seen.iter().map(|one| one.measured_at().as_millis()).collect();
                    assert!(times.windows(2).all(|pair| pair[0] + 1_000 == pair[1]));
                }
            });
        }
        for i in 0..80 {
            nodes[0].append(&[one(1, i * 1_000)], at(i * 1_000)).unwrap();
        }
        stop.store(true, Ordering::Release);
    });
    assert_eq!(nodes[2].verify(&mut |_, _| {}).unwrap().findings, vec![]);
}

#[test]
fn a_journal_key_that_another_node_destroyed_seals_nothing_more() {
    let factory = PgFactory::new();
    let options = || Options { journal_key_life: Duration::from_secs(60), ..options() };
    let open = || PgStore::open(&factory.url, Kek::from_bytes(&KEK), options()).unwrap();
    let (old, young) = (open(), open());
    old.append(&[one(1, 0)], at(0)).unwrap();
    // The younger node's clock is ahead: it makes another key, folds everything, and destroys the first.
    young.append(&[one(1, 100_000)], at(100_000)).unwrap();
    fold_all(&young);
    old.append(&[one(1, 1_000)], at(1_000)).unwrap();
    drop((old, young));
    assert_eq!(count(&open(), 1), 3);
}

#[test]
fn news_of_another_node_wake_who_waits() {
    let factory = PgFactory::new();
    let (here, there) = (factory.postgres(), factory.postgres());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| here.wait_for_news(News::default(), LONG).unwrap());
        there.append(&[one(1, 0)], at(0)).unwrap();
        assert_eq!(waiting.join().unwrap(), News { group: 1, change: 0 });
        let waiting = scope.spawn(|| here.wait_for_news(News { group: 1, change: 0 }, LONG).unwrap());
        there.transact(&transaction(1)).unwrap();
        assert_eq!(waiting.join().unwrap(), News { group: 1, change: 1 });
    });
}

#[test]
fn documents_and_audit_rows_of_all_nodes_are_numbered_without_gaps() {
    let factory = PgFactory::new();
    let nodes = [factory.postgres(), factory.postgres(), factory.postgres()];
    std::thread::scope(|scope| {
        for (number, node) in (1..).zip(&nodes) {
            scope.spawn(move || {
                for i in 0..20_u8 {
                    // One document that all of them want: exactly one version wins each time.
                    loop {
                        let before = node.document(Kind::Setting, [9; 16]).unwrap();
                        let expected =
                            before.map_or(Expected::Absent, |kept| Expected::Version(kept.version));
                        let writes = vec![setting(9, expected), setting(number * 20 + i, Expected::Absent)];
                        match node.transact(&Transaction { at: at(0), writes, ..Transaction::default() }) {
                            Ok(()) => break,
                            Err(TransactError::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            });
        }
    });
    for node in &nodes {
        assert_eq!(node.document(Kind::Setting, [9; 16]).unwrap().unwrap().version, 60);
        let changes = node.changes_after(0, usize::MAX).unwrap();
        assert!(changes.iter().map(|change| change.change).eq(1..=120));
    }
}

#[test]
fn a_lost_connection_loses_nothing_and_counts_nothing_twice() {
    let cluster = Cluster::shared();
    let factory = PgFactory::new();
    let store = factory.postgres();
    let (_, schema) = factory.url.rsplit_once("%3D").unwrap();
    let stop = AtomicBool::new(false);
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    let url = format!("{}&application_name=ended_{schema}", factory.url);
    let ended = PgStore::open(&url, Kek::from_bytes(&KEK), options()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Ends the connections of this node in the midst of their work, again and again.
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'ended_{schema}' AND state <> 'idle'"
            );
            while !stop.load(Ordering::Acquire) {
                cluster.execute(&end).unwrap();
            }
        });
        for i in 0.. {
            // Until enough were lost; each loss needs a lucky moment.
            if i >= 5_000 || (refused >= 3 && acknowledged.len() >= 30) {
                break;
            }
            match ended.append(&[one(1, i * 1_000)], at(i)) {
                Ok(appended) => acknowledged.push((appended.group, i)),
                Err(StoreError::Unavailable { .. }) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        stop.store(true, Ordering::Release);
    });
    assert!(acknowledged.len() >= 30 && refused >= 3, "{} kept, {refused} refused", acknowledged.len());
    let kept = store.groups_after(0, usize::MAX).unwrap();
    assert!(kept.iter().map(|group| group.group).eq(1..=kept.len() as u64), "no gap");
    for (group, i) in acknowledged {
        let Fact::Reading(reading) = &kept[group as usize - 1].frames[0].facts[0] else { panic!() };
        assert_eq!(reading.measured_at(), at(i * 1_000), "what was acknowledged stands where it was told");
    }
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().findings, vec![]);
}

#[test]
fn a_server_that_goes_and_comes_back_is_found_again() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let store = PgStore::open(&url, Kek::from_bytes(&KEK), options()).unwrap();
    store.append(&[one(1, 0)], at(0)).unwrap();
    cluster.stop();
    let refused = store.append(&[one(1, 1_000)], at(1));
    assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    assert!(matches!(store.readings(&series(1), &ALL), Err(StoreError::Unavailable { .. })));
    let refused = store.transact(&transaction(1));
    assert!(matches!(refused, Err(TransactError::Store(StoreError::Unavailable { .. }))), "{refused:?}");
    assert_eq!(store.last_group(), 1);
    cluster.restart();
    // Who was refused a moment ago is refused at once for a while.
    let appended = loop {
        match store.append(&[one(1, 2_000)], at(2)) {
            Err(StoreError::Unavailable { .. }) => std::thread::yield_now(),
            outcome => break outcome.unwrap(),
        }
    };
    assert_eq!(appended.group, 2);
    assert_eq!(count(&store, 1), 2);
    store.transact(&transaction(1)).unwrap();
    assert_eq!(store.fold(9, at(3)).unwrap().groups, 2);
}

#[test]
fn a_database_that_lost_what_it_acknowledged_is_not_believed() {
    let cluster = Cluster::shared();
    let append = |store: &PgStore, i: i64| store.append(&[one(1, i * 1_000)], at(i));
    let went_back = |outcome: Result<_, StoreError>| {
        assert!(matches!(outcome, Err(StoreError::Durability { .. })), "{outcome:?}");
    };
    // A standby took over that lacks the last two groups.
    let lost = "DELETE FROM journal WHERE number > 1; DELETE FROM group_summary WHERE number > 1;
        UPDATE counter SET value = 1 WHERE name = 'group'";
    let factory = PgFactory::new();
    let (writing, reading_node) = (factory.postgres(), factory.postgres());
    for i in 0..3 {
        append(&writing, i).unwrap();
    }
    assert_eq!(count(&reading_node, 1), 3);
    cluster.execute_in(&factory.url, lost);
    went_back(append(&writing, 3).map(drop));
    went_back(reading_node.readings(&series(1), &ALL).map(drop));
    went_back(append(&reading_node, 3).map(drop));
    drop((writing, reading_node));
    let again = factory.postgres();
    assert_eq!((append(&again, 3).unwrap().group, count(&again, 1)), (2, 2));

    // It lacks them, and others have written in their place before we come back.
    let schema = factory.url.rsplit_once("%3D").unwrap().1;
    let url = format!("{}&application_name=away_{schema}", factory.url);
    let away = PgStore::open(&url, Kek::from_bytes(&KEK), options()).unwrap();
    assert_eq!(count(&away, 1), 2);
    drop(again);
    cluster.execute_in(&factory.url, &format!("{lost}; DELETE FROM latest"));
    let other = factory.postgres();
    for i in 10..14 {
        append(&other, i).unwrap();
    }
    let end = format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'away_{schema}'"
    );
    cluster.execute(&end).unwrap();
    // A connection that does not know yet that it ended may say so first.
    let refused = loop {
        match away.readings(&series(1), &ALL) {
            Err(StoreError::Unavailable { .. }) => {}
            outcome => break outcome,
        }
    };
    went_back(refused.map(drop));
    went_back(append(&away, 20).map(drop));
}

#[test]
fn a_lease_has_one_holder_and_fences_the_one_before() {
    let factory = PgFactory::new();
    let (here, there) = (factory.postgres(), factory.postgres());
    let (me, you) = ([1; 16], [2; 16]);
    let short = Duration::from_millis(300);
    assert!(here.hold_lease("alarms", me, LONG).unwrap());
    assert!(here.hold_lease("alarms", me, LONG).unwrap(), "kept by its holder");
    assert!(!there.hold_lease("alarms", you, LONG).unwrap());
    assert!(there.hold_lease("other", you, LONG).unwrap());
    let fenced = |holder| Transaction { lease: Some(("alarms", holder)), ..transaction(1) };
    here.transact(&fenced(me)).unwrap();
    assert!(matches!(there.transact(&fenced(you)), Err(TransactError::LeaseLost { lease: "alarms" })));
    // The life of the lease passes by the database's clock; short from here on only, where a slow machine may lose it.
    here.hold_lease("alarms", me, short).unwrap();
    while !there.hold_lease("alarms", you, LONG).unwrap() {
        std::thread::yield_now();
    }
    assert!(matches!(here.transact(&fenced(me)), Err(TransactError::LeaseLost { lease: "alarms" })));
    assert_eq!(here.document(Kind::Setting, [1; 16]).unwrap().unwrap().version, 1);
    there.transact(&fenced(you)).unwrap();
    here.release_lease("alarms", me).unwrap();
    assert!(!here.hold_lease("alarms", me, LONG).unwrap(), "only the holder gives it back");
    there.release_lease("alarms", you).unwrap();
    assert!(here.hold_lease("alarms", me, LONG).unwrap());
}

#[test]
fn folding_waits_for_living_nodes_and_not_for_dead_ones() {
    let factory = PgFactory::new();
    let store = factory.postgres();
    for i in 0..6 {
        store.append(&[one(1, i * 1_000)], at(i)).unwrap();
    }
    store.node_progress([1; 16], 4, LONG).unwrap();
    store.node_progress([2; 16], 2, LONG).unwrap();
    assert_eq!(store.fold(99, at(0)).unwrap().groups, 2);
    store.node_progress([2; 16], 6, LONG).unwrap();
    assert_eq!(store.fold(99, at(0)).unwrap().groups, 2);
    store.node_gone([1; 16]).unwrap();
    // A node that was away longer than it said is waited for no more.
    store.node_progress([3; 16], 0, Duration::from_millis(1)).unwrap();
    while store.fold(99, at(0)).unwrap().groups == 0 {
        std::thread::yield_now();
    }
    assert_eq!((store.groups_after(0, 9).unwrap().len(), count(&store, 1)), (0, 6));
}

#[test]
fn several_nodes_may_start_at_once_and_agree_on_their_keys() {
    let factory = PgFactory::new();
    let blind: BTreeSet<[u8; 16]> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| factory.postgres().blind("mrn", "1"))).collect();
        starting.into_iter().map(|node| node.join().unwrap()).collect()
    });
    assert_eq!(blind.len(), 1);
    let other = PgStore::open(&factory.url, Kek::from_bytes(&[7; 32]), options());
    assert!(matches!(other, Err(OpenError::WrongKey { .. })), "{other:?}");
}

#[test]
fn a_database_that_is_not_safe_or_not_ours_is_refused() {
    let factory = PgFactory::new();
    let open = |url: &str| PgStore::open(url, Kek::from_bytes(&KEK), options());
    let unsafe_url = format!("{}%20-csynchronous_commit%3Doff", factory.url);
    assert!(matches!(open(&unsafe_url), Err(OpenError::Unsafe { setting: "synchronous_commit", .. })));
    drop(factory.postgres());
    Cluster::shared().execute_in(&factory.url, "INSERT INTO format(version) VALUES(99)");
    assert!(matches!(open(&factory.url), Err(OpenError::TooNew { found: 99, .. })));
    let nowhere = open("postgres://auscult@127.0.0.1:1/nowhere");
    assert!(matches!(nowhere, Err(OpenError::Unreachable { .. })), "{nowhere:?}");
}

#[test]
fn damage_in_a_row_is_found_and_named() {
    let factory = PgFactory::new();
    let store = factory.postgres();
    for i in 0..20 {
        store.append(&[one(1, i * 1_000)], at(i)).unwrap();
    }
    fold_all(&store);
    store.transact(&transaction(1)).unwrap();
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().findings, vec![]);
    let flip = "UPDATE block SET sealed = set_bit(sealed, 400, 1 - get_bit(sealed, 400))
        WHERE number = (SELECT max(number) FROM block);
        UPDATE document SET version = version + 1";
    Cluster::shared().execute_in(&factory.url, flip);
    let report = store.verify(&mut |_, _| {}).unwrap();
    let places: Vec<&str> = report.findings.iter().map(|finding| &finding.place[..]).collect();
    assert_eq!(places.len(), 2, "{report:?}");
    assert!(places[0].starts_with("postgres, table block, row "), "{places:?}");
    assert!(places[1].starts_with("postgres, table document, row "), "{places:?}");
    assert!(matches!(store.readings(&series(1), &ALL), Err(StoreError::Sealed { .. })));
}

#[test]
fn an_encrypted_connection_believes_one_authority_and_one_name() {
    let cluster = Cluster::start();
    let now = std::time::SystemTime::now();
    let authority = |name: &str| {
        let made = Authority::create(name, now, 1).unwrap();
        Authority::load(&made.certificate_pem, made.key_pem.expose()).unwrap()
    };
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let request = IssueServerRequest {
        common_name: "database".to_owned(),
        dns_names: vec!["localhost".to_owned()],
        ips: vec![],
        not_before: now,
        not_after: now + Duration::from_secs(3_600),
    };
    let issued = ours.issue_server(&request).unwrap();
    cluster.encrypt(&issued.certificate_pem, issued.key_pem.expose());
    let place = tempfile::tempdir().unwrap();
    let pem = |authority: &Authority| {
        let path = place.path().join(authority.name());
        std::fs::write(&path, authority.certificate_pem()).unwrap();
        path.display().to_string()
    };
    let plain = cluster.database().replace("127.0.0.1", "localhost");
    let url = |authority: &str| format!("{plain}&sslmode=verify-full&sslrootcert={authority}");
    let open = |url: &str| PgStore::open(url, Kek::from_bytes(&KEK), options());
    let store = open(&url(&pem(&ours))).unwrap();
    store.append(&[one(1, 0)], at(0)).unwrap();
    assert_eq!(count(&store, 1), 1);
    cluster
        .execute(
            "DO $$ BEGIN ASSERT (SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE application_name = 'auscult' AND ssl AND version = 'TLSv1.3') >= 8; END $$",
        )
        .unwrap();
    let stranger = open(&url(&pem(&theirs)));
    assert!(matches!(stranger, Err(OpenError::Unreachable { .. })), "{stranger:?}");
    let other_name = open(&url(&pem(&ours)).replace("localhost", "127.0.0.1"));
    assert!(matches!(other_name, Err(OpenError::Unreachable { .. })), "{other_name:?}");
}
