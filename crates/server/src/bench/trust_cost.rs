//! What authorisation and audit cost a request and a reading: the same loads on a server that does everything, on one that
//! keeps no record, and on one that permits everything. Only in a build with the feature `bench-off`.

use std::time::Duration;

use anyhow::ensure;
use clinical_model::Timestamp;
use simulator::client::Reconnect;
use simulator::load::Load;
use store::{AuditQuery, Store as _};
use trust::bench_off::{Part, VARIABLE};

use super::Settings;
use super::fhir_read;
use super::fill::clock_now;
use super::http::{self, Ask};
use super::observation::heart_rate;
use super::outcome::{Better, Peer, Row, Section, Spread};
use super::stage::{Server, Stage};
use crate::serve;

/// Connections of devices: a large ward with two devices a bed.
const CONNECTIONS: usize = 50;
/// Messages of one connection that wait for their acknowledgement.
const WINDOW: u16 = 4;
/// Readings of the patient whose chart is read.
const READINGS: u64 = 200_000;
/// The same with `--quick`.
const QUICK_READINGS: u64 = 10_000;
/// What a nurse is not permitted to ask for.
const FORBIDDEN: &str = "/api/v1/users";
/// The servers that are compared, the whole one first, with what is off in each.
const SIDES: [(&str, Option<Part>); 3] = [
    ("as shipped", None),
    ("audit off", Some(Part::Audit)),
    ("authorisation off", Some(Part::Authorisation)),
];

/// One server over a site of its own: what one leaves out of its log must not trouble another.
struct Side {
    name: &'static str,
    off: Option<Part>,
    stage: Stage,
    server: Server,
    ends: Timestamp,
    /// What was recorded before the server began.
    recorded: Recorded,
}

/// How long the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recorded {
    acts: u64,
    groups: u64,
}

/// A load.
enum Task {
    /// A GET by one client, again and again.
    Get(&'static str, fn(&Stage, Timestamp) -> String),
    /// One Observation by one client, again and again.
    Post,
    /// Messages of so many readings from every device.
    Publish(usize),
}

const TASKS: [Task; 7] = [
    Task::Get("page of the patient in the web app", |stage, _| {
        format!("/api/v1/patients/{}", stage.patients[0])
    }),
    Task::Get("24 h trend in the web app, 288 buckets", fhir_read::trend),
    Task::Get("last value of each code ($lastn)", |stage, _| fhir_read::lastn(stage)),
    Task::Get("page of 50 by patient, code and an hour", |stage, ends| {
        fhir_read::page(stage, ends.minus(Duration::from_secs(600)))
    }),
    Task::Post,
    Task::Publish(1),
    Task::Publish(100),
];

/// What one run found: the figure that the user sees, and the server's processor time.
struct Run {
    seen: f64,
    processor_us: f64,
}

/// One of the figures of a run.
type Figure = fn(&Run) -> f64;

/// Measures.
///
/// # Errors
/// When a server does not start, or a load is refused.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    let readings = if settings.quick { QUICK_READINGS } else { READINGS };
    serve::block_on(async {
        let mut sides = Vec::with_capacity(SIDES.len());
        for (name, off) in SIDES {
            let (mut stage, ends) = fhir_read::filled_stage(settings, CONNECTIONS, readings).await?;
            let recorded = recorded(&mut stage)?;
            let environment = off.map(|part| (VARIABLE, part.word()));
            let server = stage.serve_with(environment.as_slice())?;
            sides.push(Side { name, off, stage, server, ends, recorded });
        }
        let mut rows = Vec::new();
        // Every run has a day of its own, so that no reading is a repeat.
        let mut days = 0;
        for task in &TASKS {
            let mut runs: [Vec<Run>; SIDES.len()] = Default::default();
            for number in 0..settings.runs {
                days += 1;
                // By turns, and each time another one first, so that a change of the machine meets all.
                for place in (0..SIDES.len()).map(|place| (place + number) % SIDES.len()) {
                    runs[place].push(run(settings, &sides[place], task, days).await?);
                }
            }
            rows.extend(table(task, &runs));
        }
        for side in sides {
            side.prove_and_stop().await?;
        }
        Ok(Section {
            title: "What authorisation and audit cost",
            settings: vec![
                format!(
                    "Three servers of this build side by side, by turns: one that does everything, one with the audit log off \
                     (no row of an act, no record of a group), one with authorisation off (no policy, scope or consent is \
                     asked, and no certificate a second time). The patient who is read has {readings} readings."
                ),
                format!(
                    "Requests: one client that keeps its connection; the web app over plain HTTP by a signed-in nurse, FHIR over \
                     TLS 1.3 by a program's certificate. Readings: {CONNECTIONS} MQTT 5 connections over TLS 1.3, QoS 1, \
                     {WINDOW} messages in flight each. Who it is must be proven on all three."
                ),
                "The column \"times as good\" is the whole server against the one beside it: 0.80 says that a fifth of the rate, \
                 or of the time, goes into what is off there."
                    .to_owned(),
            ],
            rows,
        })
    })
}

