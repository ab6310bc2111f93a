//! A device port with a real authority behind it, whose clock is the clinic's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::{DeviceId, Timestamp};
use pipeline::enrolment::{
    AuthorityFault, CERTIFICATE_LIFE, CertificateAuthority, IssuedTo, IssuingKey, NewCertificate, Outline,
    Program, Revoked,
};
use pipeline::{Clock as _, Site};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trust::pki::{
    Authority, IssueRequest, IssueServerRequest, NameLimits, PeerUri, RevokedSerials, SigningRequest,
    fingerprint_hex,
};
use trust::tls::LiveTls;
use web_api::serve_devices;

use crate::clinic::{Clinic, START_S, SetClock};

pub const DAY_S: i64 = 86_400;

fn system(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_seconds() as u64)
}

/// The authority of a test: a real root and a real issuing key, with its lists in memory.
pub struct Memory {
    root_pem: String,
    issuing: Authority,
    issued: Mutex<Vec<(String, IssuedTo)>>,
    revoked: Mutex<RevokedSerials>,
    programs: Mutex<Vec<Program>>,
    site: Arc<Site>,
    clock: Arc<SetClock>,
    address: String,
}

impl Memory {
    /// As if nothing had been revoked yet.
    pub fn forget_revocations(&self) {
        *self.revoked.lock().unwrap() = RevokedSerials::default();
        self.site.admission().set_revoked(Vec::<String>::new());
    }

    pub fn note(&self, uri: &str, serial_hex: &str, not_after: Timestamp) {
        let issued = IssuedTo { serial_hex: serial_hex.to_owned(), not_after };
        self.issued.lock().unwrap().push((uri.to_owned(), issued));
    }

    pub fn issuing(&self) -> &Authority {
        &self.issuing
    }
}

impl CertificateAuthority for Memory {
    fn issue(
        &self,
        peer: &PeerUri,
        common_name: &str,
        request: &SigningRequest,
    ) -> Result<NewCertificate, AuthorityFault> {
        let now = Timestamp::from_seconds(self.clock.now().as_seconds());
        let (not_before, not_after) = (now.minus(Duration::from_secs(300)), now.plus(CERTIFICATE_LIFE));
        let asked = IssueRequest {
            common_name: common_name.to_owned(),
            uri: peer.clone(),
            not_before: system(not_before),
            not_after: system(not_after),
        };
        let issued = self.issuing.issue_client_for_key(request, &asked).unwrap();
        self.note(&peer.to_string(), &issued.serial_hex, not_after);
        Ok(NewCertificate {
            chain_pem: issued.certificate_pem,
            serial_hex: issued.serial_hex,
            not_before,
            not_after,
        })
    }

    fn revoke(&self, serials: &[String], reason: &str) -> Result<(), AuthorityFault> {
        let mut revoked = self.revoked.lock().unwrap();
        for serial in serials {
            revoked.insert(serial, system(self.clock.now()), reason).unwrap();
        }
        self.site.admission().set_revoked(revoked.iter().map(|(serial, _)| serial.to_owned()));
        Ok(())
    }

    fn revocation(&self, serial_hex: &str) -> Option<Revoked> {
        let revoked = self.revoked.lock().unwrap();
        let found = revoked.get(serial_hex)?;
        let seconds = found.revoked_at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        Some(Revoked { at: Timestamp::from_seconds(seconds as i64), reason: found.reason.clone() })
    }

    fn issued_to(&self, uri: &str) -> Result<Vec<IssuedTo>, AuthorityFault> {
        let issued = self.issued.lock().unwrap();
        Ok(issued.iter().filter(|(to, _)| to == uri).map(|(_, one)| one.clone()).collect())
    }

