//! A server that leaves something out for a measurement says so, and is there for nobody but this machine. Only in a build
//! with the feature `bench-off`.

use trust::bench_off::{VARIABLE, what_is_off};

use crate::config::Config;

/// Looks whether something is off, and whether that is harmless.
///
/// # Errors
/// When something is off and the server would listen for other machines.
pub fn guard(config: &Config) -> anyhow::Result<()> {
    let Some(part) = what_is_off() else { return Ok(()) };
    let part = part.word();
    let ports = [config.web.listen, config.mqtt.listen, config.devices.listen];
    anyhow::ensure!(
        ports.iter().all(|port| port.ip().is_loopback()),
        "{VARIABLE} switches {part} off, for a measurement; such a server listens on 127.0.0.1 only"
    );
    // Loud, also where only warnings are shown; the bench reads standard output alone.
    tracing::warn!(part, "{VARIABLE} is set: not a server for patients");
    Ok(())
}
