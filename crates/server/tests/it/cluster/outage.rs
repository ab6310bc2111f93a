//! The database goes away for a while: nodes stay, refuse what they cannot keep, say so, and go on when it is back.

use std::time::{Duration, Instant};

use reqwest::StatusCode;

use super::{Cluster, send};
use crate::torture::proxy::Proxy;

/// Longest wait for a node to notice that the database went, or came back.
const NOTICE_LIMIT: Duration = Duration::from_secs(60);

async fn until_health(node: &str, wanted: StatusCode) {
    let began = Instant::now();
    while reqwest::get(format!("{node}/health")).await.unwrap().status() != wanted {
        assert!(began.elapsed() < NOTICE_LIMIT, "{node}/health is never {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_its_database_and_acknowledges_nothing_meanwhile() {
    let cluster = Cluster::new(2);
    let (before, rest) = cluster.url.split_once("127.0.0.1:").expect("a database on loopback");
    let (port, path) = rest.split_once('/').unwrap();
    let line = tokio::task::block_in_place(|| Proxy::start(&format!("127.0.0.1:{port}")));
    let url = format!("{before}127.0.0.1:{}/{path}", line.address.port());
    let (near, far) = (cluster.node(0), cluster.node_over(1, &url));
    let health = far.address("address");
    until_health(&health, StatusCode::OK).await;
    let device = cluster.devices[0];
    let publisher = cluster.publisher(device, &far.address("mqtt")).await;
    assert!(send(&publisher, device, "heart_rate", 70).await);

    // Nothing listens on port 1.
    line.retarget("127.0.0.1:1");
    line.cut(|_| true);
    let refused = tokio::time::timeout(NOTICE_LIMIT, send(&publisher, device, "heart_rate", 71)).await;
    assert_ne!(refused, Ok(true), "acknowledged without a database");
    until_health(&health, StatusCode::SERVICE_UNAVAILABLE).await;
    until_health(&near.address("address"), StatusCode::OK).await;

    line.retarget(&format!("127.0.0.1:{port}"));
    until_health(&health, StatusCode::OK).await;
    let device = cluster.devices[1];
    let publisher = cluster.publisher(device, &far.address("mqtt")).await;
    assert!(send(&publisher, device, "heart_rate", 72).await, "log: {}", far.log());
    assert!(far.stop().0.success());
    assert!(near.stop().0.success());
    tokio::task::block_in_place(|| drop(line));
}
