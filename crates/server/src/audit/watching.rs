//! The log asks its witnesses: every new checkpoint is shown to each of them, and what they answer is kept and watched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pipeline::Site;
use pipeline::checkpoints::{WitnessHealth, WitnessState};
use pipeline::witness::{AskError, Question, keep_answer, question};
use store::Log;
use trust::log::note::VerifierKey;
use trust::log::witness::Refusal;

use crate::config::WitnessConfig;

/// How often it is looked for a new checkpoint.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Time for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes: a few lines.
const ANSWER_LIMIT_BYTES: usize = 16 << 10;
/// A witness that has not cosigned for so long is stale.
const STALE_AFTER: Duration = Duration::from_secs(300);

/// One witness that is asked.
struct Asked {
    key: VerifierKey,
    url: String,
    client: reqwest::Client,
    /// What it cosigned last, of each log and origin.
    sizes: HashMap<String, u64>,
    state: WitnessState,
}

/// What came of one question.
enum Outcome {
    /// There was nothing new.
    Nothing,
    /// It cosigned a checkpoint of this size.
    Cosigned(u64),
    /// It has seen this size; it is asked again from there.
    Seen,
}

/// Asks the witnesses of the configuration until `stop`.
///
/// # Errors
/// Where a witness of the configuration makes no sense.
pub async fn ask_witnesses(
    site: Arc<Site>,
    witnesses: Vec<WitnessConfig>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut asked = witnesses.iter().map(Asked::of).collect::<anyhow::Result<Vec<_>>>()?;
    for one in &asked {
        site.log_watch().put_witness(one.state.clone());
    }
    let mut tick = tokio::time::interval(ASK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = tick.tick() => {}
        }
        for one in &mut asked {
            one.round(&site).await;
            site.log_watch().put_witness(one.state.clone());
        }
    }
}

impl Asked {
    fn of(config: &WitnessConfig) -> anyhow::Result<Self> {
        let key: VerifierKey =
            config.key.parse().with_context(|| format!("audit.witnesses: \"{}\" is no key", config.key))?;
        let mut builder =
            reqwest::Client::builder().timeout(ANSWER_LIMIT).redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &config.certificate {
            let pem = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let certificate = reqwest::Certificate::from_pem(&pem)
                .with_context(|| format!("{} is no certificate", path.display()))?;
            builder = builder.tls_certs_merge([certificate]);
        }
        let client = builder.build().context("the client for witnesses cannot be made")?;
        let state = WitnessState {
            name: key.name().to_owned(),
            key: key.to_string(),
            url: config.url.clone(),
            health: WitnessHealth::New,
            last_at: None,
            last_size: None,
            what: String::new(),
        };
        let url = format!("{}/add-checkpoint", config.url.trim_end_matches('/'));
        Ok(Asked { key, url, client, sizes: HashMap::new(), state })
    }

    async fn round(&mut self, site: &Arc<Site>) {
        for log in Log::ALL {
            match self.ask(site, log).await {
                Ok(Outcome::Nothing) => {}
                Ok(Outcome::Seen) => {}
                Ok(Outcome::Cosigned(size)) => {
                    if self.state.health != WitnessHealth::Fresh {
                        tracing::info!(witness = self.state.name, "the witness cosigns the log");
                    }
                    self.state.health = WitnessHealth::Fresh;
                    self.state.what = format!("cosigned {size} rows of the log of {}", log.name());
                    self.state.last_at = Some(site.clock().now());
                    if log == Log::Acts {
                        self.state.last_size = Some(size);
                    }
                }
                Err(error) => {
                    let what = format!("{error:#}");
                    let is_refusal = error.chain().any(|cause| {
                        cause.downcast_ref::<Refusal>().is_some_and(Refusal::is_misbehaviour)
                            || matches!(cause.downcast_ref::<AskError>(), Some(AskError::SawMore { .. }))
                    });
                    let health = if is_refusal { WitnessHealth::Refused } else { WitnessHealth::Unreachable };
                    // A refusal stands until the witness cosigns again, whatever happens to the connection.
                    if self.state.health != WitnessHealth::Refused || is_refusal {
                        if self.state.health != health {
                            tracing::error!(
                                witness = self.state.name,
                                what,
                                "the witness did not cosign the log"
                            );
                        }
                        self.state.health = health;
                        self.state.what = what;
                    }
                }
            }
        }
        let is_late =
            self.state.last_at.is_some_and(|at| site.clock().now().duration_since(at) > STALE_AFTER);
        if is_late && self.state.health == WitnessHealth::Unreachable {
            self.state.health = WitnessHealth::Stale;
        }
    }

    async fn ask(&mut self, site: &Arc<Site>, log: Log) -> anyhow::Result<Outcome> {
        // Where it has seen another size than we remember, it is asked once more from there.
        for _ in 0..2 {
            match self.ask_once(site, log).await? {
                Outcome::Seen => {}
                other => return Ok(other),
            }
        }
        bail!("the witness names one size after the other")
    }

    async fn ask_once(&mut self, site: &Arc<Site>, log: Log) -> anyhow::Result<Outcome> {
        let (reading, key) = (Arc::clone(site), self.key.clone());
        let origin =
            tokio::task::spawn_blocking(move || reading.store().log().log_state(log)).await??.origin_line();
        let old = self.sizes.get(&origin).copied().unwrap_or(0);
        let (reading, for_question) = (Arc::clone(site), key.clone());
        let question =
            tokio::task::spawn_blocking(move || question(reading.store(), log, old, &for_question));
        let Some(question) = question.await?? else { return Ok(Outcome::Nothing) };
        let sent = self.client.post(&self.url).body(question.request.to_text()).send().await;
        let response = sent.context("it cannot be reached")?;
        let status = response.status().as_u16();
        let text = response.bytes().await.context("its answer broke off")?;
        let text =
            std::str::from_utf8(&text[..text.len().min(ANSWER_LIMIT_BYTES)]).unwrap_or_default().to_owned();
        match status {
            200 => self.keep(site, question, text, origin).await,
            409 => match text.trim().parse::<u64>() {
                Ok(size) if size != old => {
                    self.sizes.insert(origin, size);
                    Ok(Outcome::Seen)
                }
                _ => Err(Refusal::Forked { size: old }.into()),
            },
            422 => Err(Refusal::Inconsistent { size: old }.into()),
            403 => bail!(
                "it does not believe the key of this log; tell it the key that `auscult audit key` prints"
            ),
            404 => bail!("it does not know this log; tell it the key that `auscult audit key` prints"),
            _ => bail!("it answered with status {status}"),
        }
    }

    async fn keep(
        &mut self,
        site: &Arc<Site>,
        question: Question,
        text: String,
        origin: String,
    ) -> anyhow::Result<Outcome> {
        let (writing, key) = (Arc::clone(site), self.key.clone());
        let kept = tokio::task::spawn_blocking(move || keep_answer(writing.store(), &question, &text, &key));
        let kept = kept.await??;
        self.sizes.insert(origin, kept.size);
        Ok(Outcome::Cosigned(kept.size))
    }
}
