//! A device: what it is, and how far its clock is believed.

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;

/// How far a device's clock is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ClockRuleForm", into = "ClockRuleForm")]
pub enum ClockRule {
    /// Taken as sent; what is impossible is quarantined.
    Trust,
    /// Ignored: the time of receipt stands in.
    UseReceived,
    /// Off by a known amount: `seconds` are added to every time the device sends.
    Shift {
        /// Seconds to add; negative where the clock runs ahead.
        seconds: i64,
    },
}

/// `{"rule": "trust" | "use-received" | "shift", "seconds": n}`: flat, so that a form can send it.
#[derive(Clone, Serialize, Deserialize)]
struct ClockRuleForm {
    rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<i64>,
}

impl From<ClockRule> for ClockRuleForm {
    fn from(rule: ClockRule) -> Self {
        let (rule, seconds) = match rule {
            ClockRule::Trust => ("trust", None),
            ClockRule::UseReceived => ("use-received", None),
            ClockRule::Shift { seconds } => ("shift", Some(seconds)),
        };
        ClockRuleForm { rule: rule.to_owned(), seconds }
    }
}

impl TryFrom<ClockRuleForm> for ClockRule {
    type Error = String;

    fn try_from(form: ClockRuleForm) -> Result<Self, Self::Error> {
        match (form.rule.as_str(), form.seconds) {
            ("trust", None) => Ok(ClockRule::Trust),
            ("use-received", None) => Ok(ClockRule::UseReceived),
            ("shift", Some(seconds)) => Ok(ClockRule::Shift { seconds }),
            ("shift", None) => Err("the clock rule \"shift\" needs \"seconds\"".to_owned()),
            (rule, _) => Err(format!(
                "\"{rule}\" is no clock rule; known are trust, use-received and shift (with seconds)"
            )),
        }
    }
}

/// A device that measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Our id; its certificate names it.
    pub id: DeviceId,
    /// What people call it: "Monitor 07".
    pub name: String,
    /// What kind of device, in the field's words: "bedside monitor", "blood pressure cuff".
    pub kind: String,
    /// Maker.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// How far its clock is believed.
    pub clock: ClockRule,
    /// Zone of its wall clock, in minutes east of UTC, for devices that send local time without a zone.
    pub utc_offset_min: i16,
    /// Longest usual silence in seconds; longer raises "device silent". `None`: sends when it is used.
    pub expected_interval_s: Option<u32>,
    /// Taken out of service: nothing of it is accepted.
    pub retired: bool,
}