    fn outline(&self) -> Outline {
        let anchor = &trust::pki::certificates_of(&self.root_pem)[0];
        Outline {
            name: "Test issuing".into(),
            anchors_pem: self.root_pem.clone(),
            anchor_sha256: fingerprint_hex(anchor),
            anchor_not_after: Timestamp::from_seconds(START_S + 3_650 * DAY_S),
            issuing: vec![IssuingKey {
                id: self.issuing.id_hex().to_owned(),
                certificate_pem: self.issuing.certificate_pem().to_owned(),
                not_after: Timestamp::from_seconds(START_S + 3_650 * DAY_S),
            }],
            is_root_key_here: false,
            address: self.address.clone(),
        }
    }

    fn revocation_list(&self, id: &str) -> Result<Option<Vec<u8>>, AuthorityFault> {
        let revoked = self.revoked.lock().unwrap();
        let now = system(self.clock.now());
        let list = || self.issuing.revocation_list(&revoked, now, Duration::from_secs(86_400)).unwrap();
        Ok((id == self.issuing.id_hex()).then(list))
    }

    fn programs(&self) -> Result<Vec<Program>, AuthorityFault> {
        Ok(self.programs.lock().unwrap().clone())
    }

    fn register_program(&self, name: &str, scopes: &[String]) -> Result<(), AuthorityFault> {
        let mut programs = self.programs.lock().unwrap();
        programs.retain(|program| program.name != name);
        let registered_at = self.clock.now();
        programs.push(Program { name: name.to_owned(), scopes: scopes.to_vec(), registered_at });
        let all = programs.iter().map(|program| (program.name.clone(), program.scopes.clone()));
        self.site.admission().set_program_scopes(all);
        Ok(())
    }
}

