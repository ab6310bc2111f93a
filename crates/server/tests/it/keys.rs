//! Keys that turn, and patients who are erased and stay so after a restore.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clinical_model::patient::Gender;
use clinical_model::{Patient, PatientId, Private, UserId};
use pipeline::erasure::{ErasureOrder, signer};
use pipeline::{Clock as _, SystemClock};
use serde_json::json;
use store::{Actor, Store as _};
use trust::Kek;

use crate::devices;
use crate::person::{Person, as_nobody, code_of};
use crate::process::{ON_FREE_PORTS, Place, Server, auscult, refuse, run, succeed};

/// Longest wait for what the server writes by itself every two seconds.
const WRITTEN_LIMIT: Duration = Duration::from_secs(30);
const NAME: &str = "Zzyzxova-Quetzalcoatl";
const NUMBER: &str = "MRN-XQ7-998877";

fn with<'a>(command: &[&'a str], place: &'a [String; 4], more: &[&'a str]) -> Vec<&'a str> {
    command.iter().copied().chain(place.iter().map(String::as_str)).chain(more.iter().copied()).collect()
}

fn patient() -> Patient {
    Patient {
        id: PatientId::from_bytes([0x5a; 16]),
        family: Private::new(NAME.into()),
        given: Private::new("Ada".into()),
        birth_date: Some(Private::new("1950-03-21".into())),
        gender: Gender::Female,
        record_number: Private::new(NUMBER.into()),
        place: None,
        active: true,
    }
}

fn fingerprint(path: &Path) -> String {
    Kek::parse(std::fs::read(path).unwrap()).unwrap().fingerprint_text()
}

#[test]
fn the_key_turns_over_under_a_running_server_and_beside_a_stopped_one() {
    let place = Place::new();
    devices::provision(&place, 2);
    let first = fingerprint(&place.key());
    let copy = place.path("safe");
    std::fs::copy(place.key(), &copy).unwrap();
    let server = Server::serve(&place, &[]);
    let arguments = place.arguments();
    let copy = copy.to_str().unwrap();
    assert!(succeed(&with(&["keys", "export-check"], &arguments, &[copy])).contains("is the key in force"));
    let told = succeed(&with(&["keys", "rotate"], &arguments, &["--reason", "a test"]));
    let second = fingerprint(&place.key());
    assert_ne!(first, second);
    assert!(told.contains(&second) && !place.path("key.next").exists() && !place.path("key.old").exists());
    let status = succeed(&with(&["keys", "status"], &arguments, &["--json"]));
    assert!(status.contains(&second) && status.contains("\"turn\":null"), "{status}");
    assert!(server.stop().0.success());

    // The key before opens nothing any more, and the new one everything, the authority's keys included.
    let mut old = place.arguments();
    old[3] = copy.to_owned();
    assert!(refuse(&with(&["verify"], &old, &[])).contains("does not open this store"));
    assert!(!run(&with(&["keys", "export-check"], &arguments, &[copy])).status.success());
    let server = Server::serve(&place, &[]);
    assert!(server.stop().0.success());
    succeed(&with(&["keys", "rotate"], &arguments, &["--reason", "once more, stopped"]));
    assert_ne!(fingerprint(&place.key()), second);
    assert!(succeed(&with(&["verify"], &arguments, &[])).contains(" 0 damaged"));
    Server::serve(&place, &[]).stop();
}

