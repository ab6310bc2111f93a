//! Sessions end as they should, on every node, and prove what they should.

use store::sqlite::{Options, SqliteStore};

use axum::http::{HeaderMap, header};

use super::cookie::{COOKIE, SECURE_COOKIE};
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(second)
}

fn act() -> Act {
    Act::new(Actor::System, AuditAction::Administer, "test")
}

fn user() -> NewSession {
    session_of(1)
}

fn session_of(user: u8) -> NewSession {
    NewSession {
        user: UserId::from_bytes([user; 16]),
        stage: Stage::Whole,
        by: By::Passkey,
        second_factor_at: None,
        caller: Caller::default(),
        vouched: None,
        replaces: None,
        act: act(),
    }
}

fn two_nodes(idle_s: u64, limit_s: u64) -> (tempfile::TempDir, Sessions, Sessions) {
    let directory = tempfile::tempdir().unwrap();
    let kek = trust::Kek::from_bytes(&[7; 32]);
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(directory.path(), kek, Options::default()).unwrap());
    let node =
        || Sessions::new(Arc::clone(&store), Duration::from_secs(idle_s), Duration::from_secs(limit_s));
    let (one, two) = (node(), node());
    (directory, one, two)
}

fn current(sessions: &Sessions, hash: &TokenHash, second: i64, touch: bool) -> Option<Current> {
    let glance = sessions.glance(hash, at(second), touch);
    glance.or_else(|| sessions.look(hash, at(second), touch).unwrap())
}

#[test]
fn a_session_ends_by_idleness_by_age_and_by_sign_out() {
    let (_directory, sessions, _) = two_nodes(60, 200);
    let hash = sessions.begin(user(), at(0)).unwrap().hash();
    assert!(current(&sessions, &hash, 50, true).is_some());
    assert!(current(&sessions, &hash, 100, false).is_some());
    let seen = current(&sessions, &hash, 110, false).unwrap();
    assert_eq!(seen.expires_at, at(110));
    assert!(current(&sessions, &hash, 111, true).is_none(), "a stream is no activity");
    assert!(*seen.ended.borrow());

    let hash = sessions.begin(user(), at(0)).unwrap().hash();
    for second in (0..=200).step_by(50) {
        assert!(current(&sessions, &hash, second, true).is_some());
    }
    assert!(current(&sessions, &hash, 201, true).is_none(), "age");

    let hash = sessions.begin(user(), at(0)).unwrap().hash();
    assert!(current(&sessions, &hash, 1, true).is_some());
    sessions.end(&hash, act(), AuditOutcome::Success, at(1)).unwrap();
    assert!(current(&sessions, &hash, 2, true).is_none());
}

#[test]
fn whoever_knows_a_password_alone_pushes_no_whole_session_out() {
    let (_directory, sessions, _) = two_nodes(900, 3_600);
    let whole = sessions.begin(user(), at(0)).unwrap().hash();
    let half = || NewSession { stage: Stage::SecondFactor, by: By::Password, ..user() };
    let first = sessions.begin(half(), at(0)).unwrap().hash();
    for _ in 0..OF_ONE_USER_LIMIT {
        sessions.begin(half(), at(1)).unwrap();
    }
    assert!(current(&sessions, &whole, 2, true).is_some());
    assert!(current(&sessions, &first, 2, true).is_none(), "half sessions replace half sessions");
    for _ in 0..OF_ONE_USER_LIMIT {
        sessions.begin(user(), at(3)).unwrap();
    }
    assert!(current(&sessions, &whole, 4, true).is_none(), "whole ones replace whole ones");
    assert_eq!(sessions.running(UserId::from_bytes([1; 16]), at(4)).unwrap().len(), 2 * OF_ONE_USER_LIMIT);
}

