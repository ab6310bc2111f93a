//! The little language that the cases are written in: packets as bytes, with lengths counted by the reader.
//!
//! A case begins with `case`, the statements that it proves in each version, and its name. Each further line is one
//! step; a leading `3` or `5` keeps it to one version of the protocol.
//!
//! | Step | Meaning |
//! |---|---|
//! | `> …` | send these bytes |
//! | `drip …` | send these bytes one by one |
//! | `flood 65 93` | send so many QoS 2 messages at once; DISCONNECT with this reason, and the end |
//! | `< …` | the next packet is this one |
//! | `bye 82` | DISCONNECT with this reason and the end (version 5); the end without a word (3.1.1) |
//! | `refused 02 85` | CONNACK with this code (3.1.1, version 5), then the end |
//! | `shut 81/82` | the end, in version 5 perhaps after a CONNACK with one of these reasons |
//! | `end` | the server closes and says nothing more |
//! | `line 2` | go on with this connection of the device, opened at its first use |
//! | `cut` | drop the connection without a word |
//! | `kept 1` | so many frames of the device get on stable storage; asked at the very end, no more than that |
//! | `here`, `away` | the screens show the device as connected, or not |
//! | `command 'x'` | the server sends the device this command |
//! | `silent 1400` | no less than so many milliseconds have passed since the last bytes were sent |
//!
//! Bytes are hexadecimal pairs; `61*9` repeats one; `'raw'` is text; `"text"` has its length in two bytes before it, and
//! so has `( … )`; `{ … }` has its length as a Variable Byte Integer before it; `%` is an empty property list (nothing
//! in 3.1.1), `%{ … }` one that 3.1.1 does not have, and `%L` the version's level byte. `$ID`, `$T`, `$STATUS`, `$COMMAND` and `$OTHER` are the client id and
//! the topics of the device, and the topic of another; `$R72` is a reading. In what is expected, `??` is any byte, `..`
//! any rest, `87/90` either byte, and `!` "success": nothing more or reason 0. `@name:argument` are the packets of [`packet`].

/// Which version a case runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V3,
    V5,
}

/// Both of them.
pub const VERSIONS: [Version; 2] = [Version::V3, Version::V5];

/// One case: what it proves, and its steps.
pub struct Case {
    pub name: String,
    pub proves: Vec<(Version, String)>,
    steps: Vec<(Option<Version>, String)>,
}

impl Case {
    /// Reads a file of cases.
    pub fn read_all(text: &str) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix("case ") {
                let (ids, name) = head.split_once('|').expect("a case has a name after |");
                let proves = ids.split_whitespace().map(proof).collect();
                cases.push(Case { name: name.trim().to_owned(), proves, steps: Vec::new() });
                continue;
            }
            let (only, step) = match line.split_at(1) {
                ("3", rest) => (Some(Version::V3), rest),
                ("5", rest) => (Some(Version::V5), rest),
                _ => (None, line),
            };
            cases.last_mut().expect("a step follows its case").steps.push((only, step.trim().to_owned()));
        }
        cases
    }

    /// Whether it says something about a version.
    pub fn is_for(&self, version: Version) -> bool {
        self.proves.iter().any(|(of, _)| *of == version)
    }

    /// Its steps in a version.
    pub fn steps(&self, version: Version) -> impl Iterator<Item = &str> {
        let of_version =
            move |(only, _): &&(Option<Version>, String)| only.is_none_or(|only| only == version);
        self.steps.iter().filter(of_version).map(|(_, step)| step.as_str())
    }
}

fn proof(id: &str) -> (Version, String) {
    match id.split_once(':') {
        Some(("3", statement)) => (Version::V3, statement.to_owned()),
        Some(("5", statement)) => (Version::V5, statement.to_owned()),
        _ => panic!("a statement is 3:x.y.z-n or 5:x.y.z-n, not {id}"),
    }
}

/// What a case is told about its device.
pub struct Names {
    pub version: Version,
    pub device: String,
    pub other: String,
}

/// One position of a packet that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Byte(u8),
    Either(u8, u8),
    Any,
    Rest,
    Success,
}

/// The bytes to send.
pub fn bytes(text: &str, names: &Names) -> Vec<u8> {
    let byte = |expected| match expected {
        Expected::Byte(byte) => byte,
        other => panic!("{other:?} cannot be sent: {text}"),
    };
    read(text, names).into_iter().map(byte).collect()
}

