//! Reading the chart of a patient with a million readings, beside helios-hfs with as many as it takes in two minutes.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clinical_model::measure::{BODY_TEMPERATURE, GLUCOSE, HEART_RATE, OXYGEN_SATURATION, RESPIRATORY_RATE};
use clinical_model::{Measure, Timestamp};

use super::Settings;
use super::fill::{Filled, clock_now, fill};
use super::http::{self, Ask, Client, Seen};
use super::observation::{bundle, device, observation, patient};
use super::outcome::{Better, Goal, Peer, Row, Section, Spread};
use super::peers::{Hfs, Judging};
use super::stage::Stage;
use crate::serve;

/// What the patient's monitor measures, between which bounds.
const MEASURES: [(Measure, (i32, i32)); 5] = [
    (HEART_RATE, (55, 110)),
    (OXYGEN_SATURATION, (88, 100)),
    (RESPIRATORY_RATE, (10, 24)),
    (BODY_TEMPERATURE, (36, 39)),
    (GLUCOSE, (70, 180)),
];
/// Readings of the patient here, and at the peer; a fifth with `--quick`.
const READINGS: u64 = 1_000_000;
const PEER_READINGS: u64 = 100_000;
/// Longest time for loading the peer.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
/// Observations of one bundle with which the peer is loaded.
const BUNDLE: usize = 500;
/// Observations of a page.
const PAGE: usize = 50;
/// Points of a trend.
const BUCKETS: usize = 288;
/// Wanted.
const WANTED_MS: f64 = 5.0;
const TIMES_WANTED: f64 = 20.0;

/// One kind of query, ours and theirs. Where the peer needs several requests for one answer, all of them are timed.
struct Query {
    what: &'static str,
    ours: String,
    theirs: Vec<String>,
}

/// Measures.
///
/// # Errors
/// When a request is refused.
pub fn measure(settings: &Settings) -> anyhow::Result<Section> {
    serve::block_on(async {
        let share = if settings.quick { 5 } else { 1 };
        let (stage, ends) = filled_stage(settings, 1, READINGS / share).await?;
        let server = stage.serve()?;
        let hfs = Hfs::start(&stage, Judging::Off);
        let mut loaded = 0;
        if let Ok(hfs) = &hfs {
            loaded = load(&stage, hfs, PEER_READINGS / share, ends).await?;
        }
        let peer_from = ends.minus(Duration::from_secs(loaded / MEASURES.len() as u64));
        let rows = queries(&stage, ends, peer_from);
        let mut table = Vec::new();
        for query in &rows {
            table.extend(compare(settings, &stage, &server, &hfs, query).await?);
        }
        server.apart.stop()?;
        let mut sentences = vec![format!(
            "One patient with {} readings of {} measures, one a second each; over TLS 1.3 with a program's client certificate, \
             each read audited on disk before the first value is shown; one client.",
            READINGS / share,
            MEASURES.len()
        )];
        if let Ok(hfs) = hfs {
            sentences.push(format!("{} It holds {loaded} readings of the same shape.", hfs.setting));
        }
        Ok(Section { title: "FHIR: reading a large chart", settings: sentences, rows: table })
    })
}

/// A site where the first patient has so many readings, one of each measure a second; the last of them a minute ago, which
/// is told too.
pub(super) async fn filled_stage(
    settings: &Settings,
    beds: usize,
    readings: u64,
) -> anyhow::Result<(Stage, Timestamp)> {
    let mut stage = Stage::set(settings, beds).await?;
    let each = readings / MEASURES.len() as u64;
    let ends = Timestamp::from_seconds(clock_now().as_seconds() - 60);
    let from = ends.minus(Duration::from_secs(each));
    let store = stage.open_store()?;
    let (patient, device) = (stage.patients[0], stage.devices[0]);
    let series = MEASURES.map(|(measure, between)| Filled { patient, device, measure, between });
    let filled = tokio::task::spawn_blocking(move || {
        // The store goes with this closure: the server wants the directory for itself.
        let store = store;
        fill(&store, &series, from, each, &mut |_| {})
    });
    filled.await.context("filling was broken off")??;
    Ok((stage, ends))
}

fn loinc(measure: Measure) -> String {
    format!("http://loinc.org%7C{}", measure.loinc.unwrap_or_default())
}

/// The last value of each code of the first patient.
pub(super) fn lastn(stage: &Stage) -> String {
    format!("/fhir/Observation/$lastn?patient={}", stage.patients[0])
}

/// The trend of a day of the first patient.
pub(super) fn trend(stage: &Stage, ends: Timestamp) -> String {
    let from = ends.minus(Duration::from_secs(86_400)).to_rfc3339();
    format!(
        "/api/v1/patients/{}/trend?measures={}&from={from}&to={}&buckets={BUCKETS}",
        stage.patients[0],
        HEART_RATE.name,
        ends.to_rfc3339()
    )
}

/// A page from an hour of the first patient.
pub(super) fn page(stage: &Stage, until: Timestamp) -> String {
    format!("/fhir{}", page_of(stage, until))
}

fn page_of(stage: &Stage, until: Timestamp) -> String {
    let (from, to) = (until.minus(Duration::from_secs(3_600)).to_rfc3339(), until.to_rfc3339());
    let (patient, heart) = (stage.patients[0], loinc(HEART_RATE));
    format!(
        "/Observation?subject=Patient/{patient}&code={heart}&date=ge{from}&date=lt{to}&_sort=-date&_count={PAGE}"
    )
}

