//! The pipeline over a real store: what comes in, where it lands, what is alarmed, and what survives.

#[macro_use]
mod kept;

mod alarms;
mod care;
mod cluster;
mod corrections;
mod loops;
mod order;
mod overload;
mod refusing;
mod site;
mod trust;
