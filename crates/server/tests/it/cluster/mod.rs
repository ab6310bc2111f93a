//! Several nodes over one PostgreSQL, as real processes behind a small balancer: any device on any node, live screens on
//! any node see everything in order, one node judges the alarms, and a node that is killed takes nothing with it.

mod balancer;
mod decided;
mod moving;
mod outage;
mod screens;
mod survives;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clinical_model::DeviceId;
use pipeline::{Site, SiteOptions, SystemClock};
use rustls_pki_types::ServerName;
use simulator::client::{ConnectOptions, Publisher, Qos, Reconnect};
use simulator::play::Credentials;
use store::Store;
use store::postgres::PgStore;
use trust::Kek;

use crate::devices;
use crate::process::{ON_FREE_PORTS, Place, Server, auscult};

/// A database, a key, and places for the nodes.
pub struct Cluster {
    pub place: Place,
    pub url: String,
    pub devices: Vec<DeviceId>,
    pub credentials: Credentials,
}

impl Cluster {
    /// With so many registered and assigned devices; no node runs yet.
    pub fn new(count: usize) -> Self {
        let place = Place::new();
        let url = database();
        let store = open(&place, &url);
        let options = SiteOptions {
            fold_every: Duration::from_secs(3_600),
            on_durability_failure: Box::new(|error| panic!("{error}")),
        };
        let site = Site::start(store, Arc::new(SystemClock), options).unwrap();
        let devices = devices::register(&site, count);
        site.stop();
        // The first node brings this authority; the others get it from the database.
        std::fs::create_dir(place.data()).unwrap();
        let credentials = devices::credentials(&place, &devices);
        Cluster { place, url, devices, credentials }
    }

    /// A site that lives in a directory, with devices, beside an empty database.
    pub fn in_directory(count: usize) -> Self {
        let place = Place::new();
        let devices = devices::provision(&place, count);
        let credentials = devices::credentials(&place, &devices);
        Cluster { url: database(), place, devices, credentials }
    }

    /// Data directory of a node; the first one is the place's own.
    pub fn directory(&self, node: usize) -> PathBuf {
        if node == 0 { self.place.data() } else { self.place.path(&format!("node-{node}")) }
    }

    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.log_file(node)).unwrap_or_default()
    }

    fn log_file(&self, node: usize) -> PathBuf {
        self.place.path(&format!("log-{node}.txt"))
    }

    /// Starts a node over `url`, which is the database or a way to it that can be cut.
    pub fn node_over(&self, node: usize, url: &str) -> Server {
        Server::start(self.command(node, url), self.log_file(node))
    }

    /// The command that starts it.
    pub fn command(&self, node: usize, url: &str) -> Command {
        let mut command = auscult();
        command.arg("serve").arg("--data").arg(self.directory(node)).arg("--key-file").arg(self.place.key());
        command.args(ON_FREE_PORTS);
        command.env("AUSCULT_STORE_DATABASE", url);
        command.env("AUSCULT_SITE_FOLD_INTERVAL_S", "1");
        command
    }

    pub fn node(&self, node: usize) -> Server {
        self.node_over(node, &self.url)
    }

    pub fn nodes(&self, count: usize) -> Vec<Server> {
        (0..count).map(|node| self.node(node)).collect()
    }

    /// What is kept, read beside the nodes.
    pub fn store(&self) -> Arc<dyn Store> {
        open(&self.place, &self.url)
    }

    /// One device's connection to one node (`host:port` of its MQTT port).
    pub async fn publisher(&self, device: DeviceId, address: &str) -> Publisher {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = (self.credentials)(device).unwrap();
        let mut options = ConnectOptions::new(address, name, tls, device.to_string());
        options.reconnect = Reconnect::Never;
        Publisher::connect(options).await.unwrap()
    }
}

/// A database that nobody used before, in the test process's own PostgreSQL. Made on a thread of its own: it blocks, and
/// tests are asynchronous.
fn database() -> String {
    std::thread::spawn(|| store::testing::Cluster::shared().database()).join().unwrap()
}

fn open(place: &Place, url: &str) -> Arc<dyn Store> {
    let kek = Kek::parse(std::fs::read(place.key()).unwrap()).unwrap();
    Arc::new(PgStore::open(url, kek, store::postgres::Options::default()).unwrap())
}

/// Sends one number as an envelope and waits for its acknowledgement; whether it was taken.
pub async fn send(publisher: &Publisher, device: DeviceId, measure: &str, value: u32) -> bool {
    let body = format!(r#"{{"measure":"{measure}","value":{value}}}"#).into_bytes();
    let topic = format!("auscult/v1/{device}/envelope");
    let Ok(pending) = publisher.publish(topic, body, Qos::AtLeastOnce).await else { return false };
    pending.await.is_ok_and(|acked| !acked.is_refused())
}
