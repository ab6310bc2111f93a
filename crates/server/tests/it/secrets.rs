//! Nothing that was seeded can be read in any file, whatever is kept it in and however much the log says; and a crash
//! leaves no memory behind.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use simulator::client::Qos;
use simulator::client::enrol::Held;

use crate::cluster::{Cluster, send};
use crate::person::{PASSWORD, Person, as_nobody};
use crate::process::{Place, Server, succeed};
use crate::program::{App, Service, VERIFIER, reads};

/// Longest wait for a process that was sent a deadly signal.
const END_LIMIT: Duration = Duration::from_secs(60);

/// What stands nowhere else: the patient, the devices, what they send, and what people write.
const NAME: &str = "Zzyzxova-Quetzalcoatl";
const NUMBER: &str = "MRN-XQ7-998877";
const BORN: &str = "1950-03-21";
const SERIAL: &str = "SN-Wq7-Seeded-0042";
const VALUE: &str = "36.41592653589";
const SPOKEN: &str = "the left hip hurts Zq4-Spoken";
const UNREADABLE: &str = "no envelope Zq5-Unreadable";
const UNKNOWN: &str = "Zq6-unknown-measure";
const BECAUSE: &str = "lay in the corridor Zq7-Because";
const NOTE: &str = "a letter of the court Zq8-Note";
const PROVIDER_SECRET: &str = "Zq9-provider-secret-of-the-clinic";
const WRONG_PASSWORD: &str = "Correct-Horse-Zq9-Battery";

/// What is looked for: what it is, and its text.
type Secrets = Vec<(&'static str, String)>;

/// Where bytes that begin so are looked at closely, and what they would be.
struct Forms(HashMap<[u8; 2], Vec<(usize, Vec<u8>)>>);

impl Forms {
    /// All forms in which a text could stand in a file.
    fn of(secrets: &Secrets) -> Self {
        let mut forms: HashMap<_, Vec<_>> = HashMap::new();
        for (index, (what, secret)) in secrets.iter().enumerate() {
            assert!(secret.len() >= 10, "{what} is too short to be looked for: {secret}");
            let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
            let wide = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let mut all = vec![secret.clone().into_bytes(), secret.to_uppercase().into_bytes(), wide];
            all.extend([hex.to_uppercase().into_bytes(), hex.into_bytes()]);
            // In base64 it looks otherwise at each of three places; its ends depend on its neighbours.
            all.extend((0..3).map(|before| {
                let text = STANDARD_NO_PAD.encode([&b"   "[..before], secret.as_bytes()].concat());
                text.as_bytes()[before + 2..text.len() - 2].to_vec()
            }));
            for form in all {
                forms.entry([form[0], form[1]]).or_default().push((index, form));
            }
        }
        Forms(forms)
    }

    /// The first of them that stands in these bytes.
    fn found_in(&self, bytes: &[u8]) -> Option<usize> {
        let mut begins = vec![false; 1 << 16];
        for first in self.0.keys() {
            begins[usize::from(u16::from_be_bytes(*first))] = true;
        }
        let places = bytes.windows(2).enumerate().filter(|(_, two)| {
            let two = u16::from_be_bytes([two[0], two[1]]);
            begins[usize::from(two)]
        });
        for (at, two) in places {
            let forms = self.0.get(two).into_iter().flatten();
            if let Some((index, _)) = forms.clone().find(|(_, form)| bytes[at..].starts_with(form)) {
                return Some(*index);
            }
        }
        None
    }
}

/// Looks into every file below a folder; how many there were. What a database server takes away meanwhile is not there.
fn scan(directory: &Path, secrets: &Secrets) -> Result<usize, String> {
    let forms = Forms::of(secrets);
    let (mut looked, mut folders) = (0, vec![directory.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                looked += 1;
                if let Some(index) = forms.found_in(&bytes) {
                    let (what, secret) = &secrets[index];
                    return Err(format!("{what} ({secret}) can be read in {}", path.display()));
                }
            }
        }
    }
    Ok(looked)
}

fn text(said: &Value) -> String {
    said.as_str().unwrap_or_else(|| panic!("no text: {said}")).to_owned()
}

/// A site that is used by everybody in every way, with a log that says all it can.
struct Used {
    cluster: Cluster,
    server: Server,
    web: String,
    devices: String,
    secrets: Secrets,
}

