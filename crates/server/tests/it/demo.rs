//! The demonstration: one line of JSON when vital signs have arrived, and no patient's name in the log.

use simulator::hospital::Plan;

use crate::process::{Place, Server, auscult};

#[test]
fn it_shows_a_hospital_and_logs_no_name() {
    let place = Place::new();
    let mut command = auscult();
    // The lowest level for what is ours: a name must not slip out at any level.
    command.args(["demo", "--port", "0", "--print-json"]).env("TMPDIR", place.path(""));
    let server = Server::start(command, place.path("log.txt"));
    for name in ["address", "user", "password", "admin_user"] {
        assert!(!server.address(name).is_empty(), "{name}");
    }
    let left = std::fs::read_dir(place.path("")).unwrap().count();
    assert!(left > 2, "data and key live somewhere");
    let log = server.log();
    let (status, rest) = server.stop();
    assert!(status.success(), "{status}; log: {log}");
    assert_eq!(rest, "", "exactly one line on standard output");
    let left: Vec<_> =
        std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "key and log of this test only: {left:?}");
    let plan = Plan::seeded(20_261_122, 24, 12);
    for patient in &plan.patients {
        let family = patient.family.expose();
        let number = patient.record_number.expose();
        assert!(
            !log.contains(family.as_str()) && !log.contains(number.as_str()),
            "a patient is in the log: {log}"
        );
    }
}
