//! Findings: what is odd about a value that is kept all the same.

bitflags::bitflags! {
    /// A set of findings. The bit numbers are part of the storage format: never changed, never used again.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Findings: u32 {
        /// Outside the usual range of its measure.
        const OUTSIDE_USUAL = 1 << 0;
        /// Changed faster than its measure usually can.
        const FAST_CHANGE = 1 << 1;
        /// Converted to the unit of the series.
        const UNIT_CONVERTED = 1 << 2;
        /// The device sent no time; the time of receipt stands in.
        const TIME_RECEIVED = 1 << 3;
        /// The device's clock was corrected by the rule set for it.
        const CLOCK_CORRECTED = 1 << 4;
        /// Measured well before it was received (stored by the device or a gateway).
        const LATE = 1 << 5;
        /// The device's clock runs a little ahead of ours.
        const CLOCK_AHEAD = 1 << 6;
        /// Another value was kept under the same identity: the first committed stands, and each says that there is another.
        const CONFLICT = 1 << 7;
        /// Sent without a promise of delivery (MQTT QoS 0).
        const AT_MOST_ONCE = 1 << 8;
        /// The device calls the measurement questionable.
        const QUESTIONABLE = 1 << 9;
        /// The device calls the measurement invalid.
        const INVALID = 1 << 10;
        /// The body moved during the measurement.
        const BODY_MOVEMENT = 1 << 11;
        /// The cuff was too loose.
        const CUFF_LOOSE = 1 << 12;
        /// The pulse was irregular.
        const IRREGULAR_PULSE = 1 << 13;
        /// The measuring position was improper.
        const IMPROPER_POSITION = 1 << 14;
        /// The pulse rate was above the device's range.
        const PULSE_ABOVE_RANGE = 1 << 15;
        /// The pulse rate was below the device's range.
        const PULSE_BELOW_RANGE = 1 << 16;
        /// The sensor is not in contact, displaced or disconnected.
        const SENSOR_OFF = 1 << 17;
        /// Perfusion was low or the signal weak.
        const LOW_SIGNAL = 1 << 18;
        /// The sensor is faulty or unknown.
        const SENSOR_FAULT = 1 << 19;
        /// An early estimate, a measurement still going on.
        const PRELIMINARY = 1 << 20;
        /// The device read it from its own storage.
        const FROM_DEVICE_STORAGE = 1 << 21;
        /// Demonstration or test data: never charted.
        const DEMONSTRATION = 1 << 22;
        /// The clock of the device is not set.
        const CLOCK_NOT_SET = 1 << 23;
        /// Entered or sent by a program as a FHIR resource, not by a device.
        const FROM_PROGRAM = 1 << 24;
        /// A person or a program put it right after it was charted. Never stored with a value: corrections are laid over
        /// readings when they are read.
        const CORRECTED = 1 << 25;
        /// A person or a program said that it should never have been charted. Never stored with a value.
        const ENTERED_IN_ERROR = 1 << 26;
        /// Taken out of the chart: shown only where a record must be complete. Never stored with a value.
        const WITHDRAWN = 1 << 27;
    }
}

impl Findings {
    /// Names for the JSON API and the chart, with a sentence a person can read, in the order of the bits.
    pub fn described(self) -> Vec<(&'static str, &'static str)> {
        DESCRIPTIONS
            .iter()
            .filter(|(bit, _, _)| self.contains(*bit))
            .map(|(_, name, text)| (*name, *text))
            .collect()
    }
}

const DESCRIPTIONS: &[(Findings, &str, &str)] = &[
    (Findings::OUTSIDE_USUAL, "outside-usual", "outside the usual range"),
    (Findings::FAST_CHANGE, "fast-change", "changed unusually fast"),
    (Findings::UNIT_CONVERTED, "unit-converted", "converted from the unit sent"),
    (Findings::TIME_RECEIVED, "time-received", "the device sent no time; time of receipt"),
    (Findings::CLOCK_CORRECTED, "clock-corrected", "the device's clock was corrected by its rule"),
    (Findings::LATE, "late", "measured well before it was received"),
    (Findings::CLOCK_AHEAD, "clock-ahead", "the device's clock runs ahead"),
    (Findings::CONFLICT, "conflict", "another value was kept under the same identity"),
    (Findings::AT_MOST_ONCE, "at-most-once", "sent without a promise of delivery"),
    (Findings::QUESTIONABLE, "questionable", "the device calls it questionable"),
    (Findings::INVALID, "invalid", "the device calls it invalid"),
    (Findings::BODY_MOVEMENT, "body-movement", "the body moved"),
    (Findings::CUFF_LOOSE, "cuff-loose", "the cuff was too loose"),
    (Findings::IRREGULAR_PULSE, "irregular-pulse", "irregular pulse"),
    (Findings::IMPROPER_POSITION, "improper-position", "improper measuring position"),
    (Findings::PULSE_ABOVE_RANGE, "pulse-above-range", "pulse above the device's range"),
    (Findings::PULSE_BELOW_RANGE, "pulse-below-range", "pulse below the device's range"),
    (Findings::SENSOR_OFF, "sensor-off", "the sensor is off or displaced"),
    (Findings::LOW_SIGNAL, "low-signal", "low perfusion or weak signal"),
    (Findings::SENSOR_FAULT, "sensor-fault", "the sensor is faulty"),
    (Findings::PRELIMINARY, "preliminary", "an early estimate"),
    (Findings::FROM_DEVICE_STORAGE, "from-device-storage", "read from the device's storage"),
    (Findings::DEMONSTRATION, "demonstration", "demonstration or test data"),
    (Findings::CLOCK_NOT_SET, "clock-not-set", "the device's clock is not set"),
    (Findings::FROM_PROGRAM, "from-program", "sent by a program"),
    (Findings::CORRECTED, "corrected", "corrected after it was charted"),
    (Findings::ENTERED_IN_ERROR, "entered-in-error", "entered in error"),
    (Findings::WITHDRAWN, "withdrawn", "withdrawn from the chart"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_a_description() {
        assert_eq!(Findings::all().described().len(), Findings::all().bits().count_ones() as usize);
    }
}
