//! Single readings with QoS 1 over few and many connections, beside Mosquitto.

use simulator::client::Reconnect;
use simulator::load::Load;

use super::Settings;
use super::apart::Apart;
use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::peers::Mosquitto;
use super::stage::Stage;
use crate::serve;

/// Connections and messages in flight of each.
const SHAPES: [(usize, u16); 4] = [(1, 16), (50, 1), (50, 16), (1_000, 1)];

/// Measures.
///
/// # Errors
/// When a load cannot be made or was not served whole.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    serve::block_on(async {
        let most = SHAPES.iter().map(|(connections, _)| *connections).max().unwrap_or(1);
        let stage = Stage::set(settings, most).await?;
        let server = stage.serve()?;
        let mosquitto = Mosquitto::start(&stage);
        let mut rows = Vec::new();
        for (connections, window) in SHAPES {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            // By turns, so that a change of the machine meets both.
            for _ in 0..settings.runs {
                ours.push(run(settings, &stage, &server.apart, &server.mqtt, connections, window).await?);
                if let Ok(mosquitto) = &mosquitto {
                    let (apart, address) = (&mosquitto.apart, &mosquitto.address);
                    theirs.push(run(settings, &stage, apart, address, connections, window).await?);
                }
            }
            let row = |what: &str, unit, better, figure: fn(&Run) -> f64| {
                let peer = match (&mosquitto, Spread::of(theirs.iter().map(figure))) {
                    (Ok(_), Some(theirs)) => Peer::Measured("Mosquitto", theirs),
                    (Err(error), _) => Peer::Missing("Mosquitto", error.to_string()),
                    (Ok(_), None) => Peer::None,
                };
                let ours = Spread::of(ours.iter().map(figure)).unwrap_or(Spread::one(f64::NAN));
                let what = format!("{what}, {connections} connections, {window} in flight each");
                Row::new(what, unit, better, ours).beside(peer)
            };
            let rate = row("publishes", "/s", Better::Higher, |run| run.per_s);
            rows.push(if connections == 50 { rate.goal(Goal::Times(1.0)) } else { rate });
            rows.push(row("processor time a publish", "µs", Better::Lower, |run| run.processor_us));
        }
        server.apart.stop()?;
        Ok(Section {
            title: "Single readings with QoS 1",
            settings: vec![
                "The same load generator, certificates, TLS 1.3 and payload (one reading as JSON) for both.".to_owned(),
                "Auscult acknowledges when the reading is validated, encrypted and fsynced. Mosquitto 2 with persistence, \
                 saved every second, and no subscriber, so that it keeps nothing: its acknowledgement does not promise the \
                 disk."
                    .to_owned(),
            ],
            rows,
        })
    })
}

/// One run.
struct Run {
    per_s: f64,
    processor_us: f64,
}

async fn run(
    settings: &Settings,
    stage: &Stage,
    apart: &Apart,
    mqtt: &str,
    connections: usize,
    window: u16,
) -> anyhow::Result<Run> {
    let load = Load {
        window,
        duration: Some(settings.length),
        reconnect: Reconnect::Never,
        ..Load::new(stage.devices[..connections].to_vec())
    };
    let processor = apart.processor_s()?;
    let figures = stage.load(mqtt, &load).await?;
    let processor_us = (apart.processor_s()? - processor) * 1e6 / figures.acked_messages as f64;
    Ok(Run { per_s: figures.messages_per_s, processor_us })
}
