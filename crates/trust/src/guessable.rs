//! How much of a password is there to guess, when common words, names, years, runs and rows of keys are guessed first.

/// Words that people put into passwords, here and in hospitals; at least four letters each.
const WORDS: [&str; 58] = [
    "password",
    "passwort",
    "passphrase",
    "passwd",
    "pass",
    "kennwort",
    "qwerty",
    "qwertz",
    "azerty",
    "letmein",
    "welcome",
    "hello",
    "login",
    "logon",
    "signin",
    "admin",
    "administrator",
    "root",
    "user",
    "guest",
    "demo",
    "test",
    "testing",
    "default",
    "change",
    "changeme",
    "temp",
    "secret",
    "master",
    "super",
    "iloveyou",
    "love",
    "monkey",
    "dragon",
    "princess",
    "sunshine",
    "football",
    "baseball",
    "summer",
    "winter",
    "spring",
    "autumn",
    "january",
    "december",
    "monday",
    "friday",
    "hospital",
    "clinic",
    "doctor",
    "nurse",
    "patient",
    "medical",
    "health",
    "ward",
    "auscult",
    "monitor",
    "computer",
    "internet",
];
/// Neighbours on keyboards.
const ROWS: [&str; 8] =
    ["qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm", "1234567890", "!@#$%^&*()"];
/// Fewest characters of a part of the user name that is taken for a word.
const NAME_PART_MIN_CHARS: usize = 3;
/// Fewest characters of a run of neighbours, or of one character.
const RUN_MIN_CHARS: usize = 3;
/// Fewest characters of a part of a row of keys.
const ROW_MIN_CHARS: usize = 4;

/// Characters that are not guessed with their neighbours, and one for each word, year, run or row of keys. What repeats
/// from the beginning to the end counts once.
pub(crate) fn units(password: &str, user_name: &str) -> usize {
    let all: Vec<char> = password.to_lowercase().chars().collect();
    let typed = &all[..period(&all)];
    let meant: Vec<char> = typed.iter().map(|c| letter_meant(*c)).collect();
    let name = user_name.to_lowercase();
    let parts =
        name.split(|c: char| !c.is_alphanumeric()).filter(|part| part.chars().count() >= NAME_PART_MIN_CHARS);
    let mut words: Vec<Vec<char>> =
        WORDS.into_iter().chain(parts).map(|word| word.chars().collect()).collect();
    words.push(name.chars().collect());
    let (mut at, mut units) = (0, 0);
    while at < typed.len() {
        let rest = &typed[at..];
        let is_there = |word: &&Vec<char>| rest.starts_with(word) || meant[at..].starts_with(word);
        let word = words.iter().filter(is_there).map(Vec::len).max().unwrap_or(0);
        at += word.max(year(rest)).max(run(rest)).max(row(rest)).max(1);
        units += 1;
    }
    units
}

/// The length of what is repeated, to the end; all of it where nothing is.
fn period(text: &[char]) -> usize {
    let repeats = |length: &usize| text.iter().zip(&text[*length..]).all(|(a, b)| a == b);
    (1..=text.len() / 2).find(repeats).unwrap_or(text.len())
}

/// The letter for which a digit or sign often stands.
fn letter_meant(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    }
}

fn year(text: &[char]) -> usize {
    let is_year = matches!(text, ['1', '9', a, b, ..] | ['2', '0', a, b, ..] if a.is_ascii_digit() && b.is_ascii_digit());
    if is_year { 4 } else { 0 }
}

/// Neighbours in the alphabet or among the digits, up or down, or one and the same.
fn run(text: &[char]) -> usize {
    let step = |pair: &[char]| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0]));
    let mut steps = text.windows(2).map(step);
    let Some(first) = steps.next().filter(|step| step.abs() <= 1) else { return 0 };
    let length = 2 + steps.take_while(|step| *step == first).count();
    if length >= RUN_MIN_CHARS { length } else { 0 }
}

fn row(text: &[char]) -> usize {
    let common = |row: &[char]| {
        let shared = |from: usize| row[from..].iter().zip(text).take_while(|(a, b)| a == b).count();
        (0..row.len()).map(shared).max().unwrap_or(0)
    };
    let length = ROWS.iter().map(|row| {
        let forth: Vec<char> = row.chars().collect();
        let back: Vec<char> = row.chars().rev().collect();
        common(&forth).max(common(&back))
    });
    length.max().filter(|length| *length >= ROW_MIN_CHARS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_counts_once() {
        for (password, expected) in [
            ("passwordpassword", 1),
            ("P@ssw0rd!2026", 3),
            ("abcdefghijkl", 1),
            ("9876543210000", 2),
            ("qwertzuiop1234", 2),
            ("Summer-Hospital", 3),
            ("anna.berg2026!", 3),
            ("xk7xk7xk7xk7x", 3),
            ("aaaaaaaaaaaab", 2),
            ("vw9#Tq!2bL0z", 12),
            ("", 0),
        ] {
            assert_eq!(units(password, "anna.berg"), expected, "{password}");
        }
        assert!(units("correct horse battery", "anna") > 18);
    }
}