/// Waits until a server has written that the patient was erased.
fn wait_for_list(list: &Path, server: &Server) {
    let begun = Instant::now();
    while !std::fs::read_to_string(list).is_ok_and(|text| text.contains("5a5a5a5a")) {
        assert!(begun.elapsed() < WRITTEN_LIMIT, "the list was never written; log: {}", server.log());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn an_erased_patient_does_not_come_back_with_an_older_backup() {
    let place = Place::new();
    devices::provision(&place, 1);
    let arguments = place.arguments();
    devices::with_site(&place, |site| site.add_patient(Actor::System, patient()).unwrap());
    let backup = place.path("backup");
    succeed(&with(&["backup"], &arguments, &[backup.to_str().unwrap()]));

    let (statement, signature, certificate) = devices::with_site(&place, |site| {
        let order = ErasureOrder {
            patient: patient().id,
            reason: "asked for".to_owned(),
            request: "case 9".to_owned(),
            confirm: NUMBER.to_owned(),
            turn_within_days: 30,
        };
        site.erase(Actor::User(UserId::from_bytes([7; 16])), &order).unwrap();
        while site.care_now("Test", 100).unwrap() {}
        let erased = site.erasures().unwrap().remove(0);
        let signer = signer(site.store(), "Test", SystemClock.now()).unwrap();
        (erased.statement.unwrap(), erased.signature.unwrap(), signer.certificate_pem().to_owned())
    });
    // The statement is checked by a tool that everybody has.
    let file = |name: &str, bytes: &[u8]| {
        let path = place.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let bytes: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    let (said, signed, pem) = (
        file("said.json", statement.as_bytes()),
        file("said.sig", &bytes),
        file("signer.pem", certificate.as_bytes()),
    );
    let key = Command::new("openssl").args(["x509", "-noout", "-pubkey", "-in"]).arg(&pem).output().unwrap();
    let key = file("signer.pub", &key.stdout);
    let check = |said: &Path| {
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-verify"]).arg(&key).arg("-signature").arg(&signed).arg(said);
        openssl.output().unwrap()
    };
    assert!(String::from_utf8_lossy(&check(&said).stdout).contains("Verified OK"));
    assert!(!check(&file("other.json", b"{}")).status.success());
    assert!(statement.contains("case 9") && !statement.contains(NAME));

    // The server keeps the list beside the key; a restore applies it before anything is served.
    let list = place.path("key.erasures");
    let server = Server::serve(&place, &[]);
    wait_for_list(&list, &server);
    // TRY, 20:38: of a site that runs, too, doctor says that a turn is due.
    let doctor = run(&with(&["doctor"], &arguments, &[]));
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.contains("a turn of the key is due") && said.contains("1 erasure,"), "{said}");
    assert!(!server.log().contains("Broken pipe"), "{}", server.log());
    // TRY5, 22:22: on the port that it took, not on the 0 of the settings.
    assert!(said.contains(server.address("mqtt").as_str()) && !said.contains(":0 (of"), "{said}");
    assert!(server.stop().0.success());
    let (restored, again) = (place.path("restored"), place.path("again"));
    let (backup, key) = (backup.to_str().unwrap().to_owned(), place.key().to_str().unwrap().to_owned());
    let told = succeed(&["restore", &backup, restored.to_str().unwrap(), "--key-file", &key]);
    assert!(told.contains("1 erasure of"), "{told}");
    let store = devices::open(&place, &restored);
    assert!(store.document(store::Kind::Patient, [0x5a; 16]).unwrap().is_none());
    assert!(store.ensure_patient_key(patient().id).is_err(), "and no key is ever made again");
    drop(store);

    // A list that somebody changed is refused, and so is a restore without one; nothing is left then.
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, text.replace("5a5a5a5a", "5b5b5b5b")).unwrap();
    let refused = refuse(&["restore", &backup, again.to_str().unwrap(), "--key-file", &key]);
    assert!(refused.contains("not the list of this site"), "{refused}");
    std::fs::remove_file(&list).unwrap();
    let refused = refuse(&["restore", &backup, again.to_str().unwrap(), "--key-file", &key]);
    assert!(refused.contains("--erasures") && !again.join("data.db").exists(), "{refused}");

    // When the epoch has turned, the older backup opens with no key that is left.
    succeed(&with(&["keys", "rotate"], &arguments, &["--reason", "an erasure waits"]));
    let refused =
        refuse(&["restore", &backup, again.to_str().unwrap(), "--key-file", &key, "--without-erasures"]);
    assert!(refused.contains("does not open this store"), "{refused}");
    assert!(succeed(&with(&["doctor"], &arguments, &[])).contains("backups included"));
}

/// ATTACK, 21:03: one start with a wrong data directory wrote the list anew and locked the real site out.
#[test]
fn a_start_in_a_wrong_directory_neither_serves_nor_touches_the_list_of_erasures() {
    let place = Place::new();
    assert!(Server::serve(&place, &[]).stop().0.success());
    let list = place.path("key.erasures");
    let before = std::fs::read(&list).unwrap();
    let wrong = place.path("dta");
    let (wrong, key) = (wrong.to_str().unwrap(), place.key());
    let serve = ["serve", "--data", wrong, "--key-file", key.to_str().unwrap(), "--web", "127.0.0.1:0"];
    for _ in 0..2 {
        let told = refuse(&serve);
        assert!(told.contains("new and empty") && told.contains("--data"), "{told}");
        assert!(std::fs::read(&list).unwrap() == before, "the list was touched");
    }
    assert!(Server::serve(&place, &[]).stop().0.success(), "the site itself starts as before");
    let before = std::fs::read(&list).unwrap();
    // Whoever means a new site says so with another list.
    let config = place.path("new.toml");
    std::fs::write(&config, format!("[key]\nerasures = {:?}\n", place.path("new.erasures"))).unwrap();
    let mut other = place.arguments();
    other[1] = wrong.to_owned();
    let mut command = auscult();
    command.arg("serve").args(&other).arg("--config").arg(&config);
    command.args(ON_FREE_PORTS);
    assert!(Server::start(command, place.path("new.txt")).stop().0.success());
    assert!(std::fs::read(&list).unwrap() == before, "the list was touched");
}

/// ATTACK, 20:52: a restored backup gave back access that was taken away since.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_lets_nobody_in_who_was_let_in_by_something_that_ends() {
    let place = Place::new();
    let server = Server::serve(&place, &[]);
    let node = server.address("address");
    let admin = Person::first(&server.address("setup_link"), &node).await;
    assert_eq!(admin.post(&node, "/api/v1/account/recovery-codes", json!({})).await.0, 200);
    let nurse = json!({"name": "nina", "display": "Nina", "role": "nurse", "wards": null});
    let invited = admin.does(&node, "/api/v1/users", nurse).await;
    let link = invited["invitation"]["path"].as_str().unwrap().split("#token=").nth(1).unwrap().to_owned();
    let (arguments, backup) = (place.arguments(), place.path("backup"));
    let backup = backup.to_str().unwrap();
    succeed(&with(&["backup"], &arguments, &[backup]));
    assert_eq!(admin.get(&node, "/api/v1/account").await.0, 200);
    assert!(server.stop().0.success());

    let restored = place.path("restored");
    let key = place.key().to_str().unwrap().to_owned();
    let told = succeed(&["restore", backup, restored.to_str().unwrap(), "--key-file", &key]);
    assert!(told.contains("1 session,") && told.contains("codes of 2 people"), "{told}");
    assert!(told.contains("Mind that people and programs") && told.contains("revoked.txt"), "{told}");
    let mut arguments = place.arguments();
    restored.to_str().unwrap().clone_into(&mut arguments[1]);
    let mut command = auscult();
    command.arg("serve").args(&arguments);
    command.args(ON_FREE_PORTS);
    let server = Server::start(command, place.path("restored.txt"));
    let node = server.address("address");
    assert_eq!(admin.get(&node, "/api/v1/account").await.0, 401, "the session was ended");
    let (status, said) = as_nobody(&node, "/api/v1/sign-in/link", json!({"token": link})).await;
    assert_eq!(status, 403, "{said}");
    // Who has a way in of their own comes in by it, and no recovery code is left.
    let again = Person::begins_to_sign_in("admin", &node).await;
    let again = again.gives_code(&node, &code_of(&admin.app_secret, 1)).await;
    let (status, log) = again.get(&node, "/api/v1/audit/log").await;
    let alarms = log["alarms"].to_string();
    assert!(status == 200 && alarms.contains("A backup was restored at"), "{status} {log}");

    // Until somebody has looked, doctor says what is not known: of a site that runs, and of one that does not.
    let doctor =
        |arguments: &[String; 4]| String::from_utf8(run(&with(&["doctor"], arguments, &[])).stdout).unwrap();
    let unseen = "a backup was restored at";
    assert!(doctor(&arguments).contains(unseen), "{}", doctor(&arguments));
    assert!(refuse(&with(&["confirm-restore"], &arguments, &["--note", " "])).contains("--note"));
    let note = ["--note", "nobody was disabled, nothing was revoked"];
    assert!(succeed(&with(&["confirm-restore"], &arguments, &note)).contains("Noted for the restore"));
    assert!(succeed(&with(&["confirm-restore"], &arguments, &note)).contains("No restore waits"));
    assert!(!doctor(&arguments).contains(unseen));
    assert!(server.stop().0.success());
    let store = devices::open(&place, &restored);
    let acts = store.audit_rows(&store::AuditQuery { limit: 100, ..store::AuditQuery::default() }).unwrap();
    let of_restore = acts.iter().filter(|row| row.record.object == pipeline::restored::OBJECT);
    let said: Vec<_> = of_restore.map(|row| row.record.detail.clone()).collect();
    assert!(
        said.len() == 2 && said[1].contains("1 sessions") && said[0].contains("nobody was disabled"),
        "{said:?}"
    );
    assert_eq!(pipeline::restored::unseen(&store).unwrap(), None);
}

