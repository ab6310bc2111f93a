//! Our authorisation server: programs that people let in (SMART App Launch 2.2) and programs that act by themselves
//! (SMART Backend Services), their registrations, grants and tokens.
//!
//! Read in this order: [`clients`] knows the programs, [`authorize`] asks a person, [`token`] gives tokens against a code
//! or a signed assertion ([`assertion`]), [`grants`] keeps what was granted and knows whose a token is.

mod admin;
mod answer;
mod assertion;
mod authorize;
mod clients;
mod discovery;
mod grants;
mod inspect;
mod keys;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use store::Store;

use crate::state::{Web, WebOptions};

pub(crate) use admin::{add as add_client, change as change_client, list as list_clients};
pub(crate) use admin::{grants as list_grants, remove as remove_client, remove_grant, show as show_client};
pub(crate) use answer::{Parameters, Word, Wrong};
pub(crate) use authorize::{decide, describe};
pub(crate) use grants::{NotABearer, end_all_of as end_grants_of, ending_of as ending_grants_of};
pub(crate) use keys::sign_with_ours;

/// Longest body of a request to a protocol endpoint, in bytes: an assertion and a few parameters.
const FORM_LIMIT_BYTES: usize = 48 << 10;
/// Longest `Host` that is looked at, in bytes.
const HOST_LIMIT_BYTES: usize = 260;

/// What the authorisation server keeps in memory: the registrations. Grants and keys are read where they are needed.
pub(crate) struct OAuth {
    pub(crate) clients: clients::Clients,
    keys: keys::Keys,
}

impl OAuth {
    /// Reads the registrations.
    ///
    /// # Errors
    /// [`clients::ClientsError`] where they cannot be read.
    pub(crate) fn load(store: &dyn Store) -> Result<Self, clients::ClientsError> {
        Ok(OAuth { clients: clients::Clients::load(store)?, keys: keys::Keys::default() })
    }
}

pub(crate) use clients::ClientsError;

/// The protocol endpoints, which programs call without a session.
pub(crate) fn router(web: &Arc<Web>) -> Router {
    Router::new()
        .route("/.well-known/smart-configuration", get(discovery::smart))
        .route("/fhir/.well-known/smart-configuration", get(discovery::smart))
        .route("/.well-known/oauth-authorization-server", get(discovery::smart))
        .route("/.well-known/openid-configuration", get(discovery::smart))
        .route("/oauth2/token", post(token::token))
        .route("/oauth2/introspect", post(inspect::introspect))
        .route("/oauth2/revoke", post(inspect::revoke))
        .route("/oauth2/jwks", get(discovery::jwks))
        .with_state(Arc::clone(web))
        .layer(axum::middleware::from_fn(cors))
        // The page that asks a person belongs to the web app; nothing of another site may ask in its place.
        .route("/oauth2/authorize", get(crate::app::serve))
        .route("/oauth2/{*rest}", any(|| async { StatusCode::NOT_FOUND }))
}

/// Lets pages of other sites call, without this site's cookies: what is answered is for whoever brings a token.
pub(crate) async fn cors(request: Request, next: Next) -> Response {
    if !request.headers().contains_key(header::ORIGIN) {
        return next.run(request).await;
    }
    let is_preflight = *request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    // A star never goes with cookies: browsers refuse it to requests that carry them.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if is_preflight {
        let methods = HeaderValue::from_static("GET, POST, PUT, DELETE");
        let allowed = "authorization, content-type, accept, prefer, if-match, if-none-match, if-none-exist, \
                       if-modified-since, x-purpose-of-use, x-request-id";
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    } else {
        let exposed =
            "etag, location, content-location, last-modified, retry-after, www-authenticate, x-progress";
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
    response
}

/// The origin under which the caller knows us, `https://auscult.example.org`: one of those in the configuration, or,
/// where it names none, the loopback address that was asked. Never what a request merely claims: a token or assertion for
/// somebody else's address would pass for ours.
pub(crate) fn origin_of(options: &WebOptions, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    if let Some(first) = options.public_addresses.first() {
        let named = |origin: &&String| origin.split_once("://").is_some_and(|(_, own)| own == host);
        return options.public_addresses.iter().find(named).unwrap_or(first).clone();
    }
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, Some(port)),
        _ => (host, None),
    };
    let is_loopback = host.len() <= HOST_LIMIT_BYTES && matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    let scheme = if options.secure_cookies { "https" } else { "http" };
    match (is_loopback, port) {
        (true, Some(port)) => format!("{scheme}://{name}:{port}"),
        (true, None) => format!("{scheme}://{name}"),
        (false, _) => format!("{scheme}://localhost"),
    }
}

/// Appends parameters to an address, percent-encoded but for the unreserved characters (RFC 3986 §2.3).
pub(crate) fn with_parameters(address: &str, parameters: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    let mut whole = address.to_owned();
    for (name, value) in parameters {
        whole.push(if whole.contains('?') { '&' } else { '?' });
        whole.push_str(name);
        whole.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    whole.push(char::from(byte))
                }
                _ => {
                    let _ = write!(whole, "%{byte:02X}");
                }
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(addresses: &[&str], host: &'static str) -> String {
        let public_addresses = addresses.iter().map(|one| (*one).to_owned()).collect();
        let options = WebOptions { public_addresses, ..WebOptions::default() };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        origin_of(&options, &headers)
    }

    #[test]
    fn a_host_header_cannot_make_us_somebody_else() {
        let ours = ["https://a.example", "https://b.example:8443"];
        assert_eq!(origin(&ours, "a.example"), "https://a.example");
        assert_eq!(origin(&ours, "b.example:8443"), "https://b.example:8443");
        for host in ["evil.example", "a.example.evil.example", "a.example:1", "", "localhost"] {
            assert_eq!(origin(&ours, host), "https://a.example", "{host}");
        }
        assert_eq!(origin(&[], "localhost:8080"), "http://localhost:8080");
        assert_eq!(origin(&[], "127.0.0.1:99"), "http://127.0.0.1:99");
        assert_eq!(origin(&[], "[::1]:99"), "http://[::1]:99");
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "localhost:80:80"]
        {
            assert_eq!(origin(&[], host), "http://localhost", "{host}");
        }
    }

    #[test]
    fn parameters_cannot_leave_their_place() {
        let whole = with_parameters("https://a.example/cb?x=1", &[("state", "a&b=c#d é"), ("code", "x")]);
        assert_eq!(whole, "https://a.example/cb?x=1&state=a%26b%3Dc%23d%20%C3%A9&code=x");
    }
}
