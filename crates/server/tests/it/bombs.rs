//! What is small on the wire and large when it is unfolded, against a real server: it takes no more memory than what was sent.

use std::process::{Command, Stdio};

use reqwest::Client;
use simulator::client::Qos;

use crate::cluster::Cluster;
use crate::devices;
use crate::process::Server;

/// Growth of the server's resident memory at its peak that a bomb may cause, in KiB: at every moment 16 bodies of at most
/// 1 MiB are read, each parsed into a tree that takes some ten times its text, with as much again for what the allocator
/// keeps and for a debug build (217 MiB were measured). One packed body alone, unfolded, takes more than that.
const GROWTH_LIMIT_KIB: u64 = 384 << 10;
/// What a packed body unfolds to, in bytes.
const UNFOLDED_BYTES: u64 = 512 << 20;
/// Bombs that are under way at one time.
const AT_ONCE: usize = 16;

/// The most memory that a process has held so far, in KiB.
fn peak_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Zeroes, packed by a program of the system.
fn packed() -> Vec<u8> {
    let script = format!("head -c {UNFOLDED_BYTES} /dev/zero | gzip -1");
    let output = Command::new("sh").args(["-c", &script]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success() && (10_000..8 << 20).contains(&output.stdout.len()));
    output.stdout
}

/// Bodies under their media type and coding.
fn bombs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let nested = |open: &str, close: &str, depth| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    // Nine levels of ten, each ten times the one before: a billion laughs.
    let entities: String = (1..10)
        .map(|level| format!("<!ENTITY l{level} \"{}\">", format!("&l{};", level - 1).repeat(10)))
        .collect();
    let laughs = format!(
        "<?xml version=\"1.0\"?><!DOCTYPE p [<!ENTITY l0 \"lol\">{entities}]><Patient xmlns=\"http://hl7.org/fhir\">\
         <id value=\"&l9;\"/></Patient>"
    );
    let json = "application/json";
    vec![
        (json, "gzip", packed()),
        (json, "deflate", packed()),
        ("application/zip", "identity", packed()),
        ("application/fhir+xml", "identity", laughs.clone().into_bytes()),
        (json, "identity", laughs.into_bytes()),
        (json, "identity", nested("[", "]", 400_000)),
        (json, "identity", nested("{\"a\":", "}", 150_000)),
        (json, "identity", nested("{\"resourceType\":\"Bundle\",\"entry\":[{\"resource\":", "}]}", 15_000)),
        (json, "identity", format!("[{}1]", "1e999999999,".repeat(80_000)).into_bytes()),
        (json, "identity", format!("[{}{{}}]", "{},".repeat(300_000)).into_bytes()),
        (json, "identity", "a=b&".repeat(200_000).into_bytes()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_take_no_memory() {
    let cluster = Cluster::in_directory(1);
    let device = cluster.devices[0];
    let tls = devices::program(&cluster.place, "ehr");
    let server = Server::serve(&cluster.place, &[]);
    let (web, port) = (server.address("address"), server.address("devices"));
    let port = format!("https://localhost:{}", port.rsplit(':').next().unwrap());
    let program = Client::builder().tls_backend_preconfigured((*tls).clone()).build().unwrap();
    let doors = [
        (Client::new(), format!("{web}/api/v1/sign-in")),
        (Client::new(), format!("{web}/oauth2/token")),
        (program.clone(), format!("{port}/fhir")),
        (program.clone(), format!("{port}/fhir/Patient")),
        (program.clone(), format!("{port}/ingest/v1/envelope?device={device}")),
        (program, format!("{port}/enrol/v1/claim")),
    ];
    let before = peak_kib(&server);
    let bombs = bombs();
    let publisher = cluster.publisher(device, &server.address("mqtt")).await;
    for (_, _, body) in &bombs {
        let topic = format!("auscult/v1/{device}/envelope");
        let Ok(pending) = publisher.publish(topic, body.clone(), Qos::AtLeastOnce).await else { break };
        let _ = pending.await;
    }
    let mut under_way = tokio::task::JoinSet::new();
    let mut answers = 0;
    for (client, url) in doors {
        for (kind, coding, body) in &bombs {
            if under_way.len() == AT_ONCE {
                answers += u32::from(under_way.join_next().await.unwrap().unwrap());
            }
            let asked = client.post(&url).header("x-auscult", "1").header("content-type", *kind);
            let asked = asked.header("content-encoding", *coding).body(body.clone());
            under_way.spawn(async move {
                // A door may shut before it has read everything.
                let Ok(answer) = asked.send().await else { return false };
                assert!(answer.status().as_u16() < 500, "{}: {}", answer.url(), answer.status());
                true
            });
        }
    }
    while let Some(answered) = under_way.join_next().await {
        answers += u32::from(answered.unwrap());
    }
    let after = peak_kib(&server);
    assert!(answers > 40, "{answers} answers");
    assert!(
        after - before < GROWTH_LIMIT_KIB,
        "{before} KiB grew to {after} KiB; log: {}",
        server.log().lines().rev().take(5).collect::<String>()
    );
    println!("resident memory at its peak: {before} KiB before, {after} KiB after");
    assert!(reqwest::get(format!("{web}/health")).await.unwrap().status().is_success());
    assert!(server.stop().0.success());
}
