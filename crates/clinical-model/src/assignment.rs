//! An assignment: which device measures whom, from when to when.

use serde::{Deserialize, Serialize};

use crate::id::{AssignmentId, DeviceId, Subject};
use crate::time::{Interval, Timestamp};

/// Device × subject × interval. A reading belongs to whom the device was assigned to when it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Our id.
    pub id: AssignmentId,
    /// The device.
    pub device: DeviceId,
    /// Patient or place.
    pub subject: Subject,
    /// From when to when.
    pub interval: Interval,
}

/// The assignments of one device in time. Intervals never overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignmentHistory {
    /// In order of their start.
    assignments: Vec<Assignment>,
}

/// Another assignment already covers part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device is already assigned during that time (assignment {existing})")]
pub struct AssignmentOverlap {
    /// The assignment in the way.
    pub existing: AssignmentId,
}

impl AssignmentHistory {
    /// Adds or replaces (by id) one assignment.
    ///
    /// # Errors
    /// [`AssignmentOverlap`] where another assignment shares an instant with it; nothing is changed then.
    pub fn put(&mut self, assignment: Assignment) -> Result<(), AssignmentOverlap> {
        let overlapping =
            |kept: &&Assignment| kept.id != assignment.id && kept.interval.overlaps(&assignment.interval);
        if let Some(kept) = self.assignments.iter().find(overlapping) {
            return Err(AssignmentOverlap { existing: kept.id });
        }
        self.assignments.retain(|kept| kept.id != assignment.id);
        let at = self.assignments.partition_point(|kept| kept.interval.start <= assignment.interval.start);
        self.assignments.insert(at, assignment);
        Ok(())
    }

    /// To whom the device was assigned at `at`.
    pub fn at(&self, at: Timestamp) -> Option<&Assignment> {
        self.assignments.iter().rev().find(|kept| kept.interval.contains(at))
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[Assignment] {
        &self.assignments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PatientId;

    fn assignment(number: u8, start: i64, end: Option<i64>) -> Assignment {
        Assignment {
            id: AssignmentId::from_bytes([number; 16]),
            device: DeviceId::from_bytes([9; 16]),
            subject: Subject::Patient(PatientId::from_bytes([number; 16])),
            interval: Interval {
                start: Timestamp::from_seconds(start),
                end: end.map(Timestamp::from_seconds),
            },
        }
    }

    #[test]
    fn a_reading_belongs_to_whom_the_device_was_assigned_to_then() {
        let mut history = AssignmentHistory::default();
        history.put(assignment(2, 200, None)).unwrap();
        history.put(assignment(1, 100, Some(150))).unwrap();
        let whom =
            |at: i64| history.at(Timestamp::from_seconds(at)).map(|kept| kept.id.as_uuid().as_bytes()[0]);
        assert_eq!(whom(99), None);
        assert_eq!(whom(100), Some(1));
        assert_eq!(whom(149), Some(1));
        assert_eq!(whom(150), None);
        assert_eq!(whom(5_000), Some(2));
    }

    #[test]
    fn overlapping_assignments_are_refused() {
        let mut history = AssignmentHistory::default();
        history.put(assignment(1, 100, Some(200))).unwrap();
        let refused = history.put(assignment(2, 199, Some(300))).unwrap_err();
        assert_eq!(refused.existing, AssignmentId::from_bytes([1; 16]));
        history.put(assignment(1, 100, Some(199))).unwrap();
        history.put(assignment(2, 199, Some(300))).unwrap();
        assert_eq!(history.all().len(), 2);
    }
}
