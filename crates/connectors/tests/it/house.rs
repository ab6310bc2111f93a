//! A house under test: store, site, authority, registered devices and a listening endpoint.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use clinical_model::device::ClockRule;
use clinical_model::patient::Gender;
use clinical_model::{
    Assignment, AssignmentId, Device, DeviceId, Fact, Frame, Interval, Patient, PatientId, Private, Subject,
    Timestamp,
};
use connectors::mqtt::{MqttOptions, serve};
use pipeline::shedding::Bounds;
use pipeline::{Clock, Site, SiteOptions, SystemClock};
use rustls::ClientConfig;
use store::Actor;
use store::sqlite::{Options, SqliteStore};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trust::Kek;
use trust::pki::{Authority, IssueRequest, IssueServerRequest, Issued, PeerUri};

/// Longest that a test waits for what must happen; a loaded machine is slow, a broken server is slower.
pub const PATIENCE: Duration = Duration::from_secs(20);

const DAY: Duration = Duration::from_secs(86_400);

/// A registered device with its certificate.
pub struct Registered {
    pub id: DeviceId,
    pub certificate: Issued,
}

impl Registered {
    /// The topic of its JSON envelopes.
    pub fn envelope(&self) -> String {
        format!("auscult/v1/{}/envelope", self.id)
    }
}

/// Everything behind and before the endpoint.
pub struct House {
    pub site: Arc<Site>,
    pub address: SocketAddr,
    authority: Authority,
    stop: CancellationToken,
    server: Option<JoinHandle<std::io::Result<()>>>,
    _directory: tempfile::TempDir,
}

impl House {
    pub async fn open() -> Self {
        Self::open_with(MqttOptions::default()).await
    }

    pub async fn open_with(options: MqttOptions) -> Self {
        Self::open_over(options, Arc::new(SystemClock), Bounds::default()).await
    }

    /// With a disk that can be held up, and bounds for giving way.
    pub async fn open_gated(options: MqttOptions, bounds: Bounds) -> (Self, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        (Self::open_over(options, Arc::clone(&gate) as Arc<dyn Clock>, bounds).await, gate)
    }

