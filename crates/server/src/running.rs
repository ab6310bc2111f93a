//! A running server: store, site, web side and three ports, put together once for `serve`, `demo` and `bench`.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use connectors::mqtt::MqttOptions;
use pipeline::{Site, SiteOptions, SystemClock};
use rustls::ServerConfig;
use store::{Kind, Store, StoreError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trust::Kek;
use trust::password::PasswordCost;
use web_api::{Web, WebOptions};

use crate::config::Config;
use crate::pki::{self, PkiDirectory};
use crate::pki_shared::{RevokedLists, is_of_certificates};
use crate::{admin_socket, opening, pki_shared};

/// The exit status after stable storage failed: `EX_IOERR` of sysexits.
pub const EXIT_STORAGE_FAILED: u8 = 74;
/// Time in which connections end after a stop was asked for. The ports drain their commits for 10 s and write for
/// 10 s more; beyond that they are cut.
const PORTS_STOP_LIMIT: Duration = Duration::from_secs(25);
/// Time in which the site's threads end after the last port: a fold or a commit takes seconds at most.
const SITE_STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often the list of revoked certificates is looked at.
const REVOKED_POLL: Duration = Duration::from_secs(1);

/// Where the server can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The web app.
    pub web: SocketAddr,
    /// MQTT for devices.
    pub mqtt: SocketAddr,
    /// HTTPS for devices and programs.
    pub devices: SocketAddr,
}

/// What differs between a site and a demonstration.
#[derive(Clone, Copy, Debug)]
pub struct Flavour {
    /// A demonstration with invented patients.
    pub demo: bool,
    /// How costly a password is to check.
    pub password_cost: PasswordCost,
}

impl Flavour {
    /// A real site.
    pub fn site() -> Self {
        Flavour { demo: false, password_cost: PasswordCost::default() }
    }
}

/// A running server.
pub struct Running {
    /// The site.
    pub site: Arc<Site>,
    /// The web side.
    pub web: Arc<Web>,
    /// The authority.
    pub pki: Arc<PkiDirectory>,
    /// Where it can be reached.
    pub addresses: Addresses,
    secure_web: bool,
    stop: CancellationToken,
    ports: JoinSet<anyhow::Result<()>>,
    _hold: Option<File>,
}

impl Running {
    /// Opens the store, starts the site and listens. Nothing listens when this fails.
    ///
    /// # Errors
    /// What failed, where, and what to do.
    pub async fn start(config: &Config, kek: Kek, flavour: Flavour) -> anyhow::Result<Running> {
        let data_dir = config.site.data_dir.clone();
        pki::make_private_directory(&data_dir)?;
        // A store in the directory has a lock of its own.
        let hold = match config.store.url()? {
            Some(_) => Some(opening::hold_directory(&data_dir)?),
            None => None,
        };
        let store = open_store(config, kek).await?;
        let shared = store.shared().then(|| Arc::clone(&store));
        let pki = authority(config, shared.clone()).await?;
        let tls = tls(config, &pki)?;
        let web_port = bind(config.web.listen, "web.listen").await?;
        let mqtt_port = bind(config.mqtt.listen, "mqtt.listen").await?;
        let devices_port = bind(config.devices.listen, "devices.listen").await?;
        let admin_port = admin_socket::bind(&data_dir)?;
        let addresses = Addresses {
            web: web_port.local_addr()?,
            mqtt: mqtt_port.local_addr()?,
            devices: devices_port.local_addr()?,
        };
        let site = start_site(store, config.fold_interval()).await?;
        let (file, issued) = (pki.revoked_file(), pki.issued_file());
        let lists = Arc::new(RevokedLists { file, issued, shared, bell: Arc::default() });
        read_revoked(&lists, &site).await?;
        let bell = Arc::clone(&lists.bell);
        site.observe(Box::new(move |change| {
            if change.is_none_or(|change| change.kind == Kind::Setting && is_of_certificates(change.id)) {
                bell.notify_one();
            }
        }));
        let web = web_side(&site, config, flavour).await?;
        let intake = site.intake().context("the site stopped while it was starting")?;

        let stop = CancellationToken::new();
        let mut ports = JoinSet::new();
        let ended = || stop.clone().cancelled_owned();
        let web_tls = config.web.tls.then(|| Arc::clone(&tls.web));
        let options = MqttOptions::default();
        ports.spawn(named("the web port", web_api::serve_web(web_port, Arc::clone(&web), web_tls, ended())));
        ports.spawn(named(
            "the device port",
            web_api::serve_devices(devices_port, Arc::clone(&web), tls.devices, ended()),
        ));
        ports.spawn(named(
            "the MQTT port",
            connectors::mqtt::serve(mqtt_port, tls.mqtt, intake, options, ended()),
        ));
        ports.spawn(admin_socket::serve(admin_port, Arc::clone(&site), ended()));
        ports.spawn(watch_revoked(lists, Arc::clone(&site), ended()));
        let secure_web = config.web.tls;
        Ok(Running { site, web, pki: Arc::new(pki), addresses, secure_web, stop, ports, _hold: hold })
    }

