//! A small clinic for tests: two wards with a patient each, a monitor each, and one person of every role.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use clinical_model::patient::Gender;
use clinical_model::place::PlaceKind;
use clinical_model::{
    Assignment, AssignmentId, ClockRule, Delivery, Device, DeviceId, Frame, FrameKind, Interval, Patient,
    PatientId, Place, PlaceId, Private, Subject, Timestamp,
};
use http_body_util::BodyExt as _;
use pipeline::{Clock, Receipt, Site, SiteOptions};
use serde_json::Value;
use store::sqlite::{Options, SqliteStore};
use store::{Actor, Store};
use tower::ServiceExt as _;
use trust::Kek;
use trust::password::PasswordCost;
use trust::totp::TotpSecret;
use trust::webauthn::software::SoftwarePasskey;
use web_api::people::User;
use web_api::session::RemoteAddress;
use web_api::{CostLimits, NewUser, Role, Ways, Web, WebOptions, operations};

use crate::passkeys;

pub const PASSWORD: &str = "correct horse battery";
/// The secret of everybody's authenticator app.
pub const TOTP: [u8; 20] = *b"12345678901234567890";
/// 2026-11-22T08:30:00Z.
pub const START_S: i64 = 1_795_336_200;

pub struct SetClock(AtomicI64);

impl SetClock {
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

pub const fn ward(number: u8) -> PlaceId {
    PlaceId::from_bytes([0x10 + number; 16])
}

pub const fn bed(number: u8) -> PlaceId {
    PlaceId::from_bytes([0x20 + number; 16])
}

pub const fn patient(number: u8) -> PatientId {
    PatientId::from_bytes([0x30 + number; 16])
}

pub const fn monitor(number: u8) -> DeviceId {
    DeviceId::from_bytes([0x40 + number; 16])
}

pub const fn assigned(number: u8) -> AssignmentId {
    AssignmentId::from_bytes([0x50 + number; 16])
}

pub struct Clinic {
    pub site: Arc<Site>,
    pub web: Arc<Web>,
    pub router: Router,
    pub clock: Arc<SetClock>,
    /// From where requests come; `None`: from no listener.
    pub address: Option<IpAddr>,
    /// Everybody's passkey, by name.
    passkeys: Mutex<HashMap<String, (User, SoftwarePasskey)>>,
    _directory: tempfile::TempDir,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub body: Value,
}

/// Cheap enough for tests; never for a site.
pub fn cheap() -> PasswordCost {
    PasswordCost { memory_kib: 64, passes: 1, lanes: 1 }
}

impl Clinic {
    /// A clinic where nobody can sign in yet.
    pub fn empty() -> Self {
        Clinic::empty_over(|kept| Arc::new(kept))
    }

