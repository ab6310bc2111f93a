//! Error messages: a message never repeats its source, since whoever prints the chain prints that as well.

use super::Tree;
use super::tree::SourceFile;
use crate::finding::Finding;

const MARK: &str = "#[error(";

/// Looks at every `#[error("…")]`: by name (`{source}`), and by position where the only field is the source.
pub fn sources_are_not_repeated(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        for at in file.source.occurrences(MARK) {
            let attribute_end = file.source.after_closing(at + 1);
            let message =
                file.source.strings.iter().find(|string| (at..attribute_end).contains(&string.offset));
            let Some(message) = message else { continue };
            let named = message.text.contains("{source");
            let positional = message.text.contains("{0") && first_field_is_source(file, attribute_end);
            if named || positional {
                findings.push(Finding::error(
                    &file.path,
                    file.source.line_of(message.offset),
                    "the message repeats its source",
                    "say what was being done; the cause follows in the chain by itself",
                ));
            }
        }
    }
    findings
}

/// Whether the variant behind an attribute is `Name(#[from] …` or `Name(#[source] …`.
fn first_field_is_source(file: &SourceFile, mut at: usize) -> bool {
    let code = &file.source.code;
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if !code[at..].starts_with("#[") {
            break;
        }
        at = file.source.after_closing(at + 1);
    }
    let Some((_, fields)) = code[at..].split_once('(').filter(|(name, _)| is_name(name)) else {
        return false;
    };
    let fields = fields.trim_start();
    fields.starts_with("#[from]") || fields.starts_with("#[source]")
}

fn is_name(text: &str) -> bool {
    text.split_whitespace().all(|word| word.chars().all(|c| c.is_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let tree = Tree::of(&[("crates/a/src/lib.rs", text)]);
        sources_are_not_repeated(&tree).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_message_that_repeats_its_source_is_found() {
        assert_eq!(
            lines("#[error(\"{path} cannot be read: {source}\")]\nRead { path: String, source: Io },"),
            [1]
        );
        assert_eq!(lines("#[error(\"cannot be read: {source:?}\")]\nRead { source: Io },"), [1]);
        assert_eq!(lines("enum E {\n#[error(\"broken: {0}\")]\n#[doc(hidden)]\nBroken(#[from] Io),\n}"), [2]);
        assert_eq!(lines("#[error(\n    \"broken: {0:?}\"\n)]\nstruct Broken(#[source] Io);"), [2]);
    }

    #[test]
    fn honest_messages_pass() {
        assert_eq!(lines("#[error(\"{path} cannot be read\")]\nRead { path: String, source: Io },"), [0; 0]);
        assert_eq!(
            lines("#[error(\"{0} is not a unit\")]\nUnit(String),\n#[error(\"x\")]\nY(#[from] Io),"),
            [0; 0]
        );
        assert_eq!(lines("#[error(transparent)]\nOther(#[from] Io),"), [0; 0]);
        assert_eq!(lines("// #[error(\"{source}\")]\nfn f() { \"#[error({source})]\"; }"), [0; 0]);
    }
}
