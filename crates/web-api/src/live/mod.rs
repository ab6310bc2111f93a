//! Live streams: events over SSE with replay, waveforms over WebSocket where the latest wins.

pub(crate) mod events;
pub(crate) mod waveforms;