    /// The address of the web app.
    pub fn web_url(&self) -> String {
        let scheme = if self.secure_web { "https" } else { "http" };
        let address = self.addresses.web;
        if address.ip().is_unspecified() {
            // It listens everywhere; this name is in its certificate and works from this machine.
            return format!("{scheme}://localhost:{}", address.port());
        }
        format!("{scheme}://{address}")
    }

    /// The link for the first administrator, while there is nobody who could sign in.
    pub fn setup_link(&self) -> Option<String> {
        self.web.first_start_token().map(|token| format!("{}/setup#token={}", self.web_url(), token.expose()))
    }

    /// Waits until a port ends by itself, which only happens when it fails.
    pub async fn port_failed(&mut self) -> anyhow::Error {
        loop {
            match self.ports.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => {
                    return anyhow::Error::new(error).context("a port ended by a fault of this program");
                }
                None => return anyhow::anyhow!("every port ended"),
            }
        }
    }

    /// A port that has failed by now, without waiting for one.
    pub fn port_failed_already(&mut self) -> Option<anyhow::Error> {
        while let Some(ended) = self.ports.try_join_next() {
            if let Ok(Err(error)) = ended {
                return Some(error);
            }
        }
        None
    }

    /// Stops: takes no more connections, lets commits under way be acknowledged, ends the site. Takes at most
    /// [`PORTS_STOP_LIMIT`] and [`SITE_STOP_LIMIT`].
    ///
    /// # Errors
    /// When the site's threads did not end in time. Nothing acknowledged is lost by that.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let drained = tokio::time::timeout(PORTS_STOP_LIMIT, async {
            while let Some(ended) = self.ports.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!("{error:#}");
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!("ports did not end in time and are cut");
            self.ports.shutdown().await;
        }
        drop(self.web);
        let site = self.site;
        let stopped = tokio::task::spawn_blocking(move || {
            site.stop();
            drop(site);
        });
        let stopped = tokio::time::timeout(SITE_STOP_LIMIT, stopped).await;
        stopped
            .with_context(|| format!("the site did not stop within {} s", SITE_STOP_LIMIT.as_secs()))?
            .context("stopping the site failed")
    }
}

struct Tls {
    web: Arc<ServerConfig>,
    mqtt: Arc<ServerConfig>,
    devices: Arc<ServerConfig>,
}

/// This node's authority: its own, or the one that all nodes over the store share.
async fn authority(config: &Config, shared: Option<Arc<dyn Store>>) -> anyhow::Result<PkiDirectory> {
    let (directory, name) = (config.pki_dir(), config.site.name.clone());
    let Some(store) = shared else { return PkiDirectory::open_or_init(&directory, &name) };
    let settled = tokio::task::spawn_blocking(move || pki_shared::settle(store.as_ref(), &directory, &name));
    settled.await.context("reading the authority was broken off")?
}

