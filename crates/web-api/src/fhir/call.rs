//! A request as the handlers see it: who asks, with which parameters, headers and body.

use std::collections::HashMap;
use std::sync::Arc;

use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::{Form, FromRequest as _, Path, Query, Request};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use clinical_model::{Device, PatientId, SeriesKey, Subject};
use health_codecs::fhir::{IssueCode, MEDIA_TYPE, OutcomeIssue};
use pipeline::audited::{Act, ReadError};
use pipeline::chart::Chart;
use store::AuditAction;

use super::answer::Refusal;
use super::{AUDITED_PATIENTS_LIMIT, Interaction};
use ::access::scopes::Cruds;

use crate::access::{Access, Permission, Sight};
use crate::oauth::NotABearer;
use crate::operations;
use crate::problem::Code;
use crate::serve::{BODY_LIMIT_BYTES, BodyError, DevicePeer, read_body};
use crate::session::Caller;
use crate::state::Web;

/// Characters of a caller's own text that are quoted in an answer.
const SHOWN_CHARS: usize = 100;
/// Longest `Host` that is taken into links, in bytes: a host name with its port.
const HOST_LIMIT_BYTES: usize = 260;

/// A caller's own text, cut for an answer.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// On which port a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The web port: a session says who it is.
    People,
    /// The device port: a certificate says who it is.
    Peers,
}

impl Door {
    /// Who asks, by the token or the session in the headers or by the certificate that the handshake verified.
    pub(crate) async fn access(
        self,
        web: &Arc<Web>,
        caller: &Caller,
        headers: &HeaderMap,
        peer: Option<DevicePeer>,
    ) -> Result<Access, Refusal> {
        let unknown = |what: &str| Refusal::new(StatusCode::UNAUTHORIZED, IssueCode::Login, what);
        if Web::brings_token(headers) {
            return by_token(web, headers).await.map(|access| access.asked_from(caller));
        }
        match self {
            Door::People => match operations::signed_in(web, caller, headers, true).await {
                Ok((access, _)) => Ok(access),
                Err(problem) if problem.code() == Code::SignedOut => {
                    Err(unknown("nobody is signed in, or the session has ended; sign in again"))
                }
                Err(problem) => {
                    let what = "whether somebody is signed in cannot be read now; try again";
                    Err(Refusal::new(problem.code().status(), IssueCode::Transient, what))
                }
            },
            Door::Peers => peer
                .map(|known| Access::of_peer(web, known.peer).asked_from(caller))
                .ok_or_else(|| unknown("a client certificate is needed here")),
        }
    }
}

/// Who asks, by the token in the headers: where there is one, neither session nor certificate counts beside it.
async fn by_token(web: &Arc<Web>, headers: &HeaderMap) -> Result<Access, Refusal> {
    let headers = headers.clone();
    let known = web.blocking(move |web| web.bearer(&headers).map(|app| Access::of_app(web, app))).await?;
    known.map_err(|error| match &error {
        NotABearer::Store(_) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a token could not be looked up");
            Refusal::unavailable("whose the token is cannot be read now; try again")
        }
        _ => Refusal::bad_token(error.to_string()),
    })
}

/// A request.
pub(crate) struct Call {
    /// Who asks; `None` only where nobody has to say.
    access: Option<Access>,
    /// The id in the path; empty where there is none.
    pub id: String,
    /// The type of the interaction; empty for the whole system.
    pub kind: &'static str,
    /// What is done with it, as scopes know it.
    pub what: Cruds,
    /// The version in the path; empty where there is none.
    pub vid: String,
    /// Query and form parameters, without `_format` and `_pretty`.
    pub params: Vec<(String, String)>,
    /// Headers.
    pub headers: HeaderMap,
    /// Absolute address of the interface, without a slash at the end.
    pub base: String,
    /// The body, where the interaction takes one.
    pub body: Bytes,
    /// Whether the answer is written for people.
    pub is_pretty: bool,
}

