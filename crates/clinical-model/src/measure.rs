//! The one table of what can be measured: number, name, LOINC and MDC codes, unit, plausible ranges.
//!
//! LOINC codes and fixed units of vital signs follow the FHIR R4 vital-signs profiles
//! (`hl7.org/fhir/R4/observation-vitalsigns.html`); MDC numbers are IEEE 11073-10101 terms as
//! `partition · 65536 + term`. Ranges are engineering bounds for plausibility, never alert limits.
//!
//! This material contains content from LOINC (<http://loinc.org>). LOINC is copyright Regenstrief Institute, Inc.
//! and the Logical Observation Identifiers Names and Codes (LOINC) Committee and is available at no cost under
//! the license at <http://loinc.org/license>. LOINC is a registered United States trademark of Regenstrief
//! Institute, Inc.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// How values of a measure are shaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasureKind {
    /// One number at one instant.
    Scalar,
    /// One number that belongs to the named panel; same instant, same sequence.
    Component(&'static Measure),
    /// Readings that belong together; has no value of its own.
    Panel,
    /// Evenly sampled blocks.
    Waveform,
    /// Something that happened.
    Event,
}

/// Broad class, as in the FHIR observation category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// `vital-signs`.
    VitalSigns,
    /// `laboratory`.
    Laboratory,
    /// `activity`.
    Activity,
    /// `procedure`: waveforms and what a device reports of its work.
    Procedure,
    /// `survey`: scores given by a person.
    Survey,
}

/// One row of the table.
#[derive(Debug)]
pub struct MeasureRow {
    /// Stable number in storage: never changed, never used again.
    pub number: u16,
    /// Stable name in the JSON envelope, in configuration and in the JSON API.
    pub name: &'static str,
    /// What a person reads.
    pub display: &'static str,
    /// Two to six letters for a tile.
    pub short: &'static str,
    /// LOINC code that the chart leads with.
    pub loinc: Option<&'static str>,
    /// Further LOINC codes that mean the same here; written beside the first, and accepted.
    pub also_loinc: &'static [&'static str],
    /// IEEE 11073-10101 code.
    pub mdc: Option<u32>,
    /// IEEE 11073-10101 reference id.
    pub mdc_refid: &'static str,
    /// UCUM unit of the series.
    pub unit: &'static str,
    /// What a person reads for the unit.
    pub unit_display: &'static str,
    /// Shape of the values.
    pub kind: MeasureKind,
    /// Class in the chart.
    pub category: Category,
    /// Outside this a value cannot be a measurement of this kind: it is quarantined.
    pub possible: (f64, f64),
    /// Outside this a value is kept, with a finding.
    pub usual: (f64, f64),
    /// A faster change (units a minute) between neighbours less than ten minutes apart is kept, with a finding.
    pub max_change_per_min: Option<f64>,
}

/// A handle on one row of the table.
#[derive(Clone, Copy)]
pub struct Measure(&'static MeasureRow);

impl std::ops::Deref for Measure {
    type Target = MeasureRow;

    fn deref(&self) -> &MeasureRow {
        self.0
    }
}

impl PartialEq for Measure {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for Measure {}

impl Hash for Measure {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl PartialOrd for Measure {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Measure {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.number.cmp(&other.0.number)
    }
}

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Serialize for Measure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for Measure {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Measure::by_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("no measure is named \"{name}\"")))
    }
}

impl Measure {
    /// Every row, in the order of the table.
    pub fn all() -> impl Iterator<Item = Measure> {
        TABLE.iter().map(|measure| **measure)
    }

    /// By its number in storage.
    pub fn by_number(number: u16) -> Option<Measure> {
        Measure::all().find(|row| row.number == number)
    }

    /// By its name.
    pub fn by_name(name: &str) -> Option<Measure> {
        Measure::all().find(|row| row.name == name)
    }

    /// By its MDC number.
    pub fn by_mdc(code: u32) -> Option<Measure> {
        Measure::all().find(|row| row.mdc == Some(code))
    }

    /// By LOINC: the measure that leads with the code, else the first that also carries it.
    pub fn by_loinc(code: &str) -> Option<Measure> {
        Measure::all()
            .find(|row| row.loinc == Some(code))
            .or_else(|| Measure::all().find(|row| row.also_loinc.contains(&code)))
    }

    /// Every measure that the chart shows under a LOINC code: 8867-4 covers the heart rate of an ECG and
    /// the pulse rates of an oximeter and a cuff.
    pub fn all_by_loinc(code: &str) -> Vec<Measure> {
        Measure::all().filter(|row| row.loinc == Some(code) || row.also_loinc.contains(&code)).collect()
    }