/// Who asks for a path of ours: the nurse for what the web app shows, the program for the rest.
pub(super) async fn client_for(
    stage: &Stage,
    server: &super::stage::Server,
    path: &str,
) -> anyhow::Result<Client> {
    if !path.starts_with("/api/") {
        return Client::new(&server.devices, Some(&stage.program));
    }
    let mut client = Client::new(&server.web, None)?;
    client.sign_in(&stage.passkey).await?;
    Ok(client)
}

fn queries(stage: &Stage, ends: Timestamp, peer_from: Timestamp) -> Vec<Query> {
    let patient = stage.patients[0];
    let heart = loinc(HEART_RATE);
    let day = ends.minus(Duration::from_secs(86_400));
    let last = |(measure, _): &(Measure, (i32, i32))| {
        format!("/Observation?subject=Patient/{patient}&code={}&_sort=-date&_count=1", loinc(*measure))
    };
    let peer_day = day.max(peer_from);
    let all_of_a_day = format!(
        "/Observation?subject=Patient/{patient}&code={heart}&date=ge{}&date=lt{}&_count=1000",
        peer_day.to_rfc3339(),
        ends.to_rfc3339()
    );
    vec![
        Query {
            what: "last value of each code ($lastn; there one search a code)",
            ours: lastn(stage),
            theirs: MEASURES.iter().map(last).collect(),
        },
        Query {
            what: "24 h trend of a heart rate each second, 288 buckets (there only the first page of 1,000)",
            ours: trend(stage, ends),
            theirs: vec![all_of_a_day],
        },
        Query {
            what: "page of 50 by patient, code and an hour",
            // A page from the middle of what each holds.
            ours: page(stage, ends.minus(Duration::from_secs(43_200))),
            theirs: vec![page_of(stage, ends.minus(Duration::from_secs(1_800)))],
        },
    ]
}

async fn compare(
    settings: &Settings,
    stage: &Stage,
    server: &super::stage::Server,
    hfs: &anyhow::Result<Hfs>,
    query: &Query,
) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..settings.runs {
        let client = client_for(stage, server, &query.ours).await?;
        let path = query.ours.clone();
        let seen =
            http::ask_for(vec![client], settings.length, move |_, _| Ask { path: path.clone(), body: None });
        ours.push(seen.await?);
        if let Ok(hfs) = hfs {
            theirs.push(all_of(&Client::new(&hfs.base, None)?, &query.theirs, settings.length).await?);
        }
    }
    let peer = |figure: fn(&Seen) -> f64| match (hfs, Spread::of(theirs.iter().map(figure))) {
        (Ok(_), Some(theirs)) => Peer::Measured("hfs", theirs),
        (Err(error), _) => Peer::Missing("hfs", error.to_string()),
        (Ok(_), None) => Peer::None,
    };
    let mine =
        |figure: fn(&Seen) -> f64| Spread::of(ours.iter().map(figure)).unwrap_or(Spread::one(f64::NAN));
    Ok(vec![
        Row::new(format!("{}, p50", query.what), "ms", Better::Lower, mine(|seen| seen.p50_ms))
            .beside(peer(|seen| seen.p50_ms))
            .goal(Goal::AtMost(WANTED_MS))
            .goal(Goal::Times(TIMES_WANTED)),
        Row::new(format!("{}, p99", query.what), "ms", Better::Lower, mine(|seen| seen.p99_ms))
            .beside(peer(|seen| seen.p99_ms)),
    ])
}

/// Asks several things for one answer, again and again.
async fn all_of(client: &Client, paths: &[String], length: Duration) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let mut times_ms = Vec::new();
    while times_ms.is_empty() || began.elapsed() < length {
        let sent = Instant::now();
        for path in paths {
            client.ask(Ask { path: path.clone(), body: None }).await?;
        }
        times_ms.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    let at = |share: f64| times_ms[((times_ms.len() as f64 * share) as usize).min(times_ms.len() - 1)];
    Ok(Seen {
        per_s: times_ms.len() as f64 / began.elapsed().as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    })
}

/// Loads the peer, newest readings last; returns how many it took in the time that it has.
async fn load(stage: &Stage, hfs: &Hfs, wanted: u64, ends: Timestamp) -> anyhow::Result<u64> {
    let client = Client::new(&hfs.base, None)?;
    let (person, monitor) = (stage.patients[0], stage.devices[0]);
    client.put(&format!("/Patient/{person}"), patient(person).into_bytes()).await?;
    client.put(&format!("/Device/{monitor}"), device(monitor).into_bytes()).await?;
    let began = Instant::now();
    let mut loaded = 0;
    // Newest first, so that what it holds in the end reaches up to now, however far it comes.
    while loaded < wanted && began.elapsed() < LOAD_LIMIT {
        let one = |index: u64| {
            let (measure, between) = MEASURES[usize::try_from(index).unwrap_or(0) % MEASURES.len()];
            let second = index / MEASURES.len() as u64;
            let made = Filled { patient: person, device: monitor, measure, between };
            let at = ends.minus(Duration::from_secs(1 + second));
            observation(measure, person, monitor, at, made.value(second))
        };
        let all = (loaded..(loaded + BUNDLE as u64).min(wanted)).map(one).collect::<Vec<_>>();
        loaded += all.len() as u64;
        let body = bundle("transaction", &all).into_bytes();
        client.ask(Ask { path: "/".into(), body: Some(body) }).await.context("loading hfs failed")?;
    }
    Ok(loaded)
}
