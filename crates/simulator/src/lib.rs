//! A hospital that never existed: seeded patients and devices that speak real wire bytes, and replay of real recordings.
//!
//! It reaches a server over the wire only. Reading order: [`recordings`], [`wfdb`] and [`stay`] (what
//! real people's devices once showed), [`hospital`] (who lies where, with which devices), [`client`]
//! (how a device speaks), then [`play`], [`replay`] and [`load`], which set it all in motion.

pub mod client;
pub mod hospital;
pub mod load;
pub mod play;
pub mod random;
pub mod recordings;
pub mod replay;
pub mod stay;
pub mod strip;
pub mod wfdb;