    async fn open_over(options: MqttOptions, clock: Arc<dyn Clock>, bounds: Bounds) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path(), Kek::generate(), Options::default()).unwrap();
        let site_options = SiteOptions {
            fold_every: Duration::from_secs(3600),
            on_durability_failure: Box::new(|error| panic!("stable storage failed: {error}")),
        };
        let site = Site::start(Arc::new(store), clock, site_options).unwrap();
        let authority = authority();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let tls = server_tls(&authority);
        let stopped = stop.clone().cancelled_owned();
        let intake = site.intake().unwrap().with_bounds(bounds);
        let server = tokio::spawn(serve(listener, tls, intake, options, stopped));
        Self { site, address, authority, stop, server: Some(server), _directory: directory }
    }

    /// Registers a device, assigns it to a new patient, and issues its certificate.
    pub fn device(&self) -> Registered {
        let id = DeviceId::from_uuid(trust::uuid_v7(0));
        let device = Device {
            id,
            name: "cuff".to_owned(),
            kind: "blood pressure cuff".to_owned(),
            manufacturer: "maker".to_owned(),
            model: "one".to_owned(),
            serial: id.to_string(),
            clock: ClockRule::Trust,
            utc_offset_min: 0,
            expected_interval_s: None,
            retired: false,
        };
        let patient = Patient {
            id: PatientId::from_uuid(trust::uuid_v7(0)),
            family: Private::new("Example".to_owned()),
            given: Private::new("Ada".to_owned()),
            birth_date: None,
            gender: Gender::Unknown,
            record_number: Private::new(id.to_string()),
            place: None,
            active: true,
        };
        let assignment = Assignment {
            id: AssignmentId::from_uuid(trust::uuid_v7(0)),
            device: id,
            subject: Subject::Patient(patient.id),
            interval: Interval::since(Timestamp::from_seconds(0)),
        };
        self.site.add_device(Actor::System, device).unwrap();
        self.site.add_patient(Actor::System, patient).unwrap();
        self.site.assign(Actor::System, assignment).unwrap();
        Registered { id, certificate: self.issue(PeerUri::Device(*id.as_uuid())) }
    }

    /// Issues a certificate, whether or not anything of that name is registered.
    pub fn issue(&self, uri: PeerUri) -> Issued {
        issue(&self.authority, uri)
    }

    /// Registers a program with a scope, and no other program.
    pub fn let_send(&self, program: &str, scope: &str) {
        self.site.admission().set_program_scopes([(program.to_owned(), vec![scope.to_owned()])]);
    }

    /// The certificate that clients of the endpoint must trust.
    pub fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// A client of the endpoint that shows `certificate`.
    pub fn client_tls(&self, certificate: Option<&Issued>) -> ClientConfig {
        let identity = certificate.map(|issued| (issued.certificate_pem.as_str(), issued.key_pem.expose()));
        trust::tls::client_config(self.authority.certificate_pem(), identity, &[b"mqtt"]).unwrap()
    }

    /// What is on stable storage, in order of its commit.
    pub fn committed(&self) -> Vec<Frame> {
        let groups = self.site.store().groups_after(0, 100_000).unwrap();
        groups.into_iter().flat_map(|group| group.frames).map(|record| record.frame).collect()
    }

    /// The values of all readings on stable storage, in order of their commit.
    pub fn committed_values(&self) -> Vec<String> {
        let groups = self.site.store().groups_after(0, 100_000).unwrap();
        let facts = groups.into_iter().flat_map(|group| group.frames).flat_map(|record| record.facts);
        facts
            .filter_map(|fact| match fact {
                Fact::Reading(reading) => reading.value().number().map(|value| value.to_string()),
                _ => None,
            })
            .collect()
    }

    /// Stops the endpoint and waits for its end.
    pub async fn stop(&mut self) {
        self.begin_stop();
        if let Some(server) = self.server.take() {
            within(server).await.unwrap().unwrap();
        }
    }

    /// Tells the endpoint to stop.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }
}

/// A clock that stands still for the commit while it is shut: the same as a disk that takes nothing.
#[derive(Default)]
pub struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn shut(&self) {
        *self.is_shut.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.is_shut.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

impl Clock for Gate {
    fn now(&self) -> Timestamp {
        if std::thread::current().name() == Some("commit") {
            drop(self.opened.wait_while(self.is_shut.lock().unwrap(), |is_shut| *is_shut).unwrap());
        }
        SystemClock.now()
    }
}

/// An authority and a certificate that nobody here knows.
pub fn foreign_certificate(uri: PeerUri) -> Issued {
    issue(&authority(), uri)
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    let held = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            looks.tick().await;
        }
    });
    assert!(held.await.is_ok(), "waited in vain: {what}");
}

/// Waits for `future`, with [`PATIENCE`].
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have happened by now")
}

fn authority() -> Authority {
    let pem = Authority::create("test authority", SystemTime::now(), 2).unwrap();
    Authority::load(&pem.certificate_pem, pem.key_pem.expose()).unwrap()
}

fn issue(authority: &Authority, uri: PeerUri) -> Issued {
    let now = SystemTime::now();
    let request = IssueRequest { common_name: "cuff".to_owned(), uri, not_before: now, not_after: now + DAY };
    authority.issue_client(&request).unwrap()
}

fn server_tls(authority: &Authority) -> Arc<rustls::ServerConfig> {
    let now = SystemTime::now();
    let server = authority
        .issue_server(&IssueServerRequest {
            common_name: "server".to_owned(),
            dns_names: vec!["localhost".to_owned()],
            ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            not_before: now,
            not_after: now + DAY,
        })
        .unwrap();
    let trusted = authority.certificate_pem();
    let tls = trust::tls::server_config_mutual(
        &server.certificate_pem,
        server.key_pem.expose(),
        trusted,
        &[b"mqtt"],
    );
    Arc::new(tls.unwrap())
}
