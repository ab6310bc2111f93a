//! A place: a ward with beds, the homes of a home-care team, a room.

use serde::{Deserialize, Serialize};

use crate::id::PlaceId;

/// What kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaceKind {
    /// A ward or a home-care team: holds beds or homes.
    Ward,
    /// A bed.
    Bed,
    /// A patient's home.
    Home,
    /// A room, a fridge, a vehicle.
    Room,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Our id.
    pub id: PlaceId,
    /// What people call it: "Bed 07". Never a patient's name or address.
    pub name: String,
    /// What kind.
    pub kind: PlaceKind,
    /// The ward it belongs to.
    pub ward: Option<PlaceId>,
}
