//! A place as a FHIR R4 Location.

use clinical_model::Place;
use clinical_model::place::PlaceKind;
use serde_json::{Value, json};

use super::element::{concept, reference};
use super::system;

/// Renders a ward, a bed, a home or a room.
pub fn render(place: &Place) -> Value {
    let (code, display) = match place.kind {
        PlaceKind::Ward => ("wa", "Ward"),
        PlaceKind::Bed => ("bd", "Bed"),
        PlaceKind::Home => ("ho", "House"),
        PlaceKind::Room => ("ro", "Room"),
    };
    let mut location = json!({
        "resourceType": "Location",
        "id": place.id.to_string(),
        "status": "active",
        "mode": "instance",
        "physicalType": concept(system::LOCATION_PHYSICAL_TYPE, code, display),
    });
    if !place.name.trim().is_empty() {
        location["name"] = json!(place.name);
    }
    if let Some(ward) = place.ward {
        location["partOf"] = reference(&format!("Location/{ward}"), None);
    }
    location
}
