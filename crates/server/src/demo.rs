//! `auscult demo`: a hospital that never existed, on throw-away encrypted data, over the real protocols.

use std::io::IsTerminal as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clinical_model::Timestamp;
use pipeline::Site;
use pipeline::live::{Happening, Since};
use rustls_pki_types::ServerName;
use simulator::hospital::Plan;
use simulator::play::{Endpoints, Progress};
use tokio_util::sync::CancellationToken;
use trust::password::PasswordCost;
use trust::totp::TotpSecret;

use crate::provision::{self, ThrowAway};
use crate::running::{self, Flavour, Running};
use crate::serve::StopSignal;
use crate::{fleet, kek, logging, serve, terminal};

/// Beds of the demonstration: one screen of a ward board.
const BEDS: usize = 24;
/// The demonstration's people.
const DEMO_USERS: [&str; 8] =
    ["nurse", "physician", "admin", "auditor", "biomed", "patient", "caregiver", "integrator"];
/// Patients at home.
const HOMES: usize = 12;
/// The same seed shows the same hospital each time.
const SEED: u64 = 20_261_122;
/// Devices count as assigned since so long before the start, so that readings with a clock a little behind fit.
const ASSIGNED_BEFORE_S: i64 = 24 * 3_600;
/// How often the status line is drawn.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Characters of the status line: it must not wrap on a terminal of 80.
const STATUS_WIDTH: usize = 79;
/// A bed is live when one of its devices was heard so recently.
const LIVE_WITHIN: Duration = Duration::from_secs(15);
/// Groups read at a time for the count of committed readings.
const GROUPS_READ: usize = 2_048;
/// Longest wait for the first vital signs before the demonstration counts as broken.
const FIRST_VITALS_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for the simulated devices to say farewell.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// What `auscult demo` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult demo
  auscult demo --speed 10 --port 0
  auscult demo --keep /tmp/demo")]
pub struct DemoArguments {
    /// How much faster than life the recorded stays are played (1 to 3600); strips always run in real time
    #[arg(long, value_name = "N", default_value_t = simulator::play::DEFAULT_SPEED, value_parser = parse_speed)]
    speed: f64,
    /// Port of the web app on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Keep data and key in this directory, which must be empty or new
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print one line of JSON on standard output when the first vital signs have arrived, and nothing else
    #[arg(long)]
    print_json: bool,
    /// Level or filter of the log (default: warn, with --print-json info)
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// End by itself after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    terminal::parse_within(text, simulator::play::SPEED_RANGE)
}