    /// The same over another store than the plain one.
    pub fn empty_over(over: impl FnOnce(SqliteStore) -> Arc<dyn Store>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(START_S * 1_000_000)));
        let store =
            SqliteStore::open(directory.path(), Kek::from_bytes(&[7; 32]), Options::default()).unwrap();
        let options = SiteOptions {
            fold_every: Duration::from_secs(3_600),
            on_durability_failure: Box::new(|error| panic!("stable storage failed: {error}")),
        };
        let site = Site::start(over(store), clock.clone(), options).unwrap();
        let options = WebOptions { password_cost: cheap(), ..WebOptions::default() };
        let web = Web::new(Arc::clone(&site), options).unwrap();
        let router = operations::router(&web);
        Clinic { site, web, router, clock, address: None, passkeys: Mutex::default(), _directory: directory }
    }

    /// Two wards; people of every role: clinicians belong to ward 1 only.
    pub fn furnished() -> Self {
        Clinic::furnished_over(|kept| Arc::new(kept))
    }

    /// The same over another store than the plain one.
    pub fn furnished_over(over: impl FnOnce(SqliteStore) -> Arc<dyn Store>) -> Self {
        let clinic = Clinic::empty_over(over);
        for number in [1, 2] {
            clinic.furnish(number);
        }
        for role in Role::ALL {
            let wards = matches!(role, Role::Nurse | Role::Physician).then(|| vec![ward(1)]);
            clinic.add_user(&name_of(*role), *role, wards);
        }
        clinic.add_user("nurse 2", Role::Nurse, Some(vec![ward(2)]));
        let everything = || vec!["system/*.cruds".to_owned()];
        let programs = ["ehr", "other"].map(|name| (name.to_owned(), everything()));
        clinic.site.admission().set_program_scopes(programs);
        clinic
    }

    fn furnish(&self, number: u8) {
        let actor = || Actor::System;
        let name = format!("Ward {number}");
        let place = |id, name, kind, ward| Place { id, name, kind, ward };
        self.site.add_place(actor(), place(ward(number), name, PlaceKind::Ward, None)).unwrap();
        let name = format!("Bed {number}");
        self.site.add_place(actor(), place(bed(number), name, PlaceKind::Bed, Some(ward(number)))).unwrap();
        let person = Patient {
            id: patient(number),
            family: Private::new(format!("Family{number}")),
            given: Private::new(format!("Given{number}")),
            birth_date: Some(Private::new("1950-03-21".into())),
            gender: Gender::Female,
            record_number: Private::new(format!("MRN-{number}")),
            place: Some(bed(number)),
            active: true,
        };
        self.site.add_patient(actor(), person).unwrap();
        let device = Device {
            id: monitor(number),
            name: format!("Monitor {number}"),
            kind: "bedside monitor".into(),
            manufacturer: "Test".into(),
            model: "T1".into(),
            serial: format!("S{number}"),
            clock: ClockRule::Trust,
            utc_offset_min: 0,
            expected_interval_s: Some(30),
            retired: false,
        };
        self.site.add_device(actor(), device).unwrap();
        let assignment = Assignment {
            id: assigned(number),
            device: monitor(number),
            subject: Subject::Patient(patient(number)),
            interval: Interval::since(Timestamp::from_seconds(START_S - 3_600)),
        };
        self.site.assign(actor(), assignment).unwrap();
    }

    /// The same clinic with what the web side knows read anew from the store.
    pub fn with_web_started_again(self) -> Self {
        self.with_costs(CostLimits::default())
    }

    /// The same site behind a web side whose requests may cost that much.
    pub fn with_costs(self, costs: CostLimits) -> Self {
        let options = WebOptions { password_cost: cheap(), costs, ..WebOptions::default() };
        let web = Web::new(Arc::clone(&self.site), options).unwrap();
        Clinic { router: operations::router(&web), web, ..self }
    }

    /// Somebody who has no way in yet.
    pub fn invite(&self, name: &str, role: Role) -> User {
        self.add_without_ways(name, role, None)
    }

    fn add_without_ways(&self, name: &str, role: Role, wards: Option<Vec<PlaceId>>) -> User {
        let new = NewUser {
            name: name.into(),
            display: name.into(),
            role,
            wards,
            care_teams: Vec::new(),
            patient: (role == Role::Patient).then(|| patient(1)),
        };
        self.web.add_user(Actor::System, new).unwrap()
    }

    /// Adds a person with every way in. A patient is patient 1.
    pub fn add_user(&self, name: &str, role: Role, wards: Option<Vec<PlaceId>>) -> User {
        let user = self.add_without_ways(name, role, wards);
        let (passkey, registered) = passkeys::made();
        let totp = Some(TotpSecret::from_bytes(TOTP));
        let ways = Ways { password: Some(PASSWORD), totp, passkey: Some(registered) };
        self.web.equip(Actor::System, user.id, ways).unwrap();
        self.passkeys.lock().unwrap().insert(name.to_owned(), (user.clone(), passkey));
        user
    }

    /// The code that everybody's authenticator app shows now.
    pub fn code(&self) -> String {
        TotpSecret::from_bytes(TOTP).code_at(self.clock.now().as_millis() as u64 / 1_000)
    }

    /// What a person's passkey answers to a challenge.
    pub fn use_passkey(&self, name: &str, begun: &Value) -> Value {
        let mut passkeys = self.passkeys.lock().unwrap();
        let (user, passkey) = passkeys.get_mut(name).unwrap();
        passkeys::answer(passkey, user.id, begun)
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        cookie: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::builder().method(&method).uri(path);
        if method != Method::GET {
            request = request.header("x-auscult", "1").header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    /// The text of an answer that is no JSON.
    pub async fn text(&self, path: &str, cookie: &str) -> String {
        let request = Request::builder().uri(path).header(axum::http::header::COOKIE, cookie);
        let response = self.answered(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn answered(&self, mut request: Request<Body>) -> axum::response::Response {
        if let Some(address) = self.address {
            request.extensions_mut().insert(RemoteAddress(address));
        }
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.answered(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    pub async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.call(Method::GET, path, Some(cookie), None).await
    }

    pub async fn post(&self, path: &str, cookie: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(cookie), Some(body)).await
    }

    /// Signs in with the person's passkey, and returns the cookie of a session that is fresh.
    pub async fn sign_in(&self, name: &str) -> String {
        cookie_of(&self.sign_in_answer(name).await)
    }

    /// Signs in with the person's passkey.
    pub async fn sign_in_answer(&self, name: &str) -> Answer {
        let begun = self.post("/api/v1/sign-in/passkey/begin", "", Value::Null).await.body;
        let body = self.use_passkey(name, &begun);
        let answer = self.call(Method::POST, "/api/v1/sign-in/passkey", None, Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {:?}", answer.body);
        assert_eq!(answer.body["state"], "signed-in", "{name}");
        answer
    }

    pub async fn ingest(&self, device: DeviceId, body: &str) -> Receipt {
        let intake = self.site.intake().unwrap();
        let frame = Frame {
            device,
            kind: FrameKind::Envelope,
            received_at: intake.now().truncated_to_millis(),
            delivery: Delivery::AtLeastOnce,
            bytes: body.as_bytes().to_vec(),
        };
        intake.submit(frame).await.unwrap().await.unwrap()
    }
}

pub fn name_of(role: Role) -> String {
    serde_json::to_value(role).unwrap().as_str().unwrap().to_owned()
}

/// The cookies that an answer sets: the session's, and perhaps that of a known browser.
pub fn cookie_of(answer: &Answer) -> String {
    let lines = answer.headers.get_all(header::SET_COOKIE).into_iter();
    let pairs: Vec<&str> = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap()).collect();
    assert!(!pairs.is_empty(), "{:?}", answer.body);
    pairs.join("; ")
}

/// Waits until a condition holds: what comes after the commit comes soon, but not at once.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
