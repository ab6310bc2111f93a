//! Plays one case against the real endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::script::{Case, Names, Version, bytes, fits, pattern};
use crate::client::{Line, Raw};
use crate::house::{House, Registered, until};

struct Play {
    house: Arc<House>,
    device: Registered,
    names: Names,
    lines: Vec<Option<Line>>,
    current: usize,
    sent_at: Instant,
    kept: Option<usize>,
}

/// Plays a case with a device of its own.
///
/// # Panics
/// Where the endpoint does not do what the case says.
pub async fn play(house: Arc<House>, case: &Case, version: Version) {
    let (device, other) = (house.device(), house.device());
    let names = Names { version, device: device.id.to_string(), other: other.id.to_string() };
    let mut play =
        Play { house, device, names, lines: Vec::new(), current: 0, sent_at: Instant::now(), kept: None };
    play.go_to_line(1).await;
    for step in case.steps(version) {
        play.step(step).await;
    }
    if let Some(kept) = play.kept {
        assert_eq!(play.frames(), kept, "frames on stable storage");
    }
}

impl Play {
    async fn step(&mut self, step: &str) {
        let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
        match word {
            ">" => {
                let bytes = bytes(rest, &self.names);
                self.sent_at = Instant::now();
                // A server that refuses what came before may close before all is sent.
                let _ = self.line().try_send(&bytes).await;
            }
            "drip" => {
                for byte in bytes(rest, &self.names) {
                    self.line().send(&[byte]).await;
                }
            }
            "flood" => {
                let (count, reason) = rest.split_once(' ').expect("a count and a reason");
                self.flood(count.parse().expect("a count of messages"), reason).await;
            }
            "<" if !rest.contains('{') && !rest.contains('@') => {
                let got = self.line().receive().await;
                let fits = got.as_ref().is_some_and(|(first, _)| is_one_of(*first, rest));
                assert!(fits, "expected a packet {rest}, got {}", shown(got.as_ref()));
            }
            "<" => {
                let (first, body) = pattern(rest, &self.names);
                let got = self.line().receive().await;
                let fit = got.as_ref().is_some_and(|(got, bytes)| *got == first && fits(&body, bytes));
                assert!(fit, "expected < {rest}, got {}", shown(got.as_ref()));
            }
            "end" => self.expect_end("the end").await,
            "bye" => self.expect_bye(rest).await,
            "refused" => self.expect_refusal(rest).await,
            "shut" => self.expect_shut(rest).await,
            "line" => self.go_to_line(rest.parse().expect("a line has a number")).await,
            "cut" => {
                if let Some(line) = self.lines[self.current].take() {
                    line.cut();
                }
            }
            "kept" => {
                let expected: usize = rest.parse().expect("a count of frames");
                self.kept = Some(expected);
                let enough = || self.frames() >= expected;
                until("the frames are on stable storage", enough).await;
            }
            "here" | "away" => {
                let wanted = Some(word == "here");
                let (house, id) = (Arc::clone(&self.house), self.device.id);
                until("the screens show the link", || house.site.live().heard(id).connected == wanted).await;
            }
            "command" => {
                let command = bytes(rest, &self.names);
                let (house, id) = (Arc::clone(&self.house), self.device.id);
                until("the device listens", || house.site.live().command(id, command.clone())).await;
            }
            "silent" => {
                let least = Duration::from_millis(rest.parse().expect("milliseconds"));
                assert!(self.sent_at.elapsed() >= least, "too early: {:?}", self.sent_at.elapsed());
            }
            _ => panic!("no such step: {step}"),
        }
    }

    /// Sends messages of QoS 2 at once and releases none. Some may be answered before the end.
    async fn flood(&mut self, count: u16, reason: &str) {
        let messages = (1..=count).flat_map(|id| bytes(&format!("@pub2:{id:04x}:72"), &self.names));
        let messages: Vec<u8> = messages.collect();
        let _ = self.line().try_send(&messages).await;
        let mut packets = self.line().receive_to_end().await;
        packets.retain(|(first, _)| *first != 0x50);
        let fits = matches!(packets.as_slice(), [(0xe0, body)] if is_one_of(body[0], reason));
        assert!(fits, "expected DISCONNECT {reason}, got {}", shown(packets.first()));
    }

    fn line(&mut self) -> &mut Line {
        self.lines[self.current].as_mut().expect("the connection is open")
    }

    async fn go_to_line(&mut self, number: usize) {
        self.current = number - 1;
        while self.lines.len() < number {
            self.lines.push(Some(Line::open(&self.house, &self.device.certificate).await));
        }
    }

    fn frames(&self) -> usize {
        self.house.committed().iter().filter(|frame| frame.device == self.device.id).count()
    }

    async fn expect_end(&mut self, what: &str) {
        let packets = self.line().receive_to_end().await;
        assert!(packets.is_empty(), "expected {what}, got {}", shown(packets.first()));
    }

    async fn expect_bye(&mut self, reason: &str) {
        if self.names.version == Version::V5 {
            let got = self.line().receive().await;
            let fits = matches!(&got, Some((0xe0, body)) if body.first().is_some_and(|said| is_one_of(*said, reason)));
            assert!(fits, "expected DISCONNECT {reason}, got {}", shown(got.as_ref()));
        }
        self.expect_end("the end after a violation").await;
    }

    async fn expect_refusal(&mut self, codes: &str) {
        let (v3, v5) = codes.split_once(' ').expect("a code for each version");
        let code = if self.names.version == Version::V5 { v5 } else { v3 };
        let got = self.line().receive().await;
        let fits = matches!(&got, Some((0x20, body)) if body[0] == 0 && is_one_of(body[1], code));
        assert!(fits, "expected CONNACK {code}, got {}", shown(got.as_ref()));
        self.expect_end("the end after a refusal").await;
    }

    async fn expect_shut(&mut self, reasons: &str) {
        let packets = self.line().receive_to_end().await;
        let fits = match packets.as_slice() {
            [] => true,
            [(0x20, body)] => {
                self.names.version == Version::V5 && body[0] == 0 && is_one_of(body[1], reasons)
            }
            _ => false,
        };
        assert!(fits, "expected the end or CONNACK {reasons}, got {}", shown(packets.first()));
    }
}

fn is_one_of(reason: u8, allowed: &str) -> bool {
    allowed.split('/').any(|one| u8::from_str_radix(one, 16).expect("a reason has two digits") == reason)
}

fn shown(packet: Option<&Raw>) -> String {
    packet.map_or_else(
        || "the end".to_owned(),
        |(first, body)| {
            format!("{first:02x} {{{}}}", body.iter().map(|b| format!("{b:02x} ")).collect::<String>())
        },
    )
}
