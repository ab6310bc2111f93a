//! Live streams: events over SSE with replay, waveforms over WebSocket where the latest wins.

pub(crate) mod events;
mod only;
pub(crate) mod waveforms;