/// A token of software, as the tests of PKCS #11 use.
fn token(place: &Place) -> Option<std::path::PathBuf> {
    let module = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/lib/pkcs11/libsofthsm2.so",
    ]
    .into_iter()
    .map(std::path::PathBuf::from)
    .find(|path| path.exists())
    .expect("these tests need SoftHSM; install it: sudo apt-get install -y --no-install-recommends softhsm2");
    let tokens = place.path("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let settings = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    std::fs::write(place.path("softhsm2.conf"), settings).unwrap();
    let made = Command::new("softhsm2-util")
        .env("SOFTHSM2_CONF", place.path("softhsm2.conf"))
        .args(["--init-token", "--free", "--label", "auscult", "--so-pin", "87654321", "--pin", "12345678"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(module)
}

#[test]
fn the_key_lives_in_a_token_and_turns_over_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let module = token(&place).unwrap();
    let (pin, config) = (place.path("pin"), place.path("auscult.toml"));
    std::fs::write(&pin, "12345678\n").unwrap();
    std::fs::set_permissions(&pin, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[site]\ndata_dir = {:?}\n[key]\npkcs11_module = {:?}\npkcs11_pin_file = {:?}\nerasures = {:?}\n",
        place.data(),
        module,
        pin,
        place.path("erasures.json")
    );
    std::fs::write(&config, text).unwrap();
    let call = |arguments: &[&str]| {
        let mut command = auscult();
        command
            .env("SOFTHSM2_CONF", place.path("softhsm2.conf"))
            .args(arguments)
            .arg("--config")
            .arg(&config);
        let output = command.output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let (done, said) = call(&["keys", "provider"]);
    assert!(!done && said.contains("keys provider --make"), "{said}");
    let (done, said) = call(&["keys", "provider", "--make"]);
    assert!(done && said.contains("pkcs11: token auscult"), "{said}");
    assert!(!call(&["keys", "provider", "--make"]).0, "a second one would lock the first one's data away");

    let mut command = auscult();
    command.env("SOFTHSM2_CONF", place.path("softhsm2.conf")).arg("serve").arg("--config").arg(&config);
    command.args(ON_FREE_PORTS);
    let server = Server::start(command, place.path("log.txt"));
    let before = call(&["keys", "status", "--json"]).1;
    let (done, said) = call(&["keys", "rotate", "--reason", "a test"]);
    assert!(done, "{said}");
    let after = call(&["keys", "status", "--json"]).1;
    assert_ne!(before, after);
    assert!(server.stop().0.success());
    let (done, said) = call(&["verify"]);
    assert!(done && said.contains(" 0 damaged"), "{said}");
    let (done, said) = call(&["keys", "provider"]);
    assert!(done && !said.contains("next key"), "{said}");

    // A site whose key is in no file proves and restores its backups too.
    let (backup, restored) = (place.path("backup"), place.path("restored"));
    let (backup, restored) = (backup.to_str().unwrap(), restored.to_str().unwrap());
    assert!(call(&["backup", backup]).0);
    let (done, said) = call(&["verify", "--backup", backup]);
    assert!(done && said.contains("is sound"), "{said}");
    let (done, said) = call(&["restore", backup, restored]);
    assert!(done && said.contains("Restored to"), "{said}");
}
