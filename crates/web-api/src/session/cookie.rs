//! The cookie that carries a session's token.

use axum::http::{HeaderMap, HeaderValue, header};
use trust::TokenSecret;

/// The cookie's name on plain loopback.
pub(super) const COOKIE: &str = "auscult_session";
/// The cookie's name over TLS: browsers bind it to the host.
pub(super) const SECURE_COOKIE: &str = "__Host-auscult_session";

/// What a request says under a cookie's name.
pub(crate) fn cookie_named(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, text)| text.to_owned())
}

/// The token that a request carries. None where a browser says that a page of another site makes it: that is never ours,
/// whatever cookies go along.
pub(crate) fn token_of(headers: &HeaderMap) -> Option<TokenSecret> {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return None;
    }
    // The one that browsers bind to the host goes first: a neighbour can plant the other.
    let token = cookie_named(headers, SECURE_COOKIE).or_else(|| cookie_named(headers, COOKIE))?;
    TokenSecret::parse(&token).ok()
}

/// The cookie that carries a token.
pub(crate) fn cookie(token: &TokenSecret, secure: bool) -> Option<HeaderValue> {
    let text = token.to_text();
    let line = if secure {
        format!("{SECURE_COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Secure", text.expose())
    } else {
        format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", text.expose())
    };
    HeaderValue::from_str(&line).ok()
}

/// The cookie that takes a token away.
pub(crate) fn no_cookie(secure: bool) -> HeaderValue {
    if secure {
        HeaderValue::from_static(
            "__Host-auscult_session=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0",
        )
    } else {
        HeaderValue::from_static("auscult_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}
