//! What people and programs ask: sessions, permissions, the JSON API, live streams, FHIR REST, device ingest over
//! HTTPS, and the embedded web app. The only room that knows HTTP statuses.
//!
//! Read in this order: [`operations`] lists every operation with the permission it needs and builds the router and
//! the OpenAPI description from the same table; [`access`] decides who may see whom; [`session`] knows who asks.

pub mod access;
mod app;
mod ceremony;
mod download;
mod encoded;
mod enrol;
pub mod fhir;
mod flood;
mod guard;
mod ingest;
mod json;
mod known_browser;
mod live;
mod oauth;
mod oidc;
pub mod operations;
pub mod people;
mod places;
pub mod problem;
mod proxied;
pub mod restored;
mod serve;
pub mod session;
mod state;
mod witness;

pub use json::keys::KeyHome;
pub use people::{Invitation, NewUser, Role, UserChange, Ways};
pub use proxied::{Balancers, BalancersError};
pub use serve::{DevicePeer, device_operations, device_router, serve_devices, serve_web};
pub use state::{CostLimits, Web, WebError, WebOptions};
pub use witness::serve_witness;
