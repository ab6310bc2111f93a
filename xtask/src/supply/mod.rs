//! What other people's code may enter the product: licences, bans and sources, for crates and for npm packages.

mod crates;
mod npm;

use anyhow::bail;
use spdx::{Expression, Licensee, ParseMode};

use crate::finding;
use crate::workshop::Workshop;

/// Checks the lock files against both policies, offline unless cargo lacks a crate's manifest.
pub fn run(workshop: &Workshop) -> anyhow::Result<()> {
    let mut findings = crates::check_workspace(workshop)?;
    findings.extend(npm::check_all(workshop)?);
    match finding::report(findings) {
        0 => Ok(()),
        errors => bail!("{errors} faults in what we build on, named above"),
    }
}

/// A list of licences that may be relied upon.
struct Allowed(Vec<Licensee>);

impl Allowed {
    fn parse<'a>(names: impl IntoIterator<Item = &'a String>) -> anyhow::Result<Self> {
        let licensees = names.into_iter().map(|name| match Licensee::parse(name) {
            Ok(licensee) => Ok(licensee),
            Err(error) => bail!("`{name}` in the list of allowed licences is no licence: {error}"),
        });
        Ok(Self(licensees.collect::<anyhow::Result<_>>()?))
    }

    /// Why this licence expression cannot be satisfied from the list, or nothing.
    fn fault(&self, licence: Option<&str>) -> Option<String> {
        let Some(licence) = licence.filter(|licence| !licence.trim().is_empty()) else {
            return Some("it states no licence".to_owned());
        };
        let expression = match Expression::parse_mode(licence, ParseMode::LAX) {
            Ok(expression) => expression,
            Err(error) => {
                return Some(format!("its licence `{licence}` is not an SPDX expression: {}", error.reason));
            }
        };
        let satisfied =
            expression.evaluate(|required| self.0.iter().any(|allowed| allowed.satisfies(required)));
        (!satisfied).then(|| format!("its licence `{licence}` is not allowed"))
    }
}

/// The line of a lock file on which this text first stands; 0 when it does not.
fn line_with(lock: &str, text: &str) -> usize {
    lock.lines().position(|line| line.contains(text)).map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_choices_and_sums() {
        let names = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"].map(str::to_owned);
        let allowed = Allowed::parse(&names).unwrap();
        for fine in [
            "MIT",
            "GPL-3.0-only OR MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(allowed.fault(Some(fine)), None, "{fine}");
        }
        for planted in
            ["MPL-2.0", "MIT AND GPL-3.0-only", "MIT AND (ISC OR Zlib)", "SEE LICENSE IN x", "", "AGPL-3.0"]
        {
            assert!(allowed.fault(Some(planted)).is_some(), "{planted}");
        }
        assert_eq!(allowed.fault(None).unwrap(), "it states no licence");
    }

    #[test]
    fn a_misspelled_licence_in_the_list_is_refused() {
        let error = Allowed::parse(&["Mitt".to_owned()]).err().unwrap();
        assert!(error.to_string().starts_with("`Mitt`"), "{error}");
    }
}