/// Shows the hospital.
///
/// # Errors
/// What failed, where, and what to do.
pub fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    // Devices of the plan break their connections on purpose: no news for who watches the status line.
    let level = if arguments.print_json { "info" } else { "warn,connectors::mqtt::connection=error" };
    logging::start(arguments.log.as_deref().unwrap_or(level))?;
    running::raise_file_limit();
    let (mut throw_away, _) = ThrowAway::make("Demonstration", arguments.keep.as_deref())?;
    // From its home, not by hand: then it can be turned while somebody watches.
    let keks = kek::ring(&throw_away.config)?;
    let (port, note) = free_port(arguments.port);
    throw_away.config.web.listen.set_port(port);
    // Invented patients: a board that somebody shows to others may stay open.
    throw_away.config.web.idle_timeout_min = throw_away.config.web.session_limit_min;
    let result = serve::block_on(async {
        let flavour = Flavour { demo: true, password_cost: PasswordCost::OWASP_MINIMUM };
        let stop = StopSignal::listen()?;
        let running = Running::start(&throw_away.config, keks, flavour).await?;
        show(running, stop, arguments, note, &throw_away).await
    });
    if let Some(kept) = throw_away.kept() {
        let kept = kept.display();
        eprintln!("The data are kept: auscult serve --data {kept}/data --key-file {kept}/key");
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// The wanted port, or a free one where it is taken.
fn free_port(wanted: u16) -> (u16, Option<String>) {
    match TcpListener::bind(("127.0.0.1", wanted)) {
        Ok(_) => (wanted, None),
        Err(error) => (0, Some(format!("Port {wanted} cannot be used ({error}); a free one was taken."))),
    }
}

async fn show(
    mut running: Running,
    stop: StopSignal,
    arguments: &DemoArguments,
    note: Option<String>,
    throw_away: &ThrowAway,
) -> anyhow::Result<()> {
    let stop = stop_after(stop, arguments.seconds);
    let plan = Arc::new(Plan::seeded(SEED, BEDS, HOMES));
    let ways = DemoWays { password: provision::random_password(), totp: TotpSecret::generate() };
    furnish(&running, &plan, &ways).await?;
    let fleet = fleet::enrol(&running, &plan).await?;
    let endpoints = Endpoints {
        mqtt: running.addresses.mqtt.to_string(),
        https: format!("https://{}", running.addresses.devices),
        server_name: ServerName::try_from("localhost").context("localhost is a host name")?,
    };
    let progress = Arc::new(Progress::default());
    let curtain = CancellationToken::new();
    let mut playing = tokio::spawn({
        let (plan, progress, curtain) = (Arc::clone(&plan), Arc::clone(&progress), curtain.clone());
        let speed = arguments.speed;
        let credentials = fleet.credentials;
        async move { simulator::play::play(&plan, endpoints, credentials, speed, progress, curtain).await }
    });
    let base = format!("https://{}", running.addresses.devices);
    tokio::spawn(simulator::client::enrol::keep_renewed(fleet.held, base, curtain.clone()));
    let site = Arc::clone(&running.site);
    let watching = async {
        tokio::time::timeout(FIRST_VITALS_LIMIT, first_vitals(&site)).await.with_context(|| {
            format!("no vital signs arrived within {} s; look at the log above", FIRST_VITALS_LIMIT.as_secs())
        })?;
        announce(&running, arguments, &ways, note, throw_away);
        if !arguments.print_json {
            status_lines(&site, &plan, &progress).await;
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    let result = tokio::select! {
        () = stop => Ok(()),
        failed = watching => failed,
        played = &mut playing => Err(match played {
            Ok(Ok(())) => anyhow::anyhow!("the simulated devices ended early"),
            Ok(Err(error)) => anyhow::Error::new(error).context("the hospital cannot be played"),
            Err(error) => anyhow::Error::new(error).context("the simulated devices ended by a fault"),
        }),
    };
    drop(site);
    if !arguments.print_json {
        terminal::println("\nStopping.");
    }
    curtain.cancel();
    if !playing.is_finished() {
        let _ = tokio::time::timeout(FAREWELL_LIMIT, &mut playing).await;
        playing.abort();
    }
    let failed_port = running.port_failed_already();
    running.stop().await?;
    failed_port.map_or(result, Err)
}

/// How the demonstration's people sign in beside its link.
#[derive(Clone)]
struct DemoWays {
    password: String,
    totp: TotpSecret,
}

/// People, places, patients, devices and assignments.
async fn furnish(running: &Running, plan: &Arc<Plan>, ways: &DemoWays) -> anyhow::Result<()> {
    let (site, web) = (Arc::clone(&running.site), Arc::clone(&running.web));
    let (plan, ways) = (Arc::clone(plan), ways.clone());
    let furnished = tokio::task::spawn_blocking(move || {
        let since = Timestamp::from_seconds(site.clock().now().as_millis() / 1_000 - ASSIGNED_BEFORE_S);
        provision::add_hospital(&site, &plan, since)?;
        let shown = plan.patients.first().map(|patient| patient.id);
        let people = provision::add_people(&web, shown)?;
        let caregiver = people.iter().find(|user| user.role == web_api::Role::Caregiver);
        if let (Some(patient), Some(caregiver)) = (shown, caregiver) {
            provision::name_caregiver(&site, patient, caregiver)?;
        }
        provision::equip(&web, &people, &ways.password, &ways.totp)?;
        anyhow::Ok(())
    });
    furnished.await.context("setting up the hospital was broken off")?
}

async fn stop_after(mut stop: StopSignal, seconds: Option<u64>) {
    match seconds {
        Some(seconds) => tokio::select! {
            () = stop.asked() => {}
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        },
        None => stop.asked().await,
    }
}

/// Waits until the first vital signs of a patient are committed and shown.
async fn first_vitals(site: &Site) {
    let mut position = site.live().watch();
    loop {
        let seen = match site.live().since(0) {
            Since::Events(events) => {
                events.iter().any(|event| matches!(event.happening, Happening::Vitals { .. }))
            }
            // So many events that the first are gone already.
            Since::Lost(_) => true,
        };
        if seen || position.changed().await.is_err() {
            return;
        }
    }
}

fn announce(
    running: &Running,
    arguments: &DemoArguments,
    ways: &DemoWays,
    note: Option<String>,
    throw_away: &ThrowAway,
) {
    let addresses = running.addresses;
    if arguments.print_json {
        let line = serde_json::json!({
            "address": running.web_url(),
            "user": "nurse",
            "link": running.demo_link(),
            "demo_token": running.web.demo_token().map(|token| token.expose().to_owned()),
            "password": ways.password,
            "totp_secret": ways.totp.to_base32().expose(),
            "admin_user": "admin",
            "users": DEMO_USERS,
            "mqtt": addresses.mqtt.to_string(),
            "devices": format!("https://{}", addresses.devices),
        });
        terminal::println(&line.to_string());
        return;
    }
    let mut lines = vec![
        format!("Auscult shows {BEDS} beds and {HOMES} homes. Every patient is invented;"),
        "the curves are real recordings, sent over TLS by simulated devices.".to_owned(),
        "Everything is encrypted on disk.".to_owned(),
        String::new(),
        "  The link below signs you in as a nurse, or as anybody else here:".to_owned(),
        format!("  {}.", DEMO_USERS.join(", ")),
        String::new(),
        "  The ordinary way in, for the curious:".to_owned(),
        format!("  Password   {}", ways.password),
        format!("  Secret of the authenticator app   {}", ways.totp.to_base32().expose()),
        String::new(),
        format!("  MQTT {}   HTTPS for devices {}", addresses.mqtt, addresses.devices),
        match throw_away.kept() {
            Some(kept) => format!("  Ctrl-C stops. The data stay in {}.", kept.display()),
            None => "  Ctrl-C stops, and everything is removed.".to_owned(),
        },
    ];
    if let Some(note) = note {
        lines.push(format!("  {note}"));
    }
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let rule = "─".repeat(width + 2);
    terminal::println(&format!("\n┌{rule}┐"));
    for line in lines {
        terminal::println(&format!("│ {line:width$} │"));
    }
    terminal::println(&format!("└{rule}┘"));
    // By itself on its line: a frame around it would break the link where it wraps.
    let link = running.demo_link().unwrap_or_else(|| running.web_url());
    terminal::println(&format!("\n  Open   {link}\n"));
}

/// One line that is drawn again each second; nothing where standard output is no terminal.
async fn status_lines(site: &Arc<Site>, plan: &Plan, progress: &Progress) {
    if !std::io::stdout().is_terminal() {
        return;
    }
    let mut tick = tokio::time::interval(STATUS_EVERY);
    let (mut facts, mut last_group) = (0_u64, 0_u64);
    loop {
        tick.tick().await;
        let counted = {
            let site = Arc::clone(site);
            tokio::task::spawn_blocking(move || facts_since(&site, last_group)).await
        };
        if let Ok((more, group)) = counted {
            facts += more;
            last_group = group;
        }
        let counts = progress.counts();
        let line = format!(
            "{facts} facts committed · {} of {} patients live · {} quarantined · {} frames acked",
            live_patients(site, plan),
            plan.patients.len(),
            site.store().quarantine_count().items,
            counts.acked,
        );
        terminal::print(&format!("\r{line:<STATUS_WIDTH$}"));
    }
}

/// Facts of the groups after `last`, and the last group now.
fn facts_since(site: &Site, last: u64) -> (u64, u64) {
    let (mut facts, mut before, newest) = (0, None, site.store().last_group());
    loop {
        let Ok(page) = site.store().group_summaries(before, GROUPS_READ) else { return (facts, newest) };
        for summary in &page {
            if summary.group <= last {
                return (facts, newest);
            }
            if summary.group <= newest {
                facts += summary.sources.iter().map(|source| u64::from(source.2)).sum::<u64>();
            }
        }
        match page.last() {
            Some(oldest) if page.len() == GROUPS_READ => before = Some(oldest.group),
            _ => return (facts, newest),
        }
    }
}

fn live_patients(site: &Site, plan: &Plan) -> usize {
    let since = Timestamp::from_millis(
        site.clock().now().as_millis() - i64::try_from(LIVE_WITHIN.as_millis()).unwrap_or(i64::MAX),
    );
    let heard = |planned: &&simulator::hospital::PlannedDevice| {
        site.live().heard(planned.device.id).last_heard_at.is_some_and(|at| at >= since)
    };
    let live = plan.devices().iter().filter(heard).filter_map(|planned| planned.assigned_to?.patient());
    live.collect::<std::collections::BTreeSet<_>>().len()
}
