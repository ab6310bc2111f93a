//! A site under torture: its devices in three ways of speaking, their ledgers, and the server in front of its data.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clinical_model::DeviceId;
use rustls_pki_types::ServerName;
use simulator::client::{MqttVersion, Qos, Reconnect};
use simulator::load::{self, Figures, LedgerLine, Load, LoadError, Via};
use simulator::play::Credentials;
use tokio_util::sync::CancellationToken;

use super::proxy::Proxy;
use crate::devices;
use crate::process::{ON_FREE_PORTS, Place, Server, auscult};

/// Sequences of one round begin so far behind those of the round before: more than a round can send. The chart keeps 24
/// bits of a sequence.
const SEQUENCES_PER_ROUND: u32 = 1_000_000;
/// Readings of a message.
const BATCH: usize = 3;
/// Messages of one connection that wait for their acknowledgement.
const WINDOW: u16 = 16;
/// Messages a second of one group of devices: enough that commits carry several, few enough that a long run stays small.
const RATE_PER_S: f64 = 600.0;
/// Longest wait for the first acknowledgements of a round.
const FIRST_ACK_LIMIT: Duration = Duration::from_secs(30);

/// The devices that speak in one way, and the ledger of what was acknowledged to them.
pub struct Group {
    pub name: &'static str,
    via: Via,
    qos: Qos,
    version: MqttVersion,
    pub devices: Vec<DeviceId>,
}

/// One site.
pub struct Site {
    pub place: Place,
    pub groups: Arc<Vec<Group>>,
    credentials: Credentials,
    /// The bug that its servers have.
    planted: Option<&'static str>,
    rounds: u32,
    /// Whether times of commit can be compared: not after the clock has been set back.
    pub clock_is_straight: bool,
}

/// How the devices behave.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub reconnect: Reconnect,
    pub mark_resent: bool,
    pub repeat_every: u32,
    pub disorder: usize,
}

impl Shape {
    /// Devices that come back and send again what was not acknowledged.
    pub const PATIENT: Shape =
        Shape { reconnect: Reconnect::EAGER, mark_resent: true, repeat_every: 0, disorder: 1 };
}

/// How the server is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// A program that runs it, with its arguments.
    pub wrapper: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    pub data: PathBuf,
    /// Seconds between two folds.
    pub fold_interval_s: u32,
}

impl Site {
    /// Devices and certificates; copies of it begin where it stands.
    pub fn template(planted: Option<&'static str>) -> Self {
        let place = Place::new();
        let ids = devices::provision(&place, 8);
        let credentials = devices::credentials(&place, &ids);
        let group = |name, via, qos, version, devices: &[DeviceId]| Group {
            name,
            via,
            qos,
            version,
            devices: devices.to_vec(),
        };
        let groups = vec![
            group("MQTT QoS 1", Via::Mqtt, Qos::AtLeastOnce, MqttVersion::V5, &ids[..3]),
            group("MQTT QoS 2", Via::Mqtt, Qos::ExactlyOnce, MqttVersion::V311, &ids[3..6]),
            group("HTTPS", Via::Https, Qos::AtLeastOnce, MqttVersion::V5, &ids[6..]),
        ];
        Site { place, groups: Arc::new(groups), credentials, planted, rounds: 0, clock_is_straight: true }
    }

    /// A site of its own that begins where this one stands.
    pub fn branch(&self) -> Self {
        Site {
            place: Place::copy_of(&self.place),
            groups: Arc::clone(&self.groups),
            credentials: Arc::clone(&self.credentials),
            planted: self.planted,
            rounds: self.rounds,
            clock_is_straight: self.clock_is_straight,
        }
    }

    pub fn ledger(&self, group: usize) -> PathBuf {
        self.place.path(&format!("ledger-{group}.txt"))
    }

    /// Everything that was ever acknowledged.
    pub fn acknowledged(&self) -> Vec<LedgerLine> {
        let ledgers = (0..self.groups.len()).map(|group| self.ledger(group));
        ledgers.filter(|path| path.exists()).flat_map(|path| load::read_ledger(&path).unwrap()).collect()
    }

    /// Bytes of each ledger: what grows was acknowledged.
    pub fn ledger_lengths(&self) -> Vec<u64> {
        let length = |path: PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        (0..self.groups.len()).map(|group| length(self.ledger(group))).collect()
    }

    pub fn log(&self) -> PathBuf {
        self.place.path("log.txt")
    }

    pub fn start(&self) -> Start {
        Start {
            wrapper: Vec::new(),
            environment: Vec::new(),
            data: self.place.data(),
            // The journal then holds every commit in its order.
            fold_interval_s: 3_600,
        }
    }

