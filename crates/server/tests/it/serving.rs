//! Serving, stopping, and what reaches a running server from its own machine.

use crate::process::{Place, Server, refuse, run, succeed};

fn with<'a>(command: &'a str, place: &'a [String; 4], more: &[&'a str]) -> Vec<&'a str> {
    [command].into_iter().chain(place.iter().map(String::as_str)).chain(more.iter().copied()).collect()
}

#[test]
fn it_serves_and_stops_when_it_is_asked_to() {
    let place = Place::new();
    let server = Server::serve(&place, &[]);
    assert!(server.address("setup_link").starts_with(&format!("{}/setup#token=", server.address("address"))));
    let token = server.address("setup_link").split('=').next_back().unwrap().to_owned();
    assert!(!server.log().contains(&token), "the log is kept, the link must not be in it");
    let arguments = place.arguments();
    let errors = refuse(&with("serve", &arguments, &["--web", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]));
    assert!(errors.contains("in use by another process"), "{errors}");
    let (status, rest) = server.stop();
    assert!(status.success(), "{status}");
    assert_eq!(rest, "", "one line on standard output");
    assert!(!place.data().join("admin.sock").exists());

    // A second start finds what the first one made.
    let server = Server::serve(&place, &[]);
    assert!(server.stop().0.success());
}

#[test]
fn a_running_server_is_backed_up_verified_and_examined() {
    let place = Place::new();
    let server = Server::serve(&place, &[]);
    let (backup, restored) = (place.path("backup"), place.path("restored"));
    let (backup, restored) = (backup.to_str().unwrap(), restored.to_str().unwrap());
    let arguments = place.arguments();
    assert!(succeed(&with("backup", &arguments, &[backup])).contains("SHA-256"));
    assert!(refuse(&with("backup", &arguments, &[backup])).contains("not empty"), "a second one is refused");
    assert!(succeed(&with("verify", &arguments, &[])).contains(" 0 damaged"));
    assert!(run(&with("doctor", &arguments, &[])).status.success());
    assert!(server.stop().0.success());

    let key = place.key();
    let key = key.to_str().unwrap();
    assert!(succeed(&["verify", "--backup", backup, "--key-file", key]).contains("is sound"));
    assert!(succeed(&["restore", backup, restored, "--key-file", key]).contains("last audit row"));
    assert!(refuse(&["restore", backup, restored, "--key-file", key]).contains("not empty"));
    // Stopped: the same commands open the store themselves.
    assert!(succeed(&with("verify", &arguments, &[])).contains(" 0 damaged"));
    let direct = place.path("direct");
    succeed(&with("backup", &arguments, &[direct.to_str().unwrap()]));
}

#[test]
fn a_damaged_backup_is_named() {
    let place = Place::new();
    Server::serve(&place, &[]).stop();
    let backup = place.path("backup");
    let arguments = place.arguments();
    succeed(&with("backup", &arguments, &[backup.to_str().unwrap()]));
    let file = backup.join("data.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let key = place.key();
    let errors =
        refuse(&["verify", "--backup", backup.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
    assert!(errors.contains("data.db") && errors.contains("SHA-256"), "{errors}");
}
