//! `POST /fhir/Observation` and transactions of 100, beside helios-hfs on SQLite.

use std::time::Duration;

use super::Settings;
use super::apart::Apart;
use super::fill::clock_now;
use super::http::{self, Ask, Client};
use super::observation::{bundle, device, heart_rate, patient};
use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::peers::{Hfs, Judging};
use super::stage::Stage;
use crate::serve;

/// Clients at one time.
const CLIENTS: [usize; 3] = [1, 8, 32];
/// Clients that send transactions at one time.
const TRANSACTION_CLIENTS: usize = 8;
/// Observations of one transaction.
const TRANSACTION: usize = 100;
/// How many times as fast as the peer we want to be.
const TIMES_WANTED: f64 = 10.0;

/// Measures.
///
/// # Errors
/// When a request is refused.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    serve::block_on(async {
        let stage = Stage::set(settings, CLIENTS[2]).await?;
        let server = stage.serve()?;
        let hfs = Hfs::start(&stage, Judging::On);
        if let Ok(hfs) = &hfs {
            introduce(&stage, hfs).await?;
        }
        let shapes =
            CLIENTS.map(|clients| (clients, 1)).into_iter().chain([(TRANSACTION_CLIENTS, TRANSACTION)]);
        // Every run has a day of its own, so that no reading is a repeat.
        let (mut rows, mut days) = (Vec::new(), 0);
        for (clients, size) in shapes {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..settings.runs {
                days += 1;
                let (us, all) =
                    (Side { apart: &server.apart, base: &server.devices, is_ours: true }, (clients, size));
                ours.push(run(settings, &stage, &us, all, days).await?);
                if let Ok(hfs) = &hfs {
                    let them = Side { apart: &hfs.apart, base: &hfs.base, is_ours: false };
                    theirs.push(run(settings, &stage, &them, all, days).await?);
                }
            }
            rows.extend(table(clients, size, &ours, &theirs, &hfs));
        }
        server.apart.stop()?;
        let mut settings = vec![
            "Auscult over TLS 1.3 with a program's client certificate; a 201 means validated against R4, charted, encrypted and \
             fsynced, and its audit record too. Clients keep their connection and ask again when answered; the same \
             Observation for both: heart rate, with category, subject and device."
                .to_owned(),
        ];
        settings.extend(hfs.ok().map(|hfs| hfs.setting));
        Ok(Section { title: "FHIR: creating Observations", settings, rows })
    })
}

/// Patients and devices, so that what refers to them can be taken.
async fn introduce(stage: &Stage, hfs: &Hfs) -> anyhow::Result<()> {
    let client = Client::new(&hfs.base, None)?;
    for (one, their) in stage.patients.iter().zip(&stage.devices) {
        client.put(&format!("/Patient/{one}"), patient(*one).into_bytes()).await?;
        client.put(&format!("/Device/{their}"), device(*their).into_bytes()).await?;
    }
    Ok(())
}

/// Who is asked.
struct Side<'a> {
    apart: &'a Apart,
    base: &'a str,
    is_ours: bool,
}

/// One run.
struct Run {
    seen: http::Seen,
    processor_us: f64,
}

/// `(clients, size)`: clients at one time, Observations of a request. Readings lie `days` days back.
async fn run(
    settings: &Settings,
    stage: &Stage,
    side: &Side<'_>,
    (clients, size): (usize, usize),
    days: u32,
) -> anyhow::Result<Run> {
    let tls = side.is_ours.then_some(&stage.program);
    let asking = (0..clients).map(|_| Client::new(side.base, tls)).collect::<anyhow::Result<Vec<_>>>()?;
    let (patients, devices) = (stage.patients.clone(), stage.devices.clone());
    let root = if side.is_ours { "/fhir" } else { "" };
    let from = clock_now().minus(Duration::from_secs(86_400) * days);
    let processor = side.apart.processor_s()?;
    let seen = http::ask_for(asking, settings.length, move |client, number| {
        // Whole milliseconds, one apart: what a peer keeps too.
        let at = |index: usize| from.plus(Duration::from_millis(number * size as u64 + index as u64));
        let one = |index: usize| {
            heart_rate(patients[client], devices[client], at(index), 60 + (number % 60) as i32)
        };
        if size == 1 {
            let body = one(0).into_bytes();
            return Ask { path: format!("{root}/Observation"), body: Some(body) };
        }
        let all = bundle("transaction", &(0..size).map(one).collect::<Vec<_>>());
        let path = if root.is_empty() { "/".to_owned() } else { root.to_owned() };
        Ask { path, body: Some(all.into_bytes()) }
    });
    let seen = seen.await?;
    let taken = side.apart.processor_s()? - processor;
    let made = seen.per_s * settings.length.as_secs_f64() * size as f64;
    Ok(Run { seen, processor_us: taken * 1e6 / made })
}

fn table(clients: usize, size: usize, ours: &[Run], theirs: &[Run], hfs: &anyhow::Result<Hfs>) -> Vec<Row> {
    let what = match size {
        1 => format!("single POST, {clients} clients"),
        _ => format!("transactions of {size}, {clients} clients"),
    };
    let peer = |figure: &dyn Fn(&Run) -> f64| match (hfs, Spread::of(theirs.iter().map(figure))) {
        (Ok(_), Some(theirs)) => Peer::Measured("hfs", theirs),
        (Err(error), _) => Peer::Missing("hfs", error.to_string()),
        (Ok(_), None) => Peer::None,
    };
    let mine =
        |figure: &dyn Fn(&Run) -> f64| Spread::of(ours.iter().map(figure)).unwrap_or(Spread::one(f64::NAN));
    let rate = |run: &Run| run.seen.per_s * size as f64;
    let processor = |run: &Run| run.processor_us;
    let p50 = |run: &Run| run.seen.p50_ms;
    let p99 = |run: &Run| run.seen.p99_ms;
    vec![
        Row::new(format!("Observations, {what}"), "/s", Better::Higher, mine(&rate))
            .beside(peer(&rate))
            .goal(Goal::Times(TIMES_WANTED)),
        Row::new(format!("processor time an Observation, {what}"), "µs", Better::Lower, mine(&processor))
            .beside(peer(&processor)),
        Row::new(format!("answer, {what}, p50"), "ms", Better::Lower, mine(&p50)).beside(peer(&p50)),
        Row::new(format!("answer, {what}, p99"), "ms", Better::Lower, mine(&p99)).beside(peer(&p99)),
    ]
}
