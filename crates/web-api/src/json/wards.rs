//! Wards, the ward board, and places.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use clinical_model::place::PlaceKind;
use clinical_model::{Measure, MeasureKind, Patient, Place, PlaceId, Priority, Subject, Timestamp};
use pipeline::audited::ReadError;
use pipeline::chart::Chart;
use serde::{Deserialize, Serialize};
use store::{AuditAction, SeriesFilter};

use super::views::{self, AlertView, DeviceState, Named, PatientLine, PlaceView, Vital};
use super::{Answer, Body, id_of};
use crate::access::{Access, Permission, Permit, Sight, may};
use crate::problem::{Code, Problem};
use crate::state::Web;

/// Waveform strips that a tile shows.
const STRIPS_PER_TILE: usize = 2;

#[derive(Serialize, Default)]
pub(crate) struct AlertCounts {
    high: usize,
    medium: usize,
    low: usize,
}

#[derive(Serialize)]
pub(crate) struct WardLine {
    id: PlaceId,
    name: String,
    places: usize,
    /// Unknown to whoever may see no patient.
    patients: Option<usize>,
    alerts: Option<AlertCounts>,
}

#[derive(Serialize)]
pub(crate) struct Wards {
    wards: Vec<WardLine>,
}

fn wards_of(web: &Web, access: &Access) -> Vec<Arc<Place>> {
    let places = web.site.registry().places();
    let sight = access.sight(web);
    places.into_iter().filter(|place| place.kind == PlaceKind::Ward && sight.ward(place.id)).collect()
}

pub(crate) async fn list(State(web): State<Arc<Web>>, access: Permit<may::SeePlaces>) -> Answer<Wards> {
    let act = access.act(AuditAction::Search, "wards");
    web.blocking(move |web| {
        let wards = access.read(web, act, |chart| {
            let registry = chart.registry();
            let open = chart.open_alerts();
            let sight = access.sight(web);
            let mut patients = registry.patients();
            patients.retain(|patient| sight.patient(patient));
            let places = registry.places();
            // What may not be seen is not none.
            let sees = access.holds(Permission::ReadChart);
            let line = |ward: Arc<Place>| {
                let is_here = |one: &Patient| registry.ward_of(one) == Some(ward.id);
                let mut alerts = AlertCounts::default();
                for alert in open.iter().filter(|alert| sight.alert(alert)) {
                    let Some(patient) = views::concerned(web, alert) else { continue };
                    if is_here(&patient) {
                        match alert.priority {
                            Priority::High => alerts.high += 1,
                            Priority::Medium => alerts.medium += 1,
                            Priority::Low => alerts.low += 1,
                        }
                    }
                }
                WardLine {
                    id: ward.id,
                    name: ward.name.clone(),
                    places: places.iter().filter(|place| place.ward == Some(ward.id)).count(),
                    patients: sees.then(|| patients.iter().filter(|one| is_here(one)).count()),
                    alerts: sees.then_some(alerts),
                }
            };
            Ok(wards_of(web, &access).into_iter().map(line).collect())
        })?;
        Ok(Json(Wards { wards }))
    })
    .await?
}

#[derive(Serialize)]
pub(crate) struct Strip {
    measure: &'static str,
    short: &'static str,
    device_id: String,
}

#[derive(Serialize)]
pub(crate) struct Tile {
    place: PlaceView,
    patient: Option<PatientLine>,
    devices: Vec<DeviceState>,
    vitals: Vec<Vital>,
    strips: Vec<Strip>,
    alerts: Vec<AlertView>,
    withheld: Vec<&'static str>,
}

#[derive(Serialize)]
pub(crate) struct Board {
    ward: Named,
    position: String,
    server_time: Timestamp,
    tiles: Vec<Tile>,
}

pub(crate) fn position(web: &Web) -> String {
    format!("{}.{}", web.site.live().epoch(), web.site.live().position())
}

pub(crate) async fn board(
    State(web): State<Arc<Web>>,
    access: Permit<may::ReadChart>,
    Path(id): Path<String>,
) -> Answer<Board> {
    let id: PlaceId = id_of(&id, "ward")?;
    let ward = web.site.registry().place(id).filter(|place| place.kind == PlaceKind::Ward);
    let ward =
        ward.filter(|ward| access.sight(&web).ward(ward.id)).ok_or_else(|| Problem::not_found("ward"))?;
    web.blocking(move |web| {
        let registry = web.site.registry();
        let patients = registry.patients();
        let sight = access.sight(web);
        let is_shown = |one: &Arc<Patient>| registry.ward_of(one) == Some(id) && sight.patient(one);
        let of_ward: Vec<_> = patients.into_iter().filter(is_shown).collect();
        let act = access.act(AuditAction::Read, "ward board").detail(ward.name.clone());
        let shown = of_ward.iter().map(|patient| patient.id);
        let board = access.read_looking(web, act, shown, |chart| {
            // The position is taken before the values: what changes in between comes once more, and does no harm.
            let position = position(web);
            let places = registry.places();
            let beds = places.iter().filter(|place| place.ward == Some(id));
            let mut tiles = Vec::new();
            for place in beds {
                // One tile a patient: whoever shares a place must not hide the other.
                let mut here: Vec<_> =
                    of_ward.iter().filter(|one| one.place == Some(place.id)).map(Some).collect();
                if here.is_empty() {
                    here.push(None);
                }
                for patient in here {
                    tiles.push(tile(&sight, web, chart, (place, patient))?);
                }
            }
            Ok(Board {
                ward: Named { id: id.to_string(), name: ward.name.clone() },
                position,
                server_time: web.site.clock().now(),
                tiles,
            })
        })?;
        Ok(Json(board))
    })
    .await?
}