impl Used {
    async fn begin(cluster: Cluster, mut command: Command) -> Self {
        command.env("AUSCULT_LOG_LEVEL", "trace").env("AUSCULT_SITE_FOLD_INTERVAL_S", "1");
        let server = Server::start(command, cluster.place.path("log.txt"));
        let port = server.address("devices").rsplit(':').next().unwrap().to_owned();
        let (web, devices) = (server.address("address"), format!("https://localhost:{port}"));
        let mut used = Used { cluster, server, web, devices, secrets: Vec::new() };
        for (what, text) in [
            ("a name", NAME),
            ("a record number", NUMBER),
            ("a birth date", BORN),
            ("a serial number", SERIAL),
            ("a reading", VALUE),
            ("what a device says", SPOKEN),
            ("what a device says that cannot be read", UNREADABLE),
            ("an unknown measure", UNKNOWN),
            ("a reason", BECAUSE),
            ("a note", NOTE),
            ("a provider's secret", PROVIDER_SECRET),
            ("a wrong password", WRONG_PASSWORD),
            ("a password", PASSWORD),
            ("a verifier", VERIFIER),
        ] {
            used.keep(what, text);
        }
        let key = std::fs::read_to_string(used.cluster.place.key()).unwrap();
        used.keep("the key-encryption key", key.trim());
        let (admin, nurse) = used.people().await;
        let patient = used.patient(&admin).await;
        used.device(&admin, &patient).await;
        used.programs(&admin, &nurse, &patient).await;
        used.clinical(&admin, &nurse, &patient).await;
        used.refusals().await;
        used
    }

    fn keep(&mut self, what: &'static str, text: impl Into<String>) {
        self.secrets.push((what, text.into()));
    }

