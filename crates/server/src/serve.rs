//! `auscult serve`: runs the server until it is told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, ConfigArguments};
use crate::running::{self, Flavour, Running};
use crate::{kek, logging, terminal};

/// Time that blocking work has when everything else has ended.
const BLOCKING_STOP_LIMIT: Duration = Duration::from_secs(5);

/// What `auscult serve` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult serve --config /etc/auscult/auscult.toml
  auscult serve --data /var/lib/auscult --key-file /etc/auscult/key --web 127.0.0.1:0

The first start prints a link with which the first administrator is made. SIGTERM and SIGINT stop the server after
what is under way has been committed and acknowledged.")]
pub struct ServeArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Address of the web app (setting web.listen); port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    web: Option<SocketAddr>,
    /// Address for MQTT (setting mqtt.listen)
    #[arg(long, value_name = "ADDRESS")]
    mqtt: Option<SocketAddr>,
    /// Address for devices and programs over HTTPS (setting devices.listen)
    #[arg(long, value_name = "ADDRESS")]
    devices: Option<SocketAddr>,
    /// When ready, print one line of JSON with the addresses on standard output
    #[arg(long)]
    print_json: bool,
}

/// Serves.
///
/// # Errors
/// What failed, where, and what to do.
pub fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    let mut config = Config::assemble(&arguments.config)?;
    if let Some(web) = arguments.web {
        config.web.listen = web;
    }
    if let Some(mqtt) = arguments.mqtt {
        config.mqtt.listen = mqtt;
    }
    if let Some(devices) = arguments.devices {
        config.devices.listen = devices;
    }
    config.check()?;
    logging::start(&config.log.level)?;
    let kek = kek::ring(&config)?;
    running::raise_file_limit();
    block_on(async {
        let mut stop = StopSignal::listen()?;
        let mut running = Running::start(&config, kek, Flavour::site()).await?;
        announce(&running, arguments.print_json);
        let mut hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be received")?;
        let result = loop {
            tokio::select! {
                () = stop.asked() => break Ok(()),
                error = running.port_failed() => break Err(error),
                _ = hangup.recv() => reload(&running).await,
            }
        };
        tracing::info!("stopping: what is under way is committed and acknowledged first");
        running.stop().await?;
        result.map(|()| ExitCode::SUCCESS)
    })
}

/// SIGHUP: the policies are read again. With a mistake in them those in force stay, and the status says so.
async fn reload(running: &Running) {
    let web = Arc::clone(&running.web);
    let reloaded = tokio::task::spawn_blocking(move || web.reload_policies(store::Actor::System)).await;
    match reloaded {
        Ok(Ok(())) => tracing::info!("the policies were loaded again"),
        Ok(Err(error)) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the policies in force stay");
        }
        Err(error) => tracing::error!(%error, "loading the policies was broken off"),
    }
}

fn announce(running: &Running, print_json: bool) {
    let addresses = running.addresses;
    tracing::info!(web = %addresses.web, mqtt = %addresses.mqtt, devices = %addresses.devices, "ready");
    let link = running.setup_link();
    if print_json {
        let line = serde_json::json!({
            "address": running.web_url(),
            "mqtt": addresses.mqtt.to_string(),
            "devices": addresses.devices.to_string(),
            "setup_link": link,
        });
        terminal::println(&line.to_string());
    } else if let Some(link) = link {
        // Not through the log, which is kept: whoever reads the link can make the first administrator.
        eprintln!(
            "\nNobody can sign in yet. Make the first administrator with this link, which works once:\n\n  {link}\n"
        );
    }
}

/// Runs on a runtime with a worker a core. What still blocks a thread at the end (a backup that somebody asked for)
/// is given [`BLOCKING_STOP_LIMIT`] and then left to the end of the process.
///
/// # Errors
/// When the system gives no threads, or the work fails.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().build().context("the runtime cannot start")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(BLOCKING_STOP_LIMIT);
    result
}

/// Hears that the process is asked to stop, from the moment it is made: before anybody is told that the server is ready,
/// or whoever stops it at once would kill it.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Listens from now on.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(StopSignal {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be received")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be received")?,
        })
    }

    /// Resolves when the process was asked to stop.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
