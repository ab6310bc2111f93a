//! From starting the server to its word that it is ready, with many readings kept.

use std::time::{Duration, Instant};

use clinical_model::Timestamp;
use clinical_model::measure::HEART_RATE;

use super::Settings;
use super::fill::{Filled, clock_now, fill};
use super::http::{Ask, Client};
use super::outcome::{Better, Goal, Row, Section, Spread};
use super::stage::Stage;
use crate::{serve, terminal};

/// Patients among whom the readings are spread.
const PATIENTS: usize = 100;
/// Wanted, in seconds.
const WANTED_S: f64 = 2.0;

/// Measures.
///
/// # Errors
/// When the store refuses or the server does not start.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    serve::block_on(async {
        let mut stage = Stage::set(settings, PATIENTS).await?;
        let each = (settings.kept_readings / PATIENTS as u64).max(1);
        let total = each * PATIENTS as u64;
        let from = Timestamp::from_seconds(clock_now().as_seconds() - 60).minus(Duration::from_secs(each));
        let store = stage.open_store()?;
        let series: Vec<Filled> = stage
            .patients
            .iter()
            .zip(&stage.devices)
            .map(|(patient, device)| Filled {
                patient: *patient,
                device: *device,
                measure: HEART_RATE,
                between: (55, 110),
            })
            .collect();
        let began = Instant::now();
        tokio::task::spawn_blocking(move || {
            let mut progress = terminal::Progress::new("filling");
            let filled = fill(&store, &series, from, each, &mut |done| progress.at(done, total));
            progress.end();
            filled
        })
        .await??;
        let filled_in = began.elapsed();
        let (mut ready, mut first) = (Vec::new(), Vec::new());
        for _ in 0..settings.runs {
            let began = Instant::now();
            let server = stage.serve()?;
            ready.push(server.ready_after.as_secs_f64());
            let client = Client::new(&server.devices, Some(&stage.program))?;
            let path = format!("/fhir/Observation/$lastn?patient={}", stage.patients[PATIENTS / 2]);
            client.ask(Ask { path, body: None }).await?;
            first.push(began.elapsed().as_secs_f64());
            server.apart.stop()?;
        }
        let row = |what: &str, figures: Vec<f64>| {
            Row::new(what, "s", Better::Lower, Spread::of(figures).unwrap_or(Spread::one(f64::NAN)))
                .goal(Goal::AtMost(WANTED_S))
        };
        Ok(Section {
            title: "Cold start",
            settings: vec![format!(
                "{total} readings of {PATIENTS} patients, one a second, {} MB on disk; filled through the store's own commits \
                 in {:.0} s and folded. The machine's file cache is warm.",
                stage.kept_bytes() / 1_000_000,
                filled_in.as_secs_f64()
            )],
            rows: vec![row("ready", ready), row("first $lastn answered", first)],
        })
    })
}