    async fn people(&mut self) -> (Person, Person) {
        let link = self.server.address("setup_link");
        self.keep("a setup token", link.split("#token=").nth(1).unwrap());
        let admin = Person::first(&link, &self.web).await;
        let codes = admin.does(&self.web, "/api/v1/account/recovery-codes", json!({})).await;
        for code in codes["codes"].as_array().unwrap() {
            self.keep("a recovery code", text(code));
        }
        let again = Person::begins_to_sign_in("admin", &self.web).await;
        let code = json!({"code": codes["codes"][0]});
        again.does(&self.web, "/api/v1/sign-in/recovery", code.clone()).await;
        let again = Person::begins_to_sign_in("admin", &self.web).await;
        assert!(!again.post(&self.web, "/api/v1/sign-in/recovery", code).await.0.is_success());
        let new = |name: &str| json!({"name": name, "display": name, "role": "nurse", "wards": null});
        let nurse = admin.invited(&self.web, new("nurse"), &self.web).await;
        let invited = admin.does(&self.web, "/api/v1/users", new("other")).await;
        self.keep("an invitation", text(&invited["invitation"]["path"]).split("#token=").nth(1).unwrap());
        for person in [&admin, &again, &nurse] {
            self.keep("a session", person.cookie.split_once('=').unwrap().1);
        }
        for person in [&admin, &nurse] {
            self.keep("the secret of an authenticator app", &person.app_secret);
        }
        let settings = json!({
            "name": "Clinic", "issuer": "http://127.0.0.1:1", "client_id": "auscult", "client_secret": PROVIDER_SECRET,
            "enabled": true,
        });
        let path = "/api/v1/identity-providers/settings/clinic";
        let (status, said) = admin.call(Method::PUT, &self.web, path, Some(settings)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        (admin, nurse)
    }

    async fn patient(&self, admin: &Person) -> String {
        let new = json!({
            "family": NAME, "given": "Ada", "birth_date": BORN, "gender": "female", "record_number": NUMBER,
            "place_id": null,
        });
        text(&admin.does(&self.web, "/api/v1/patients", new).await["id"])
    }

    /// A device that claims its certificate and renews it; and one that sends what can be charted and what cannot.
    async fn device(&mut self, admin: &Person, patient: &str) {
        let new = json!({
            "name": "Hub Zq", "kind": "hub", "manufacturer": "Auscult", "model": "zq", "serial": SERIAL,
            "expected_interval_s": null,
        });
        let device = text(&admin.does(&self.web, "/api/v1/devices", new).await["id"]);
        let opened = admin.does(&self.web, &format!("/api/v1/devices/{device}/claim"), json!({})).await;
        let code = text(&opened["code"]);
        let anchors = std::fs::read_to_string(self.cluster.place.data().join("pki/authority.pem")).unwrap();
        let wrong = "00000-00000-00000-00000-00000-0";
        assert!(Held::claim(&self.devices, &anchors, SERIAL, wrong).await.is_err());
        let held = Held::claim(&self.devices, &anchors, SERIAL, &code).await.unwrap();
        held.renew(&self.devices).await.unwrap();
        self.keep("a claim code", code.clone());
        self.keep("a claim code, as it is typed", code.replace('-', ""));

        let device = self.cluster.devices[0];
        let known = admin.get(&self.web, &format!("/api/v1/devices/{device}")).await.1;
        let assignment = text(&known["assignments"][0]["id"]);
        let now = clinical_model::Timestamp::from_seconds(
            std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().try_into().unwrap(),
        );
        admin.does(&self.web, &format!("/api/v1/assignments/{assignment}/end"), json!({"end": now})).await;
        let assign = json!({"subject": {"kind": "patient", "id": patient}, "start": now, "end": null});
        admin.does(&self.web, &format!("/api/v1/devices/{device}/assignments"), assign).await;
        let publisher = self.cluster.publisher(device, &self.server.address("mqtt")).await;
        assert!(send(&publisher, device, "heart_rate", 72).await);
        for (kind, body) in [
            ("envelope", format!(r#"{{"measure":"body_temperature","value":{VALUE}}}"#)),
            ("envelope", format!(r#"{{"event":"patient_call","text":"{SPOKEN}"}}"#)),
            ("envelope", format!(r#"{{"measure":"{UNKNOWN}","value":1}}"#)),
            ("envelope", UNREADABLE.to_owned()),
            ("gatt/2a35", UNREADABLE.to_owned()),
        ] {
            let topic = format!("auscult/v1/{device}/{kind}");
            let sent = publisher.publish(topic, body.into_bytes(), Qos::AtLeastOnce).await.unwrap();
            let _ = sent.await;
        }
        let page = admin.get(&self.web, &format!("/api/v1/patients/{patient}")).await.1;
        assert!(page.to_string().contains(&VALUE[..4]), "it is charted: {page}");
    }

    async fn programs(&mut self, admin: &Person, nurse: &Person, patient: &str) {
        let scopes = "launch/patient patient/Patient.rs patient/Observation.rs offline_access";
        let app = App::register(admin, &self.web, scopes).await;
        let code = app.code_for(nurse, &self.web, scopes, patient).await;
        let (status, given) = app.redeem(&self.web, &code).await;
        assert_eq!(status, StatusCode::OK, "{given}");
        let (status, next) = app.refresh(&self.web, &text(&given["refresh_token"])).await;
        assert_eq!(status, StatusCode::OK, "{next}");
        let token = text(&next["access_token"]);
        for path in [format!("/fhir/Patient/{patient}"), format!("/fhir/Patient?family={NAME}")] {
            reads(&self.web, &path, &token).await;
        }
        // Headers of HTTP/2 pass through other hands than those of HTTP/1.1.
        let anchors = std::fs::read(self.cluster.place.data().join("pki/authority.pem")).unwrap();
        let root = reqwest::Certificate::from_pem(&anchors).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
        let path = format!("{}/fhir/Patient?identifier={NUMBER}", self.devices);
        let asked =
            client.get(path).bearer_auth(&token).header("cookie", &nurse.cookie).send().await.unwrap();
        assert_eq!(asked.version(), reqwest::Version::HTTP_2);

        let service = Service::register(admin, &self.web, "system/Patient.rs").await;
        let assertion = service.assertion("once");
        let (status, served) = service.token(&self.web, "system/Patient.rs", &assertion).await;
        assert_eq!(status, StatusCode::OK, "{served}");
        service.token(&self.web, "system/Patient.rs", &assertion).await;
        app.redeem(&self.web, &code).await;
        self.keep("an authorisation code", code);
        for said in [&given, &next] {
            self.keep("an access token", text(&said["access_token"]));
            self.keep("a refresh token", text(&said["refresh_token"]));
        }
        self.keep("a service's token", text(&served["access_token"]));
        self.keep("an assertion", assertion);
    }

    async fn clinical(&self, admin: &Person, nurse: &Person, patient: &str) {
        let page = format!("/api/v1/patients/{patient}");
        let rule = json!({"decision": "deny", "classes": ["glucose"], "reason": NOTE});
        admin.does(&self.web, &format!("{page}/consents"), rule).await;
        let hold = json!({"reason": NOTE, "until": null});
        let (status, said) = admin.call(Method::PUT, &self.web, &format!("{page}/hold"), Some(hold)).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        let ask = json!({
            "record_number": NUMBER, "birth_date": BORN, "reason": "emergency", "text": BECAUSE,
        });
        let glass = nurse.post(&self.web, "/api/v1/break-glass", ask).await;
        assert_ne!(glass.0, StatusCode::BAD_REQUEST, "{}", glass.1);
        nurse.get(&self.web, &format!("/api/v1/patients?query={NAME}")).await;
    }

    /// Errors that could quote what they were given.
    async fn refusals(&self) {
        let wrong = json!({"name": NAME, "password": WRONG_PASSWORD});
        as_nobody(&self.web, "/api/v1/sign-in", wrong).await;
        let client = reqwest::Client::new();
        for path in [
            format!("/fhir/Patient?family={NAME}"),
            format!("/fhir/Patient/{NUMBER}"),
            format!("/api/v1/patients/{NAME}"),
        ] {
            client.get(format!("{}{path}", self.web)).send().await.unwrap();
        }
        let body = format!(r#"{{"resourceType":"Patient","name":[{{"family":"{NAME}"}}]"#);
        let sent = client.post(format!("{}/fhir/Patient", self.web));
        sent.header("content-type", "application/fhir+json").body(body).send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_seeded_can_be_read_in_any_file() {
    let cluster = Cluster::in_directory(1);
    let command = Server::command(&cluster.place, &[]);
    let used = Used::begin(cluster, command).await;
    let place = &used.cluster.place;
    let backup = place.path("backup");
    let arguments = place.arguments();
    let own: Vec<&str> = arguments.iter().map(String::as_str).collect();
    succeed(&[&["backup"], &own[..], &[backup.to_str().unwrap()]].concat());
    // While it runs, what was not folded yet lies in other files than afterwards. The key has its own file, and no other.
    let key = std::fs::read(place.key()).unwrap();
    std::fs::remove_file(place.key()).unwrap();
    scan(&place.path("."), &used.secrets).unwrap();
    let log = used.server.log();
    assert!(log.contains(" TRACE "), "the log says little");
    for source in ["auscult", "web_api", "connectors"] {
        assert!(
            log.lines().any(|line| line.contains(&format!(" {source}::"))),
            "the log says nothing of {source}"
        );
    }
    let Used { cluster, server, secrets, .. } = used;
    assert!(server.stop().0.success());
    let looked = scan(&cluster.place.path("."), &secrets).unwrap();
    assert!(looked >= 8, "only {looked} files were looked at");
    assert!(secrets.len() >= 35, "{} secrets", secrets.len());

    // The scan itself sees what is there, in every form and at every place.
    let planted = cluster.place.path("planted");
    let wide: Vec<u8> = NUMBER.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let coded = |before: &str| STANDARD_NO_PAD.encode(format!("{before}{NAME}?")).into_bytes();
    for bytes in [format!("x{NAME}x").into_bytes(), wide, key, coded(""), coded("a"), coded("ab")] {
        std::fs::write(&planted, &bytes).unwrap();
        let found = scan(&cluster.place.path("."), &secrets);
        assert!(found.is_err_and(|what| what.contains("planted")), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_seeded_can_be_read_in_the_files_of_a_database() {
    let cluster = Cluster::new(1);
    let command = cluster.command(0, &cluster.url);
    let used = Used::begin(cluster, command).await;
    let files = tokio::task::spawn_blocking(|| store::testing::Cluster::shared().directory().to_owned());
    let files = files.await.unwrap();
    let log = used.server.log();
    assert!(log.contains(" TRACE "), "the log says little");
    let Used { cluster, server, secrets, .. } = used;
    assert!(server.stop().0.success());
    std::fs::remove_file(cluster.place.key()).unwrap();
    scan(&cluster.place.path("."), &secrets).unwrap();
    // Tables, their log of changes, and what the database server wrote into its own log.
    let looked = scan(&files, &secrets).unwrap();
    assert!(looked >= 200, "only {looked} files were looked at");
}

/// Ends a command by a signal after which the system writes a core file, started by somebody who would like to have one. Not
/// SIGQUIT, which shells have ignored by what they start in the background; nor SIGSEGV, which has a handler.
fn crash(directory: &Path, command: &Command, signal: Signal, is_ready: impl FnOnce(&mut Child)) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c \"$(ulimit -H -c)\"; exec \"$0\" \"$@\""]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(directory).stdin(Stdio::null()).stderr(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AUSCULT_")) {
        shell.env_remove(name);
    }
    let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    is_ready(&mut child);
    rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < END_LIMIT, "it does not end");
        std::thread::park_timeout(Duration::from_millis(10));
    };
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    status.core_dumped()
}

/// Waits for the first byte that a process says.
fn first_byte(child: &mut Child) {
    use std::io::Read as _;
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
}

#[test]
fn a_crash_leaves_no_memory_behind() {
    let place = Place::new();
    let empty = |name: &str| {
        let directory = place.path(name);
        std::fs::create_dir(&directory).unwrap();
        directory
    };
    // Where the machine writes core files at all, it writes one of a program that does nothing about it.
    let mut other = Command::new("sh");
    other.args(["-c", "echo; exec sleep 60"]);
    if !crash(&empty("other"), &other, Signal::ILL, first_byte) {
        println!("this machine writes no core files: only what the server says of itself is looked at");
    }
    for (name, signal) in [("ill", Signal::ILL), ("abort", Signal::ABORT), ("trap", Signal::TRAP)] {
        let directory = empty(name);
        let command = Server::command(&place, &[]);
        let mut limits = String::new();
        let dumped = crash(&directory, &command, signal, |server| {
            first_byte(server);
            limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
        });
        assert!(!dumped, "the kernel says that it wrote a core file after {name}");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing lies where it ran");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    }
}
