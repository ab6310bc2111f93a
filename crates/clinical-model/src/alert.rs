//! An alert: what was noticed about whom, how urgent, and who has taken it.

use serde::{Deserialize, Serialize};

use crate::decimal::Decimal;
use crate::id::{AlertId, DeviceId, Subject, UserId};
use crate::measure::Measure;
use crate::time::Timestamp;

/// Priority as in IEC 60601-1-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Low: be aware.
    Low,
    /// Medium: prompt response.
    Medium,
    /// High: immediate response.
    High,
}

/// Which side of a limit was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Below the lower limit.
    Below,
    /// Above the upper limit.
    Above,
}

/// What was noticed.
///
/// Tagged from outside: an inner tag would make serde buffer the numbers, which loses them where the digits of JSON
/// numbers are kept as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A value stayed outside its limit: a physiological alarm.
    Threshold {
        /// What was measured.
        measure: Measure,
        /// Which side.
        side: Side,
        /// The limit that was crossed.
        limit: f64,
        /// The value that completed the condition.
        value: Decimal,
        /// When that value was measured.
        measured_at: Timestamp,
    },
    /// Nothing came from a device for longer than its expected interval: a technical alarm.
    DeviceSilent {
        /// The last time anything came; `None` when nothing ever did.
        last_heard_at: Option<Timestamp>,
    },
    /// A battery is low: a technical alarm.
    BatteryLow {
        /// Percent.
        level: Decimal,
    },
    /// A device that should be heard all the time sends nothing but late data (its clock is behind, or it sends what it
    /// stored): a technical alarm, because nothing of it can raise a live one.
    DataLate {
        /// When what arrived last was measured, by the device.
        measured_at: Timestamp,
        /// When it arrived.
        received_at: Timestamp,
    },
    /// A device signalled an alarm of its own.
    DeviceAlarm {
        /// Its text.
        text: String,
    },
}

/// Where an alert stands. The condition and the person's answer are kept apart: see [`Alert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// Raised; nobody has answered.
    Raised,
    /// Somebody has taken it.
    Acknowledged,
    /// Over: the condition has ended and somebody had acknowledged it, or somebody resolved it.
    Resolved,
}

/// One step in the life of an alert: never changed once written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertStep {
    /// Into which state.
    pub state: AlertState,
    /// When.
    pub at: Timestamp,
    /// Who; `None` for the system itself.
    pub by: Option<UserId>,
    /// What the person wrote.
    pub note: Option<String>,
}

/// An alert from raised to resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Our id.
    pub id: AlertId,
    /// About whom or what.
    pub subject: Subject,
    /// By which device.
    pub device: DeviceId,
    /// How urgent.
    pub priority: Priority,
    /// What was noticed.
    pub what: AlertKind,
    /// Where it stands.
    pub state: AlertState,
    /// Whether the condition still holds. A latched alert is one whose condition has ended unacknowledged.
    pub condition_active: bool,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// When the condition ended.
    pub condition_ended_at: Option<Timestamp>,
    /// Every step with who and when.
    pub steps: Vec<AlertStep>,
}

/// An answer that does not fit where the alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an alert that is {from:?} cannot become {to:?}")]
pub struct AlertTransitionError {
    /// Where it stands.
    pub from: AlertState,
    /// What was asked for.
    pub to: AlertState,
}

impl Alert {
    /// A new alert, raised by the system.
    pub fn raise(
        id: AlertId,
        subject: Subject,
        device: DeviceId,
        priority: Priority,
        what: AlertKind,
        at: Timestamp,
    ) -> Self {
        Alert {
            id,
            subject,
            device,
            priority,
            what,
            state: AlertState::Raised,
            condition_active: true,
            raised_at: at,
            condition_ended_at: None,
            steps: vec![AlertStep { state: AlertState::Raised, at, by: None, note: None }],
        }
    }

    /// A person takes the alert.
    ///
    /// # Errors
    /// [`AlertTransitionError`] unless it stands raised.
    pub fn acknowledge(
        &mut self,
        by: UserId,
        at: Timestamp,
        note: Option<String>,
    ) -> Result<(), AlertTransitionError> {
        if self.state != AlertState::Raised {
            return Err(AlertTransitionError { from: self.state, to: AlertState::Acknowledged });
        }
        self.step(AlertState::Acknowledged, at, Some(by), note);
        if !self.condition_active {
            self.step(AlertState::Resolved, at, None, None);
        }
        Ok(())
    }

    /// A person closes the alert.
    ///
    /// # Errors
    /// [`AlertTransitionError`] where it is resolved already.
    pub fn resolve(
        &mut self,
        by: UserId,
        at: Timestamp,
        note: Option<String>,
    ) -> Result<(), AlertTransitionError> {
        if self.state == AlertState::Resolved {
            return Err(AlertTransitionError { from: self.state, to: AlertState::Resolved });
        }
        self.step(AlertState::Resolved, at, Some(by), note);
        Ok(())
    }

    /// The condition has ended: an acknowledged alert is over, an unacknowledged one stays until it is seen.
    pub fn condition_ended(&mut self, at: Timestamp) {
        if !self.condition_active {
            return;
        }
        self.condition_active = false;
        self.condition_ended_at = Some(at);
        if self.state == AlertState::Acknowledged {
            self.step(AlertState::Resolved, at, None, None);
        }
    }

    /// Whether the condition has ended but nobody has acknowledged the alert.
    pub fn is_latched(&self) -> bool {
        self.state == AlertState::Raised && !self.condition_active
    }

    fn step(&mut self, state: AlertState, at: Timestamp, by: Option<UserId>, note: Option<String>) {
        self.state = state;
        self.steps.push(AlertStep { state, at, by, note });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PatientId;

    const NURSE: UserId = UserId::from_bytes([7; 16]);

    fn raised() -> Alert {
        Alert::raise(
            AlertId::from_bytes([1; 16]),
            Subject::Patient(PatientId::from_bytes([2; 16])),
            DeviceId::from_bytes([3; 16]),
            Priority::High,
            AlertKind::DeviceSilent { last_heard_at: None },
            Timestamp::from_seconds(10),
        )
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn an_unacknowledged_alert_latches_and_then_ends_with_the_acknowledgement() {
        let mut alert = raised();
        alert.condition_ended(at(20));
        assert!(alert.is_latched());
        alert.acknowledge(NURSE, at(30), None).unwrap();
        assert_eq!(alert.state, AlertState::Resolved);
        assert_eq!(alert.steps.len(), 3);
        assert_eq!(alert.steps[1].by, Some(NURSE));
    }

    #[test]
    fn an_acknowledged_alert_ends_with_its_condition() {
        let mut alert = raised();
        alert.acknowledge(NURSE, at(20), Some("seen".into())).unwrap();
        assert_eq!(alert.state, AlertState::Acknowledged);
        alert.condition_ended(at(30));
        assert_eq!(alert.state, AlertState::Resolved);
        assert!(!alert.is_latched());
    }

    #[test]
    fn answers_that_do_not_fit_are_refused() {
        let mut alert = raised();
        alert.acknowledge(NURSE, at(20), None).unwrap();
        assert!(alert.acknowledge(NURSE, at(21), None).is_err());
        alert.resolve(NURSE, at(22), None).unwrap();
        assert!(alert.resolve(NURSE, at(23), None).is_err());
        assert!(alert.acknowledge(NURSE, at(24), None).is_err());
        assert_eq!(alert.steps.len(), 3);
    }
}