impl Call {
    /// Reads what is left of a request after it is known who asks.
    pub(crate) async fn read(
        web: &Web,
        door: Door,
        access: Option<Access>,
        interaction: &Interaction,
        mut request: Request,
    ) -> Result<Self, Refusal> {
        let base = base_of(web, door, &request);
        let mut named = match interaction.path.contains('{') {
            true => request.extract_parts::<Path<HashMap<String, String>>>().await.map(|Path(named)| named),
            false => Ok(HashMap::new()),
        }
        .unwrap_or_default();
        let mut take = |name: &str| named.remove(name).unwrap_or_default();
        let (id, vid) = (take("id"), take("vid"));
        let mut params = query_of(&request)?;
        let headers = request.headers().clone();
        let mut body = Bytes::new();
        if interaction.code == "search-type" && *request.method() == Method::POST {
            params.extend(form_of(request).await?);
        } else if matches!(*request.method(), Method::POST | Method::PUT) {
            is_fhir_json(&headers)?;
            body = read_body(request.into_body(), &headers, BODY_LIMIT_BYTES).await?;
        }
        let is_pretty = shape(&mut params)?;
        if let Some((name, _)) = params.iter().find(|(name, _)| !interaction.takes(name)) {
            let what = format!("the parameter \"{}\" is not supported here", shown(name));
            return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::NotSupported, what, "")]));
        }
        let (kind, what) = (interaction.resource, interaction.what());
        Ok(Call { access, id, kind, what, vid, params, headers, base, body, is_pretty })
    }

    /// A request of our own for one resource, of somebody who is signed in: what an export writes.
    pub(crate) fn inside(access: Access, kind: &'static str, id: String) -> Self {
        Call {
            access: Some(access),
            id,
            kind,
            what: Cruds::READ,
            vid: String::new(),
            params: Vec::new(),
            headers: HeaderMap::new(),
            base: String::new(),
            body: Bytes::new(),
            is_pretty: false,
        }
    }

    /// An entry of a Bundle as a request of its own, of whoever sent the Bundle.
    pub(crate) fn entry(
        &self,
        interaction: &Interaction,
        (id, vid): (String, String),
        query: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Self, Refusal> {
        let mut params = pairs_of(query)?;
        shape(&mut params)?;
        if let Some((name, _)) = params.iter().find(|(name, _)| !interaction.takes(name)) {
            let what = format!("the parameter \"{}\" is not supported here", shown(name));
            return Err(Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::NotSupported, what, "")]));
        }
        let access = self.access.clone();
        let (kind, what, base) = (interaction.resource, interaction.what(), self.base.clone());
        Ok(Call { access, id, kind, what, vid, params, headers, base, body, is_pretty: false })
    }

    /// Who asks.
    ///
    /// # Errors
    /// 401 where nobody had to say.
    pub(crate) fn access(&self) -> Result<&Access, Refusal> {
        self.access
            .as_ref()
            .ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, IssueCode::Login, "sign in first"))
    }

    /// An act of whoever asks.
    pub(crate) fn act(&self, action: AuditAction, object: &'static str) -> Result<Act, Refusal> {
        Ok(self.access()?.act(action, object))
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The parameters as one text, for the audit log: what may name a person is blinded, for the rows of a search outlive
    /// the people whom it was about.
    pub(crate) fn query_text(&self, web: &Web) -> String {
        let pairs = self.params.iter().map(|(name, value)| match is_plain(name, value) {
            true => format!("{name}={value}"),
            false => format!("{name}={}", web.blinded(value)),
        });
        let text = pairs.collect::<Vec<_>>().join("&");
        if text.is_empty() { text } else { format!("?{text}") }
    }

    /// The eyes of whoever asks, for the type that the interaction is about.
    ///
    /// # Errors
    /// 401 where nobody had to say who they are.
    pub(crate) fn sight<'a>(&'a self, web: &'a Web) -> Result<Sight<'a>, Refusal> {
        self.sight_of(web, self.kind)
    }

    /// The same, for another type that is shown along.
    ///
    /// # Errors
    /// As [`Call::sight`].
    pub(crate) fn sight_of<'a>(&'a self, web: &'a Web, kind: &str) -> Result<Sight<'a>, Refusal> {
        Ok(self.access()?.sight(web).of_type(kind, self.what))
    }

    /// Records an act and then lets `read` see the chart, as far as whoever asks may see what is measured.
    ///
    /// # Errors
    /// As [`pipeline::Site::read`]; 401 where nobody had to say who they are.
    pub(crate) fn chart<T>(
        &self,
        web: &Web,
        act: Act,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, Refusal> {
        let sight = self.sight_of(web, "Observation")?;
        let seen = |series: &SeriesKey| sight.series(series);
        let act = self.access()?.reading(web, act);
        Ok(web.site.read(act, |chart| read(&chart.seen_by(&seen)))?)
    }

    /// As [`Call::chart`], for an act that concerns several patients.
    ///
    /// # Errors
    /// As [`Call::chart`].
    pub(crate) fn chart_each<T>(
        &self,
        web: &Web,
        acts: Vec<Act>,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, Refusal> {
        let sight = self.sight_of(web, "Observation")?;
        let seen = |series: &SeriesKey| sight.series(series);
        let access = self.access()?;
        let acts = acts.into_iter().map(|act| access.reading(web, act)).collect();
        Ok(web.site.read_each(acts, |chart| read(&chart.seen_by(&seen)))?)
    }

    /// Whether what is measured in a series may be shown to whoever asks.
    pub(crate) fn may_see_series(&self, web: &Web, series: &SeriesKey) -> bool {
        self.sight_of(web, "Observation").is_ok_and(|sight| sight.series(series))
    }

    /// Whether a subject, and what is measured of it, may be shown to whoever asks.
    pub(crate) fn may_see(&self, web: &Web, subject: Subject) -> bool {
        self.sight(web).is_ok_and(|sight| sight.subject(subject))
    }

    /// Acts for everybody concerned: one each, or one with the number where they are too many.
    pub(crate) fn acts(
        &self,
        action: AuditAction,
        object: &'static str,
        detail: &str,
        patients: &[PatientId],
    ) -> Result<Vec<Act>, Refusal> {
        let act = self.act(action, object)?.detail(detail);
        Ok(match patients.len() {
            0 => vec![act],
            1..=AUDITED_PATIENTS_LIMIT => patients.iter().map(|id| act.clone().patient(*id)).collect(),
            count => vec![act.detail(format!("{count} patients: {detail}"))],
        })
    }
}

/// Parameters whose values are words of a closed list, codes, numbers or instants.
const WORDS: [&str; 33] = [
    "_count",
    "_elements",
    "_include",
    "_include:iterate",
    "_lastUpdated",
    "_outputFormat",
    "_revinclude",
    "_revinclude:iterate",
    "_since",
    "_sort",
    "_summary",
    "_total",
    "_type",
    "action",
    "active",
    "bin",
    "category",
    "code",
    "combo-code",
    "component-code",
    "date",
    "duration",
    "end",
    "gender",
    "max",
    "outcome",
    "period",
    "start",
    "statistic",
    "status",
    "subtype",
    "type",
    "value-quantity",
];
/// Parameters whose values are ids or references.
const REFERENCES: [&str; 7] = ["_id", "agent", "device", "entity", "patient", "performer", "subject"];

/// Whether a parameter may stand in a row that is about nobody in particular: closed words, and ids.
fn is_plain(name: &str, value: &str) -> bool {
    let is_id = |part: &str| is_id(part.rsplit('/').next().unwrap_or(part));
    WORDS.contains(&name) || REFERENCES.contains(&name) && value.split(',').all(is_id)
}

/// Shortest id of an observation, in characters.
const SEALED_ID_CHARS: usize = 24;

/// Whether a text is an id of ours, and not what somebody typed in place of one: a name, a record number.
fn is_id(text: &str) -> bool {
    let is_sealed = || {
        text.len() >= SEALED_ID_CHARS
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
            && text.bytes().any(|byte| byte.is_ascii_digit())
    };
    text.parse::<PatientId>().is_ok() || is_sealed()
}

/// An id of a path for the audit log; what is none is not repeated there.
pub(crate) fn named(id: &str) -> String {
    if is_id(id) { id.to_owned() } else { "(no id)".to_owned() }
}

/// To whom a device is assigned now, as far as whoever asks may know.
pub(crate) fn assigned(web: &Web, call: &Call, device: &Device) -> Option<Subject> {
    let subject = web.site.registry().subject_at(device.id, web.site.clock().now())?;
    let may_know = match subject {
        Subject::Patient(patient) => {
            let known = web.site.registry().patient(patient);
            call.access().is_ok_and(|access| access.holds(Permission::ReadChart))
                && call.may_see(web, subject)
                && call.sight(web).is_ok_and(|sight| known.is_some_and(|one| sight.devices_of(&one)))
        }
        Subject::Device(_) | Subject::Place(_) => true,
    };
    may_know.then_some(subject)
}

fn base_of(web: &Web, door: Door, request: &Request) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let sound = |host: &&str| {
        host.len() <= HOST_LIMIT_BYTES
            && !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
    };
    let is_tls = door == Door::Peers || web.options.secure_cookies;
    format!("{}://{}/fhir", if is_tls { "https" } else { "http" }, host.filter(sound).unwrap_or("localhost"))
}

/// The pairs of a query that stands in a header or a Bundle.
pub(crate) fn pairs_of(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let unreadable = || unreadable("the query cannot be read as name=value pairs");
    let uri: Uri = format!("/?{}", query.replace(' ', "%20")).parse().map_err(|_| unreadable())?;
    let read = Query::<Vec<(String, String)>>::try_from_uri(&uri);
    read.map(|Query(params)| params).map_err(|_| unreadable())
}

fn query_of(request: &Request) -> Result<Vec<(String, String)>, Refusal> {
    let read = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    read.map(|Query(params)| params).map_err(|_| unreadable("the query cannot be read as name=value pairs"))
}

async fn form_of(request: Request) -> Result<Vec<(String, String)>, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if !media_type(kind).eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let what = "a search by POST sends its parameters as application/x-www-form-urlencoded";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, IssueCode::NotSupported, what));
    }
    let headers = request.headers().clone();
    let body = read_body(request.into_body(), &headers, BODY_LIMIT_BYTES).await?;
    let mut form = Request::new(axum::body::Body::from(body));
    *form.method_mut() = Method::POST;
    *form.headers_mut() = headers;
    let read = Form::<Vec<(String, String)>>::from_request(form, &()).await;
    read.map(|Form(params)| params).map_err(|_| unreadable("the form cannot be read as name=value pairs"))
}

