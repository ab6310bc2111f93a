//! The audit log that can be proven, with real processes: exports checked offline, and a witness that refuses a log that
//! was rolled back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use clinical_model::PatientId;
use pipeline::erasure::ErasureOrder;
use serde_json::Value;
use store::Actor;

use crate::cluster::{Cluster, send};
use crate::devices;
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
    tampered("two lines exchanged", moved.clone(), "MOVED", "row 4");
    let mut added = owned();
    let line = added[row(3)].clone();
    added.insert(row(3), line);
    tampered("a row twice", added, "ADDED", "row 3");
    let mut cut = owned();
    cut.pop();
    tampered("the end cut off", cut, "MISSING", "breaks off");
    let mut swapped = owned();
    let (third, fourth) = (row(3), row(4));
    swapped.swap(third, fourth);
    let path = place.path("swapped.jsonl");
    std::fs::write(&path, swapped.join("\n") + "\n").unwrap();
    let named = said(&verify(&path, &[]));
    assert!(named.contains("MOVED: row 3 stands behind row 4") && !named.contains("MISSING"), "{named}");
    let for_reading = place.path("for-reading");
    for text in ["sequence,at,actor kind\n", "{\"resourceType\":\"AuditEvent\"}\n"] {
        std::fs::write(&for_reading, text).unwrap();
        let refused = verify(&for_reading, &[]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains("for reading"), "{error}");
    }
    let other = verify(&export, &["--log-key", &key.trim().replace("auscult/", "auscult/x")]);
    assert_ne!(other.status.code(), Some(0));
    // Against a checkpoint that was kept elsewhere: the export is older, so rows of it are missing.
    let against = verify(&export, &["--against", kept.to_str().unwrap()]);
    assert_eq!(against.status.code(), Some(0), "taken after the checkpoint's rows: {}", said(&against));
}

/// TRY, 20:31: the documented walk of an auditor, with the file that the documented command prints.
#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_verifies_against_the_file_that_audit_checkpoint_prints() {
    let cluster = Cluster::in_directory(1);
    let server = serve(&cluster.place, None);
    let publisher = cluster.publisher(cluster.devices[0], &server.address("mqtt")).await;
    assert!(send(&publisher, cluster.devices[0], "heart_rate", 72).await);
    let place = cluster.place;
    grow(&place);
    let own = place.arguments();
    let print = || succeed(&arguments(&own, &["audit", "checkpoint"], &[]));
    let checkpoint = place.path("checkpoint");
    // Both logs have one by now.
    let printed = until(print, |text| text.contains("/acts/") && text.contains("/groups/"));
    std::fs::write(&checkpoint, &printed).unwrap();
    let (export, against) = (place.path("audit.jsonl"), checkpoint.to_str().unwrap());
    succeed(&arguments(&own, &["audit", "export"], &[export.to_str().unwrap()]));
    let key = succeed(&arguments(&own, &["audit", "key"], &[]));
    let offline = verify(&export, &["--log-key", key.trim(), "--against", against]);
    assert_eq!(offline.status.code(), Some(0), "{}", String::from_utf8_lossy(&offline.stderr));
    assert!(said(&offline).contains("The log is sound"), "{}", said(&offline));
    let running = succeed(&arguments(&own, &["verify"], &["--against", against]));
    assert!(running.contains("The log is sound"), "{running}");
    // What is said of everything says what was read of the logs too (TRY, 20:32).
    let everything = succeed(&arguments(&own, &["verify"], &[]));
    assert!(everything.contains("log of acts: ") && everything.contains("log of groups: "), "{everything}");
    server.stop();

    // The second note counts as well: changed, it is not believed.
    let at = printed.rfind("\n\n— ").unwrap();
    let (body, signed) = printed.split_at(at);
    let root = body.rfind('\n').unwrap() + 1;
    let other = if body[root..].starts_with('A') { "B" } else { "A" };
    std::fs::write(&checkpoint, format!("{}{other}{}{signed}", &body[..root], &body[root + 1..])).unwrap();
    let changed = verify(&export, &["--against", against]);
    assert_eq!(changed.status.code(), Some(3), "{}", said(&changed));
    assert!(said(&changed).contains("checkpoint (note 2)"), "{}", said(&changed));
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

/// An export line by line, to be written again otherwise.
struct Pages {
    place: Place,
    lines: Vec<Value>,
    key: String,
    /// The last checkpoint of the log of acts, kept elsewhere.
    kept: PathBuf,
    patient: PatientId,
}

/// Where an erased patient was looked at before, and several acts were about nobody.
async fn pages() -> Pages {
    let cluster = Cluster::in_directory(2);
    let patient = devices::with_site(&cluster.place, |site| {
        let patient = site.registry().patients().remove(0);
        let order = ErasureOrder {
            patient: patient.id,
            reason: "asked for".to_owned(),
            request: "case 9".to_owned(),
            confirm: patient.record_number.expose().clone(),
            turn_within_days: 30,
        };
        site.erase(&Actor::System, &order).unwrap();
        while site.care_now("Test", 100).unwrap() {}
        patient.id
    });
    let server = serve(&cluster.place, None);
    let publisher = cluster.publisher(cluster.devices[1], &server.address("mqtt")).await;
    assert!(send(&publisher, cluster.devices[1], "heart_rate", 72).await);
    let place = cluster.place;
    grow(&place);
    let own = place.arguments();
    let export = place.path("audit.jsonl");
    succeed(&arguments(&own, &["audit", "export"], &[export.to_str().unwrap()]));
    let key = succeed(&arguments(&own, &["audit", "key"], &[])).trim().to_owned();
    let checkpoint = succeed(&arguments(&own, &["audit", "checkpoint"], &[]));
    server.stop();
    let kept = place.path("checkpoint");
    std::fs::write(&kept, checkpoint.split("\n\nauscult/").next().unwrap()).unwrap();
    let text = std::fs::read_to_string(&export).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Pages { place, lines, key, kept, patient }
}