/// The first byte and the body of a packet that is expected.
pub fn pattern(text: &str, names: &Names) -> (u8, Vec<Expected>) {
    let expanded = expand(text, names);
    let (first, rest) = expanded.trim().split_once('{').unwrap_or_else(|| panic!("no body: {expanded}"));
    let body =
        rest.trim_end().strip_suffix('}').unwrap_or_else(|| panic!("the body does not end: {expanded}"));
    (u8::from_str_radix(first.trim(), 16).unwrap(), read(body, names))
}

/// Whether a body is as expected.
pub fn fits(expected: &[Expected], body: &[u8]) -> bool {
    match (expected.split_first(), body.split_first()) {
        (None, None) => true,
        (Some((Expected::Rest, _)), _) | (Some((Expected::Success, _)), None) => true,
        (Some((Expected::Success, _)), Some((reason, _))) => *reason == 0,
        (Some((Expected::Any, expected)), Some((_, body))) => fits(expected, body),
        (Some((Expected::Byte(wanted), expected)), Some((byte, body))) => {
            wanted == byte && fits(expected, body)
        }
        (Some((Expected::Either(one, other), expected)), Some((byte, body))) => {
            (one == byte || other == byte) && fits(expected, body)
        }
        _ => false,
    }
}

fn read(text: &str, names: &Names) -> Vec<Expected> {
    let expanded = expand(text, names);
    let mut rest = expanded.as_str();
    // The innermost open list is the last; what closes it decides how its length is written.
    let mut open: Vec<Vec<Expected>> = vec![Vec::new()];
    while let Some(first) = rest.chars().next() {
        let out = open.last_mut().expect("more lists end than begin");
        let after = &rest[first.len_utf8()..];
        rest = match first {
            ' ' => after,
            // A list of properties that version 3.1.1 does not have.
            '%' if after.starts_with('{') && names.version == Version::V5 => after,
            '%' if after.starts_with('{') => after.split_once('}').expect("a list ends").1,
            '{' | '(' => {
                open.push(Vec::new());
                after
            }
            '}' | ')' => {
                let inner = open.pop().unwrap_or_default();
                let out = open.last_mut().expect("more lists end than begin");
                out.extend(known(&if first == '}' { variable(inner.len()) } else { two_bytes(inner.len()) }));
                out.extend(inner);
                after
            }
            '"' | '\'' => {
                let (inner, after) = after.split_once(first).expect("text ends");
                if first == '"' {
                    out.extend(known(&two_bytes(inner.len())));
                }
                out.extend(known(inner.as_bytes()));
                after
            }
            '%' | '$' => word(rest, names, out),
            '?' => {
                out.push(Expected::Any);
                after.strip_prefix('?').expect("?? is one byte")
            }
            '.' => {
                out.push(Expected::Rest);
                after.strip_prefix('.').expect(".. is the rest")
            }
            '!' => {
                out.push(if names.version == Version::V5 { Expected::Success } else { Expected::Rest });
                after
            }
            '/' => {
                let other = u8::from_str_radix(&after[..2], 16).expect("another byte follows /");
                match out.pop() {
                    Some(Expected::Byte(one)) => out.push(Expected::Either(one, other)),
                    before => panic!("{before:?} cannot be one of two"),
                }
                &after[2..]
            }
            '*' => {
                let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                let times: usize = after[..digits].parse().expect("a count follows *");
                let repeated = *out.last().expect("something is repeated");
                out.extend(std::iter::repeat_n(repeated, times - 1));
                &after[digits..]
            }
            _ => {
                let pair = rest.get(..2).unwrap_or(rest);
                out.push(Expected::Byte(
                    u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("no byte: {rest}")),
                ));
                &rest[2..]
            }
        };
    }
    assert_eq!(open.len(), 1, "a list does not end: {text}");
    open.remove(0)
}