fn unreadable(what: &str) -> Refusal {
    Refusal::bad_request(vec![OutcomeIssue::error(IssueCode::Structure, what, "")])
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let what = error.to_string();
        match error {
            BodyError::TooLarge { .. } => {
                Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, IssueCode::TooLong, what)
            }
            BodyError::Slow => Refusal::new(StatusCode::REQUEST_TIMEOUT, IssueCode::Timeout, what),
            BodyError::Broken => unreadable(&what),
        }
    }
}

/// Takes out what shapes the answer and not the search; whether it is to be written for people.
fn shape(params: &mut Vec<(String, String)>) -> Result<bool, Refusal> {
    let mut is_pretty = false;
    for (name, value) in params.iter() {
        match name.as_str() {
            // An unescaped + arrives as a space.
            "_format" if !is_json(&value.replace(' ', "+")) => {
                let what = format!("the format \"{}\" is not supported: JSON is", shown(value));
                return Err(Refusal::at(
                    StatusCode::NOT_ACCEPTABLE,
                    IssueCode::NotSupported,
                    what,
                    "http._format",
                ));
            }
            "_pretty" => is_pretty = value == "true",
            _ => {}
        }
    }
    params.retain(|(name, _)| !matches!(name.as_str(), "_format" | "_pretty"));
    Ok(is_pretty)
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or("").trim()
}

fn is_json(value: &str) -> bool {
    let kind = media_type(value);
    ["json", "text/json", "application/json", MEDIA_TYPE].iter().any(|json| kind.eq_ignore_ascii_case(json))
}

/// Whether a body says that it is JSON.
fn is_fhir_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if is_json(kind) && media_type(kind).contains('/') {
        return Ok(());
    }
    let what = format!("the body must be {MEDIA_TYPE}, found \"{}\"", shown(kind));
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, IssueCode::NotSupported, what))
}

/// Whether the caller takes JSON.
pub(crate) fn accepts_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut offers = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','));
    let fits = |offer: &str| {
        let refused = offer.split(';').skip(1).any(|part| {
            part.trim()
                .strip_prefix("q=")
                .and_then(|q| q.trim().parse::<f32>().ok())
                .is_some_and(|q| q == 0.0)
        });
        !refused && (is_json(offer) || matches!(media_type(offer), "*/*" | "application/*" | "*" | ""))
    };
    if !headers.contains_key(header::ACCEPT) || offers.any(fits) {
        return Ok(());
    }
    let what = format!("only {MEDIA_TYPE} is written here");
    Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, IssueCode::NotSupported, what))
}
