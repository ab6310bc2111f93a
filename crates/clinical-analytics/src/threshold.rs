//! Threshold alarms: a limit with persistence, so that a spike is no alarm, and hysteresis, so that an alarm does
//! not chatter.

use clinical_model::alert::Side;
use clinical_model::measure::{
    ARTERIAL_SYSTOLIC, BODY_TEMPERATURE, HEART_RATE, Measure, OXYGEN_SATURATION, PULSE_RATE_OXIMETER,
    RESPIRATORY_RATE, SYSTOLIC,
};
use clinical_model::{Priority, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest persistence that may be set, in seconds: longer, and the alarm is a report.
pub const PERSISTENCE_LIMIT_S: u32 = 3_600;

/// When a value is an alarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// What is watched.
    pub measure: Measure,
    /// Below this, in the unit of the series; `None`: no lower limit.
    pub low: Option<f64>,
    /// Above this, in the unit of the series; `None`: no upper limit.
    pub high: Option<f64>,
    /// How urgent.
    pub priority: Priority,
    /// The value must stay outside for so many seconds.
    pub persistence_s: u32,
    /// The value must come back inside by so much before the condition ends, in the unit of the series.
    pub hysteresis: f64,
}

/// Why a limit cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// Neither side is limited.
    #[error("{measure}: give a lower limit, an upper limit, or both")]
    Empty {
        /// Name of the measure.
        measure: &'static str,
    },
    /// The measure stands twice, and only one could hold.
    #[error("{measure} stands twice; give its lower and upper limit together")]
    Twice {
        /// Name of the measure.
        measure: &'static str,
    },
    /// The measure has no numbers.
    #[error("{measure} has no single value that could be limited")]
    NotScalar {
        /// Name of the measure.
        measure: &'static str,
    },
    /// The sides cross, or leave no room for the hysteresis.
    #[error("{measure}: the lower limit {low} and the upper limit {high} leave no room between them")]
    Crossed {
        /// Name of the measure.
        measure: &'static str,
        /// Lower limit.
        low: f64,
        /// Upper limit.
        high: f64,
    },
    /// A number that is no number, negative, or beyond its bound.
    #[error(
        "{measure}: {field} must be a number from 0 to {bound}, or within the possible range for a limit"
    )]
    OutOfRange {
        /// Name of the measure.
        measure: &'static str,
        /// Which number.
        field: &'static str,
        /// Its upper bound.
        bound: f64,
    },
}

impl Limit {
    /// Limits that a site begins with for adults, until somebody sets those of the patient. Wide on purpose: few
    /// alarms, and all of them meant.
    pub fn adult_defaults() -> Vec<Limit> {
        let limit = |measure, low: Option<f64>, high: Option<f64>, priority, persistence_s, hysteresis| {
            Limit { measure, low, high, priority, persistence_s, hysteresis }
        };
        vec![
            limit(HEART_RATE, Some(40.0), Some(140.0), Priority::High, 10, 3.0),
            limit(PULSE_RATE_OXIMETER, Some(40.0), Some(140.0), Priority::Medium, 10, 3.0),
            limit(OXYGEN_SATURATION, Some(88.0), None, Priority::High, 10, 1.0),
            limit(RESPIRATORY_RATE, Some(8.0), Some(32.0), Priority::High, 15, 1.0),
            limit(SYSTOLIC, Some(80.0), Some(190.0), Priority::Medium, 0, 5.0),
            limit(ARTERIAL_SYSTOLIC, Some(80.0), Some(190.0), Priority::Medium, 10, 5.0),
            limit(BODY_TEMPERATURE, Some(34.5), Some(39.5), Priority::Medium, 0, 0.3),
        ]
    }

    /// Whether the limit makes sense.
    ///
    /// # Errors
    /// [`LimitError`] with the first thing that does not.
    pub fn check(&self) -> Result<(), LimitError> {
        let measure = self.measure.name;
        if !self.measure.is_scalar() {
            return Err(LimitError::NotScalar { measure });
        }
        if self.low.is_none() && self.high.is_none() {
            return Err(LimitError::Empty { measure });
        }
        let possible = self.measure.possible;
        for (field, side) in [("low", self.low), ("high", self.high)] {
            if side.is_some_and(|at| !(possible.0..=possible.1).contains(&at)) {
                return Err(LimitError::OutOfRange { measure, field, bound: possible.1 });
            }
        }
        if self.persistence_s > PERSISTENCE_LIMIT_S {
            let bound = f64::from(PERSISTENCE_LIMIT_S);
            return Err(LimitError::OutOfRange { measure, field: "persistence_s", bound });
        }
        if !(0.0..=1_000.0).contains(&self.hysteresis) {
            return Err(LimitError::OutOfRange { measure, field: "hysteresis", bound: 1_000.0 });
        }
        if let (Some(low), Some(high)) = (self.low, self.high)
            && high - low <= 2.0 * self.hysteresis
        {
            return Err(LimitError::Crossed { measure, low, high });
        }
        Ok(())
    }

