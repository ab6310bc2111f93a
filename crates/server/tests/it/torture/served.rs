//! What programs are told: the newest readings of every device, asked over FHIR from a server that was started again.

use std::collections::BTreeSet;

use clinical_model::{DeviceId, Timestamp};
use serde_json::Value;

use super::check::{Chart, chart};
use super::site::{Site, shown};
use crate::devices;

/// Readings of one device that are asked for.
const NEWEST: usize = 50;

/// One reading, as both sides can say it.
type Shown = (Timestamp, String);

/// Starts the server and compares what it tells a program with what is kept. How many readings were compared.
pub fn compare(site: &Site) -> Result<usize, String> {
    let kept = {
        let store = devices::try_open(&site.place, &site.place.data())?;
        chart(&store).map_err(|error| error.to_string())?
    };
    let server = site.serve(&site.start()).map_err(|status| format!("no start: {}", shown(status)))?;
    let address = server.address("devices");
    let port = address.rsplit(':').next().unwrap_or_default();
    let tls = devices::program(&site.place, "judge");
    let client = reqwest::Client::builder().tls_backend_preconfigured((*tls).clone()).https_only(true);
    let client = client.build().map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut compared = 0;
    for device in site.groups.iter().flat_map(|group| group.devices.iter().copied()) {
        let url = format!(
            "https://localhost:{port}/fhir/Observation?device=Device/{device}&_sort=-date&_count={NEWEST}"
        );
        let text = runtime.block_on(async {
            let answer = client.get(&url).send().await?.error_for_status()?;
            answer.text().await
        });
        let text = text.map_err(|error| format!("{url}: {error}"))?;
        let told = told(&serde_json::from_str(&text).map_err(|error| format!("{url}: {error}"))?);
        let newest = newest(&kept, device);
        if told != newest {
            let (wrong, missing) = (told.difference(&newest).count(), newest.difference(&told).count());
            return Err(format!(
                "FHIR tells {wrong} other and leaves out {missing} of the newest of {device}"
            ));
        }
        compared += told.len();
    }
    let (status, _) = server.stop();
    if status.success() { Ok(compared) } else { Err(format!("a stop ended with {}", shown(status))) }
}

fn told(bundle: &Value) -> BTreeSet<Shown> {
    let entries = bundle["entry"].as_array().map(Vec::as_slice).unwrap_or_default();
    let observations = entries.iter().map(|entry| &entry["resource"]);
    let observations = observations.filter(|resource| resource["resourceType"] == "Observation");
    let said = |resource: &Value| {
        let at = resource["effectiveDateTime"].as_str()?.parse().ok()?;
        Some((at, resource["valueQuantity"]["value"].to_string()))
    };
    observations.filter_map(said).collect()
}

fn newest(kept: &Chart, device: DeviceId) -> BTreeSet<Shown> {
    let ours = kept.iter().filter(|((of, _), _)| *of == device).flat_map(|(_, kept)| kept);
    let mut all: Vec<Shown> = ours.map(|reading| (reading.measured_at, reading.value.clone())).collect();
    all.sort_unstable();
    all.into_iter().rev().take(NEWEST).collect()
}