    /// By `name`, `LOINC`, or `MDC` number written as text, in this order.
    pub fn find(text: &str) -> Option<Measure> {
        Measure::by_name(text)
            .or_else(|| Measure::by_loinc(text))
            .or_else(|| text.parse().ok().and_then(Measure::by_mdc))
            .or_else(|| Measure::all().find(|row| !row.mdc_refid.is_empty() && row.mdc_refid == text))
    }

    /// The panel that this is a component of.
    pub fn panel(self) -> Option<Measure> {
        match self.0.kind {
            MeasureKind::Component(panel) => Some(*panel),
            _ => None,
        }
    }

    /// The components of a panel, in the order of the table; empty for anything else.
    pub fn components(self) -> Vec<Measure> {
        Measure::all().filter(|row| row.panel() == Some(self)).collect()
    }

    /// Whether values are numbers at instants.
    pub fn is_scalar(self) -> bool {
        matches!(self.0.kind, MeasureKind::Scalar | MeasureKind::Component(_))
    }
}

const NONE: &[&str] = &[];
const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

macro_rules! measures {
    ($( $(#[$doc:meta])* $konst:ident = $number:literal, $name:literal, $display:literal, $short:literal,
        loinc $loinc:expr, also $also:expr, mdc $mdc:expr, $refid:literal, unit $unit:literal $unit_display:literal,
        $kind:expr, $category:ident, possible $possible:expr, usual $usual:expr, change $change:expr; )*) => {
        $( $(#[$doc])* pub static $konst: Measure = Measure(&MeasureRow {
            number: $number, name: $name, display: $display, short: $short, loinc: $loinc, also_loinc: $also,
            mdc: $mdc, mdc_refid: $refid, unit: $unit, unit_display: $unit_display, kind: $kind,
            category: Category::$category, possible: $possible, usual: $usual, max_change_per_min: $change,
        }); )*

        static TABLE: &[&Measure] = &[ $(&$konst),* ];
    };
}

use MeasureKind::{Component, Event, Panel, Scalar, Waveform};

