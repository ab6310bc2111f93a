//! Enrolment in the web app: which devices are expected, which certificates they have, and what people do about them.

mod import;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::{Device, DeviceId, Timestamp, UserId};
use pipeline::enrolment::{
    Certificate, CertificateAuthority, Claim, ClaimState, Enrolment, Outline, Proof, Via,
};
use qrcode::QrCode;
use qrcode::render::svg;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use self::import::import;
use super::{Answer, Body, id_of};
use crate::access::{Permit, may};
use crate::problem::{Code, Problem};
use crate::state::Web;

/// Longest reason, in characters.
const REASON_LIMIT_CHARS: usize = 200;
/// Side of a QR code, in its own units; the page scales it.
const QR_SIDE: u32 = 240;

#[derive(Serialize)]
struct PersonView {
    id: UserId,
    label: String,
}

#[derive(Serialize)]
struct ClaimView {
    created_at: Timestamp,
    expires_at: Timestamp,
    state: &'static str,
    created_by: Option<PersonView>,
}

#[derive(Serialize)]
struct CertificateView {
    serial_hex: String,
    not_before: Option<Timestamp>,
    not_after: Timestamp,
    issued_at: Option<Timestamp>,
    via: &'static str,
    revoked_at: Option<Timestamp>,
    revoked_because: Option<String>,
}

#[derive(Serialize)]
struct ReviewView {
    asked_at: Timestamp,
    expired_at: Timestamp,
    serial_hex: String,
    approved_until: Option<Timestamp>,
}

#[derive(Serialize)]
pub(crate) struct EnrolmentView {
    device_id: DeviceId,
    name: String,
    manufacturer: String,
    model: String,
    serial: String,
    retired: bool,
    state: &'static str,
    claim: Option<ClaimView>,
    certificate: Option<CertificateView>,
    certificates: usize,
    last_renewed_at: Option<Timestamp>,
    review: Option<ReviewView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<CertificateView>>,
}

/// What a view is made of besides the device.
struct Looking<'a> {
    web: &'a Web,
    authority: &'a dyn CertificateAuthority,
    now: Timestamp,
}

impl Looking<'_> {
    fn view(
        &self,
        device: &Device,
        enrolment: &Enrolment,
        with_history: bool,
    ) -> Result<EnrolmentView, Problem> {
        let issued = self.certificates(device, enrolment)?;
        let state = self.state(device, enrolment, issued.first());
        let count = issued.len();
        let mut issued = issued.into_iter();
        let history = with_history.then(|| self.certificates(device, enrolment)).transpose()?;
        Ok(EnrolmentView {
            device_id: device.id,
            name: device.name.clone(),
            manufacturer: device.manufacturer.clone(),
            model: device.model.clone(),
            serial: device.serial.clone(),
            retired: device.retired,
            state,
            claim: enrolment.claim.as_ref().map(|claim| self.claim(claim)),
            certificate: issued.next(),
            certificates: count,
            last_renewed_at: enrolment.last_renewed_at,
            review: enrolment.review.as_ref().map(|review| ReviewView {
                asked_at: review.asked_at,
                expired_at: review.expired_at,
                serial_hex: review.serial_hex.clone(),
                approved_until: review.approved_until,
            }),
            history,
        })
    }

    fn claim(&self, claim: &Claim) -> ClaimView {
        let person = |id: UserId| {
            let label =
                self.web.people.by_id(id).map_or_else(|| "somebody".to_owned(), |user| user.display.clone());
            PersonView { id, label }
        };
        ClaimView {
            created_at: claim.created_at,
            expires_at: claim.expires_at,
            state: claim.state(self.now).word(),
            created_by: claim.created_by.map(person),
        }
    }

    /// The newest first: those of enrolment, then those that an operator issued.
    fn certificates(&self, device: &Device, enrolment: &Enrolment) -> Result<Vec<CertificateView>, Problem> {
        let mut all: Vec<_> = enrolment.certificates.iter().map(|one| self.enrolled(one)).collect();
        let uri = pipeline::enrolment::uri_of(device.id).to_string();
        let by_hand = self.authority.issued_to(&uri).map_err(pipeline::enrolment::EnrolError::Authority)?;
        for one in by_hand.into_iter().rev() {
            if all.len() >= pipeline::enrolment::CERTIFICATES_KEPT {
                break;
            }
            // Racing devices leave certificates that nobody was given; they are listed, for they were signed.
            if !all.iter().any(|known| known.serial_hex == one.serial_hex) {
                let revoked = self.authority.revocation(&one.serial_hex);
                all.push(CertificateView {
                    serial_hex: one.serial_hex,
                    not_before: None,
                    not_after: one.not_after,
                    issued_at: None,
                    via: "operator",
                    revoked_at: revoked.as_ref().map(|revoked| revoked.at),
                    revoked_because: revoked.map(|revoked| revoked.reason),
                });
            }
        }
        Ok(all)
    }

    fn enrolled(&self, one: &Certificate) -> CertificateView {
        let revoked = self.authority.revocation(&one.serial_hex);
        CertificateView {
            serial_hex: one.serial_hex.clone(),
            not_before: Some(one.not_before),
            not_after: one.not_after,
            issued_at: Some(one.issued_at),
            via: match one.via {
                Via::Claim => "claim",
                Via::Est => "est",
                Via::Renewal => "renewal",
            },
            revoked_at: revoked.as_ref().map(|revoked| revoked.at),
            revoked_because: revoked.map(|revoked| revoked.reason),
        }
    }

    fn state(
        &self,
        device: &Device,
        enrolment: &Enrolment,
        newest: Option<&CertificateView>,
    ) -> &'static str {
        if enrolment.decommissioned_at.is_some() && device.retired {
            return "decommissioned";
        }
        if enrolment.review.as_ref().is_some_and(|review| review.approved_until.is_none()) {
            return "renewal-to-review";
        }
        let is_claimable =
            enrolment.claim.as_ref().is_some_and(|claim| claim.state(self.now) == ClaimState::Open);
        let Some(newest) = newest else { return if is_claimable { "claimable" } else { "none" } };
        if newest.revoked_at.is_some() {
            return if is_claimable { "claimable" } else { "revoked" };
        }
        if self.now > newest.not_after {
            return if is_claimable { "claimable" } else { "expired" };
        }
        let half = newest.not_before.map(|from| from.plus_micros(newest.not_after.micros_since(from) / 2));
        if half.is_some_and(|half| self.now > half) { "renewal-due" } else { "enrolled" }
    }
}