fn recorded(stage: &mut Stage) -> anyhow::Result<Recorded> {
    let store = stage.open_store()?;
    let newest = store.audit_rows(&AuditQuery { limit: 1, ..AuditQuery::default() })?;
    let group = store.group_summaries(None, 1)?;
    Ok(Recorded {
        acts: newest.first().map_or(0, |row| row.sequence),
        groups: group.first().map_or(0, |summary| summary.group),
    })
}

impl Side {
    /// Stops it, once it has shown that what is off is off, and that the rest is on: else it would be compared with itself.
    async fn prove_and_stop(mut self) -> anyhow::Result<()> {
        // A nurse manages nobody.
        let client = fhir_read::client_for(&self.stage, &self.server, FORBIDDEN).await?;
        let permits_all = client.ask(Ask { path: FORBIDDEN.to_owned(), body: None }).await.is_ok();
        self.server.apart.stop()?;
        let after = recorded(&mut self.stage)?;
        let grew = (after.acts > self.recorded.acts, after.groups > self.recorded.groups);
        let records = self.off != Some(Part::Audit);
        ensure!(
            grew == (records, records) && permits_all == (self.off == Some(Part::Authorisation)),
            "the server \"{}\" is not what it is called: its log went from {:?} to {after:?}, and a nurse is {} to manage \
             people",
            self.name,
            self.recorded,
            if permits_all { "permitted" } else { "not permitted" }
        );
        Ok(())
    }
}

async fn run(settings: &Settings, side: &Side, task: &Task, days: u32) -> anyhow::Result<Run> {
    let (stage, server) = (&side.stage, &side.server);
    if let Task::Publish(batch) = *task {
        let load = Load {
            batch,
            window: WINDOW,
            duration: Some(settings.length),
            reconnect: Reconnect::Never,
            ..Load::new(stage.devices.clone())
        };
        let before = server.apart.processor_s()?;
        let figures = stage.load(&server.mqtt, &load).await?;
        let taken = server.apart.processor_s()? - before;
        let processor_us = taken * 1e6 / figures.acked_readings as f64;
        return Ok(Run { seen: figures.readings_per_s, processor_us });
    }
    let path = match task {
        Task::Get(_, path) => path(stage, side.ends),
        Task::Post | Task::Publish(_) => "/fhir/Observation".to_owned(),
    };
    let client = fhir_read::client_for(stage, server, &path).await?;
    let (patient, device) = (stage.patients[1], stage.devices[1]);
    let from = clock_now().minus(Duration::from_secs(86_400) * days);
    let is_post = matches!(task, Task::Post);
    let before = server.apart.processor_s()?;
    let seen = http::ask_for(vec![client], settings.length, move |_, number| {
        let at = from.plus(Duration::from_millis(number));
        let body = || heart_rate(patient, device, at, 60 + (number % 60) as i32).into_bytes();
        Ask { path: path.clone(), body: is_post.then(body) }
    });
    let seen = seen.await?;
    let taken = server.apart.processor_s()? - before;
    let processor_us = taken * 1e6 / (seen.per_s * settings.length.as_secs_f64());
    Ok(Run { seen: seen.p50_ms, processor_us })
}

/// The whole server beside each of the others, in both figures.
fn table(task: &Task, runs: &[Vec<Run>; SIDES.len()]) -> Vec<Row> {
    let (what, of, unit, better) = match task {
        Task::Get(what, _) => ((*what).to_owned(), "a request", "ms", Better::Lower),
        Task::Post => ("single POST of an Observation".to_owned(), "a request", "ms", Better::Lower),
        Task::Publish(batch) => (format!("readings, batches of {batch}"), "a reading", "/s", Better::Higher),
    };
    let shown = if unit == "ms" { format!("{what}, p50") } else { what.clone() };
    let processor = format!("processor time {of}, {what}");
    let figures: [(String, &'static str, Better, Figure); 2] =
        [(shown, unit, better, |run| run.seen), (processor, "µs", Better::Lower, |run| run.processor_us)];
    let mut rows = Vec::new();
    for (what, unit, better, figure) in figures {
        let of = |place: usize| Spread::of(runs[place].iter().map(figure));
        let whole = of(0).unwrap_or(Spread::one(f64::NAN));
        for (place, (name, _)) in SIDES.iter().enumerate().skip(1) {
            let peer = of(place).map_or(Peer::None, |without| Peer::Measured(name, without));
            rows.push(Row::new(what.clone(), unit, better, whole).beside(peer));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_server_stands_beside_each_that_leaves_something_out() {
        let runs = |seen: f64| vec![Run { seen, processor_us: seen * 10.0 }];
        let rows = table(&Task::Post, &[runs(2.0), runs(1.0), runs(1.5)]);
        let ratios: Vec<f64> = rows.iter().filter_map(Row::ratio).collect();
        assert_eq!(ratios, [0.5, 0.75, 0.5, 0.75]);
        let rates = table(&Task::Publish(100), &[runs(80.0), runs(100.0), runs(100.0)]);
        assert_eq!(rates[0].ratio(), Some(0.8));
    }
}
