//! Who may know what: SQL, HTTP, FHIR, clocks, and the doors that only the store may open.

use super::Tree;
use super::tree::SourceFile;
use crate::finding::Finding;
use crate::rust_source::is_word;

/// Rooms whose functions see nothing but their arguments.
const PURE: [&str; 4] = ["clinical-model", "clinical-analytics", "device-codecs", "health-codecs"];

/// What would let a pure room see the world.
const IMPURE: [(&str, &str); 17] = [
    ("SystemTime::now", "reads a clock"),
    ("Instant::now", "reads a clock"),
    ("Timestamp::now", "reads a clock"),
    ("Zoned::now", "reads a clock"),
    ("now_v7", "reads a clock"),
    ("now_v1", "reads a clock"),
    ("new_v4", "draws a random number"),
    ("getrandom", "draws a random number"),
    ("rand::", "draws a random number"),
    ("std::fs", "reads files"),
    ("std::net", "uses the network"),
    ("std::env", "reads the environment"),
    ("std::process", "starts programs"),
    ("std::thread", "starts threads"),
    ("tokio", "does input and output"),
    ("println!", "prints"),
    ("eprintln!", "prints"),
];

/// A statement's beginning, in the capitals that all SQL of this house is written in.
const SQL: [&str; 5] = ["SELECT ", "INSERT INTO", "DELETE FROM", "CREATE TABLE", "CREATE INDEX"];

/// What makes a `static` changeable.
const CHANGEABLE: [&str; 7] = ["Mutex", "RwLock", "OnceLock", "OnceCell", "RefCell", "UnsafeCell", "DashMap"];

/// `Reading::restored` and `Committed::restored` skip validation, so only the store, which kept them, may call them.
/// Tests are exempt.
pub fn restored_only_by_the_store(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in product_files(tree).filter(|file| file.room() != "store") {
        for at in file.source.occurrences("::restored") {
            let owner = path_before(&file.source.code, at);
            if matches!(owner, "Reading" | "Committed") && !file.is_test_at(at) {
                findings.push(Finding::error(
                    &file.path,
                    file.source.line_of(at),
                    format!("`{owner}::restored` is called outside the store"),
                    "a reading is built by validation, and committed by the store; take it from there",
                ));
            }
        }
    }
    findings
}

/// SQL lives in `store`, HTTP statuses in `web-api`, FHIR in `health-codecs`. Tests are exempt.
pub fn syntax_stays_at_home(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in product_files(tree) {
        for string in file.source.strings.iter().filter(|string| !file.is_test_at(string.offset)) {
            let line = file.source.line_of(string.offset);
            if file.room() != "store" && SQL.iter().any(|statement| string.text.contains(statement)) {
                findings.push(Finding::error(
                    &file.path,
                    line,
                    "SQL outside `store`",
                    "ask for what is needed through the Store trait",
                ));
            }
            if file.room() != "health-codecs" && string.text.contains("resourceType") {
                findings.push(Finding::error(
                    &file.path,
                    line,
                    "FHIR syntax outside `health-codecs`",
                    "build or read the resource with a function of `health-codecs`",
                ));
            }
        }
        if file.room() == "web-api" {
            continue;
        }
        for at in file.source.occurrences("StatusCode").filter(|at| !file.is_test_at(*at)) {
            findings.push(Finding::error(
                &file.path,
                file.source.line_of(at),
                "an HTTP status outside `web-api`",
                "give a typed error, and let `web-api` choose the status",
            ));
        }
    }
    findings
}

/// The model, the analytics and the codecs do no I/O, read no clock and draw no random number. Tests are exempt.
pub fn pure_rooms(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in product_files(tree).filter(|file| PURE.contains(&file.room())) {
        for (token, deed) in IMPURE {
            for at in file.source.occurrences(token).filter(|at| !file.is_test_at(*at)) {
                findings.push(Finding::error(
                    &file.path,
                    file.source.line_of(at),
                    format!("`{token}` {deed}, and `{}` may not", file.room()),
                    "take what is needed as an argument",
                ));
            }
        }
    }
    findings
}

/// No process-wide mutable state. Tests are exempt.
pub fn no_process_wide_state(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in product_files(tree) {
        let code = &file.source.code;
        let statics = file.source.occurrences("static ").filter(|at| {
            // `&'static str` is a lifetime, and `static ||` a closure.
            let lifetime = code[..*at].ends_with('\'');
            let declaration = code[*at..].split([';', '{']).next().unwrap_or_default();
            let kind = declaration.split('=').next().unwrap_or_default();
            let changeable = kind.split(|c: char| !c.is_alphanumeric()).any(is_changeable);
            !lifetime && (declaration.starts_with("static mut ") || (kind.contains(':') && changeable))
        });
        for at in statics.chain(file.source.occurrences("thread_local!")).filter(|at| !file.is_test_at(*at)) {
            findings.push(Finding::error(
                &file.path,
                file.source.line_of(at),
                "state that belongs to the whole process",
                "put it in a struct that its users are given: tests run side by side, and so may servers",
            ));
        }
    }
    findings
}

fn is_changeable(word: &str) -> bool {
    CHANGEABLE.contains(&word) || word.starts_with("Atomic")
}

