//! Rust source told apart into code, strings and comments, with the parts that are tests: enough for house rules,
//! without a compiler.

use std::ops::Range;

/// A string literal of the source.
#[derive(Debug, PartialEq, Eq)]
pub struct StringLiteral {
    /// Where it starts, in bytes from the start of the file.
    pub offset: usize,
    /// What stands between its quotes, escapes unread.
    pub text: String,
}

/// One source file, taken apart.
pub struct RustSource {
    /// The source, same length and lines, with comments, strings and characters replaced by spaces.
    pub code: String,
    /// Every string literal, in order.
    pub strings: Vec<StringLiteral>,
    /// Modules that are declared for tests and live in files of their own: `#[cfg(test)] mod suite;`.
    pub test_modules: Vec<String>,
    test_regions: Vec<Range<usize>>,
    line_starts: Vec<usize>,
}

impl RustSource {
    /// Takes a source apart. Source that does not compile gives some answer, never a panic.
    pub fn parse(text: &str) -> Self {
        let mut lexer =
            Lexer { bytes: text.as_bytes(), at: 0, code: Vec::with_capacity(text.len()), strings: vec![] };
        lexer.run();
        // Only ASCII and spaces were put in.
        let code = String::from_utf8_lossy(&lexer.code).into_owned();
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1))
            .collect();
        let mut source =
            Self { code, strings: lexer.strings, test_modules: vec![], test_regions: vec![], line_starts };
        source.find_tests();
        source
    }

    /// The line of a byte, from 1.
    pub fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Whether a byte stands in an item that is compiled for tests only.
    pub fn is_test(&self, offset: usize) -> bool {
        self.test_regions.iter().any(|region| region.contains(&offset))
    }

    /// Where these characters stand in code, whole words only when they begin or end with a word character.
    pub fn occurrences<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(needle).map(|(at, _)| at).filter(move |at| {
            let code = self.code.as_bytes();
            let end = at + needle.len();
            let joins = |inside: Option<&u8>, outside: Option<&u8>| {
                inside.is_some_and(|byte| is_word(*byte)) && outside.is_some_and(|byte| is_word(*byte))
            };
            let before = at.checked_sub(1).and_then(|before| code.get(before));
            !joins(code.get(*at), before) && !joins(code.get(end - 1), code.get(end))
        })
    }

    /// The byte after the bracket that closes the one at `open`, or the end of the file.
    pub fn after_closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (at, byte) in self.code.bytes().enumerate().skip(open) {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return at + 1;
                    }
                }
                _ => {}
            }
        }
        self.code.len()
    }

    fn find_tests(&mut self) {
        let mut regions = Vec::new();
        let mut modules = Vec::new();
        for (start, mark) in self.code.match_indices("#[cfg(").chain(self.code.match_indices("#![cfg(")) {
            let bracket = start + mark.len() - "[cfg(".len();
            let attribute_end = self.after_closing(bracket);
            let condition = &self.code[bracket..attribute_end];
            if !has_word(condition, "test") || condition.contains("not(test") {
                continue;
            }
            if mark.starts_with("#!") {
                regions.push(0..self.code.len());
                continue;
            }
            let item_end = self.item_end(attribute_end);
            let item = self.code[attribute_end..item_end].trim();
            if let Some(name) = item.strip_suffix(';').and_then(|item| item.split("mod ").nth(1)) {
                modules.push(name.trim().to_owned());
            }
            regions.push(start..item_end);
        }
        self.test_regions = regions;
        self.test_modules = modules;
    }

    /// Where the item that begins at `start` ends: after its body, or after its semicolon.
    fn item_end(&self, start: usize) -> usize {
        let code = self.code.as_bytes();
        let mut at = start;
        while let Some(byte) = code.get(at) {
            match byte {
                b';' => return at + 1,
                b'{' => return self.after_closing(at),
                b'(' | b'[' => at = self.after_closing(at),
                _ => at += 1,
            }
        }
        code.len()
    }
}

