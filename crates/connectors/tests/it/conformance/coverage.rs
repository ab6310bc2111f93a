//! Which statement is shown by which cases: every one, or a reason why not. The table in the book is made here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::all_cases;
use super::script::{VERSIONS, Version};

/// Set to write the table into the book instead of comparing it.
const WRITE: &str = "AUSCULT_WRITE_DOCS";

const BEGIN: &str = "<!-- made by crates/connectors/tests/it/conformance/coverage.rs: begin -->\n";
const END: &str = "<!-- end -->\n";

/// Why a statement has no case, and what the book says about it.
const REASONS: [(&str, &str); 5] = [
    ("client", "binds the client"),
    (
        "broker",
        "about messages passed on between clients or retained for them: here nobody publishes to anybody else",
    ),
    (
        "never",
        "about what this server never sends or offers, and says so where the protocol has words for it",
    ),
    ("ours", "**not kept, on purpose**: a lost link is shown at once, whatever delay a will asks for"),
    ("websocket", "there is no WebSocket transport"),
];

struct Statement {
    id: String,
    words: String,
    without_case: Option<String>,
}

fn statements(version: Version) -> Vec<Statement> {
    let text = match version {
        Version::V3 => include_str!("statements/v3.txt"),
        Version::V5 => include_str!("statements/v5.txt"),
    };
    let read = |line: &str| {
        let mut fields = line.split('|').map(|field| field.trim().to_owned());
        let (id, words) = (fields.next().unwrap(), fields.next().expect("a statement has words"));
        Statement { id, words, without_case: fields.next() }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(read).collect()
}

/// How many cases show each statement of a version.
fn shown(version: Version) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for case in all_cases() {
        for (_, id) in case.proves.iter().filter(|(of, _)| *of == version) {
            *count.entry(id.clone()).or_default() += 1;
        }
    }
    count
}

#[test]
fn every_statement_has_a_case_or_a_reason_and_never_both() {
    for (version, expected) in [(Version::V3, 141), (Version::V5, 251)] {
        let statements = statements(version);
        assert_eq!(statements.len(), expected, "{version:?}: all of them are listed");
        let shown = shown(version);
        for statement in &statements {
            let cases = shown.get(&statement.id).copied().unwrap_or(0);
            let id = &statement.id;
            match &statement.without_case {
                None => assert!(cases > 0, "{version:?} {id} has no case"),
                Some(reason) => {
                    assert_eq!(cases, 0, "{version:?} {id} has cases and a reason for none");
                    assert!(test_named(reason) || because(reason).is_some(), "{version:?} {id}: {reason}");
                }
            }
        }
        for id in shown.keys() {
            assert!(statements.iter().any(|statement| statement.id == *id), "{version:?}: there is no {id}");
        }
    }
}

fn because(reason: &str) -> Option<&'static str> {
    REASONS.iter().find(|(name, _)| *name == reason).map(|(_, words)| *words)
}

/// Whether `elsewhere x` names a test of this room.
fn test_named(reason: &str) -> bool {
    let Some(name) = reason.strip_prefix("elsewhere ") else { return false };
    let function = format!("fn {name}(");
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["src/mqtt/protocol/tests", "tests/it"].iter().any(|folder| {
        let files = std::fs::read_dir(room.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.is_file())
            .any(|path| std::fs::read_to_string(path).unwrap().contains(&function))
    })
}

fn table(version: Version) -> String {
    let shown = shown(version);
    let statements = statements(version);
    let without = statements.iter().filter(|statement| statement.without_case.is_some());
    let elsewhere = without.clone().filter(|one| test_named(one.without_case.as_ref().unwrap())).count();
    let applicable = statements.len() - without.count() + elsewhere;
    let cases = all_cases().iter().filter(|case| case.is_for(version)).count();
    let mut out = format!(
        "\n{} statements; {applicable} apply to this endpoint, and each of them is shown: {} by {cases} cases, {elsewhere} by \
         other tests.\n\n| Statement | In a few words | Shown by |\n|---|---|---|\n",
        statements.len(),
        applicable - elsewhere,
    );
    for Statement { id, words, without_case } in &statements {
        let by = match (without_case, shown.get(id)) {
            (None, Some(1)) => "1 case".to_owned(),
            (None, cases) => format!("{} cases", cases.copied().unwrap_or(0)),
            (Some(reason), _) => match because(reason) {
                Some(words) => format!("– {words}"),
                None => format!("`{}`", reason.trim_start_matches("elsewhere ")),
            },
        };
        writeln!(out, "| {id} | {words} | {by} |").unwrap();
    }
    out
}

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/mqtt.md")
}

#[test]
fn the_table_in_the_book_is_the_suites() {
    let mut made = BEGIN.to_owned();
    for version in VERSIONS {
        let name = if version == Version::V3 { "3.1.1" } else { "5.0" };
        made += &format!("\n### MQTT {name}\n{}", table(version));
    }
    made += "\n";
    let text = std::fs::read_to_string(book()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the book has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table in the book ends");
    let expected = format!("{before}{made}{END}{after}");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(book(), &expected).unwrap();
    } else {
        assert!(
            text == expected,
            "the table is old; {WRITE}=1 cargo test -p connectors conformance writes it anew"
        );
    }
}
