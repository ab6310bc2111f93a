//! A device that posts over HTTPS with its certificate.

use std::time::Duration;

use clinical_model::FrameKind;
use rustls::ClientConfig;

/// Longest wait for one answer.
pub const POST_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of a refusal's text is kept, in bytes.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024;

/// The answer to one post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// HTTP status.
    pub status: u16,
    /// What the server says, cut to [`MAX_ANSWER_BYTES`].
    pub text: String,
}

impl Posted {
    /// Whether it is on stable storage over there.
    pub const fn is_accepted(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// Whether the same post may be accepted a little later: the server is busy, restarting or out of room.
    pub const fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..=599)
    }
}

/// Why a frame could not be posted.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The client could not be set up with the certificate.
    #[error("the HTTPS client cannot be set up")]
    Setup {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No answer.
    #[error("no answer from {url}")]
    NoAnswer {
        /// Where it was sent.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

/// A device that posts.
#[derive(Clone, Debug)]
pub struct HttpsDevice {
    client: reqwest::Client,
    base: String,
}

impl HttpsDevice {
    /// `base` is `https://host:port`; `tls` carries the device's certificate.
    ///
    /// # Errors
    /// [`HttpsError::Setup`].
    pub fn new(base: &str, tls: ClientConfig) -> Result<Self, HttpsError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .timeout(POST_TIMEOUT)
            .build()
            .map_err(|source| HttpsError::Setup { source })?;
        Ok(HttpsDevice { client, base: base.trim_end_matches('/').to_owned() })
    }

    /// The path that takes a kind of frame.
    pub fn path(kind: FrameKind) -> String {
        match kind {
            FrameKind::Fhir => "/fhir/Observation".to_owned(),
            kind => format!("/ingest/v1/{kind}"),
        }
    }

    /// Posts one frame and waits for the answer; any status is an answer.
    ///
    /// # Errors
    /// [`HttpsError::NoAnswer`].
    pub async fn post(&self, kind: FrameKind, frame: Vec<u8>) -> Result<Posted, HttpsError> {
        let url = format!("{}{}", self.base, Self::path(kind));
        let content_type = match kind {
            FrameKind::Gatt(_) => "application/octet-stream",
            FrameKind::Envelope => "application/json",
            FrameKind::Fhir => "application/fhir+json",
        };
        let failed = |source| HttpsError::NoAnswer { url: url.clone(), source };
        let mut answer = self
            .client
            .post(&url)
            .header("content-type", content_type)
            .body(frame)
            .send()
            .await
            .map_err(failed)?;
        let status = answer.status().as_u16();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            text.extend(chunk.iter().take(MAX_ANSWER_BYTES - text.len()));
            if text.len() == MAX_ANSWER_BYTES {
                break;
            }
        }
        Ok(Posted { status, text: String::from_utf8_lossy(&text).into_owned() })
    }
}
