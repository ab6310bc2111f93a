//! The address of a database, whose password no output shows.

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// The address of a database with its password, which neither `Debug` nor `Display` shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole address. Never print it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it looks like one.
    ///
    /// # Errors
    /// When it does not; the sentence shows no password.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.0.starts_with("postgres://") || self.0.starts_with("postgresql://") {
            return Ok(());
        }
        bail!("\"{self}\" is no address of a database; write postgres://USER:PASSWORD@HOST:PORT/DATABASE")
    }
}

impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is not understood is not shown: a password may stand anywhere in it.
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("…") };
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
        let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
        let user = user.split(':').next().unwrap_or_default();
        let at = if user.is_empty() { "" } else { "@" };
        let mode = query.split('&').find(|part| part.starts_with("sslmode="));
        let mode = mode.map(|mode| format!("?{mode}")).unwrap_or_default();
        write!(f, "{scheme}://{user}{at}{host}{mode}")
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let url = DatabaseUrl(text.to_owned());
        url.check()?;
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_password_is_shown() {
        for (url, shown) in [
            (
                "postgres://auscult:se:cr@et@db.example:5432/auscult",
                "postgres://auscult@db.example:5432/auscult",
            ),
            (
                "postgres://db.example/a?password=secret&sslmode=disable",
                "postgres://db.example/a?sslmode=disable",
            ),
            ("host=db.example password=secret", "…"),
        ] {
            let url = DatabaseUrl(url.to_owned());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }
}