    /// Starts the server, or says how it ended before it was ready.
    pub fn serve(&self, start: &Start) -> Result<Server, ExitStatus> {
        let plain = auscult();
        let mut command = match start.wrapper.split_first() {
            None => plain,
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(plain.get_program());
                for (name, _) in plain.get_envs().filter(|(_, value)| value.is_none()) {
                    command.env_remove(name);
                }
                command
            }
        };
        command.arg("serve").arg("--data").arg(&start.data).arg("--key-file").arg(self.place.key());
        command.args(ON_FREE_PORTS);
        command.env("AUSCULT_SITE_FOLD_INTERVAL_S", start.fold_interval_s.to_string());
        command.env("AUSCULT_LOG_LEVEL", "warn");
        self.plant(&mut command);
        command.envs(start.environment.iter().map(|(name, value)| (name, value)));
        Server::attempt(command, self.log())
    }

    /// Runs the binary to its end, with the bug that is planted.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = auscult();
        self.plant(&mut command);
        command.args(arguments).output().unwrap()
    }

    fn plant(&self, command: &mut Command) {
        if let Some(bug) = self.planted {
            command.env("AUSCULT_PLANTED", bug);
        }
    }

    /// All devices begin to send through these lines.
    pub fn load(&mut self, lines: &Lines, shape: Shape) -> Loads {
        let first_sequence = self.rounds * SEQUENCES_PER_ROUND;
        self.rounds += 1;
        let loads: Vec<(Load, String)> = self
            .groups
            .iter()
            .enumerate()
            .map(|(number, group)| {
                let load = Load {
                    via: group.via,
                    qos: group.qos,
                    version: group.version,
                    batch: BATCH,
                    rate_per_s: Some(RATE_PER_S),
                    window: WINDOW,
                    duration: None,
                    ledger: Some(self.ledger(number)),
                    reconnect: shape.reconnect,
                    mark_resent: shape.mark_resent,
                    first_sequence,
                    repeat_every: shape.repeat_every,
                    disorder: shape.disorder,
                    ..Load::new(group.devices.clone())
                };
                let line = if group.via == Via::Https { &lines.https } else { &lines.mqtt };
                (load, line.address.to_string())
            })
            .collect();
        Loads::begin(loads, &self.credentials)
    }
}

/// The ways to the server, which can be cut.
pub struct Lines {
    pub mqtt: Proxy,
    pub https: Proxy,
}

impl Lines {
    pub fn to(server: &Server) -> Self {
        Lines { mqtt: Proxy::start(&server.address("mqtt")), https: Proxy::start(&server.address("devices")) }
    }

    /// The server was started again, elsewhere.
    pub fn retarget(&self, server: &Server) {
        self.mqtt.retarget(&server.address("mqtt"));
        self.https.retarget(&server.address("devices"));
    }
}

/// Devices that send.
pub struct Loads {
    stop: CancellationToken,
    running: JoinHandle<Vec<Result<Figures, LoadError>>>,
}

impl Loads {
    /// Begins them on a thread of their own, each at its address.
    pub fn begin(loads: Vec<(Load, String)>, credentials: &Credentials) -> Self {
        let stop = CancellationToken::new();
        let (credentials, stopping) = (Arc::clone(credentials), stop.clone());
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let mut all = tokio::task::JoinSet::new();
                for (load, address) in loads {
                    let (credentials, stopping) = (Arc::clone(&credentials), stopping.clone());
                    let name = ServerName::try_from("localhost").unwrap();
                    all.spawn(async move { load::run(&load, &address, name, credentials, stopping).await });
                }
                all.join_all().await
            })
        });
        Loads { stop, running }
    }

    /// Ends them; what has no answer then never gets one.
    pub fn end(self) -> Vec<Result<Figures, LoadError>> {
        self.stop.cancel();
        self.running.join().unwrap()
    }
}

/// Waits until each ledger has grown beyond these lengths, the server has ended, or time is up. Whether they have grown.
pub fn acknowledges(site: &Site, server: &mut Server, beyond: &[u64], limit: Option<Duration>) -> bool {
    let grown = |site: &Site| site.ledger_lengths().iter().zip(beyond).all(|(now, before)| now > before);
    wait_for(limit.unwrap_or(FIRST_ACK_LIMIT), || grown(site) || server.ended().is_some());
    grown(site)
}

/// Looks again and again until something is so, or time is up. Whether it is so.
pub fn wait_for(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if began.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a process ended, in a word.
pub fn shown(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Runs a program of the system that must succeed; what it printed.
pub fn system(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} cannot be run ({error})"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {} failed: {}", arguments.join(" "), said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A memory-backed disk of a fixed size, gone when dropped.
pub struct SmallDisk {
    pub path: PathBuf,
}

impl SmallDisk {
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, String> {
        std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let path = path.to_owned();
        let size = format!("size={bytes}");
        system("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path.to_str().unwrap()])?;
        Ok(SmallDisk { path })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
