//! What all searches share: reading names and values, tokens, references, counts, cursors.

use super::super::element::cut;
use super::super::outcome::{IssueCode, OutcomeIssue};
use super::super::validate::is_id;
use super::date::DateFilter;
use super::{ALTERNATIVE_LIMIT, COUNT_LIMIT, PARAMETER_LIMIT, Parameter, VALUE_LIMIT_BYTES};

/// Longest `_cursor`, in bytes.
const CURSOR_LIMIT_BYTES: usize = 512;

/// A token value (R4 §3.1.1.4.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// `None`: any system. `Some("")`: explicitly no system.
    pub system: Option<String>,
    /// `None`: any code of the system.
    pub code: Option<String>,
}

/// Collects issues while parameters are read.
pub(super) struct Params<'p> {
    given: &'p [(String, String)],
    supported: &'static [Parameter],
    pub(super) issues: Vec<OutcomeIssue>,
}

impl<'p> Params<'p> {
    /// Refuses what is not supported before anything is read.
    pub(super) fn new(given: &'p [(String, String)], supported: &'static [Parameter]) -> Self {
        let mut params = Params { given, supported, issues: Vec::new() };
        if given.len() > PARAMETER_LIMIT {
            let what = format!("{} parameters; {PARAMETER_LIMIT} are read at most", given.len());
            params.issues.push(OutcomeIssue::error(IssueCode::TooLong, what, ""));
            params.given = &[];
        }
        for (name, value) in params.given {
            params.admit(name, value);
        }
        params
    }

    fn admit(&mut self, name: &str, value: &str) {
        let known = |name: &str| self.supported.iter().any(|(known, _, _)| *known == name);
        let of_known = name.split_once(':').filter(|(bare, _)| known(bare) && !known(name));
        if let Some((bare, modifier)) = of_known {
            let what = format!("the modifier :{} of {bare} is not supported", cut(modifier));
            self.refuse(bare, IssueCode::NotSupported, what);
            return;
        }
        match name {
            "_format" => {
                let json = ["json", "text/json", "application/json", super::super::MEDIA_TYPE];
                // An unescaped + arrives as a space.
                let mended = value.replace(' ', "+");
                let bare = mended.split(';').next().unwrap_or("").trim();
                if !json.contains(&bare) {
                    let what = format!("the format \"{}\" is not supported: JSON is", cut(value));
                    self.refuse(name, IssueCode::NotSupported, what);
                }
            }
            "_pretty" => {}
            _ if known(name) => {
                if value.trim().is_empty() {
                    self.refuse(name, IssueCode::Value, format!("{name} has no value"));
                } else if value.len() > VALUE_LIMIT_BYTES {
                    let what = format!("{name} is longer than {VALUE_LIMIT_BYTES} bytes");
                    self.refuse(name, IssueCode::TooLong, what);
                }
            }
            _ => {
                let names: Vec<&str> = self.supported.iter().map(|(name, _, _)| *name).collect();
                let what = format!(
                    "the parameter \"{}\" is not supported here; supported are {}",
                    cut(name),
                    names.join(", ")
                );
                self.refuse(&cut(name), IssueCode::NotSupported, what);
            }
        }
    }

    pub(super) fn refuse(&mut self, name: &str, code: IssueCode, what: impl Into<String>) {
        self.issues.push(OutcomeIssue::error(code, what, format!("http.{name}")));
    }

