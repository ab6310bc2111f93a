//! A running site moves from its directory into a database and back, and nothing is different afterwards.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use simulator::load;

use super::{Cluster, send};
use crate::devices;
use crate::process::{Server, refuse, succeed};
use crate::torture::check;

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_site_moves_into_a_database_and_back_with_proof() {
    let cluster = Cluster::in_directory(2);
    let (place, data, key) = (&cluster.place, cluster.place.data(), cluster.place.key());
    let (data, key) = (shown(&data), shown(&key));
    let device = cluster.devices[0];
    let server = Server::serve(place, &[]);
    let ledger = place.path("ledger.txt");
    let load = load::Load {
        duration: Some(std::time::Duration::from_secs(2)),
        rate_per_s: Some(200.0),
        batch: 3,
        ledger: Some(ledger.clone()),
        ..load::Load::new(cluster.devices.clone())
    };
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let credentials = std::sync::Arc::clone(&cluster.credentials);
    let stop = tokio_util::sync::CancellationToken::new();
    load::run(&load, &server.address("mqtt"), name, credentials, stop).await.unwrap();

    let ahead = ["migrate-store", "--ahead", "--from", data, "--to", &cluster.url, "--key-file", key];
    let finish = ["migrate-store", "--from", data, "--to", &cluster.url, "--key-file", key];
    succeed(&ahead);
    assert!(refuse(&finish).contains("in use"), "the server still runs");
    let publisher = cluster.publisher(device, &server.address("mqtt")).await;
    for value in 200..220 {
        assert!(send(&publisher, device, "heart_rate", value).await);
    }
    assert!(server.stop().0.success());
    let said = succeed(&finish);
    assert!(said.contains("is equal to") && said.contains("journal"), "{said}");

    // What was there is there; what comes now goes into the database.
    let acked = load::read_ledger(&ledger).unwrap();
    let kept = |store: &dyn store::Store| {
        let chart = check::chart(store).unwrap();
        let (of_load, rest): (Vec<_>, Vec<_>) = chart.into_iter().partition(|((device, sequence), _)| {
            acked.iter().any(|line| line.device == *device && line.sequence == *sequence)
        });
        let verdict = check::compare(&of_load.into_iter().collect(), &acked, &HashSet::new());
        assert_eq!((verdict.lost, verdict.changed), (0, 0), "{verdict:?}");
        rest.len()
    };
    kept(cluster.store().as_ref());
    let node = cluster.node(0);
    let publisher = cluster.publisher(device, &node.address("mqtt")).await;
    assert!(send(&publisher, device, "body_temperature", 37).await, "its certificate is still good");
    assert!(node.stop().0.success());

    let back = place.path("back");
    let back_arguments = ["migrate-store", "--from", &cluster.url, "--to", shown(&back), "--key-file", key];
    let said = succeed(&back_arguments);
    assert!(said.contains("is equal to"), "{said}");
    kept(&devices::open(place, &back));
    assert!(succeed(&["verify", "--data", shown(&back), "--key-file", key]).contains(" 0 damaged"));
    let authority =
        |directory: PathBuf| std::fs::read_to_string(directory.join("pki/authority.pem")).unwrap();
    assert_eq!(authority(back), authority(place.data()), "devices trust it as before");
}