fn tile(
    sight: &Sight<'_>,
    web: &Web,
    chart: &Chart<'_>,
    (place, patient): (&Place, Option<&Arc<Patient>>),
) -> Result<Tile, ReadError> {
    let mut tile = Tile {
        place: views::place(place),
        patient: None,
        devices: Vec::new(),
        vitals: Vec::new(),
        strips: Vec::new(),
        alerts: Vec::new(),
        withheld: Vec::new(),
    };
    let Some(patient) = patient else { return Ok(tile) };
    let subject = Subject::Patient(patient.id);
    let devices = chart.registry().devices_of(subject, web.site.clock().now());
    tile.patient = Some(views::patient_line(web, patient));
    let shown = devices.iter().filter(|_| sight.devices_of(patient));
    tile.devices = shown.map(|device| views::device_state(web, device)).collect();
    tile.vitals = views::vitals(chart, &chart.latest(subject)?)?;
    tile.strips = strips(chart, subject)?;
    tile.alerts = alerts_of(sight, web, chart, patient);
    tile.withheld = sight.withheld(patient);
    Ok(tile)
}

/// The alerts of one patient that are not over and may be seen, the most urgent first.
pub(crate) fn alerts_of(
    sight: &Sight<'_>,
    web: &Web,
    chart: &Chart<'_>,
    patient: &Patient,
) -> Vec<AlertView> {
    let mut open = chart.open_alerts();
    open.retain(|alert| {
        views::concerned(web, alert).is_some_and(|concerned| concerned.id == patient.id) && sight.alert(alert)
    });
    open.sort_by(|a, b| b.priority.cmp(&a.priority).then(b.raised_at.cmp(&a.raised_at)));
    open.iter().map(|alert| views::alert(sight, web, alert)).collect()
}

fn strips(chart: &Chart<'_>, subject: Subject) -> Result<Vec<Strip>, ReadError> {
    let measures: Vec<Measure> = Measure::all().filter(|one| one.kind == MeasureKind::Waveform).collect();
    let mut series = chart.series(&SeriesFilter { subject: Some(subject), device: None, measures })?;
    series.sort();
    series.dedup_by_key(|one| one.measure);
    let strip = |one: &clinical_model::SeriesKey| Strip {
        measure: one.measure.name,
        short: one.measure.short,
        device_id: one.device.to_string(),
    };
    Ok(series.iter().take(STRIPS_PER_TILE).map(strip).collect())
}

#[derive(Serialize)]
pub(crate) struct Places {
    places: Vec<PlaceView>,
}

pub(crate) async fn places(State(web): State<Arc<Web>>, access: Permit<may::SeePlaces>) -> Answer<Places> {
    let sight = access.sight(&web);
    let theirs = |place: &Arc<Place>| sight.place(place);
    let places = web.site.registry().places();
    Ok(Json(Places {
        places: places.iter().filter(|place| theirs(place)).map(|place| views::place(place)).collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPlace {
    name: String,
    kind: PlaceKind,
    ward_id: Option<PlaceId>,
}

pub(crate) async fn add_place(
    State(web): State<Arc<Web>>,
    access: Permit<may::ManagePeople>,
    Body(new): Body<NewPlace>,
) -> Answer<PlaceView> {
    let name = new.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Problem::bad_request("the name of a place must have 1 to 100 characters"));
    }
    if let Some(ward) = new.ward_id
        && web.site.registry().place(ward).is_none_or(|ward| ward.kind != PlaceKind::Ward)
    {
        return Err(Problem::not_found("ward"));
    }
    let is_same = |one: &Place| {
        one.kind == new.kind && one.ward == new.ward_id && one.name.to_lowercase() == name.to_lowercase()
    };
    if web.site.registry().places().iter().any(|one| is_same(one)) {
        return Err(Problem::new(Code::Exists, "there is a place of this name already"));
    }
    web.blocking(move |web| {
        let id = PlaceId::from_bytes(pipeline::new_id(web.site.clock().now()));
        let place = Place { id, name, kind: new.kind, ward: new.ward_id };
        let place = web.site.add_place(access.by(), place)?;
        Ok(Json(views::place(&place)))
    })
    .await?
}