fn of_acts(line: &Value) -> bool {
    ["row", "tile", "checkpoint"].iter().any(|kind| line[kind]["log"] == "acts")
}

impl Pages {
    /// What `auscult verify` says of these lines with the site's own key and the checkpoint that was kept elsewhere.
    fn verified(&self, lines: &[Value]) -> Output {
        let path = self.place.path("rewritten.jsonl");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        verify(&path, &["--log-key", &self.key, "--against", self.kept.to_str().unwrap()])
    }

    fn refused(&self, what: &str, lines: &[Value], named: &str) {
        let output = self.verified(lines);
        let said = format!("{}{}", said(&output), String::from_utf8_lossy(&output.stderr));
        assert_ne!(output.status.code(), Some(0), "{what}: {said}");
        assert!(said.contains(named) && !said.contains("The log is sound"), "{what}: {said}");
    }

    /// The rows of the log of acts without content.
    fn erased(&self) -> usize {
        self.lines
            .iter()
            .filter(|line| {
                of_acts(line) && line["row"]["header"].is_string() && line["row"]["blinding"].is_null()
            })
            .count()
    }
}

fn ending(mut lines: Vec<Value>) -> Vec<Value> {
    let rows = lines.iter().filter(|line| line["row"].is_object()).count();
    *lines.last_mut().unwrap() = serde_json::json!({"end": {"rows": rows}});
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_proves_nothing_is_not_called_sound() {
    let pages = pages().await;
    let sound = pages.verified(&pages.lines);
    assert_eq!(sound.status.code(), Some(0), "{}", said(&sound));
    assert!(pages.erased() > 0 && said(&sound).contains("1 erased patients"), "{}", said(&sound));

    // A log is left out, or both, or one is called the other.
    let logs = |chosen: &[usize]| {
        let mut head = pages.lines[0].clone();
        let all = head["export"]["logs"].as_array().unwrap().clone();
        head["export"]["logs"] = chosen.iter().map(|at| all[*at].clone()).collect();
        head
    };
    let ends = |head: Value, kept: fn(&Value) -> bool| {
        let inner = pages.lines[1..pages.lines.len() - 1].iter().filter(|line| kept(line)).cloned();
        ending([vec![head], inner.collect(), vec![Value::Null]].concat())
    };
    pages.refused("no log at all", &ends(logs(&[]), |_| false), "no whole export");
    pages.refused("without the acts", &ends(logs(&[1]), |line| !of_acts(line)), "no whole export");
    let mut renamed = ends(logs(&[1, 1]), |line| !of_acts(line));
    renamed[0]["export"]["logs"][0]["log"] = "acts".into();
    for line in &mut renamed[1..] {
        for kind in ["row", "tile", "checkpoint"] {
            if line[kind].is_object() {
                line[kind]["log"] = "acts".into();
            }
        }
    }
    pages.refused("groups that pose as acts", &renamed, "of no key that is believed");

    // Rows that no signature covers are whatever somebody wrote.
    let mut unsigned = ends(pages.lines[0].clone(), |line| line["row"].is_object());
    for log in unsigned[0]["export"]["logs"].as_array_mut().unwrap() {
        log["size"] = 0.into();
    }
    pages.refused("nothing is signed", &unsigned, "nothing proves them");
    // A checkpoint from elsewhere that is of no log of the export is not passed over.
    let elsewhere = std::fs::read_to_string(&pages.kept).unwrap();
    std::fs::write(&pages.kept, elsewhere.replace("auscult/", "auscult/0")).unwrap();
    pages.refused("a checkpoint of another log", &pages.lines, "CHECKPOINT-CHANGED");
    std::fs::write(&pages.kept, &elsewhere).unwrap();

    // Content that is taken out looks like content that was erased.
    let strip = |lines: &mut Vec<Value>, sequence: u64| {
        let line =
            lines.iter_mut().find(|line| of_acts(line) && line["row"]["sequence"] == sequence).unwrap();
        let row = line["row"].as_object_mut().unwrap();
        row.remove("blinding").unwrap();
        row.remove("payload").unwrap();
    };
    let rows = || pages.lines.iter().filter(|line| of_acts(line) && line["row"]["payload"].is_string());
    let about = |line: &&Value, patient: bool| {
        line["row"]["payload"].as_str().unwrap().contains("\"patient\":null") != patient
    };
    let sequence = |line: &Value| line["row"]["sequence"].as_u64().unwrap();
    let mut hidden = pages.lines.clone();
    strip(&mut hidden, sequence(rows().find(|line| about(line, false)).unwrap()));
    pages.refused("an act about nobody", &hidden, "are about no patient");
    let mut hidden = pages.lines.clone();
    strip(&mut hidden, sequence(rows().find(|line| about(line, true)).unwrap()));
    pages.refused("an act about somebody who was not erased", &hidden, "no erasure of that patient");
    // Nor is the erasure itself left out, which explains the others.
    let name = pages.patient.to_string();
    let mut hidden = pages.lines.clone();
    for row in rows().filter(|line| line["row"]["payload"].as_str().unwrap().contains(&name)) {
        strip(&mut hidden, sequence(row));
    }
    pages.refused("the erasure", &hidden, "no erasure of that patient");
    let mut hidden = pages.lines.clone();
    for line in hidden.iter_mut().filter(|line| line["row"]["log"] == "groups") {
        line["row"]
            .as_object_mut()
            .unwrap()
            .retain(|name, _| name != "blinding" && !name.starts_with("payload"));
    }
    pages.refused("a record of a group", &hidden, "its content is missing");
}