    /// Every occurrence of a parameter; an occurrence that was refused already is left out.
    pub(super) fn values(&self, name: &str) -> Vec<&'p str> {
        let sound = |value: &str| !value.trim().is_empty() && value.len() <= VALUE_LIMIT_BYTES;
        self.given
            .iter()
            .filter(|(given, value)| given == name && sound(value))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    /// A parameter that may be given once.
    pub(super) fn once(&mut self, name: &str) -> Option<&'p str> {
        let values = self.values(name);
        if values.len() > 1 {
            self.refuse(name, IssueCode::Value, format!("{name} may be given once"));
        }
        values.first().copied()
    }

    /// Each occurrence as its alternatives, still escaped.
    fn alternatives(&mut self, name: &str) -> Vec<Vec<&'p str>> {
        let mut all = Vec::new();
        for value in self.values(name) {
            let parts = split(value, ',');
            if parts.len() > ALTERNATIVE_LIMIT {
                let what = format!("{} alternatives; {ALTERNATIVE_LIMIT} are read at most", parts.len());
                self.refuse(name, IssueCode::TooLong, what);
            } else if parts.iter().any(|part| part.trim().is_empty()) {
                self.refuse(name, IssueCode::Value, format!("{name} has an empty alternative"));
            } else {
                all.push(parts);
            }
        }
        all
    }

    /// One set of alternatives: what every occurrence allows. `None` where the parameter is not given.
    pub(super) fn any_of<T: PartialEq>(
        &mut self,
        names: &[&str],
        mut read: impl FnMut(&str, &str) -> Result<Vec<T>, OutcomeIssue>,
    ) -> Option<Vec<T>> {
        let mut allowed: Option<Vec<T>> = None;
        for name in names {
            for alternatives in self.alternatives(name) {
                let mut here: Vec<T> = Vec::new();
                for alternative in alternatives {
                    match read(name, alternative) {
                        Ok(found) => found.into_iter().for_each(|each| {
                            if !here.contains(&each) {
                                here.push(each);
                            }
                        }),
                        Err(issue) => self.issues.push(issue),
                    }
                }
                allowed = Some(match allowed {
                    None => here,
                    Some(before) => before.into_iter().filter(|each| here.contains(each)).collect(),
                });
            }
        }
        allowed
    }

    /// Every date condition; all must fit.
    pub(super) fn dates(&mut self, name: &str) -> Vec<DateFilter> {
        let mut filters = Vec::new();
        for alternatives in self.alternatives(name) {
            match alternatives[..] {
                [value] => match DateFilter::parse(name, &unescape(value)) {
                    Ok(filter) => filters.push(filter),
                    Err(issue) => self.issues.push(issue),
                },
                _ => {
                    let what =
                        format!("alternatives of {name} are not supported; repeat it to narrow a span");
                    self.refuse(name, IssueCode::NotSupported, what);
                }
            }
        }
        filters
    }

    /// `_count` from 1; more than [`COUNT_LIMIT`] is cut to it.
    pub(super) fn count(&mut self) -> Option<u16> {
        self.whole("_count", u64::MAX)
            .map(|count| u16::try_from(count).unwrap_or(COUNT_LIMIT).min(COUNT_LIMIT))
    }

    /// A whole number from 1 to `most`.
    pub(super) fn whole(&mut self, name: &str, most: u64) -> Option<u64> {
        let value = self.once(name)?;
        match value.parse::<u64>() {
            Ok(number) if (1..=most).contains(&number) => Some(number),
            _ => {
                let upper = if most == u64::MAX { String::new() } else { format!(" to {most}") };
                let what = format!("\"{}\" is no whole number from 1{upper}", cut(value));
                self.refuse(name, IssueCode::Value, what);
                None
            }
        }
    }

    /// The opaque token of a next page.
    pub(super) fn cursor(&mut self) -> Option<String> {
        let value = self.once("_cursor")?;
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=');
        if value.len() > CURSOR_LIMIT_BYTES || !value.bytes().all(sound) {
            self.refuse(
                "_cursor",
                IssueCode::Value,
                "the cursor is none of ours; follow the next link as it is",
            );
            return None;
        }
        Some(value.to_owned())
    }

    /// The search, unless something was refused.
    pub(super) fn finish<T>(self, search: T) -> Result<T, Vec<OutcomeIssue>> {
        if self.issues.is_empty() { Ok(search) } else { Err(self.issues) }
    }
}

/// Splits at a separator that is not escaped by a backslash.
pub(super) fn split(value: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in value.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.push(&value[start..at]);
            start = at + c.len_utf8();
        }
    }
    parts.push(&value[start..]);
    parts
}

/// Takes the backslashes away.
pub(super) fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            _ => text.push(c),
        }
    }
    text
}

/// `code`, `system|code`, `|code` or `system|`.
pub(super) fn token(name: &str, value: &str) -> Result<Token, OutcomeIssue> {
    let parts = split(value, '|');
    let bad = || {
        let what = format!("\"{}\" is no token: expected code, system|code, |code or system|", cut(value));
        OutcomeIssue::error(IssueCode::Value, what, format!("http.{name}"))
    };
    match parts[..] {
        [code] => Ok(Token { system: None, code: Some(unescape(code)) }),
        ["", ""] => Err(bad()),
        [system, ""] => Ok(Token { system: Some(unescape(system)), code: None }),
        [system, code] => Ok(Token { system: Some(unescape(system)), code: Some(unescape(code)) }),
        _ => Err(bad()),
    }
}

/// `Type/id` or a bare id. Gives the type where it is named, and the id.
pub(super) fn reference<'v>(
    name: &str,
    value: &'v str,
    types: &[&str],
) -> Result<(Option<&'v str>, &'v str), OutcomeIssue> {
    let bad = || {
        let what =
            format!("\"{}\" is no reference: expected an id or {}/id", cut(value), types.join("/id, "));
        OutcomeIssue::error(IssueCode::Value, what, format!("http.{name}"))
    };
    match value.split_once('/') {
        None if is_id(value) => Ok((None, value)),
        Some((kind, id)) if types.contains(&kind) && is_id(id) => Ok((Some(kind), id)),
        _ => Err(bad()),
    }
}

/// Ids of a reference parameter with one target type: well-formed ids that are no UUID match nothing.
pub(super) fn ids_of<T: std::str::FromStr>(
    name: &str,
    value: &str,
    kind: &str,
) -> Result<Vec<T>, OutcomeIssue> {
    let (_, id) = reference(name, value, &[kind])?;
    Ok(id.parse().ok().into_iter().collect())
}

/// Ids of `_id`.
pub(super) fn own_id<T: std::str::FromStr>(name: &str, value: &str) -> Result<Vec<T>, OutcomeIssue> {
    if !is_id(value) {
        let what = format!("\"{}\" is no id", cut(value));
        return Err(OutcomeIssue::error(IssueCode::Value, what, format!("http.{name}")));
    }
    Ok(value.parse().ok().into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_split_where_not_escaped() {
        assert_eq!(split("a,b\\,c,,d", ','), ["a", "b\\,c", "", "d"]);
        assert_eq!(unescape("b\\,c\\\\d\\"), "b,c\\d");
        let read = |value: &str| token("code", value).unwrap();
        assert_eq!(read("a\\|b"), Token { system: None, code: Some("a|b".into()) });
        assert_eq!(read("|b"), Token { system: Some("".into()), code: Some("b".into()) });
        assert_eq!(read("s|"), Token { system: Some("s".into()), code: None });
        assert!(token("code", "|").is_err() && token("code", "a|b|c").is_err());
    }
}