fn tls(config: &Config, pki: &PkiDirectory) -> anyhow::Result<Tls> {
    let (chain, key) = match (&config.tls.certificate, &config.tls.key) {
        (Some(chain), Some(key)) => {
            let read = |path: &Path| {
                std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
            };
            (read(chain)?, trust::SecretText::new(read(key)?))
        }
        _ => {
            let identity = pki.server_identity(&pki::server_names(&config.tls.names))?;
            (identity.chain_pem, identity.key_pem)
        }
    };
    let (chain, key, authority) = (chain.as_str(), key.expose(), pki.certificate_pem());
    let what = "the server's certificate cannot be used";
    let web = trust::tls::server_config_plain_tls(chain, key, &[b"h2", b"http/1.1"]).context(what)?;
    let mqtt = trust::tls::server_config_mutual(chain, key, authority, &[b"mqtt"]).context(what)?;
    let devices =
        trust::tls::server_config_mutual(chain, key, authority, &[b"h2", b"http/1.1"]).context(what)?;
    Ok(Tls { web: Arc::new(web), mqtt: Arc::new(mqtt), devices: Arc::new(devices) })
}

async fn open_store(config: &Config, kek: Kek) -> anyhow::Result<Arc<dyn Store>> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || opening::open(&config, kek));
    opened.await.context("opening the store was broken off")?
}

async fn start_site(store: Arc<dyn Store>, fold_every: Duration) -> anyhow::Result<Arc<Site>> {
    let options = SiteOptions { fold_every, on_durability_failure: Box::new(end_process) };
    let started = tokio::task::spawn_blocking(move || Site::start(store, Arc::new(SystemClock), options));
    started.await.context("starting the site was broken off")?.context("the site cannot start")
}

/// Ends the process: what is on disk is not known, and nothing more may be acknowledged.
fn end_process(error: &StoreError) {
    eprintln!(
        "auscult: {error}\n  {}\n  Nothing unwritten was acknowledged; devices keep what was not. Check the disk \
         (`dmesg`, `df`, SMART), run `auscult doctor`, then start again.",
        std::error::Error::source(error).map(|cause| format!("because: {cause}")).unwrap_or_default()
    );
    std::process::exit(i32::from(EXIT_STORAGE_FAILED));
}

async fn web_side(site: &Arc<Site>, config: &Config, flavour: Flavour) -> anyhow::Result<Arc<Web>> {
    let options = WebOptions {
        site_name: config.site.name.clone(),
        demo: flavour.demo,
        secure_cookies: config.web.tls,
        password_cost: flavour.password_cost,
        proxy_protocol: config.web.proxy_protocol,
        idle_timeout: Duration::from_secs(config.web.idle_timeout_min * 60),
        session_limit: Duration::from_secs(config.web.session_limit_min * 60),
    };
    let site = Arc::clone(site);
    let loaded = tokio::task::spawn_blocking(move || Web::new(site, options));
    loaded.await.context("reading the users was broken off")?.context("the users cannot be read")
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} ({setting}); is another program there? Port 0 takes a free port")
    })
}

async fn named(what: &'static str, port: impl Future<Output = std::io::Result<()>>) -> anyhow::Result<()> {
    port.await.with_context(|| format!("{what} failed"))
}

async fn read_revoked(lists: &Arc<RevokedLists>, site: &Site) -> anyhow::Result<usize> {
    let reading = Arc::clone(lists);
    let revoked = tokio::task::spawn_blocking(move || reading.read());
    let revoked = revoked.await.context("reading the list of revoked certificates was broken off")??;
    site.admission().set_revoked(revoked.iter().map(|(serial, _)| serial.to_owned()));
    Ok(revoked.len())
}

/// Reads the lists of revoked certificates again whenever a file has changed, or another node has revoked or issued one.
async fn watch_revoked(
    lists: Arc<RevokedLists>,
    site: Arc<Site>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut known = None;
    let mut tick = tokio::time::interval(REVOKED_POLL);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = lists.bell.notified() => known = None,
            _ = tick.tick() => {}
        }
        let seen = lists.look();
        if seen == known {
            continue;
        }
        match read_revoked(&lists, &site).await {
            Ok(certificates) => {
                tracing::info!(certificates, "the list of revoked certificates was read");
                known = seen;
            }
            Err(error) => {
                tracing::error!("{error:#}; the earlier list stays in force");
                // A file that cannot be read is not read again until it changes; a database is.
                known = seen.filter(|_| lists.shared.is_none());
            }
        }
    }
}

/// Lets the process have as many open files as the machine allows it: a connection takes one.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}
