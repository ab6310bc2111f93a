//! What only the store or the running server knows of a site's health: erasures that wait, witnesses, policies in force, a
//! restore that nobody has looked at.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clinical_model::Timestamp;
use pipeline::checkpoints::WitnessHealth;
use pipeline::restored::{self, Restored};
use serde::{Deserialize, Serialize};
use store::Store;
use web_api::Web;
use web_api::access::engine_of;

use super::{Check, fail, ok, warn};
use crate::config::Config;
use crate::listening::Addresses;
use crate::pki;
use crate::terminal::counted;

/// How a witness stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    New,
    Cosigns,
    Stale,
    Refuses,
    Unreachable,
}

impl From<WitnessHealth> for Standing {
    fn from(health: WitnessHealth) -> Self {
        match health {
            WitnessHealth::New => Standing::New,
            WitnessHealth::Fresh => Standing::Cosigns,
            WitnessHealth::Stale => Standing::Stale,
            WitnessHealth::Refused => Standing::Refuses,
            WitnessHealth::Unreachable => Standing::Unreachable,
        }
    }
}

/// One witness of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WitnessSummary {
    name: String,
    standing: Standing,
    /// When it cosigned last.
    last_at: Option<Timestamp>,
    what: String,
}

/// What doctor is told of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSummary {
    erased: u64,
    /// Erasures that wait for the epoch to turn.
    waiting: u64,
    oldest_waits_since: Option<Timestamp>,
    /// SHA-256 of the certificate that signs statements of erasures.
    signer: Option<String>,
    restored: Option<Restored>,
    /// What only a server that runs knows.
    running: Option<RunningSummary>,
}

/// What only a server that runs knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RunningSummary {
    addresses: Addresses,
    witnesses: Vec<WitnessSummary>,
    /// What is wrong with the log, a sentence each.
    log_faults: Vec<String>,
    /// Why policies that were loaded again were not taken, and since when those in force are.
    policies_fault: Option<String>,
    policies_since: Timestamp,
}

/// The health of a store that nobody serves.
///
/// # Errors
/// When it cannot be read.
pub fn of_store(store: &dyn Store) -> anyhow::Result<HealthSummary> {
    let erasures = store.care().erasures().context("the erasures cannot be read")?;
    let waiting: Vec<Timestamp> =
        erasures.iter().filter(|one| one.epoch_ended_at.is_none()).map(|one| one.begun_at).collect();
    let signer = pipeline::erasure::known_signer(store).context("the signer of erasures cannot be read")?;
    Ok(HealthSummary {
        erased: erasures.len() as u64,
        waiting: waiting.len() as u64,
        oldest_waits_since: waiting.into_iter().min(),
        signer: signer.map(|signer| signer.fingerprint_hex()),
        restored: restored::unseen(store).context("the note of a restore cannot be read")?,
        running: None,
    })
}

/// The health of a site that runs.
///
/// # Errors
/// When its store cannot be read.
pub fn of_web(web: &Web, addresses: Addresses) -> anyhow::Result<HealthSummary> {
    let site = web.site();
    let witnesses = site.log_watch().witnesses().into_iter().map(|witness| WitnessSummary {
        name: witness.name,
        standing: witness.health.into(),
        last_at: witness.last_at,
        what: witness.what,
    });
    let loaded = web.policies().loaded();
    let running = RunningSummary {
        addresses,
        witnesses: witnesses.collect(),
        log_faults: site.log_watch().faults(),
        policies_fault: loaded.error,
        policies_since: loaded.at,
    };
    Ok(HealthSummary { running: Some(running), ..of_store(site.store())? })
}

impl HealthSummary {
    /// Where the server that runs listens: on other ports than the settings say, where they say 0.
    pub(super) fn addresses(&self) -> Option<Addresses> {
        self.running.as_ref().map(|running| running.addresses)
    }
}

/// What doctor says of it.
pub(super) fn checks(health: &HealthSummary, turn_within_days: u32) -> Vec<Check> {
    let mut checks = vec![turn_due(health, turn_within_days)];
    checks.extend(health.restored.as_ref().map(unseen_restore));
    if let Some(running) = &health.running {
        let advice = "`auscult verify --log-only` names the rows; docs/operate/verify.md says what to do";
        checks.extend(running.log_faults.iter().map(|fault| fail("audit log", fault, advice)));
        checks.extend(running.witnesses.iter().map(witness));
        if let Some(fault) = &running.policies_fault {
            let found = format!("not taken: {fault}; those of {} are in force", running.policies_since);
            checks.push(fail("policies in force", found, "`auscult policy check` names every mistake"));
        }
    }
    checks
}