#[test]
fn a_session_is_known_on_every_node_and_its_end_too() {
    let (_directory, one, two) = two_nodes(900, 3_600);
    let hash = one.begin(user(), at(0)).unwrap().hash();
    assert!(current(&two, &hash, 60, true).is_some());
    // What the other node wrote down is activity here too.
    assert!(one.look(&hash, at(950), false).unwrap().is_some());
    two.end(&hash, act(), AuditOutcome::Success, at(951)).unwrap();
    assert!(one.look(&hash, at(952), true).unwrap().is_none(), "a touch brings nothing back");
    assert!(one.glance(&hash, at(952), false).is_none());
}

#[test]
fn a_person_has_no_more_sessions_than_the_limit_and_old_ones_are_swept() {
    let (_directory, sessions, _) = two_nodes(900, 3_600);
    let first = sessions.begin(user(), at(0)).unwrap().hash();
    for second in 1..OF_ONE_USER_LIMIT as i64 {
        sessions.begin(user(), at(second)).unwrap();
    }
    assert!(current(&sessions, &first, 200, true).is_some());
    sessions.begin(user(), at(200)).unwrap();
    assert!(current(&sessions, &first, 201, true).is_none());
    sessions.begin(session_of(2), at(5_000)).unwrap();
    let left = sessions.oldest(1_000).unwrap();
    assert_eq!(left.len(), OF_ONE_USER_LIMIT + 1 - SWEEP_LIMIT);
}

#[test]
fn a_planted_cookie_does_not_take_the_place_of_the_one_bound_to_the_host() {
    let (planted, bound) = (TokenSecret::generate(), TokenSecret::generate());
    let mut headers = HeaderMap::new();
    let line =
        format!("{COOKIE}={}; {SECURE_COOKIE}={}", planted.to_text().expose(), bound.to_text().expose());
    headers.insert(header::COOKIE, line.parse().unwrap());
    assert!(token_of(&headers).is_some_and(|token| token.hash() == bound.hash()));
}

#[test]
fn a_session_whose_way_in_is_not_complete_lives_shortly() {
    let (_directory, sessions, _) = two_nodes(3_600, 36_000);
    let begin = |stage| sessions.begin(NewSession { stage, ..user() }, at(0)).unwrap().hash();
    let second = begin(Stage::SecondFactor);
    assert!(current(&sessions, &second, 300, true).is_some());
    assert!(current(&sessions, &second, 301, true).is_none());
    let enrolling = begin(Stage::Enrolling);
    assert!(current(&sessions, &enrolling, 1_799, true).is_some());
    assert!(current(&sessions, &enrolling, 1_801, true).is_none());
}

#[test]
fn the_second_factor_is_fresh_for_five_minutes_on_every_node() {
    let (_directory, one, two) = two_nodes(3_600, 36_000);
    let hash = one.begin(user(), at(0)).unwrap().hash();
    assert!(!current(&one, &hash, 1, true).unwrap().is_fresh(at(1)));
    two.proven(&hash, &act(), at(10)).unwrap().unwrap();
    let seen = one.look(&hash, at(11), false).unwrap().unwrap();
    assert!(seen.is_fresh(at(309)) && !seen.is_fresh(at(310)));
    assert!(seen.require_fresh(at(310)).is_err());
}

#[test]
fn a_session_ends_after_too_many_wrong_codes() {
    let (_directory, sessions, _) = two_nodes(3_600, 36_000);
    let hash = sessions.begin(user(), at(0)).unwrap().hash();
    for _ in 0..WRONG_CODES_LIMIT {
        assert!(sessions.may_try_code(&hash, &Caller::default(), at(1)).unwrap());
    }
    assert!(!sessions.may_try_code(&hash, &Caller::default(), at(1)).unwrap());
    assert!(current(&sessions, &hash, 2, true).is_none());
}

