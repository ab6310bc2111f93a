//! Sign-in by way of a site's identity provider (OpenID Connect Core 1.0, authorisation code with PKCE).
//!
//! [`providers`] knows the providers, [`remote`] asks them, [`flow`] leads a browser there and back, [`person`] finds whom
//! they vouch for, [`settings`] is for administrators.

mod flow;
mod person;
mod providers;
mod remote;
mod settings;

pub(crate) use flow::{callback, start};
pub(crate) use providers::check_known;
pub(crate) use remote::Remote;
pub(crate) use settings::{again, buttons, change, list, remove};
