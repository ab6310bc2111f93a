//! Where a database is: the URL of an operator, with the TLS words that the client library does not know.

use std::path::PathBuf;

use tokio_postgres::config::{Host, SslMode};

use crate::OpenError;

/// How certain the server's identity must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// No TLS.
    Disabled,
    /// TLS; the server's certificate must be of this authority and name the server.
    Verified {
        /// PEM file of the authority.
        authority: PathBuf,
    },
}

/// A parsed URL.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: Tls,
}

impl Address {
    /// Takes `sslmode=verify-full` and `sslrootcert` out, and gives the rest to the client library.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let refuse = |what: &str| OpenError::Address { what: what.to_owned() };
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(refuse("it must begin with postgres://"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut mode = None;
        let mut authority = None;
        let mut rest: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => authority = Some(PathBuf::from(percent_decoded(value))),
                _ => rest.push(pair),
            }
        }
        let mut text = base.to_owned();
        if !rest.is_empty() {
            text.push('?');
            text.push_str(&rest.join("&"));
        }
        // The library's words may repeat the password; ours may not.
        let mut config: tokio_postgres::Config =
            text.parse().map_err(|_| refuse("it is not of the form postgres://user@host:port/database"))?;
        let tls = match (mode, authority) {
            (None | Some("disable"), None) => Tls::Disabled,
            (Some("disable"), Some(_)) => {
                return Err(refuse("sslrootcert says nothing where sslmode is disable"));
            }
            (None | Some("require" | "verify-ca" | "verify-full"), Some(authority)) => {
                Tls::Verified { authority }
            }
            (Some("require" | "verify-ca" | "verify-full"), None) => {
                return Err(refuse(
                    "sslmode asks for TLS: name the PEM file of the server's authority with sslrootcert=/path",
                ));
            }
            _ => return Err(refuse("sslmode must be disable or verify-full")),
        };
        config.ssl_mode(match tls {
            Tls::Disabled => SslMode::Disable,
            Tls::Verified { .. } => SslMode::Require,
        });
        Ok(Address { config, tls })
    }

    /// For messages: hosts, port and database, without user and password.
    pub(super) fn shown(&self) -> String {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let port = self.config.get_ports().first().map_or(String::new(), |port| format!(":{port}"));
        format!("postgres://{}{port}/{}", hosts.join(","), self.config.get_dbname().unwrap_or_default())
    }
}

/// `%2F` as `/`; anything else as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let decoded = digits.filter(|_| first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_secrets() {
        let address = Address::parse("postgres://ann:s3cret@db.example:6432/ward").unwrap();
        assert_eq!(
            (address.shown(), address.tls),
            ("postgres://db.example:6432/ward".to_owned(), Tls::Disabled)
        );
        let url =
            "postgresql://ann@db/ward?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&application_name=x";
        let authority = PathBuf::from("/etc/ca.pem");
        let address = Address::parse(url).unwrap();
        assert_eq!(address.tls, Tls::Verified { authority });
        assert_eq!(address.config.get_application_name(), Some("x"));
    }

    #[test]
    fn what_would_be_less_safe_than_it_sounds_is_refused() {
        for url in [
            "mysql://db/ward",
            "postgres://db/ward?sslmode=require",
            "postgres://db/ward?sslmode=prefer",
            "postgres://db/ward?sslmode=disable&sslrootcert=/ca.pem",
            "postgres://ann:s3cret@db:port/ward",
        ] {
            let Err(OpenError::Address { what }) = Address::parse(url) else { panic!("{url}") };
            assert!(!what.contains("s3cret"), "{what}");
        }
    }
}
