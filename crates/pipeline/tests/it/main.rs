//! The pipeline over a real store: what comes in, where it lands, what is alarmed, and what survives.

mod alarms;
mod loops;
mod refusing;
mod site;