#[test]
fn one_ends_ones_sessions_but_not_anothers() {
    let (_directory, sessions, _) = two_nodes(3_600, 36_000);
    let mine: Vec<TokenHash> =
        (0..3).map(|second| sessions.begin(user(), at(second)).unwrap().hash()).collect();
    let theirs = sessions.begin(session_of(2), at(3)).unwrap().hash();
    let stream = current(&sessions, &mine[0], 4, true).unwrap();
    assert!(!sessions.end_one(user().user, id_of(&theirs), act(), at(4)).unwrap(), "not one's own");
    assert_eq!(sessions.end_all_of(user().user, Some(&mine[2]), act(), at(5)).unwrap(), 2);
    assert!(*stream.ended.borrow(), "its streams end too");
    assert_eq!(sessions.running(user().user, at(6)).unwrap().len(), 1);
    assert!(current(&sessions, &theirs, 6, true).is_some());
}

#[test]
fn a_session_of_an_earlier_release_must_make_its_way_in_complete() {
    let old = r#"{"hash":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],
        "user":"01010101-0101-0101-0101-010101010101",
        "started_at":"2026-11-22T08:30:00Z","seen_at":"2026-11-22T08:30:00Z"}"#;
    let record: Record = serde_json::from_str(old).unwrap();
    assert_eq!((record.stage, record.second_factor_at), (Stage::Enrolling, None));
}

#[test]
fn sessions_beyond_the_limit_end_and_none_is_left_out_when_all_are_ended() {
    let (_directory, sessions, _) = two_nodes(3_600, 36_000);
    // As sign-ins at one time leave them: more than the limit, each of which saw no more than that.
    let hidden: Vec<TokenHash> = (0..OF_ONE_USER_LIMIT + 30)
        .map(|number| {
            let token = TokenSecret::generate();
            let new = user();
            let record = Record {
                hash: token.hash().0,
                user: new.user,
                started_at: at(number as i64),
                seen_at: at(number as i64),
                stage: new.stage,
                by: new.by,
                second_factor_at: None,
                caller: Caller::default(),
                vouched: None,
                wrong_codes: 0,
            };
            let writes = vec![record.write(Expected::Absent)];
            sessions.store.transact(&Transaction { at: at(0), writes, ..Transaction::default() }).unwrap();
            token.hash()
        })
        .collect();
    assert_eq!(
        sessions.running(user().user, at(200)).unwrap().len(),
        OF_ONE_USER_LIMIT + 30,
        "all are shown"
    );
    let oldest = id_of(&hidden[0]);
    assert!(
        sessions.end_one(user().user, oldest, act(), at(200)).unwrap(),
        "also the oldest is ended by its id"
    );
    let mine = sessions.begin(user(), at(200)).unwrap().hash();
    assert_eq!(sessions.running(user().user, at(200)).unwrap().len(), OF_ONE_USER_LIMIT);
    let ended = sessions.end_all_of(user().user, Some(&mine), act(), at(200)).unwrap();
    assert_eq!(ended, OF_ONE_USER_LIMIT - 1);
    assert!(hidden.iter().all(|hash| sessions.look(hash, at(201), false).unwrap().is_none()));
    assert!(sessions.look(&mine, at(201), false).unwrap().is_some());
}

#[test]
fn what_a_clock_that_ran_ahead_wrote_counts_no_longer_when_it_is_set_right() {
    let (_directory, sessions, _) = two_nodes(3_600, 36_000);
    let new = NewSession { second_factor_at: Some(at(90_000_000)), ..user() };
    let hash = sessions.begin(new, at(90_000_000)).unwrap().hash();
    let ahead = current(&sessions, &hash, 90_000_001, true).unwrap();
    assert!(ahead.is_fresh(at(90_000_001)) && !ahead.is_fresh(at(1_000)), "a second factor of years ahead");
    assert!(current(&sessions, &hash, 1_000, true).is_none(), "begun years ahead");
    let hash = sessions.begin(user(), at(1_000)).unwrap().hash();
    assert!(current(&sessions, &hash, 990, true).is_some(), "clocks of nodes differ a little");
}
