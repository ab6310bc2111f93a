//! Clients of an HTTP server, each with one connection that is kept, who ask again as soon as they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustls::ClientConfig;
use tokio::task::JoinSet;

use crate::passkey::Passkey;

/// Longest wait for one answer: a page of a large chart on a slow server.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// One request.
pub struct Ask {
    /// Path and query behind the base address.
    pub path: String,
    /// What is posted; a GET without it.
    pub body: Option<Vec<u8>>,
}

/// One client.
#[derive(Clone)]
pub struct Client {
    client: reqwest::Client,
    base: String,
    cookie: Option<String>,
}

impl Client {
    /// Over plain HTTP, or over TLS with a certificate.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn new(base: &str, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let mut builder = reqwest::Client::builder().http1_only().timeout(ANSWER_LIMIT);
        if let Some(tls) = tls {
            builder = builder.tls_backend_preconfigured(ClientConfig::clone(tls));
        }
        let client = builder.build().context("no HTTP client")?;
        Ok(Client { client, base: base.trim_end_matches('/').to_owned(), cookie: None })
    }

    /// Signs a person in on the web port.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn sign_in(&mut self, passkey: &Passkey) -> anyhow::Result<()> {
        self.cookie = Some(super::screen::sign_in(&self.client, &self.base, passkey).await?);
        Ok(())
    }

    /// Asks once; an answer other than success is an error with the answer's own words.
    ///
    /// # Errors
    /// When there is no answer, or it is a refusal.
    pub async fn ask(&self, ask: Ask) -> anyhow::Result<Vec<u8>> {
        let url = format!("{}{}", self.base, ask.path);
        let mut request = match ask.body {
            Some(body) => self.client.post(&url).header("content-type", "application/fhir+json").body(body),
            None => self.client.get(&url),
        };
        request = request.header("accept", "application/fhir+json, application/json");
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let answer = request.send().await.with_context(|| format!("no answer from {url}"))?;
        let status = answer.status();
        let body = answer.bytes().await.with_context(|| format!("the answer of {url} broke off"))?;
        let said = || String::from_utf8_lossy(&body[..body.len().min(600)]).into_owned();
        ensure!(status.is_success(), "{url} answered {status}: {}", said());
        Ok(body.to_vec())
    }

    /// Puts a resource where it says.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn put(&self, path: &str, body: Vec<u8>) -> anyhow::Result<()> {
        let request = self.client.put(format!("{}{path}", self.base));
        let answer = request.header("content-type", "application/fhir+json").body(body).send().await?;
        ensure!(answer.status().is_success(), "{path} answered {}", answer.status());
        Ok(())
    }
}

/// What clients saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Answers a second of all clients.
    pub per_s: f64,
    /// Half came faster, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 came faster, in milliseconds.
    pub p99_ms: f64,
}

/// So many clients ask for `length`; `ask` gets the number of the client and of its request.
///
/// # Errors
/// When one is refused.
pub async fn ask_for<A>(clients: Vec<Client>, length: Duration, ask: A) -> anyhow::Result<Seen>
where
    A: Fn(usize, u64) -> Ask + Send + Sync + Clone + 'static,
{
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let ask = ask.clone();
        tasks.spawn(async move {
            let mut times_ms = Vec::new();
            while began.elapsed() < length {
                let asked = ask(number, times_ms.len() as u64);
                let sent = Instant::now();
                client.ask(asked).await?;
                times_ms.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times_ms)
        });
    }
    let mut times_ms = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times_ms.extend(ended.context("a client was broken off")??);
    }
    let took = began.elapsed().as_secs_f64();
    times_ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (times_ms.len() as f64 * share) as usize;
        times_ms.get(place.min(times_ms.len().saturating_sub(1))).copied().context("nothing was answered")
    };
    Ok(Seen { per_s: times_ms.len() as f64 / took, p50_ms: at(0.5)?, p99_ms: at(0.99)? })
}