/// A clinic with a device port that enrols.
pub struct House {
    pub clinic: Clinic,
    pub authority: Arc<Memory>,
    address: SocketAddr,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl House {
    pub async fn open() -> Self {
        let clinic = Clinic::furnished();
        let begin = system(Timestamp::from_seconds(START_S - 400 * DAY_S));
        let root = Authority::create_root("Test root", begin, 30).unwrap();
        let root_pem = root.certificate_pem.clone();
        let root = Authority::load(&root_pem, root.key_pem.expose()).unwrap();
        let issuing = root.create_issuing("Test issuing", begin, 20, &NameLimits::default()).unwrap();
        let issuing = Authority::load(&issuing.certificate_pem, issuing.key_pem.expose()).unwrap();
        let server = issuing
            .issue_server(&IssueServerRequest {
                common_name: "server".into(),
                dns_names: vec!["localhost".into()],
                ips: vec!["127.0.0.1".parse().unwrap()],
                not_before: begin,
                not_after: begin + Duration::from_secs(15 * 365 * 86_400),
            })
            .unwrap();
        let clock = Arc::clone(&clinic.clock);
        let now: trust::tls::Now = Arc::new(move || system(clock.now()));
        let tls =
            LiveTls::new(&server.certificate_pem, server.key_pem.expose(), issuing.certificate_pem(), now);
        let tls = tls.unwrap().enrolling_port(&[b"h2", b"http/1.1"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authority = Arc::new(Memory {
            root_pem,
            issuing,
            issued: Mutex::default(),
            revoked: Mutex::default(),
            programs: Mutex::default(),
            site: Arc::clone(&clinic.site),
            clock: Arc::clone(&clinic.clock),
            address: format!("https://localhost:{}", address.port()),
        });
        clinic.web.set_authority(Arc::clone(&authority) as Arc<dyn CertificateAuthority>);
        let stop = CancellationToken::new();
        let shutdown = stop.clone().cancelled_owned();
        let served = tokio::spawn(serve_devices(listener, Arc::clone(&clinic.web), Arc::new(tls), shutdown));
        House { clinic, authority, address, stop, served }
    }

    pub async fn close(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// A client with a certificate, or without.
    pub fn client(&self, identity: Option<(&str, &str)>) -> reqwest::Client {
        let tls = trust::tls::client_config(&self.authority.root_pem, identity, &[b"http/1.1"]).unwrap();
        reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap()
    }

    /// A code for a device, made by an engineer in the web app.
    pub async fn code(&self, device: DeviceId) -> String {
        let cookie = self.clinic.sign_in("biomedical-engineer").await;
        let made = self.clinic.post(&format!("/api/v1/devices/{device}/claim"), &cookie, json!({})).await;
        assert_eq!(made.status, 200, "{:?}", made.body);
        made.body["code"].as_str().unwrap().to_owned()
    }

    /// What the web app shows of a device.
    pub async fn shown(&self, device: DeviceId) -> Value {
        let cookie = self.clinic.sign_in("biomedical-engineer").await;
        let shown = self.clinic.get(&format!("/api/v1/devices/{device}/enrolment"), &cookie).await;
        assert_eq!(shown.status, 200, "{:?}", shown.body);
        shown.body
    }

    /// Claims; status and answer.
    pub async fn claim(&self, serial: &str, code: &str, csr: &str) -> (u16, Value) {
        let body = json!({"serial": serial, "code": code, "csr": csr}).to_string();
        let request = self.client(None).post(self.url("/enrol/v1/claim"));
        let answer = request.header(CONTENT_TYPE, "application/json").body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Asks an EST path.
    pub async fn est(
        &self,
        client: &reqwest::Client,
        path: &str,
        csr: &str,
        basic: Option<(&str, &str)>,
    ) -> Est {
        let mut request = client.post(self.url(&format!("/.well-known/est/{path}")));
        if let Some((serial, code)) = basic {
            request = request.basic_auth(serial, Some(code));
        }
        let answer =
            request.header(CONTENT_TYPE, "application/pkcs10").body(csr.to_owned()).send().await.unwrap();
        Est::of(answer).await
    }

    /// Sends a reading; the status.
    pub async fn send(&self, client: &reqwest::Client, second: i64) -> reqwest::Result<u16> {
        let request = client.post(self.url(crate::ingest::ENVELOPE)).header(CONTENT_TYPE, "application/json");
        Ok(request.body(crate::ingest::reading(second, 72)).send().await?.status().as_u16())
    }

    /// What the audit log says of certificates: action, outcome and detail, the newest first.
    pub fn recorded(&self) -> Vec<(String, String)> {
        let query = store::AuditQuery { limit: 1_000, ..store::AuditQuery::default() };
        let rows = self.clinic.site.store().audit_rows(&query).unwrap();
        let of_us =
            rows.into_iter().filter(|row| ["claim", "certificate"].contains(&row.record.object.as_str()));
        of_us.map(|row| (format!("{:?}", row.record.outcome), row.record.detail)).collect()
    }
}

/// An EST answer.
pub struct Est {
    pub status: u16,
    pub kind: String,
    pub encoding: String,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Est {
    pub async fn of(answer: reqwest::Response) -> Self {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        Est {
            status,
            kind: header("content-type"),
            encoding: header("content-transfer-encoding"),
            text: answer.text().await.unwrap(),
            headers,
        }
    }

    /// The message behind the base64.
    pub fn der(&self) -> Vec<u8> {
        assert!(self.text.lines().all(|line| line.len() <= 76), "old decoders read short lines only");
        STANDARD.decode(self.text.replace('\n', "")).unwrap()
    }
}

/// A device's own key and its request, as base64 of DER.
pub fn key_and_request(common_name: Option<&str>) -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let request = request_of(&key, common_name);
    (key, request)
}

pub fn request_of(key: &KeyPair, common_name: Option<&str>) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    STANDARD.encode(params.serialize_request(key).unwrap().der())
}

/// The first certificate of a chain: as EST clients keep it, which take the rest from `cacerts`.
pub fn first_pem(chain: &str) -> String {
    let end = "-----END CERTIFICATE-----";
    format!("{}{end}\n", chain.split(end).next().unwrap())
}
