//! What people see and do on one node holds on all of them.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Cluster, send};
use crate::person::Person;
use crate::process::succeed;

/// Longest wait for a revocation on one node to hold on another: the list is looked at each second.
const REVOKED_LIMIT: Duration = Duration::from_secs(20);

fn states(alerts: &[Value]) -> Vec<String> {
    alerts.iter().map(|alert| alert["state"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_device_on_any_node_shows_on_every_screen_once_and_in_order() {
    let cluster = Cluster::new(1);
    let nodes = cluster.nodes(3);
    let web: Vec<String> = nodes.iter().map(|node| node.address("address")).collect();
    // The link of one node works on another, once.
    let links: Vec<String> = nodes.iter().map(|node| node.address("setup_link")).collect();
    let person = Person::first(&links[0], &web[1]).await;
    for node in &web {
        assert_eq!(person.get(node, "/api/v1/users").await.0, StatusCode::OK, "the session holds everywhere");
    }
    let mut screens = Vec::new();
    for node in &web {
        screens.push(person.watch(node).await);
    }
    let device = cluster.devices[0];
    let mut sent = Vec::new();
    for round in 0..30u32 {
        let node = &nodes[(round * 2 % 3) as usize];
        let publisher = cluster.publisher(device, &node.address("mqtt")).await;
        for value in [60 + round, 100 + round] {
            assert!(send(&publisher, device, "heart_rate", value).await, "log: {}", node.log());
            sent.push(value.to_string());
        }
    }
    for screen in &screens {
        screen.until("the last is shown", |screen| screen.values("heart_rate").last() == sent.last()).await;
        // A screen that lags behind gets the newest of several; what it gets is in order, and nothing comes twice.
        let shown = screen.values("heart_rate");
        let mut rest = sent.iter();
        assert!(shown.iter().all(|value| rest.any(|other| other == value)), "{shown:?}");
        assert!(screen.events("reset").is_empty());
    }
    // Signed out on one, signed out on all; streams end.
    assert_eq!(person.post(&web[2], "/api/v1/sign-out", json!({})).await.0, StatusCode::OK);
    for screen in &screens {
        screen.until("the stream ends", |_| !screen.events("signed-out").is_empty()).await;
    }
    let began = Instant::now();
    for node in &web {
        while person.get(node, "/api/v1/users").await.0 != StatusCode::UNAUTHORIZED {
            assert!(began.elapsed() < Duration::from_secs(5), "still signed in on {node}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cause_is_one_alert_on_all_nodes_also_when_the_judge_is_killed() {
    let cluster = Cluster::new(2);
    let mut nodes: Vec<_> = cluster.nodes(3).into_iter().map(Some).collect();
    let web: Vec<String> = nodes.iter().flatten().map(|node| node.address("address")).collect();
    let admin = Person::first(&nodes[0].as_ref().unwrap().address("setup_link"), &web[0]).await;
    let nurse = json!({"name": "nurse", "display": "Nurse", "role": "nurse", "wards": null});
    let nurse = admin.invited(&web[0], nurse, &web[2]).await;
    let screens = [nurse.watch(&web[0]).await, nurse.watch(&web[1]).await, nurse.watch(&web[2]).await];

    let (first, second) = (cluster.devices[0], cluster.devices[1]);
    let mqtt = nodes[1].as_ref().unwrap().address("mqtt");
    let publisher = cluster.publisher(first, &mqtt).await;
    assert!(send(&publisher, first, "battery_level", 5).await);
    for screen in &screens {
        screen.until("raised", |_| !screen.events("alert").is_empty()).await;
    }
    let alert = screens[2].events("alert")[0]["id"].as_str().unwrap().to_owned();
    let answer = nurse.post(&web[2], &format!("/api/v1/alerts/{alert}/acknowledge"), json!({})).await;
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
    assert!(send(&publisher, first, "battery_level", 90).await);
    for (node, screen) in screens.iter().enumerate() {
        screen.until("over", |_| screen.events("alert").len() >= 3).await;
        assert_eq!(states(&screen.events("alert")), ["raised", "acknowledged", "resolved"], "node {node}");
    }

    let judge = (0..3).find(|node| cluster.log(*node).contains("this node judges the alarms now")).unwrap();
    nodes[judge].take().unwrap().kill();
    let left: Vec<usize> = (0..3).filter(|node| *node != judge).collect();
    let mqtt = nodes[left[0]].as_ref().unwrap().address("mqtt");
    let publisher = cluster.publisher(second, &mqtt).await;
    assert!(send(&publisher, second, "battery_level", 4).await, "nobody waits for the dead");
    for node in &left {
        let screen = &screens[*node];
        screen.until("raised by another judge", |_| screen.events("alert").len() >= 4).await;
    }
    let open = nurse.get(&web[left[1]], "/api/v1/alerts").await.1;
    assert_eq!(open["alerts"].as_array().unwrap().len(), 1, "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_revoked_on_one_node_is_refused_on_all() {
    let cluster = Cluster::new(1);
    let nodes = cluster.nodes(2);
    let pki = cluster.directory(0).join("pki");
    let certs = cluster.place.path("certs");
    let device = cluster.devices[0];
    let (pki, out) = (pki.to_str().unwrap(), certs.to_str().unwrap());
    cluster.place.pki(&["issue", pki, "--device", &device.to_string(), "--out", out]);
    let read = |name: String| std::fs::read_to_string(certs.join(name)).unwrap();
    let (certificate, key) = (read(format!("{device}.pem")), read(format!("{device}.key")));
    let identity = Some((certificate.as_str(), key.as_str()));
    let tls = trust::tls::client_config(&read("authority.pem".into()), identity, &[]).unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut options = simulator::client::ConnectOptions::new(
        nodes[1].address("mqtt"),
        name,
        std::sync::Arc::new(tls),
        device.to_string(),
    );
    options.reconnect = simulator::client::Reconnect::Never;
    let publisher = simulator::client::Publisher::connect(options.clone()).await.unwrap();
    assert!(send(&publisher, device, "heart_rate", 70).await, "issued on one node, believed on the other");
    let list = succeed(&["pki", "list", pki]);
    let line = list.lines().find(|line| line.contains(&device.to_string())).unwrap();
    // Another node than the one that issued it knows of it, and can revoke it.
    let other = cluster.directory(1).join("pki");
    let other = other.to_str().unwrap();
    let began = Instant::now();
    let serial = line.split(' ').next().unwrap();
    while !succeed(&["pki", "list", other]).contains(serial) {
        assert!(began.elapsed() < REVOKED_LIMIT, "not known; log: {}", nodes[1].log());
    }
    let servers = |list: &str| list.lines().filter(|line| line.contains("server:")).count();
    assert_eq!((servers(&list), servers(&succeed(&["pki", "list", other]))), (1, 1), "each has its own");
    succeed(&["pki", "revoke", other, serial, "--reason", "stolen"]);
    let began = Instant::now();
    while send(&publisher, device, "heart_rate", 70).await {
        assert!(began.elapsed() < REVOKED_LIMIT, "still taken; log: {}", nodes[1].log());
    }
    assert!(simulator::client::Publisher::connect(options).await.is_err(), "it must not come back");
}
