//! The audit log that can be proven, with real processes: exports checked offline, and a witness that refuses a log that
//! was rolled back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Place, Server, auscult, copy, run, succeed};

/// Longest wait for a checkpoint or a cosignature, which come within seconds on an idle machine.
const COMES_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

fn arguments<'a>(place: &'a [String; 4], first: &[&'a str], last: &[&'a str]) -> Vec<&'a str> {
    first.iter().copied().chain(place.iter().map(String::as_str)).chain(last.iter().copied()).collect()
}

/// A configuration that signs every second, and asks a witness.
fn configure(place: &Place, witness: Option<(&str, &str)>) -> PathBuf {
    let witnesses = witness
        .map(|(key, address)| format!("witnesses = [{{ key = \"{key}\", url = \"http://{address}\" }}]\n"))
        .unwrap_or_default();
    let path = place.path("auscult.toml");
    std::fs::write(&path, format!("[audit]\ncheckpoint_interval_s = 1\n{witnesses}")).unwrap();
    path
}

fn serve(place: &Place, witness: Option<(&str, &str)>) -> Server {
    let config = configure(place, witness);
    Server::serve(place, &["--config", config.to_str().unwrap()])
}

/// Asks until the answer is as it should be.
fn until(mut ask: impl FnMut() -> String, fits: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + COMES_WITHIN;
    loop {
        let answer = ask();
        if fits(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "it has not come; the last answer: {answer}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Makes rows by acts that are recorded, and waits until a checkpoint covers them.
fn grow(place: &Place) -> String {
    let own = place.arguments();
    for _ in 0..5 {
        succeed(&arguments(&own, &["audit", "key"], &[]));
    }
    let state = || succeed(&arguments(&own, &["verify", "--log-only", "--json"], &[]));
    let covered = |text: &str| {
        let json: Value = serde_json::from_str(text).unwrap();
        let acts = &json["logs"][0];
        // The check records itself: at most that row and those of a moment ago are not covered yet.
        acts["checkpoints"].as_u64() > Some(0) && acts["uncovered"].as_u64() <= Some(2)
    };
    until(state, covered)
}

fn verify(export: &Path, more: &[&str]) -> Output {
    run(&[&["verify", export.to_str().unwrap()], more].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_export_is_checked_offline_and_every_change_of_it_is_named() {
    let place = Place::new();
    let server = serve(&place, None);
    grow(&place);
    let own = place.arguments();
    let export = place.path("audit.jsonl");
    succeed(&arguments(&own, &["audit", "export"], &[export.to_str().unwrap()]));
    let key = succeed(&arguments(&own, &["audit", "key"], &[]));
    let checkpoint = succeed(&arguments(&own, &["audit", "checkpoint"], &[]));
    let proof = succeed(&arguments(&own, &["audit", "prove", "3"], &[]));
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\n"), "{proof}");
    server.stop();

    let sound = verify(&export, &["--log-key", key.trim()]);
    assert_eq!(sound.status.code(), Some(0), "{}", said(&sound));
    let kept = place.path("checkpoint");
    let of_acts = checkpoint.split("\n\nauscult/").next().unwrap();
    std::fs::write(&kept, of_acts).unwrap();

    let text = std::fs::read_to_string(&export).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let row = |sequence: u64| {
        let found = lines.iter().position(|line| {
            line.contains("\"row\"")
                && line.contains("\"acts\"")
                && line.contains(&format!("\"sequence\":{sequence},"))
        });
        found.unwrap_or_else(|| panic!("row {sequence}"))
    };
    let tampered = |what: &str, lines: Vec<String>, word: &str, named: &str| {
        let path = place.path("tampered.jsonl");
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        let output = verify(&path, &[]);
        assert_eq!(
            output.status.code(),
            Some(3),
            "{what}: {}{}",
            said(&output),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said(&output).contains(word) && said(&output).contains(named), "{what}: {}", said(&output));
    };
    let owned = || lines.iter().map(|line| (*line).to_owned()).collect::<Vec<String>>();

    let mut changed = owned();
    changed[row(3)] = changed[row(3)].replace("\\\"object\\\":\\\"", "\\\"object\\\":\\\"X");
    tampered("an edited row", changed, "CHANGED", "row 3");
    let mut removed = owned();
    removed.remove(row(3));
    tampered("a removed row", removed, "MISSING", "row 3");
    let mut moved = owned();
    moved.swap(row(2), row(4));
    tampered("two lines exchanged", moved, "ADDED", "row");
    let mut added = owned();
    let line = added[row(3)].clone();
    added.insert(row(3), line);
    tampered("a row twice", added, "ADDED", "row 3");
    let mut cut = owned();
    cut.pop();
    tampered("the end cut off", cut, "MISSING", "breaks off");
    let other = verify(&export, &["--log-key", &key.trim().replace("auscult/", "auscult/x")]);
    assert_ne!(other.status.code(), Some(0));
    // Against a checkpoint that was kept elsewhere: the export is older, so rows of it are missing.
    let against = verify(&export, &["--against", kept.to_str().unwrap()]);
    assert_eq!(against.status.code(), Some(0), "taken after the checkpoint's rows: {}", said(&against));
}

struct WitnessProcess {
    server: Server,
    directory: tempfile::TempDir,
}

impl WitnessProcess {
    fn own(directory: &Path) -> [String; 6] {
        let shown = |name: &str| directory.join(name).to_str().unwrap().to_owned();
        [
            "--dir".into(),
            shown("memory"),
            "--key-file".into(),
            shown("key"),
            "--name".into(),
            "witness.example/w1".into(),
        ]
    }

    fn start(log_key: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        succeed(&["key", "generate", directory.path().join("key").to_str().unwrap()]);
        let mut command: Command = auscult();
        command.args(["witness", "serve"]).args(Self::own(directory.path()));
        command.args(["--log", log_key, "--listen", "127.0.0.1:0", "--print-json"]);
        let server = Server::start(command, directory.path().join("log.txt"));
        WitnessProcess { server, directory }
    }

    fn logs(&self) -> String {
        let own = Self::own(self.directory.path());
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        succeed(&[&["witness", "logs"], &own[..]].concat())
    }
}

#[test]
fn a_witness_in_a_process_of_its_own_refuses_a_log_that_was_rolled_back() {
    let place = Place::new();
    let own = place.arguments();
    let server = serve(&place, None);
    grow(&place);
    let key = succeed(&arguments(&own, &["audit", "key"], &[])).trim().to_owned();
    server.stop();
    // An older copy of everything that is kept.
    let older = tempfile::tempdir().unwrap();
    copy(&place.data(), &older.path().join("data"));

    let witness = WitnessProcess::start(&key);
    let (address, witness_key) = (witness.server.address("address"), witness.server.address("key"));
    let server = serve(&place, Some((&witness_key, &address)));
    grow(&place);
    let ask = || succeed(&arguments(&own, &["audit", "checkpoint"], &[]));
    let cosigned = until(ask, |text| text.contains("witness.example/w1"));
    let kept = place.path("outside");
    std::fs::write(&kept, cosigned.split("\n\nauscult/").next().unwrap()).unwrap();
    server.stop();

    // Whoever has the machine puts the older files back.
    std::fs::remove_dir_all(place.data()).unwrap();
    copy(&older.path().join("data"), &place.data());
    let alone = run(&arguments(&own, &["verify", "--log-only"], &[]));
    assert_eq!(alone.status.code(), Some(0), "by itself the older copy is a sound log: {}", said(&alone));
    let against = run(&arguments(&own, &["verify"], &["--against", kept.to_str().unwrap()]));
    assert_eq!(against.status.code(), Some(3), "{}", said(&against));
    assert!(said(&against).contains("ROLLED-BACK"), "{}", said(&against));
    let server = serve(&place, Some((&witness_key, &address)));
    until(|| server.log(), |log| log.contains("did not cosign the log"));
    // Grown beyond what the witness saw, differently: refused with proof.
    for _ in 0..3 {
        grow(&place);
    }
    until(|| witness.logs(), |text| text.contains("REFUSED"));
    server.stop();
}
