//! A running server: store, site, web side and three ports, put together once for `serve`, `demo` and `bench`.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clinical_model::Timestamp;
use connectors::mqtt::MqttOptions;
use pipeline::enrolment::{CertificateAuthority, Enrolment};
use pipeline::{Site, SiteOptions};
use rustls::ServerConfig;
use store::{Document, Kind, Store, StoreError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trust::KekRing;
use trust::password::PasswordCost;
use trust::tls::{LiveTls, Now};
use web_api::session::Binding;
use web_api::{KeyHome, Web, WebOptions};

use crate::config::Config;
use crate::listening::{Addresses, Listening, link_base, web_url};
use crate::pki::shared::{RevokedLists, is_of_certificates};
use crate::pki::{self, OnlineAuthority, PkiDirectory};
use crate::{admin_socket, audit, erasures, kek, keys, opening};

/// The exit status after stable storage failed: `EX_IOERR` of sysexits.
pub const EXIT_STORAGE_FAILED: u8 = 74;
/// Time in which connections end after a stop was asked for. The ports drain their commits for 10 s and write for
/// 10 s more; beyond that they are cut.
const PORTS_STOP_LIMIT: Duration = Duration::from_secs(25);
/// Time in which the site's threads end after the last port: a fold or a commit takes seconds at most.
const SITE_STOP_LIMIT: Duration = Duration::from_secs(20);
/// How often the lists of the authority are looked at: a revocation by command holds within a second, with its round.
const LISTS_POLL: Duration = Duration::from_millis(250);
/// How often it is looked whether the server's certificate is due, and an earlier issuing key has ended: often enough that
/// devices do not wait long after a clock was set right.
const RENEWAL_POLL: Duration = Duration::from_secs(300);
/// An instant that has certainly passed: this release was not made before it.
const RELEASED_AT: Timestamp = Timestamp::from_seconds(1_795_305_600);

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
    pub authority: Arc<OnlineAuthority>,
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
    pub async fn start(
        config: &Config,
        keks: impl Into<KekRing>,
        flavour: Flavour,
    ) -> anyhow::Result<Running> {
        #[cfg(feature = "bench-off")]
        crate::bench_off::guard(config)?;
        let keks = keks.into();
        let data_dir = config.site.data_dir.clone();
        pki::make_private_directory(&data_dir)?;
        // A store in the directory has a lock of its own.
        let hold = match config.store.url()? {
            Some(_) => Some(opening::hold_directory(&data_dir)?),
            None => None,
        };
        let store = open_store(config, keks.clone()).await?;
        erasures::refuse_strange(config, Arc::clone(&store)).await?;
        let shared = store.shared().then(|| Arc::clone(&store));
        let now = clock_of(Arc::clone(&store)).await?;
        let pki = authority(config, &store, keks.clone()).await?.with_clock(Arc::clone(&now));
        let live_tls = Arc::new(tls(config, &pki, &now)?);
        let tls = Ports::of(&live_tls)?;
        let listening = Listening::bind(config).await?;
        let addresses = listening.addresses()?;
        let pki = at_address(pki, config, addresses.devices, &keks)?.with_clock(Arc::clone(&now));
        let site = open_site(store, config, Arc::clone(&now)).await?;
        let lists = Arc::new(revoked_lists(&pki, shared));
        let bell = Arc::clone(&lists.bell);
        let own = config.tls.certificate.is_some();
        let names = (!own).then(|| pki::server_names(&config.tls.names));
        let authority = OnlineAuthority::new(pki, keks, lists, Arc::clone(&site), live_tls, names, now);
        let authority = Arc::new(authority);
        read_lists(&authority).await?;
        site.observe(Box::new(move |change| {
            if change.is_none_or(|change| change.kind == Kind::Setting && is_of_certificates(change.id)) {
                bell.notify_one();
            }
            Ok(())
        }));
        start_log(&site, config).await?;
        let web = web_side(&site, config, flavour).await?;
        site.keep_care(&config.site.name).context("the care of keys cannot start")?;
        let mut list = erasures::ListKeeper::new(&site, config);
        list.look().await?;
        web.set_authority(Arc::clone(&authority) as Arc<dyn CertificateAuthority>);
        let intake = site.intake().context("the site stopped while it was starting")?;

        let stop = CancellationToken::new();
        let mut ports = JoinSet::new();
        let ended = || stop.clone().cancelled_owned();
        let web_tls = config.web.tls.then_some(tls.web);
        let options = MqttOptions::default();
        ports.spawn(list.keep(ended()));
        ports.spawn(named(
            "the web port",
            web_api::serve_web(listening.web, Arc::clone(&web), web_tls, ended()),
        ));
        ports.spawn(named(
            "the device port",
            web_api::serve_devices(listening.devices, Arc::clone(&web), tls.devices, ended()),
        ));
        ports.spawn(named(
            "the MQTT port",
            connectors::mqtt::serve(listening.mqtt, tls.mqtt, intake, options, ended()),
        ));
        let witnesses = config.audit.witnesses.clone();
        ports.spawn(audit::watching::ask_witnesses(Arc::clone(&site), witnesses, ended()));
        let secure_web = config.web.tls;
        let serving = admin_socket::Serving {
            web: Arc::clone(&web),
            authority: Arc::clone(&authority),
            link_base: link_base(web.public_addresses(), addresses.web, secure_web),
            addresses,
        };
        ports.spawn(admin_socket::serve(listening.admin, serving, ended()));
        ports.spawn(watch_lists(Arc::clone(&authority), ended()));
        Ok(Running { site, web, authority, addresses, secure_web, stop, ports, _hold: hold })
    }

    /// The address of the web app.
    pub fn web_url(&self) -> String {
        web_url(self.addresses.web, self.secure_web)
    }

    /// The beginning of links for a person's browser: by a name, since passkeys work at no bare address.
    pub fn link_base(&self) -> String {
        link_base(self.web.public_addresses(), self.addresses.web, self.secure_web)
    }

    /// The link for the first administrator, while there is nobody who could sign in.
    pub fn setup_link(&self) -> Option<String> {
        let token = self.web.first_start_token()?;
        Some(format!("{}/setup#token={}", self.link_base(), token.expose()))
    }

    /// The link that signs in as anybody of the demonstration.
    pub fn demo_link(&self) -> Option<String> {
        let token = self.web.demo_token()?;
        Some(format!("{}/sign-in#demo={}", self.link_base(), token.expose()))
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

struct Ports {
    web: Arc<ServerConfig>,
    mqtt: Arc<ServerConfig>,
    devices: Arc<ServerConfig>,
}

impl Ports {
    fn of(tls: &LiveTls) -> anyhow::Result<Self> {
        const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
        let what = "the ports cannot speak TLS";
        Ok(Ports {
            web: Arc::new(tls.open_port(&HTTP).context(what)?),
            mqtt: Arc::new(tls.strict_port(&[b"mqtt"]).context(what)?),
            devices: Arc::new(tls.enrolling_port(&HTTP).context(what)?),
        })
    }
}

/// The clock of this server. Where the machine's shows a time before this release was made, its battery is empty: time
/// goes on from the last commit until the machine's is right.
async fn clock_of(store: Arc<dyn Store>) -> anyhow::Result<Now> {
    let read = tokio::task::spawn_blocking(move || pipeline::restored::last_commit(store.as_ref()));
    let read = read.await.context("reading the last commit was broken off")?;
    let last = read.context("the last commit cannot be read")?.unwrap_or(RELEASED_AT);
    let shown = pki::timestamp(SystemTime::now());
    if shown < RELEASED_AT {
        tracing::error!(
            clock = %shown,
            last_commit = %last,
            "the clock of this machine shows a time before this release was made; time goes on from the last commit. Set \
             the clock"
        );
    } else if last.is_ahead_of(shown) {
        tracing::error!(
            clock = %shown,
            last_commit = %last,
            "the last commit lies ahead of this machine's clock: it was ahead then, or is behind now. What was written \
             meanwhile has wrong times"
        );
    }
    Ok(pki::floored_clock(RELEASED_AT, last))
}

/// Tells the time that certificates are judged by.
struct FlooredClock(Now);

impl pipeline::Clock for FlooredClock {
    fn now(&self) -> Timestamp {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// This node's authority: its own, or the one that all nodes over the store share.
async fn authority(config: &Config, store: &Arc<dyn Store>, keks: KekRing) -> anyhow::Result<PkiDirectory> {
    let (directory, name) = (config.pki_dir(), config.site.name.clone());
    let store = Arc::clone(store);
    let settled = tokio::task::spawn_blocking(move || {
        if store.shared() {
            return pki::shared::settle(store.as_ref(), &directory, &name, &keks);
        }
        if !PkiDirectory::exists(&directory) {
            let has_certificate = |document: &Document| {
                let kept = pipeline::records::json_from::<Enrolment>(&document.body);
                kept.is_ok_and(|kept| !kept.certificates.is_empty())
            };
            if any(store.as_ref(), Kind::Enrolment, has_certificate)? {
                bail!(
                    "there is no authority in {0}, but devices of this site were claimed, and believe the one that it \
                     had: put the copy of the directory back that was taken with the backup. Where there is none, \
                     `auscult pki init {0}` makes another authority; every device then has to be claimed anew",
                    directory.display()
                );
            }
            if any(store.as_ref(), Kind::Device, |_| true)? {
                let directory = directory.display();
                tracing::warn!(%directory, "a new authority is made for a site that has devices; none of its certificates of before is believed");
            }
        }
        PkiDirectory::open_or_init(&directory, &name, &keks)
    });
    settled.await.context("reading the authority was broken off")?
}

/// Whether it is so of one of the first documents of a kind.
fn any(store: &dyn Store, kind: Kind, is_so: impl Fn(&Document) -> bool) -> anyhow::Result<bool> {
    const LOOKED_AT: usize = 500;
    let found = store.documents(&pipeline::records::all_of(kind, None, LOOKED_AT));
    Ok(found.context("the store cannot be asked for its devices")?.iter().any(is_so))
}

fn revoked_lists(pki: &PkiDirectory, shared: Option<Arc<dyn Store>>) -> RevokedLists {
    RevokedLists {
        file: pki.revoked_file(),
        issued: pki.issued_file(),
        programs: pki.programs_file(),
        issuing: pki.issuing_file(),
        shared,
        bell: Arc::default(),
    }
}

/// The authority, which knows how devices call this server.
fn at_address(
    pki: PkiDirectory,
    config: &Config,
    devices: SocketAddr,
    keks: &KekRing,
) -> anyhow::Result<PkiDirectory> {
    let address = config.pki.address.clone().unwrap_or_else(|| {
        let own = config.tls.names.first().cloned();
        let host = match own {
            Some(name) => name,
            None if devices.ip().is_loopback() => "localhost".to_owned(),
            None if devices.ip().is_unspecified() => {
                pki::server_names(&[]).into_iter().nth(3).unwrap_or_else(|| "localhost".to_owned())
            }
            None => devices.ip().to_string(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("https://{host}:{}", devices.port())
    });
    if pki.address() == address {
        return Ok(pki);
    }
    pki.set_address(&address)?;
    PkiDirectory::open(pki.path(), keks)
}

fn tls(config: &Config, pki: &PkiDirectory, now: &Now) -> anyhow::Result<LiveTls> {
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
    LiveTls::new(&chain, key.expose(), &pki.issuing_pem(), Arc::clone(now))
        .context("the server's certificate cannot be used")
}

async fn open_store(config: &Config, kek: KekRing) -> anyhow::Result<Arc<dyn Store>> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || opening::open(&config, kek));
    opened.await.context("opening the store was broken off")?
}

async fn start_site(store: Arc<dyn Store>, fold_every: Duration, now: Now) -> anyhow::Result<Arc<Site>> {
    let options = SiteOptions { fold_every, on_durability_failure: Box::new(end_process) };
    let started =
        tokio::task::spawn_blocking(move || Site::start(store, Arc::new(FlooredClock(now)), options));
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

/// Where the key lives, for those who manage keys.
fn key_home(config: &Config) -> KeyHome {
    let source = kek::source(&config.key, &config.site.data_dir).ok();
    let of = |tell: fn(&dyn trust::KekSource) -> String| source.as_deref().map(tell).unwrap_or_default();
    KeyHome {
        provider: of(|source| source.kind().to_owned()),
        place: of(|source| source.place()),
        same_volume: keys::path(&config.key)
            .is_ok_and(|path| keys::shares_file_system(&path, &config.site.data_dir)),
        turn_within_days: config.key.turn_within_days,
    }
}

/// The site, in which whoever was erased stays so.
async fn open_site(store: Arc<dyn Store>, config: &Config, now: Now) -> anyhow::Result<Arc<Site>> {
    erasures::tell_erased_again(&erasures::erase_again(config, Arc::clone(&store)).await?);
    let reading = Arc::clone(&store);
    let unseen = tokio::task::spawn_blocking(move || pipeline::restored::unseen(reading.as_ref())).await;
    let unseen = unseen.context("reading the note of a restore was broken off")?;
    if let Some(restored) = unseen.context("the note of a restore cannot be read")? {
        tracing::warn!(
            restored_at = %restored.restored_at,
            "{}; write them again, then `auscult confirm-restore`",
            restored.unknown()
        );
    }
    start_site(store, config.fold_interval(), now).await
}

/// The keeper of the log looks at it once before anything is served.
async fn start_log(site: &Arc<Site>, config: &Config) -> anyhow::Result<()> {
    let (site, options) = (Arc::clone(site), config.audit.options());
    let started = tokio::task::spawn_blocking(move || pipeline::checkpoints::start(&site, options));
    started.await.context("the start of the log was broken off")?.context("the log cannot be kept")
}

async fn web_side(site: &Arc<Site>, config: &Config, flavour: Flavour) -> anyhow::Result<Arc<Web>> {
    let options = WebOptions {
        site_name: config.site.name.clone(),
        demo: flavour.demo,
        secure_cookies: config.web.tls,
        password_cost: flavour.password_cost,
        balancers: config.web.balancers()?,
        idle_timeout: Duration::from_secs(config.web.idle_timeout_min * 60),
        session_limit: Duration::from_secs(config.web.session_limit_min * 60),
        public_addresses: config.web.public_addresses.clone(),
        key_home: key_home(config),
        policies: config.access.policies.clone(),
        binding: match config.web.bind_sessions_to_address {
            true => Binding::Address,
            false => Binding::Browser,
        },
        ..WebOptions::default()
    };
    let site = Arc::clone(site);
    let loaded = tokio::task::spawn_blocking(move || Web::new(site, options));
    loaded.await.context("reading the users was broken off")?.context("the web side cannot start")
}

async fn named(what: &'static str, port: impl Future<Output = std::io::Result<()>>) -> anyhow::Result<()> {
    port.await.with_context(|| format!("{what} failed"))
}

async fn read_lists(authority: &Arc<OnlineAuthority>) -> anyhow::Result<usize> {
    let reading = Arc::clone(authority);
    let read = tokio::task::spawn_blocking(move || reading.read_lists());
    read.await.context("reading the list of revoked certificates was broken off")?
}

async fn refresh(authority: &Arc<OnlineAuthority>) {
    let refreshing = Arc::clone(authority);
    match tokio::task::spawn_blocking(move || refreshing.refresh()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("{error:#}; what serves goes on serving"),
        Err(error) => tracing::error!(%error, "looking at the authority was broken off"),
    }
}

/// Reads the lists of the authority again whenever a file has changed, or another node has revoked or issued one; and sees
/// to it that the server's certificate never ends.
async fn watch_lists(authority: Arc<OnlineAuthority>, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (mut known, mut issuing) = (None, authority.lists().look().map(|seen| seen[3]));
    let mut tick = tokio::time::interval(LISTS_POLL);
    let mut renewal = tokio::time::interval(RENEWAL_POLL);
    tokio::pin!(stop);
    loop {
        let is_told = tokio::select! {
            () = &mut stop => return Ok(()),
            () = authority.lists().bell.notified() => true,
            _ = tick.tick() => false,
            _ = renewal.tick() => {
                refresh(&authority).await;
                continue;
            }
        };
        if is_told {
            known = None;
        }
        let seen = authority.lists().look();
        if seen == known {
            continue;
        }
        let now_issuing = seen.map(|seen| seen[3]);
        if now_issuing != issuing || is_told {
            refresh(&authority).await;
            issuing = authority.lists().look().map(|seen| seen[3]);
        }
        match read_lists(&authority).await {
            Ok(certificates) => {
                tracing::info!(certificates, "the list of revoked certificates was read");
                known = seen;
            }
            Err(error) => {
                tracing::error!("{error:#}; the earlier list stays in force");
                // A file that cannot be read is not read again until it changes; a database is.
                known = seen.filter(|_| authority.lists().shared.is_none());
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
