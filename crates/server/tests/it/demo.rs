//! The demonstration: one line of JSON when vital signs have arrived, and no patient's name in the log.

use std::collections::HashSet;

use simulator::hospital::Plan;

use crate::process::{Place, Server, auscult};

#[test]
fn it_shows_a_hospital_and_logs_no_name() {
    let place = Place::new();
    let mut command = auscult();
    // A name must not slip out at a talkative level either.
    command.args(["demo", "--port", "0", "--print-json", "--seconds", "5", "--log", "debug"]);
    command.env("TMPDIR", place.path(""));
    let mut server = Server::start(command, place.path("log.txt"));
    for name in ["address", "user", "password", "admin_user", "link", "demo_token", "totp_secret"] {
        assert!(!server.address(name).is_empty(), "{name}");
    }
    let inside = std::fs::read_dir(place.path("")).unwrap().count();
    assert_eq!(inside, 4, "key and log of this test, data and key of the demonstration");
    let (status, rest) = server.wait();
    let log = server.log();
    assert!(status.success(), "{status}; log: {log}");
    assert_eq!(rest, "", "exactly one line on standard output");
    let left: Vec<_> =
        std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the demonstration leaves nothing behind: {left:?}");
    assert!(log.contains("DEBUG") && log.contains("disconnected"), "the log was kept");
    let words: HashSet<&str> = log.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
    for patient in &Plan::seeded(20_261_122, 24, 12).patients {
        let (family, number) = (patient.family.expose(), patient.record_number.expose());
        assert!(!words.contains(family.as_str()), "a family name is in the log");
        assert!(!log.contains(number.as_str()), "a record number is in the log");
    }
}