/// xtask is exempt: it is a tool, and its rules spell what they look for.
fn product_files(tree: &Tree) -> impl Iterator<Item = &SourceFile> {
    tree.rust.iter().filter(|file| file.path.starts_with("crates/"))
}

/// The last name of a path before `::something`, generic arguments skipped: `Committed` of `Committed::<Reading>`.
fn path_before(code: &str, at: usize) -> &str {
    let mut head = code[..at].trim_end();
    if head.ends_with('>') {
        let mut depth = 0_usize;
        let open = head.char_indices().rev().find(|(_, c)| {
            match c {
                '>' => depth += 1,
                '<' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        head = open.map_or("", |(open, _)| head[..open].trim_end().trim_end_matches("::").trim_end());
    }
    let start = head.bytes().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
    &head[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: fn(&Tree) -> Vec<Finding>, room: &str, text: &str) -> Vec<usize> {
        let tree = Tree::of(&[(&format!("crates/{room}/src/lib.rs"), text)]);
        rule(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn restoring_outside_the_store_is_found() {
        let rule = restored_only_by_the_store;
        assert_eq!(lines(rule, "pipeline", "fn f() {\n    Reading::restored(x);\n}"), [2]);
        assert_eq!(lines(rule, "web-api", "let c = model::Committed::<Vec<Reading>>::restored(x);"), [1]);
        assert_eq!(lines(rule, "pipeline", "iter.map(Committed::restored)"), [1]);
        assert_eq!(lines(rule, "store", "Reading::restored(x);"), [0; 0]);
        assert_eq!(
            lines(rule, "pipeline", "// Reading::restored is for the store\nBackup::restored(x);"),
            [0; 0]
        );
        assert_eq!(
            lines(rule, "pipeline", "#[cfg(test)]\nmod tests { fn f() { Reading::restored(x); } }"),
            [0; 0]
        );
    }

    #[test]
    fn sql_outside_the_store_is_found() {
        let rule = syntax_stays_at_home;
        assert_eq!(lines(rule, "pipeline", "\nlet q = \"SELECT id FROM device\";"), [2]);
        assert_eq!(lines(rule, "server", "let q = r#\"INSERT INTO x\"#;"), [1]);
        assert_eq!(lines(rule, "store", "let q = \"SELECT id FROM device\";"), [0; 0]);
        assert_eq!(lines(rule, "web-api", "let q = \"SELECTED\"; // \"SELECT 1\""), [0; 0]);
        assert_eq!(
            lines(rule, "server", "#[cfg(test)]\nmod tests { fn f() { q(\"DELETE FROM x\"); } }"),
            [0; 0]
        );
    }

    #[test]
    fn http_and_fhir_away_from_home_are_found() {
        let rule = syntax_stays_at_home;
        assert_eq!(lines(rule, "connectors", "use reqwest::StatusCode;"), [1]);
        assert_eq!(lines(rule, "web-api", "use axum::http::StatusCode;"), [0; 0]);
        assert_eq!(lines(rule, "simulator", "json!({ \"resourceType\": \"Patient\" })"), [1]);
        assert_eq!(lines(rule, "web-api", "const X: &str = r#\"{\"resourceType\":\"Bundle\"}\"#;"), [1]);
        assert_eq!(lines(rule, "health-codecs", "json!({ \"resourceType\": \"Patient\" })"), [0; 0]);
        let tree = Tree::of(&[("crates/server/tests/main.rs", "StatusCode::OK; \"resourceType\";")]);
        assert_eq!(rule(&tree), []);
    }

    #[test]
    fn a_pure_room_that_looks_out_is_found() {
        for (token, _) in IMPURE {
            let text = format!("fn f() {{\n    {token} x();\n}}");
            assert_eq!(lines(pure_rooms, "device-codecs", &text), [2], "{token}");
            assert_eq!(lines(pure_rooms, "pipeline", &text), [0; 0], "{token}");
        }
        assert_eq!(lines(pure_rooms, "clinical-model", "let brand::x = operand::y; // std::fs"), [0; 0]);
        assert_eq!(lines(pure_rooms, "clinical-model", "#[cfg(test)]\nmod t { use std::fs; }"), [0; 0]);
    }

    #[test]
    fn process_wide_state_is_found() {
        let rule = no_process_wide_state;
        assert_eq!(lines(rule, "store", "static mut COUNT: u32 = 0;"), [1]);
        assert_eq!(lines(rule, "store", "\nstatic COUNT: AtomicU32 = AtomicU32::new(0);"), [2]);
        assert_eq!(lines(rule, "store", "pub static POOL: OnceLock<Pool> = OnceLock::new();"), [1]);
        assert_eq!(lines(rule, "store", "static X: LazyLock<std::sync::Mutex<u8>> = LazyLock::new(f);"), [1]);
        assert_eq!(lines(rule, "store", "thread_local! { static Y: u8 = 0; }"), [1]);
        assert_eq!(lines(rule, "store", "static NAMES: [&str; 2] = [\"a\", \"b\"];"), [0; 0]);
        assert_eq!(lines(rule, "store", "fn f(a: &'static str, b: Mutex<u8>) -> u8 { 0 }"), [0; 0]);
        assert_eq!(
            lines(rule, "store", "#[cfg(test)]\nmod t { static A: AtomicU8 = AtomicU8::new(0); }"),
            [0; 0]
        );
    }
}
