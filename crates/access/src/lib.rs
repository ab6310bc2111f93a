//! Who may what: roles, policies, scopes and consent; questions in, decisions with their reasons out. No I/O.
//!
//! Read in this order: [`permission`] has the words for what can be done, [`question`] who asks for what, [`engine`]
//! answers by the policies in `policies/` and by those of a site.

pub mod cases;
pub mod consent;
pub mod engine;
pub mod permission;
pub mod question;
pub mod role;
pub mod rules;
pub mod scopes;
pub mod table;
mod types;

pub use engine::{Asker, Decision, Engine};
pub use permission::{Granted, May, Permission, ReadsChart, may};
pub use question::{Circumstances, ConsentOutcome, Person, Principal, Resource};
pub use role::Role;