    /// Whether the limits of a patient can be used together.
    ///
    /// # Errors
    /// [`LimitError`] with the first thing that makes no sense.
    pub fn check_all(limits: &[Limit]) -> Result<(), LimitError> {
        for (at, limit) in limits.iter().enumerate() {
            limit.check()?;
            if limits[..at].iter().any(|earlier| earlier.measure == limit.measure) {
                return Err(LimitError::Twice { measure: limit.measure.name });
            }
        }
        Ok(())
    }

    fn outside(&self, value: f64) -> Option<(Side, f64)> {
        match (self.low, self.high) {
            (Some(low), _) if value < low => Some((Side::Below, low)),
            (_, Some(high)) if high < value => Some((Side::Above, high)),
            _ => None,
        }
    }

    fn back_inside(&self, side: Side, value: f64) -> bool {
        match side {
            Side::Below => self.low.is_none_or(|low| low + self.hysteresis <= value),
            Side::Above => self.high.is_none_or(|high| value <= high - self.hysteresis),
        }
    }
}

/// What a new value changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transition {
    /// The condition has come to hold.
    Raise {
        /// Which side.
        side: Side,
        /// The limit that was crossed.
        limit: f64,
    },
    /// The condition has ended.
    End,
    /// It has ended on one side and holds on the other.
    Turn {
        /// The side that holds now.
        side: Side,
        /// The limit that was crossed.
        limit: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
enum State {
    #[default]
    Inside,
    Pending {
        side: Side,
        since: Timestamp,
    },
    Holds {
        side: Side,
    },
}

/// Watches one series against one limit. Values that are not newer than the last are ignored, so that repeats and
/// late data change nothing.
#[derive(Clone, Debug, Default)]
pub struct ThresholdMonitor {
    state: State,
    last_at: Option<Timestamp>,
}

impl ThresholdMonitor {
    /// A monitor whose condition held when the server stopped.
    pub fn holding(side: Side, last_at: Timestamp) -> Self {
        ThresholdMonitor { state: State::Holds { side }, last_at: Some(last_at) }
    }

    /// Forgets what was observed after `now`: a clock that ran ahead and was set right (a device's, or our own) must not
    /// keep the values that follow from being looked at. A condition that holds goes on holding.
    pub fn forget_after(&mut self, now: Timestamp) {
        if self.last_at.is_some_and(|last| now < last) {
            self.last_at = None;
            if let State::Pending { since, .. } = self.state
                && now < since
            {
                self.state = State::Inside;
            }
        }
    }

    /// Somebody closed the alert while its condition held: if it goes on holding, it is raised anew.
    pub fn closed_by_hand(&mut self) {
        self.state = State::Inside;
    }

    /// Takes one value.
    pub fn observe(&mut self, limit: &Limit, at: Timestamp, value: f64) -> Option<Transition> {
        if self.last_at.is_some_and(|last| at <= last) {
            return None;
        }
        self.last_at = Some(at);
        let outside = limit.outside(value);
        match (self.state, outside) {
            (State::Holds { side }, Some((now, crossed))) if now != side => {
                self.state = State::Holds { side: now };
                Some(Transition::Turn { side: now, limit: crossed })
            }
            (State::Holds { side }, _) if limit.back_inside(side, value) => {
                self.state = State::Inside;
                Some(Transition::End)
            }
            (State::Holds { .. }, _) => None,
            (_, None) => {
                self.state = State::Inside;
                None
            }
            (State::Pending { side, since }, Some((now, crossed))) if side == now => {
                self.raise_if_due(limit, side, crossed, since, at)
            }
            (_, Some((side, crossed))) => self.raise_if_due(limit, side, crossed, at, at),
        }
    }

    fn raise_if_due(
        &mut self,
        limit: &Limit,
        side: Side,
        crossed: f64,
        since: Timestamp,
        at: Timestamp,
    ) -> Option<Transition> {
        if at.duration_since(since).as_secs() >= u64::from(limit.persistence_s) {
            self.state = State::Holds { side };
            return Some(Transition::Raise { side, limit: crossed });
        }
        self.state = State::Pending { side, since };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit() -> Limit {
        Limit {
            measure: HEART_RATE,
            low: Some(40.0),
            high: Some(140.0),
            priority: Priority::High,
            persistence_s: 10,
            hysteresis: 3.0,
        }
    }

    /// Feeds (second, value) pairs and compares the transitions, written as (second, word).
    fn check(values: &[(i64, f64)], expected: &[(i64, &str)]) {
        let mut monitor = ThresholdMonitor::default();
        let seen: Vec<(i64, &str)> = values
            .iter()
            .filter_map(|(second, value)| {
                let transition = monitor.observe(&limit(), Timestamp::from_seconds(*second), *value)?;
                let word = match transition {
                    Transition::Raise { side: Side::Above, .. } => "high",
                    Transition::Raise { side: Side::Below, .. } => "low",
                    Transition::Turn { side: Side::Above, .. } => "turn-high",
                    Transition::Turn { side: Side::Below, .. } => "turn-low",
                    Transition::End => "end",
                };
                Some((*second, word))
            })
            .collect();
        assert_eq!(seen, expected, "{values:?}");
    }

    #[test]
    fn a_spike_is_no_alarm_and_a_lasting_excess_is() {
        check(&[(0, 100.0), (1, 180.0), (5, 180.0), (6, 120.0), (9, 180.0)], &[]);
        check(&[(0, 180.0), (9, 180.0), (10, 180.0), (11, 181.0)], &[(10, "high")]);
        check(&[(0, 30.0), (5, 180.0), (10, 180.0), (15, 180.0)], &[(15, "high")]);
    }

    #[test]
    fn hysteresis_keeps_an_alarm_from_chattering() {
        check(
            &[(0, 141.0), (10, 141.0), (20, 139.0), (30, 141.0), (40, 137.0)],
            &[(10, "high"), (40, "end")],
        );
    }

    #[test]
    fn the_other_side_is_a_turn() {
        check(
            &[(0, 150.0), (10, 150.0), (20, 30.0), (30, 60.0)],
            &[(10, "high"), (20, "turn-low"), (30, "end")],
        );
    }

    #[test]
    fn repeats_and_late_values_change_nothing() {
        check(&[(0, 150.0), (10, 150.0), (10, 60.0), (5, 60.0), (11, 150.0)], &[(10, "high")]);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_silence_the_alarm() {
        let at = Timestamp::from_seconds;
        let mut monitor = ThresholdMonitor::default();
        assert_eq!(monitor.observe(&limit(), at(300), 150.0), None);
        monitor.forget_after(at(5));
        assert_eq!(monitor.observe(&limit(), at(1), 150.0), None, "pending again");
        let raised = monitor.observe(&limit(), at(11), 150.0);
        assert!(matches!(raised, Some(Transition::Raise { side: Side::Above, .. })), "{raised:?}");
        monitor.forget_after(at(11));
        assert_eq!(monitor.observe(&limit(), at(10), 60.0), None, "late values still change nothing");
    }

    #[test]
    fn a_condition_that_goes_on_after_its_alert_was_closed_is_raised_anew() {
        let at = Timestamp::from_seconds;
        let mut monitor = ThresholdMonitor::holding(Side::Above, at(0));
        assert_eq!(monitor.observe(&limit(), at(1), 150.0), None);
        monitor.closed_by_hand();
        assert_eq!(monitor.observe(&limit(), at(2), 150.0), None);
        assert!(monitor.observe(&limit(), at(12), 150.0).is_some());
    }

    #[test]
    fn a_limit_is_inclusive() {
        check(&[(0, 140.0), (20, 140.0), (30, 40.0), (50, 40.0)], &[]);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        assert!(Limit::adult_defaults().iter().all(|limit| limit.check().is_ok()));
        let with = |change: fn(&mut Limit)| {
            let mut limit = limit();
            change(&mut limit);
            limit.check()
        };
        assert_eq!(Limit::check_all(&Limit::adult_defaults()), Ok(()));
        assert!(matches!(Limit::check_all(&[limit(), limit()]), Err(LimitError::Twice { .. })));
        assert!(matches!(with(|l| (l.low, l.high) = (None, None)), Err(LimitError::Empty { .. })));
        assert!(matches!(with(|l| l.low = Some(139.0)), Err(LimitError::Crossed { .. })));
        assert!(matches!(with(|l| l.high = Some(f64::NAN)), Err(LimitError::OutOfRange { .. })));
        assert!(matches!(with(|l| l.high = Some(900.0)), Err(LimitError::OutOfRange { .. })));
        assert!(matches!(with(|l| l.hysteresis = -1.0), Err(LimitError::OutOfRange { .. })));
        assert!(matches!(with(|l| l.persistence_s = 4_000), Err(LimitError::OutOfRange { .. })));
        assert!(matches!(
            with(|l| l.measure = clinical_model::measure::BLOOD_PRESSURE),
            Err(LimitError::NotScalar { .. })
        ));
    }

    proptest! {
        #[test]
        fn every_raise_is_followed_by_an_end_or_a_turn_before_the_next(
            values in proptest::collection::vec((1i64..30, 0.0f64..250.0), 1..200)
        ) {
            let mut monitor = ThresholdMonitor::default();
            let mut holds = false;
            let mut second = 0;
            for (step, value) in values {
                second += step;
                match monitor.observe(&limit(), Timestamp::from_seconds(second), value) {
                    Some(Transition::Raise { .. }) => { prop_assert!(!holds); holds = true; }
                    Some(Transition::Turn { .. }) => prop_assert!(holds),
                    Some(Transition::End) => { prop_assert!(holds); holds = false; }
                    None => {}
                }
                // A value well inside always leaves the condition off.
                if (50.0..130.0).contains(&value) { prop_assert!(!holds); }
            }
        }
    }
}
