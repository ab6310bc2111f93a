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
        let mut stage = Stage::set(settings, 1).await?;
        let each = READINGS / share / MEASURES.len() as u64;
        // Ends a minute ago.
        let ends = Timestamp::from_seconds(clock_now().as_seconds() - 60);
        let from = move |count: u64| ends.minus(Duration::from_secs(count));
        let store = stage.open_store()?;
        let (patient, device) = (stage.patients[0], stage.devices[0]);
        let series = MEASURES.map(|(measure, between)| Filled { patient, device, measure, between });
        let filled = tokio::task::spawn_blocking(move || {
            // The store goes with this closure: the server wants the directory for itself.
            let store = store;
            fill(&store, &series, from(each), each, &mut |_| {})
        });
        filled.await.context("filling was broken off")??;
        let server = stage.serve()?;
        let hfs = Hfs::start(&stage, Judging::Off);
        let mut loaded = 0;
        if let Ok(hfs) = &hfs {
            loaded = load(&stage, hfs, PEER_READINGS / share, ends).await?;
        }
        let peer_from = from(loaded / MEASURES.len() as u64);
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

fn queries(stage: &Stage, ends: Timestamp, peer_from: Timestamp) -> Vec<Query> {
    let patient = stage.patients[0];
    let loinc = |measure: Measure| format!("http://loinc.org%7C{}", measure.loinc.unwrap_or_default());
    let heart = loinc(HEART_RATE);
    let day = ends.minus(Duration::from_secs(86_400));
    let hour = |at: Timestamp| at.minus(Duration::from_secs(3_600)).to_rfc3339();
    let last = |(measure, _): &(Measure, (i32, i32))| {
        format!("/Observation?subject=Patient/{patient}&code={}&_sort=-date&_count=1", loinc(*measure))
    };
    // A page from the middle of what each holds.
    let page = |until: Timestamp| {
        let (from, to) = (hour(until), until.to_rfc3339());
        format!(
            "/Observation?subject=Patient/{patient}&code={heart}&date=ge{from}&date=lt{to}&_sort=-date&_count={PAGE}"
        )
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
            ours: format!("/fhir/Observation/$lastn?patient={patient}"),
            theirs: MEASURES.iter().map(last).collect(),
        },
        Query {
            what: "24 h trend of a heart rate each second, 288 buckets (there only the first page of 1,000)",
            ours: format!(
                "/api/v1/patients/{patient}/trend?measures={}&from={}&to={}&buckets={BUCKETS}",
                HEART_RATE.name,
                day.to_rfc3339(),
                ends.to_rfc3339()
            ),
            theirs: vec![all_of_a_day],
        },
        Query {
            what: "page of 50 by patient, code and an hour",
            ours: format!("/fhir{}", page(ends.minus(Duration::from_secs(43_200)))),
            theirs: vec![page(ends.minus(Duration::from_secs(1_800)))],
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
        let client = if query.ours.starts_with("/api/") {
            let mut client = Client::new(&server.web, None)?;
            client.sign_in(&stage.passkey).await?;
            client
        } else {
            Client::new(&server.devices, Some(&stage.program))?
        };
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
