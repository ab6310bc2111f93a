//! From publish to acknowledgement, and from publish to the screen, at half of the load that the server can take.

use anyhow::Context as _;
use simulator::client::Reconnect;
use simulator::load::Load;

use super::outcome::{Better, Goal, Row, Section, Spread};
use super::stage::{Server, Stage};
use super::{Settings, screen};
use crate::serve;

/// Connections of the load; one more device is watched on the screen.
const CONNECTIONS: usize = 50;
/// Messages in flight while the most is looked for.
const WINDOW: u16 = 16;
/// Wanted from publish to acknowledgement, p99.
const ACKNOWLEDGE_WANTED_MS: f64 = 25.0;
/// Wanted from publish to the screen, p99.
const SCREEN_WANTED_MS: f64 = 100.0;

/// Measures.
///
/// # Errors
/// When a load cannot be made or was not served whole.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    serve::block_on(async {
        let stage = Stage::set(settings, CONNECTIONS + 1).await?;
        let server = stage.serve()?;
        let mut rows = Vec::new();
        for batch in [1, 100] {
            let load = Load {
                batch,
                window: if batch == 1 { WINDOW } else { 4 },
                duration: Some(settings.length),
                reconnect: Reconnect::Never,
                ..Load::new(stage.devices[1..].to_vec())
            };
            let most_per_s = stage.load(&server.mqtt, &load).await?.messages_per_s;
            let half = Load { rate_per_s: Some(most_per_s / 2.0), window: 64, ..load };
            rows.extend(at_half(settings, &stage, &server, &half).await?);
        }
        server.apart.stop()?;
        Ok(Section {
            title: "Latency at half load",
            settings: vec![
                format!(
                    "First the most that {CONNECTIONS} connections reach for {} s, then half of that rate, evenly paced; a \
                     late message counts from when it was due.",
                    settings.length.as_secs()
                ),
                "The screen is a signed-in ward board's event stream; its own device publishes every 50 ms beside the \
                 load. Shown too late because a newer value overtook it in the same commit: counted as seen with that one."
                    .to_owned(),
            ],
            rows,
        })
    })
}

async fn at_half(
    settings: &Settings,
    stage: &Stage,
    server: &Server,
    load: &Load,
) -> anyhow::Result<Vec<Row>> {
    let (mut acknowledged, mut shown) = (Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        let watched = screen::Watched {
            web: server.web.clone(),
            passkey: &stage.passkey,
            mqtt: server.mqtt.clone(),
            server_name: stage.server_name.clone(),
            device: stage.devices[0],
            patient: stage.patients[0],
            tls: (stage.credentials)(stage.devices[0]).context("the device has a certificate")?,
        };
        let (latency, loaded) =
            tokio::join!(screen::measure(watched, settings.length), stage.load(&server.mqtt, load));
        acknowledged.push(loaded?.latency);
        shown.push(latency?);
    }
    let name = |what: &str| {
        let rate = load.rate_per_s.unwrap_or(0.0);
        format!("{what}, {:.0} messages/s of {} readings", rate, load.batch)
    };
    let row = |what: &str, figures: Vec<f64>| {
        let spread = Spread::of(figures).unwrap_or(Spread::one(f64::NAN));
        Row::new(name(what), "ms", Better::Lower, spread)
    };
    let acks = |pick: fn(&simulator::load::Latency) -> u64| {
        acknowledged.iter().map(|latency| pick(latency) as f64 / 1e3).collect()
    };
    let screens = |pick: fn(&screen::Latency) -> std::time::Duration| {
        shown.iter().map(|latency| pick(latency).as_secs_f64() * 1e3).collect()
    };
    Ok(vec![
        row("publish to acknowledge, p50", acks(|latency| latency.p50_us)),
        row("publish to acknowledge, p99", acks(|latency| latency.p99_us))
            .goal(Goal::AtMost(ACKNOWLEDGE_WANTED_MS)),
        row("publish to screen, p50", screens(|latency| latency.p50)),
        row("publish to screen, p99", screens(|latency| latency.p99)).goal(Goal::AtMost(SCREEN_WANTED_MS)),
    ])
}