fn authority_view(outline: &Outline) -> Value {
    let issuing: Vec<Value> = outline
        .issuing
        .iter()
        .enumerate()
        .map(|(place, key)| {
            json!({
                "id": key.id,
                "not_after": key.not_after,
                "is_current": place == 0,
                "crl_path": format!("/pki/crl/{}.crl", key.id),
            })
        })
        .collect();
    json!({
        "name": outline.name,
        "root_sha256": outline.anchor_sha256,
        "root_not_after": outline.anchor_not_after,
        "issuing": issuing,
        "is_root_key_here": outline.is_root_key_here,
    })
}

#[derive(Serialize)]
pub(crate) struct Listed {
    devices: Vec<EnrolmentView>,
    authority: Value,
}

pub(crate) async fn list(State(web): State<Arc<Web>>, _: Permit<may::EnrolDevices>) -> Answer<Listed> {
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| {
        let mut known = web.site.enrolments()?;
        let looking = Looking { web, authority: authority.as_ref(), now: web.site.clock().now() };
        let devices = web.site.registry().devices();
        let view = |device: Arc<Device>| {
            let enrolment = known.remove(&device.id).unwrap_or_default();
            looking.view(&device, &enrolment, false)
        };
        let devices = devices.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
        Ok(Json(Listed { devices, authority: authority_view(&authority.outline()) }))
    })
    .await?
}

/// One device once more, after an act.
fn shown(
    web: &Web,
    authority: &dyn CertificateAuthority,
    id: DeviceId,
    history: bool,
) -> Result<EnrolmentView, Problem> {
    let device = web.site.registry().device(id).ok_or_else(|| Problem::not_found("device"))?;
    let enrolment = web.site.enrolment(id)?;
    Looking { web, authority, now: web.site.clock().now() }.view(&device, &enrolment, history)
}

pub(crate) async fn show(
    State(web): State<Arc<Web>>,
    _: Permit<may::EnrolDevices>,
    Path(id): Path<String>,
) -> Answer<EnrolmentView> {
    let id: DeviceId = id_of(&id, "device")?;
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| shown(web, authority.as_ref(), id, true).map(Json)).await?
}

#[derive(Serialize)]
pub(crate) struct Opened {
    code: String,
    qr_text: String,
    qr_svg: String,
    claim_url: String,
    expires_at: Timestamp,
}