/// What begins with `%` or `$`; gives the text after it.
fn word<'a>(rest: &'a str, names: &Names, out: &mut Vec<Expected>) -> &'a str {
    let end = rest[1..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(rest.len(), |at| at + 1);
    let topic = |of: &str, channel: &str| {
        let topic = format!("auscult/v1/{of}/{channel}");
        [two_bytes(topic.len()).as_slice(), topic.as_bytes()].concat()
    };
    let own = names.device.as_str();
    let bytes = match &rest[..end] {
        "%" if names.version == Version::V5 => vec![0],
        "%" => Vec::new(),
        "%L" => vec![if names.version == Version::V5 { 5 } else { 4 }],
        "$ID" => [two_bytes(own.len()).as_slice(), own.as_bytes()].concat(),
        "$T" => topic(own, "envelope"),
        "$STATUS" => topic(own, "status"),
        "$COMMAND" => topic(own, "command"),
        "$OTHER" => topic(&names.other, "envelope"),
        reading if reading.starts_with("$R") => {
            format!(r#"{{"measure":"heart_rate","value":{}}}"#, &reading[2..]).into_bytes()
        }
        other => panic!("no such word: {other}"),
    };
    out.extend(known(&bytes));
    &rest[end..]
}

fn expand(text: &str, names: &Names) -> String {
    let Some((before, rest)) = text.split_once('@') else { return text.to_owned() };
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != ':').unwrap_or(rest.len());
    let mut words = rest[..end].split(':');
    let name = words.next().unwrap_or_default();
    let arguments: Vec<&str> = words.collect();
    let packet = packet(name, &arguments, names.version);
    format!("{before}{packet}{}", expand(&rest[end..], names))
}

/// The packets that many cases have in common, spelled out.
fn packet(name: &str, arguments: &[&str], version: Version) -> String {
    let is_v5 = version == Version::V5;
    match (name, arguments) {
        ("connect", []) => r#"10 {"MQTT" %L 02 003c % $ID}"#.to_owned(),
        ("resume", []) if is_v5 => r#"10 {"MQTT" 05 00 003c {11 00000e10} $ID}"#.to_owned(),
        ("resume", []) => r#"10 {"MQTT" 04 00 003c $ID}"#.to_owned(),
        ("connack", []) if is_v5 => "20 {00 00 ..}".to_owned(),
        ("connack", []) => "20 {00 00}".to_owned(),
        ("resumed", []) if is_v5 => "20 {01 00 ..}".to_owned(),
        ("resumed", []) => "20 {01 00}".to_owned(),
        ("pub0", [value]) => format!("30 {{$T % $R{value}}}"),
        ("pub1", [id, value]) => format!("32 {{$T {id} % $R{value}}}"),
        ("again1", [id, value]) => format!("3a {{$T {id} % $R{value}}}"),
        ("pub2", [id, value]) => format!("34 {{$T {id} % $R{value}}}"),
        ("again2", [id, value]) => format!("3c {{$T {id} % $R{value}}}"),
        ("puback", [id]) => format!("40 {{{id} !}}"),
        ("pubrec", [id]) => format!("50 {{{id} !}}"),
        ("pubrel", [id]) => format!("62 {{{id}}}"),
        ("pubcomp", [id]) => format!("70 {{{id} !}}"),
        ("subscribe", [id, qos]) => format!("82 {{{id} % $COMMAND {qos}}}"),
        ("suback", [id, code]) => format!("90 {{{id} % {code}}}"),
        ("ping", []) => "c0 {}".to_owned(),
        ("pong", []) => "d0 {}".to_owned(),
        ("goodbye", []) => "e0 {}".to_owned(),
        _ => panic!("no such packet: {name} {arguments:?}"),
    }
}

fn known(bytes: &[u8]) -> impl Iterator<Item = Expected> {
    bytes.iter().copied().map(Expected::Byte)
}

fn two_bytes(length: usize) -> Vec<u8> {
    u16::try_from(length).expect("a string fits its length").to_be_bytes().to_vec()
}

fn variable(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = u8::try_from(length % 128).unwrap_or_default();
        length /= 128;
        bytes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            return bytes;
        }
    }
}

#[test]
fn packets_are_spelled_as_the_specification_has_them() {
    let names = |version| Names { version, device: "dev".to_owned(), other: "oth".to_owned() };
    let v3 = bytes("@connect", &names(Version::V3));
    assert_eq!(v3, b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03dev");
    let v5 = bytes("10 {\"MQTT\" %L 02 003c {11 00000e10} $ID}", &names(Version::V5));
    assert_eq!(v5, b"\x10\x15\x00\x04MQTT\x05\x02\x00\x3c\x05\x11\x00\x00\x0e\x10\x00\x03dev");
    assert_eq!(bytes("30 {(61*3) '!' 62*200}", &names(Version::V3)).len(), 1 + 2 + 2 + 3 + 1 + 200);
    assert_eq!(bytes("30 {61*200}", &names(Version::V3))[..3], [0x30, 0xc8, 0x01]);
    let (first, body) = pattern("@puback:0005", &names(Version::V5));
    assert_eq!(first, 0x40);
    assert!(
        fits(&body, &[0, 5])
            && fits(&body, &[0, 5, 0, 0])
            && !fits(&body, &[0, 5, 0x87])
            && !fits(&body, &[0])
    );
}