/// Whether a byte can stand in an identifier.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|part| part == word)
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    code: Vec<u8>,
    strings: Vec<StringLiteral>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'/', Some(b'/')) => {
                    let end = self.find_from(self.at, b"\n").unwrap_or(self.bytes.len());
                    self.blank_to(end);
                }
                (b'/', Some(b'*')) => self.block_comment(),
                (b'"', _) => self.plain_string(),
                (b'r', _) if !self.after_word() => self.raw_string_or_code(),
                (b'b' | b'c', Some(b'r')) if !self.after_word() => {
                    self.keep();
                    self.raw_string_or_code();
                }
                (b'b' | b'c', Some(b'"' | b'\'')) if !self.after_word() => self.keep(),
                (b'\'', _) => self.character_or_lifetime(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    /// Whether the byte before belongs to an identifier that is longer than a string's one- or two-letter prefix.
    fn after_word(&self) -> bool {
        self.at.checked_sub(1).is_some_and(|before| is_word(self.bytes[before]))
    }

    fn keep(&mut self) {
        let byte = self.bytes[self.at];
        self.code.push(if byte.is_ascii() { byte } else { b' ' });
        self.at += 1;
    }

    fn blank_to(&mut self, end: usize) {
        let end = end.min(self.bytes.len());
        for byte in &self.bytes[self.at..end] {
            self.code.push(if *byte == b'\n' { b'\n' } else { b' ' });
        }
        self.at = end;
    }

    fn find_from(&self, start: usize, needle: &[u8]) -> Option<usize> {
        let rest = self.bytes.get(start..)?;
        rest.windows(needle.len()).position(|window| window == needle).map(|at| start + at)
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut end = self.at;
        while end < self.bytes.len() {
            if self.bytes[end..].starts_with(b"/*") {
                depth += 1;
                end += 2;
            } else if self.bytes[end..].starts_with(b"*/") {
                depth -= 1;
                end += 2;
                if depth == 0 {
                    break;
                }
            } else {
                end += 1;
            }
        }
        self.blank_to(end);
    }

    fn take_string(&mut self, open: usize, close: usize, end: usize) {
        let text = self.bytes.get(open..close).unwrap_or_default();
        self.strings
            .push(StringLiteral { offset: self.at, text: String::from_utf8_lossy(text).into_owned() });
        self.blank_to(end);
    }

    fn plain_string(&mut self) {
        let mut end = self.at + 1;
        while end < self.bytes.len() && self.bytes[end] != b'"' {
            end += if self.bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.take_string(self.at + 1, end.min(self.bytes.len()), end + 1);
    }

    /// At an `r`: either `r"…"`, `r#"…"#`, or an identifier that happens to begin so.
    fn raw_string_or_code(&mut self) {
        let hashes = self.bytes[self.at + 1..].iter().take_while(|byte| **byte == b'#').count();
        let open = self.at + 1 + hashes;
        if self.bytes.get(open) != Some(&b'"') {
            self.keep();
            return;
        }
        let mut closing = vec![b'"'];
        closing.resize(1 + hashes, b'#');
        let close = self.find_from(open + 1, &closing).unwrap_or(self.bytes.len());
        self.take_string(open + 1, close, close + closing.len());
    }

    fn character_or_lifetime(&mut self) {
        let first_length = match self.peek(1) {
            Some(b'\\') => {
                // An escape: the quote that ends it cannot stand directly behind the backslash.
                let end = self.find_from(self.at + 3, b"'").unwrap_or(self.bytes.len());
                return self.blank_to(end + 1);
            }
            Some(byte) if byte.is_ascii() => 1,
            Some(byte) => byte.leading_ones() as usize,
            None => 0,
        };
        if self.peek(1 + first_length) == Some(b'\'') {
            self.blank_to(self.at + first_length + 2);
        } else {
            self.keep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &RustSource) -> Vec<&str> {
        source.strings.iter().map(|string| string.text.as_str()).collect()
    }

    #[test]
    fn strings_comments_and_characters_are_not_code() {
        let text = concat!(
            "let a = \"x // not a comment \\\" \"; // \"not a string\"\n",
            "let b = r#\"raw \"quoted\" text\"#; /* \"no\" /* nested */ \"no\" */ let c = b\"bytes\";\n",
            "let d = '\"'; let e: &'static str = \"é\"; let f = '\\''; let g = 'é'; let h = br\"z\"; r#type();\n",
        );
        let source = RustSource::parse(text);
        assert_eq!(texts(&source), ["x // not a comment \\\" ", "raw \"quoted\" text", "bytes", "é", "z"]);
        assert_eq!(source.code.len(), text.len());
        assert!(!source.code.contains("nested"));
        assert!(source.code.contains("'static str"));
        assert!(source.code.contains("r#type();"));
        assert_eq!(source.line_of(text.find("let d").unwrap()), 3);
        assert_eq!(source.line_of(0), 1);
    }

    #[test]
    fn unfinished_source_ends_quietly() {
        for text in ["\"open", "r#\"open", "/* open", "'", "'\\", "b\"\\", "fn f() {", "#[cfg(test", "é'"] {
            assert_eq!(RustSource::parse(text).code.len(), text.len(), "{text:?}");
        }
    }

    #[test]
    fn words_are_matched_whole() {
        let source = RustSource::parse("StatusCode; MyStatusCode; StatusCodes; http::StatusCode::OK");
        assert_eq!(source.occurrences("StatusCode").collect::<Vec<_>>(), [0, 45]);
    }

    #[test]
    fn items_for_tests_are_told_apart() {
        let text = concat!(
            "fn before() { work(); }\n",
            "#[cfg(test)]\nmod tests { fn inside() { if x { planted(); } } }\n",
            "#[cfg(all(test, unix))] fn helper(a: [u8; 4]) { planted(); }\n",
            "#[cfg(not(test))] fn shipped() { real(); }\n",
            "#[cfg(test)]\nmod suite;\n",
            "fn after() { work(); }\n",
        );
        let source = RustSource::parse(text);
        let all = |needle: &str| source.occurrences(needle).map(|at| source.is_test(at)).collect::<Vec<_>>();
        assert_eq!(all("planted"), [true, true]);
        assert_eq!(all("work"), [false, false]);
        assert_eq!(all("real"), [false]);
        assert_eq!(source.test_modules, ["suite"]);
        assert!(RustSource::parse("#![cfg(test)]\nfn any() {}").is_test(20));
    }
}