/// What a QR code says: where to claim, how to know that place, for which device, and the code. In capital letters and
/// digits as far as possible, which a QR code packs best.
fn qr_text(outline: &Outline, serial: &str, code: &str) -> String {
    // The fragment is never sent by a browser that opens it: the code stays on the phone.
    let serial: String = serial.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
        text
    });
    let (url, pin) = (claim_url(outline), &outline.anchor_sha256);
    format!("{url}#serial={serial}&code={code}&pin=sha256:{pin}")
}

fn claim_url(outline: &Outline) -> String {
    format!("{}/enrol/v1/claim", outline.address)
}

pub(crate) async fn open_claim(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EnrolDevices>,
    Path(id): Path<String>,
) -> Answer<Opened> {
    let id: DeviceId = id_of(&id, "device")?;
    let outline = web.authority()?.outline();
    web.blocking(move |web| {
        let opened = web.site.open_claim(permit.by(), id)?;
        let code = opened.code.expose().to_owned();
        let qr_text = qr_text(&outline, &opened.serial, &code);
        let drawn = QrCode::new(qr_text.as_bytes()).map_err(|error| {
            tracing::error!(%error, "a QR code cannot be drawn");
            Problem::internal()
        })?;
        let qr_svg = drawn.render::<svg::Color<'_>>().min_dimensions(QR_SIDE, QR_SIDE).build();
        let claim_url = claim_url(&outline);
        Ok(Json(Opened { code, qr_text, qr_svg, claim_url, expires_at: opened.expires_at }))
    })
    .await?
}

pub(crate) async fn withdraw_claim(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EnrolDevices>,
    Path(id): Path<String>,
) -> Answer<EnrolmentView> {
    let id: DeviceId = id_of(&id, "device")?;
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| {
        web.site.withdraw_claim(permit.by(), id)?;
        shown(web, authority.as_ref(), id, false).map(Json)
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    reason: String,
}

impl Because {
    /// The reason, checked.
    pub(super) fn reason(self) -> Result<String, Problem> {
        let reason = self.reason.trim();
        let chars = reason.chars().count();
        if chars == 0 || chars > REASON_LIMIT_CHARS || reason.chars().any(char::is_control) {
            let what = format!("a reason of 1 to {REASON_LIMIT_CHARS} characters in one line is needed");
            return Err(Problem::bad_request(what));
        }
        Ok(reason.to_owned())
    }
}

pub(crate) async fn revoke(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EnrolDevices>,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Answer<EnrolmentView> {
    let id: DeviceId = id_of(&id, "device")?;
    let reason = because.reason()?;
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| {
        web.site.revoke_certificates(authority.as_ref(), permit.by(), id, &reason)?;
        shown(web, authority.as_ref(), id, false).map(Json)
    })
    .await?
}

#[derive(Serialize)]
struct ProofView {
    #[serde(flatten)]
    proof: Proof,
    by: Option<PersonView>,
}

#[derive(Serialize)]
pub(crate) struct Decommissioned {
    proof: ProofView,
    enrolment: EnrolmentView,
}

pub(crate) async fn decommission(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EnrolDevices>,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Answer<Decommissioned> {
    let id: DeviceId = id_of(&id, "device")?;
    let reason = because.reason()?;
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| {
        let (_, proof) = web.site.decommission(authority.as_ref(), permit.by(), id, &reason)?;
        let by = permit.user().map(|id| {
            let label = web.people.by_id(id).map_or_else(String::new, |user| user.display.clone());
            PersonView { id, label }
        });
        let enrolment = shown(web, authority.as_ref(), id, false)?;
        Ok(Json(Decommissioned { proof: ProofView { proof, by }, enrolment }))
    })
    .await?
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    approve: bool,
    note: String,
}

pub(crate) async fn late_renewal(
    State(web): State<Arc<Web>>,
    permit: Permit<may::EnrolDevices>,
    Path(id): Path<String>,
    Body(decision): Body<Decision>,
) -> Answer<EnrolmentView> {
    let id: DeviceId = id_of(&id, "device")?;
    let note = Because { reason: decision.note }.reason()?;
    let authority = Arc::clone(web.authority()?);
    web.blocking(move |web| {
        let approves = decision.approve;
        web.site.review_late_renewal(authority.as_ref(), permit.by(), id, approves, &note)?;
        shown(web, authority.as_ref(), id, false).map(Json)
    })
    .await?
}

/// A body that is no table.
fn not_csv() -> Problem {
    Problem::new(Code::MediaType, "the body must be text/csv")
}