/// Whether erasures wait for the epoch to turn for longer than they may.
fn turn_due(health: &HealthSummary, within_days: u32) -> Check {
    let what = "erasures";
    let signer = health.signer.as_deref().unwrap_or("none yet");
    let Some(oldest) = health.oldest_waits_since else {
        let erased = match health.erased {
            0 => "nobody was erased".to_owned(),
            count => format!("{} erased, backups included", counted(count, "patient")),
        };
        return ok(what, format!("{erased}; signer {signer}"));
    };
    let waiting = counted(health.waiting, "erasure");
    let found = format!(
        "older backups still hold {waiting}, the first since {oldest}; a turn of the key is due; signer {signer}"
    );
    let advice = "make a backup, then turn the key-encryption key over with `auscult keys rotate`";
    let due = oldest.plus(Duration::from_secs(u64::from(within_days) * 86_400));
    match due < pki::timestamp(SystemTime::now()) {
        true => fail(what, format!("{found}; it is overdue since {due}"), advice),
        false => warn(what, found, advice),
    }
}

fn unseen_restore(restored: &Restored) -> Check {
    let found = format!("a backup was restored at {}: {}", restored.restored_at, restored.unknown());
    let advice = "disable, revoke and write them again, then `auscult confirm-restore`";
    warn("restore", found, advice)
}

fn witness(witness: &WitnessSummary) -> Check {
    let what = "witness";
    let last = witness.last_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let found = |says: &str| format!("{} {says} (cosigned last: {last}): {}", witness.name, witness.what);
    let reach =
        "is it up, and does this machine reach it? Until it cosigns, nobody else can prove a rollback";
    match witness.standing {
        Standing::Cosigns => ok(what, format!("{} cosigned at {last}", witness.name)),
        Standing::New => ok(what, format!("{} was not asked yet", witness.name)),
        Standing::Refuses => fail(
            what,
            found("refuses the log"),
            "the log is not what it saw: `auscult verify`, and docs/operate/verify.md",
        ),
        Standing::Stale => warn(what, found("has not cosigned for too long"), reach),
        Standing::Unreachable => warn(what, found("does not cosign"), reach),
    }
}

/// The policies as the next start would load them.
pub(super) fn policies(config: &Config) -> Check {
    let what = "policies";
    let directory = config.access.policies.as_deref();
    match engine_of(directory) {
        Ok(engine) => {
            let place = directory.map_or_else(|| "built in".to_owned(), |path| path.display().to_string());
            ok(what, format!("{} ({place})", engine.rules().len()))
        }
        Err(error) => {
            let found = format!("{:#}", anyhow::Error::new(error));
            let advice = "the next start refuses them; `auscult policy check` names every mistake";
            fail(what, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Mark;

    fn health() -> HealthSummary {
        HealthSummary {
            erased: 1,
            waiting: 0,
            oldest_waits_since: None,
            signer: Some("ab".to_owned()),
            restored: None,
            running: None,
        }
    }

    fn said(health: &HealthSummary) -> Vec<(Mark, &'static str, String)> {
        checks(health, 30).into_iter().map(|check| (check.mark, check.what, check.found)).collect()
    }

    #[test]
    fn a_turn_that_is_due_is_a_warning_and_one_that_is_overdue_a_failure() {
        let mut health = health();
        assert_eq!(said(&health)[0].0, Mark::Ok);
        let now = pki::timestamp(SystemTime::now());
        health.waiting = 1;
        health.oldest_waits_since = Some(now.minus(Duration::from_secs(86_400)));
        let found = said(&health).remove(0);
        assert!(
            found.0 == Mark::Warn && found.2.contains("1 erasure,") && found.2.contains("is due"),
            "{found:?}"
        );
        health.oldest_waits_since = Some(now.minus(Duration::from_secs(31 * 86_400)));
        assert_eq!(said(&health)[0].0, Mark::Fail);
    }

    #[test]
    fn witnesses_policies_and_restores_are_told() {
        let witness = |standing| WitnessSummary {
            name: "w1".to_owned(),
            standing,
            last_at: None,
            what: "it cannot be reached".to_owned(),
        };
        let mut health = health();
        health.restored = Some(Restored {
            restored_at: Timestamp::from_seconds(1_800_000_000),
            as_of: Some(Timestamp::from_seconds(1_790_000_000)),
            ended: restored::Ended::default(),
        });
        let address = "127.0.0.1:8080".parse().unwrap();
        health.running = Some(RunningSummary {
            addresses: Addresses { web: address, mqtt: address, devices: address },
            witnesses: vec![
                witness(Standing::Unreachable),
                witness(Standing::Refuses),
                witness(Standing::Cosigns),
            ],
            log_faults: vec!["the tree does not grow".to_owned()],
            policies_fault: Some("site.cedar:1:1".to_owned()),
            policies_since: Timestamp::from_seconds(1_790_000_000),
        });
        let marks: Vec<_> = said(&health).into_iter().map(|(mark, what, _)| (mark, what)).collect();
        assert_eq!(
            marks,
            [
                (Mark::Ok, "erasures"),
                (Mark::Warn, "restore"),
                (Mark::Fail, "audit log"),
                (Mark::Warn, "witness"),
                (Mark::Fail, "witness"),
                (Mark::Ok, "witness"),
                (Mark::Fail, "policies in force"),
            ]
        );
        let text = serde_json::to_string(&health).unwrap();
        assert_eq!(serde_json::from_str::<HealthSummary>(&text).unwrap(), health);
    }
}
