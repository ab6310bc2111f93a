//! Kill -9 of one node after another under load: what any node acknowledged is in the chart, once, with its value.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use clinical_model::DeviceId;
use simulator::client::{MqttVersion, Qos, Reconnect};
use simulator::load::{self, Load, Via};

use super::Cluster;
use super::balancer::Balancer;
use crate::torture::check;
use crate::torture::site::{Loads, wait_for};

/// Longest wait for acknowledgements after a node was killed or came back.
const ACK_LIMIT: Duration = Duration::from_secs(60);
/// Messages a second of each group of devices: so many that a kill always hits some under way.
const RATE_PER_S: f64 = 150.0;

struct Group {
    devices: Vec<DeviceId>,
    via: Via,
    qos: Qos,
    version: MqttVersion,
    ledger: PathBuf,
}

fn length(path: &PathBuf) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

/// All groups begin to send through the balancers.
fn start(cluster: &Cluster, groups: &[Group], mqtt: &Balancer, https: &Balancer) -> Loads {
    let loads: Vec<(Load, String)> = groups
        .iter()
        .map(|group| {
            let load = Load {
                via: group.via,
                qos: group.qos,
                version: group.version,
                batch: 3,
                rate_per_s: Some(RATE_PER_S),
                window: 16,
                duration: None,
                ledger: Some(group.ledger.clone()),
                reconnect: Reconnect::EAGER,
                repeat_every: 10,
                ..Load::new(group.devices.clone())
            };
            let way = if group.via == Via::Https { https } else { mqtt };
            (load, way.address.to_string())
        })
        .collect();
    Loads::begin(loads, &cluster.credentials)
}

#[test]
fn nodes_that_are_killed_one_after_another_lose_nothing() {
    let cluster = Cluster::new(8);
    let mut nodes: Vec<_> = cluster.nodes(3).into_iter().map(Some).collect();
    let addresses = |name: &str| nodes.iter().flatten().map(|node| node.address(name)).collect();
    let mqtt = Balancer::start(addresses("mqtt"));
    let https = Balancer::start(addresses("devices"));
    let group = |number: usize, via, qos, version, range: std::ops::Range<usize>| Group {
        devices: cluster.devices[range].to_vec(),
        via,
        qos,
        version,
        ledger: cluster.place.path(&format!("ledger-{number}.txt")),
    };
    let groups = [
        group(0, Via::Mqtt, Qos::AtLeastOnce, MqttVersion::V5, 0..3),
        group(1, Via::Mqtt, Qos::ExactlyOnce, MqttVersion::V311, 3..6),
        group(2, Via::Https, Qos::AtLeastOnce, MqttVersion::V5, 6..8),
    ];
    let loads = start(&cluster, &groups, &mqtt, &https);
    let lengths = || groups.iter().map(|group| length(&group.ledger)).collect::<Vec<_>>();
    let grows_beyond = |before: &[u64], what: &str| {
        let grown = wait_for(ACK_LIMIT, || lengths().iter().zip(before).all(|(now, before)| now > before));
        assert!(grown, "no acknowledgements {what}; log of node 0: {}", cluster.log(0));
    };
    grows_beyond(&[0, 0, 0], "at first");
    for node in [0, 1, 2, 0] {
        nodes[node].take().unwrap().kill();
        let before = lengths();
        grows_beyond(&before, "after a node was killed");
        let back = cluster.node(node);
        mqtt.retarget(node, back.address("mqtt"));
        https.retarget(node, back.address("devices"));
        nodes[node] = Some(back);
        let before = lengths();
        grows_beyond(&before, "after it came back");
    }
    for figures in loads.end() {
        assert!(figures.unwrap().acked_messages > 0);
    }

    let acked: Vec<_> = groups.iter().flat_map(|group| load::read_ledger(&group.ledger).unwrap()).collect();
    let store = cluster.store();
    let chart = check::chart(store.as_ref()).unwrap();
    let verdict = check::compare(&chart, &acked, &HashSet::new());
    assert!(verdict.faults().is_empty(), "{verdict:?}");
    assert!(acked.len() > 500, "{}", acked.len());
    // A second node under the whole load while one was dead: two at least have folded, never two at one time.
    drop(nodes);
    let report = store.verify(&mut |_, _| {}).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let again = check::compare(&check::chart(store.as_ref()).unwrap(), &acked, &HashSet::new());
    assert!(again.faults().is_empty(), "{again:?}");
}