measures! {
    /// Heart rate from an electrocardiogram.
    HEART_RATE = 1, "heart_rate", "Heart rate", "HR", loinc Some("8867-4"), also NONE,
        mdc Some(147_842), "MDC_ECG_HEART_RATE", unit "/min" "/min", Scalar, VitalSigns,
        possible (0.0, 350.0), usual (20.0, 250.0), change Some(150.0);
    /// Pulse rate from an oximeter.
    PULSE_RATE_OXIMETER = 2, "pulse_rate_oximeter", "Pulse rate (oximeter)", "PR", loinc Some("8867-4"), also &["8889-8"],
        mdc Some(149_530), "MDC_PULS_OXIM_PULS_RATE", unit "/min" "/min", Scalar, VitalSigns,
        possible (0.0, 350.0), usual (20.0, 250.0), change Some(150.0);
    /// Pulse rate from a blood-pressure cuff.
    PULSE_RATE_CUFF = 3, "pulse_rate_cuff", "Pulse rate (cuff)", "PR", loinc Some("8867-4"), also NONE,
        mdc Some(149_546), "MDC_PULS_RATE_NON_INV", unit "/min" "/min", Scalar, VitalSigns,
        possible (0.0, 350.0), usual (20.0, 250.0), change None;
    /// Oxygen saturation by pulse oximetry.
    OXYGEN_SATURATION = 4, "oxygen_saturation", "Oxygen saturation", "SpO₂", loinc Some("2708-6"), also &["59408-5"],
        mdc Some(150_456), "MDC_PULS_OXIM_SAT_O2", unit "%" "%", Scalar, VitalSigns,
        possible (0.0, 100.0), usual (50.0, 100.0), change Some(40.0);
    /// Respiratory rate.
    RESPIRATORY_RATE = 5, "respiratory_rate", "Respiratory rate", "RR", loinc Some("9279-1"), also NONE,
        mdc Some(151_562), "MDC_RESP_RATE", unit "/min" "/min", Scalar, VitalSigns,
        possible (0.0, 120.0), usual (4.0, 80.0), change Some(80.0);
    /// Body temperature, whatever the site.
    BODY_TEMPERATURE = 6, "body_temperature", "Body temperature", "Temp", loinc Some("8310-5"), also NONE,
        mdc Some(150_364), "MDC_TEMP_BODY", unit "Cel" "°C", Scalar, VitalSigns,
        possible (10.0, 50.0), usual (25.0, 45.0), change Some(2.0);
    /// Blood pressure by cuff: a panel.
    BLOOD_PRESSURE = 7, "blood_pressure", "Blood pressure", "NIBP", loinc Some("85354-9"), also NONE,
        mdc Some(150_020), "MDC_PRESS_BLD_NONINV", unit "mm[Hg]" "mmHg", Panel, VitalSigns,
        possible ANY, usual ANY, change None;
    /// Systolic pressure by cuff.
    SYSTOLIC = 8, "systolic", "Systolic blood pressure", "Sys", loinc Some("8480-6"), also NONE,
        mdc Some(150_021), "MDC_PRESS_BLD_NONINV_SYS", unit "mm[Hg]" "mmHg", Component(&BLOOD_PRESSURE), VitalSigns,
        possible (20.0, 320.0), usual (50.0, 280.0), change None;
    /// Diastolic pressure by cuff.
    DIASTOLIC = 9, "diastolic", "Diastolic blood pressure", "Dia", loinc Some("8462-4"), also NONE,
        mdc Some(150_022), "MDC_PRESS_BLD_NONINV_DIA", unit "mm[Hg]" "mmHg", Component(&BLOOD_PRESSURE), VitalSigns,
        possible (10.0, 250.0), usual (20.0, 180.0), change None;
    /// Mean pressure by cuff.
    MEAN_PRESSURE = 10, "mean_pressure", "Mean blood pressure", "Mean", loinc Some("8478-0"), also NONE,
        mdc Some(150_023), "MDC_PRESS_BLD_NONINV_MEAN", unit "mm[Hg]" "mmHg", Component(&BLOOD_PRESSURE), VitalSigns,
        possible (10.0, 280.0), usual (25.0, 220.0), change None;
    /// Arterial pressure by catheter: a panel.
    ARTERIAL_PRESSURE = 11, "arterial_pressure", "Arterial blood pressure", "ABP", loinc Some("85354-9"), also NONE,
        mdc Some(150_032), "MDC_PRESS_BLD_ART", unit "mm[Hg]" "mmHg", Panel, VitalSigns,
        possible ANY, usual ANY, change None;
    /// Systolic pressure by catheter.
    ARTERIAL_SYSTOLIC = 12, "arterial_systolic", "Systolic blood pressure (arterial)", "Sys", loinc Some("8480-6"), also NONE,
        mdc Some(150_033), "MDC_PRESS_BLD_ART_SYS", unit "mm[Hg]" "mmHg", Component(&ARTERIAL_PRESSURE), VitalSigns,
        possible (-20.0, 350.0), usual (40.0, 280.0), change Some(200.0);
    /// Diastolic pressure by catheter.
    ARTERIAL_DIASTOLIC = 13, "arterial_diastolic", "Diastolic blood pressure (arterial)", "Dia", loinc Some("8462-4"), also NONE,
        mdc Some(150_034), "MDC_PRESS_BLD_ART_DIA", unit "mm[Hg]" "mmHg", Component(&ARTERIAL_PRESSURE), VitalSigns,
        possible (-20.0, 350.0), usual (15.0, 180.0), change Some(200.0);
    /// Mean pressure by catheter.
    ARTERIAL_MEAN = 14, "arterial_mean", "Mean blood pressure (arterial)", "Mean", loinc Some("8478-0"), also NONE,
        mdc Some(150_035), "MDC_PRESS_BLD_ART_MEAN", unit "mm[Hg]" "mmHg", Component(&ARTERIAL_PRESSURE), VitalSigns,
        possible (-20.0, 350.0), usual (20.0, 220.0), change Some(200.0);
    /// Perfusion index: pulsatile share of the oximeter's signal.
    PERFUSION_INDEX = 15, "perfusion_index", "Perfusion index", "PI", loinc Some("61006-3"), also NONE,
        mdc Some(150_448), "MDC_PULS_OXIM_PERF_REL", unit "%" "%", Scalar, VitalSigns,
        possible (0.0, 100.0), usual (0.0, 20.0), change None;
    /// Body weight.
    BODY_WEIGHT = 16, "body_weight", "Body weight", "Weight", loinc Some("29463-7"), also &["3141-9"],
        mdc Some(188_736), "MDC_MASS_BODY_ACTUAL", unit "kg" "kg", Scalar, VitalSigns,
        possible (0.2, 650.0), usual (1.0, 300.0), change None;
    /// Body height.
    BODY_HEIGHT = 17, "body_height", "Body height", "Height", loinc Some("8302-2"), also NONE,
        mdc Some(188_740), "MDC_LEN_BODY_ACTUAL", unit "cm" "cm", Scalar, VitalSigns,
        possible (20.0, 280.0), usual (30.0, 230.0), change None;
    /// Body mass index.
    BODY_MASS_INDEX = 18, "body_mass_index", "Body mass index", "BMI", loinc Some("39156-5"), also NONE,
        mdc Some(188_752), "MDC_RATIO_MASS_BODY_LEN_SQ", unit "kg/m2" "kg/m²", Scalar, VitalSigns,
        possible (5.0, 200.0), usual (10.0, 80.0), change None;
    /// Blood glucose by fingerstick.
    GLUCOSE = 19, "glucose", "Glucose (capillary)", "Gluc", loinc Some("41653-7"), also NONE,
        mdc Some(160_184), "MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD", unit "mg/dL" "mg/dL", Scalar, Laboratory,
        possible (10.0, 1000.0), usual (20.0, 600.0), change None;
    /// Interval between two heart beats.
    RR_INTERVAL = 20, "rr_interval", "R-R interval", "RRi", loinc None, also NONE,
        mdc Some(147_240), "MDC_ECG_TIME_PD_RR_GL", unit "ms" "ms", Scalar, Procedure,
        possible (100.0, 10_000.0), usual (150.0, 3_000.0), change None;
    /// Energy expended since the sensor was last reset.
    ENERGY_EXPENDED = 21, "energy_expended", "Energy expended", "kJ", loinc None, also NONE,
        mdc None, "", unit "kJ" "kJ", Scalar, Activity,
        possible (0.0, 65_535.0), usual (0.0, 65_535.0), change None;
    /// Charge of a device's battery.
    BATTERY_LEVEL = 22, "battery_level", "Battery level", "Batt", loinc None, also NONE,
        mdc Some(67_996), "MDC_ATTR_VAL_BATT_CHARGE", unit "%" "%", Scalar, Procedure,
        possible (0.0, 100.0), usual (0.0, 100.0), change None;
    /// Central venous pressure, mean.
    CENTRAL_VENOUS_PRESSURE = 23, "central_venous_pressure", "Central venous pressure", "CVP", loinc Some("60985-9"), also NONE,
        mdc Some(150_087), "MDC_PRESS_BLD_VEN_CENT_MEAN", unit "mm[Hg]" "mmHg", Scalar, VitalSigns,
        possible (-20.0, 50.0), usual (-10.0, 40.0), change None;
    /// Carbon dioxide at the end of expiration.
    END_TIDAL_CO2 = 24, "end_tidal_co2", "End-tidal CO₂", "etCO₂", loinc Some("19889-5"), also NONE,
        mdc Some(151_712), "MDC_CONC_AWAY_CO2_EXP", unit "mm[Hg]" "mmHg", Scalar, VitalSigns,
        possible (0.0, 150.0), usual (5.0, 100.0), change None;
    /// Total of the Glasgow coma scale.
    GLASGOW_COMA_SCORE = 25, "glasgow_coma_score", "Glasgow coma score", "GCS", loinc Some("9269-2"), also NONE,
        mdc None, "", unit "{score}" "points", Scalar, Survey,
        possible (3.0, 15.0), usual (3.0, 15.0), change None;
    /// Temperature of a room, a fridge, a freezer: never a body's.
    ROOM_TEMPERATURE = 26, "room_temperature", "Ambient temperature", "Amb", loinc Some("60832-3"), also NONE,
        mdc Some(188_508), "MDC_TEMP_ROOM", unit "Cel" "°C", Scalar, Procedure,
        possible (-100.0, 100.0), usual (-80.0, 60.0), change None;
    /// Electrocardiogram, lead I.
    ECG_I = 101, "ecg_i", "ECG lead I", "I", loinc None, also NONE,
        mdc Some(131_329), "MDC_ECG_ELEC_POTL_I", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Electrocardiogram, lead II.
    ECG_II = 102, "ecg_ii", "ECG lead II", "II", loinc None, also NONE,
        mdc Some(131_330), "MDC_ECG_ELEC_POTL_II", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Electrocardiogram, lead III.
    ECG_III = 103, "ecg_iii", "ECG lead III", "III", loinc None, also NONE,
        mdc Some(131_389), "MDC_ECG_ELEC_POTL_III", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Electrocardiogram, lead V1.
    ECG_V1 = 104, "ecg_v1", "ECG lead V1", "V1", loinc None, also NONE,
        mdc Some(131_331), "MDC_ECG_ELEC_POTL_V1", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Electrocardiogram, lead V2.
    ECG_V2 = 105, "ecg_v2", "ECG lead V2", "V2", loinc None, also NONE,
        mdc Some(131_332), "MDC_ECG_ELEC_POTL_V2", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Electrocardiogram, lead V4.
    ECG_V4 = 107, "ecg_v4", "ECG lead V4", "V4", loinc None, also NONE,
        mdc Some(131_334), "MDC_ECG_ELEC_POTL_V4", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Electrocardiogram, lead V5.
    ECG_V5 = 108, "ecg_v5", "ECG lead V5", "V5", loinc None, also NONE,
        mdc Some(131_335), "MDC_ECG_ELEC_POTL_V5", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Electrocardiogram, lead not stated.
    ECG = 110, "ecg", "ECG", "ECG", loinc None, also NONE,
        mdc Some(131_328), "MDC_ECG_ELEC_POTL", unit "mV" "mV", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Plethysmogram of an oximeter; no absolute unit.
    PLETHYSMOGRAM = 120, "plethysmogram", "Plethysmogram", "Pleth", loinc Some("76523-0"), also NONE,
        mdc Some(150_452), "MDC_PULS_OXIM_PLETH", unit "1" "", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Arterial pressure curve. The MDC term is the panel's, so that it is looked up by name only.
    ARTERIAL_WAVEFORM = 121, "arterial_waveform", "Arterial pressure curve", "ABP", loinc None, also NONE,
        mdc None, "", unit "mm[Hg]" "mmHg", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// Respiration curve; no absolute unit.
    RESPIRATION_WAVEFORM = 122, "respiration_waveform", "Respiration curve", "Resp", loinc None, also NONE,
        mdc None, "", unit "1" "", Waveform, Procedure, possible ANY, usual ANY, change None;
    /// A device signalled an alarm of its own.
    DEVICE_ALARM = 201, "device_alarm", "Device alarm", "Alarm", loinc None, also NONE,
        mdc Some(196_616), "MDC_EVT_ALARM", unit "1" "", Event, Procedure, possible ANY, usual ANY, change None;
    /// A dose was delivered (pen, pump, inhaler).
    DOSE = 202, "dose", "Dose delivered", "Dose", loinc None, also NONE,
        mdc None, "", unit "1" "", Event, Procedure, possible ANY, usual ANY, change None;
    /// A button was pressed by the patient.
    PATIENT_CALL = 203, "patient_call", "Patient call", "Call", loinc None, also NONE,
        mdc None, "", unit "1" "", Event, Procedure, possible ANY, usual ANY, change None;
    /// Messages of a device did not arrive: the amount says how many, the text which.
    DATA_GAP = 205, "data_gap", "Gap in the data", "Gap", loinc None, also NONE,
        mdc None, "", unit "1" "", Event, Procedure, possible ANY, usual ANY, change None;
    /// A tag was seen by a receiver.
    TAG_SIGHTING = 204, "tag_sighting", "Tag sighting", "Tag", loinc None, also NONE,
        mdc None, "", unit "1" "", Event, Procedure, possible ANY, usual ANY, change None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_names_and_mdc_codes_are_unique() {
        let mut numbers = HashSet::new();
        let mut names = HashSet::new();
        let mut codes = HashSet::new();
        for row in Measure::all() {
            assert!(numbers.insert(row.number), "{row:?}");
            assert!(names.insert(row.name), "{row:?}");
            assert!(row.mdc.is_none_or(|code| codes.insert(code)), "{row:?}");
            assert_eq!(Measure::by_number(row.number), Some(row));
            assert_eq!(Measure::by_name(row.name), Some(row));
        }
    }

    #[test]
    fn rows_are_sound() {
        for row in Measure::all() {
            assert!(crate::unit::is_valid(row.unit), "{row:?}: {} is not UCUM", row.unit);
            assert!(row.possible.0 <= row.usual.0 && row.usual.1 <= row.possible.1, "{row:?}");
            if let Some(panel) = row.panel() {
                assert_eq!(panel.kind, MeasureKind::Panel, "{row:?}");
                assert_eq!(panel.unit, row.unit, "{row:?}");
                assert!(panel.components().contains(&row), "{row:?}");
            }
        }
    }

    #[test]
    fn codes_are_found() {
        assert_eq!(Measure::find("8867-4"), Some(HEART_RATE));
        assert_eq!(Measure::find("59408-5"), Some(OXYGEN_SATURATION));
        assert_eq!(Measure::find("150456"), Some(OXYGEN_SATURATION));
        assert_eq!(Measure::find("MDC_PRESS_BLD_NONINV_SYS"), Some(SYSTOLIC));
        assert_eq!(Measure::find("bpm"), None);
        assert_eq!(Measure::all_by_loinc("8867-4").len(), 3);
        assert_eq!(BLOOD_PRESSURE.components(), vec![SYSTOLIC, DIASTOLIC, MEAN_PRESSURE]);
    }
}
