//! Who lies where, with which devices, and what is wrong with some of them: a pure description from a seed.

mod build;
mod names;

use std::time::Duration;

use clinical_model::id::Subject;
use clinical_model::{
    Assignment, AssignmentId, Device, DeviceId, Interval, Patient, Place, PlaceId, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::client::MqttVersion;
use crate::random::Random;

/// Most beds of one plan: each plays two devices, and one process should keep them all in time.
pub const MAX_BEDS: usize = 500;
/// Most homes of one plan.
pub const MAX_HOMES: usize = 500;
/// The year in which the patients have the ages of their recordings.
pub const REFERENCE_YEAR: u16 = 2026;

/// How a device reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "over", content = "version")]
pub enum Transport {
    /// MQTT over TLS.
    Mqtt(MqttVersion),
    /// One HTTPS request a frame.
    Https,
}

/// A stretch of another recording, shown in place of the usual one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// Seconds after the start of the play.
    pub from_s: u32,
    /// First second no longer shown.
    pub until_s: u32,
    /// Name of the recording.
    pub record: String,
    /// Where in the recording it begins, in seconds.
    pub start_s: u32,
    /// What a clinician would call it.
    pub shows: String,
}

/// A silence that comes again and again: the link breaks without a farewell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Seconds of work before each silence.
    pub after_s: u32,
    /// Seconds of silence.
    pub for_s: u32,
}

/// What a person's home devices measure around: invented, unlike the recordings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Systolic pressure in mmHg.
    pub systolic_mmhg: f64,
    /// Diastolic pressure in mmHg.
    pub diastolic_mmhg: f64,
    /// Heart rate.
    pub heart_rate_per_min: f64,
    /// Oxygen saturation in percent.
    pub saturation_percent: f64,
    /// Body temperature in °C.
    pub temperature_cel: f64,
    /// Weight in kilograms.
    pub weight_kg: f64,
    /// Height in metres.
    pub height_m: f64,
}

/// What a device does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
// Tagged from outside: with exact digits switched on, the JSON library cannot read numbers inside other tagging.
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sends two curves and the heart rate of a recording, in real time, in a loop.
    Telemetry {
        /// Name of the recording.
        record: String,
        /// Where in the recording it begins, in seconds.
        start_s: u32,
        /// Other recordings shown for a while; the list begins again after [`STORY_LENGTH`].
        scenes: Vec<Scene>,
        /// Recurring silence.
        silence: Option<Silence>,
    },
    /// Sends the vital signs of a recorded stay, faster than they were taken.
    Bedside {
        /// Number of the stay.
        stay: String,
        /// First row of the one-minute numerics whose oxygen saturation is played.
        saturation_from_row: u32,
    },
    /// Blood pressure cuff: characteristic 2A35.
    Cuff(Baseline),
    /// Oximeter, spot checks: characteristic 2A5E.
    SpotOximeter(Baseline),
    /// Oximeter, continuous: characteristic 2A5F.
    ContinuousOximeter(Baseline),
    /// Thermometer: characteristic 2A1C.
    Thermometer(Baseline),
    /// Scale: characteristic 2A9D.
    Scale(Baseline),
    /// Heart-rate strap: characteristic 2A37, from the beats of a recording.
    HeartRateStrap {
        /// Name of the recording.
        record: String,
    },
}

/// After this the scenes of a story begin again.
pub const STORY_LENGTH: Duration = Duration::from_secs(20 * 60);

/// How much of its stay, in time of the play, a bedside monitor has stored when the play begins.
pub const HISTORY: Duration = Duration::from_secs(12 * 60);

/// What is wrong with a device, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// Measures in °F: the chart must show °C.
    Fahrenheit,
    /// Measures in kPa: the chart must show mmHg.
    Kilopascal,
    /// Its clock runs a year ahead: quarantined as "clock".
    ClockAYearAhead,
    /// Sends every frame twice: charted once.
    RepeatsEveryFrame,
    /// Was assigned to nobody: quarantined as "unassigned".
    AssignedToNobody,
    /// Its frames break off: quarantined as "undecodable".
    TruncatesFrames,
    /// Marks its values as a demonstration: quarantined as "demonstration".
    DemonstrationMode,
}

impl Trouble {
    /// What a person should know of it.
    pub const fn description(self) -> &'static str {
        match self {
            Trouble::Fahrenheit => "measures in °F; the chart shows °C",
            Trouble::Kilopascal => "measures in kPa; the chart shows mmHg",
            Trouble::ClockAYearAhead => "has a clock a year ahead; quarantined as \"clock\"",
            Trouble::RepeatsEveryFrame => "sends every frame twice; charted once",
            Trouble::AssignedToNobody => "is assigned to nobody; quarantined as \"unassigned\"",
            Trouble::TruncatesFrames => "sends frames that break off; quarantined as \"undecodable\"",
            Trouble::DemonstrationMode => "is in demonstration mode; quarantined as \"demonstration\"",
        }
    }
}

/// A device of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedDevice {
    /// What the server must know of it.
    pub device: Device,
    /// Bed or home where it stands.
    pub place: PlaceId,
    /// Whom it is assigned to; `None` for the one that was forgotten.
    pub assigned_to: Option<Subject>,
    /// How it reaches the server.
    pub transport: Transport,
    /// What it does.
    pub role: Role,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
}

/// A hospital.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// Wards, beds, the home-care team and homes; wards come before what belongs to them.
    pub places: Vec<Place>,
    /// The patients.
    pub patients: Vec<Patient>,
    /// The devices.
    pub devices: Vec<PlannedDevice>,
}

impl Plan {
    /// The hospital of a seed: the same seed and numbers always make the same one.
    ///
    /// `beds` and `homes` are cut to [`MAX_BEDS`] and [`MAX_HOMES`].
    pub fn seeded(seed: u64, beds: usize, homes: usize) -> Plan {
        build::plan(seed, beds.min(MAX_BEDS), homes.min(MAX_HOMES))
    }

    /// The devices.
    pub fn devices(&self) -> &[PlannedDevice] {
        &self.devices
    }

    /// A device by its id.
    pub fn device(&self, id: DeviceId) -> Option<&PlannedDevice> {
        self.devices.iter().find(|planned| planned.device.id == id)
    }

    /// The assignments for a play that begins at `begin`; their ids come from the seed.
    ///
    /// They are open from [`HISTORY`] before, because that far back go the readings that the bedside
    /// monitors have stored and send first.
    pub fn assignments(&self, begin: Timestamp) -> Vec<Assignment> {
        // A minute more, so that no difference of two clocks leaves a reading unassigned.
        let since = begin.minus(HISTORY + Duration::from_secs(60));
        let mut random = Random::for_part(self.seed, "assignments");
        self.devices
            .iter()
            .filter_map(|planned| {
                // Drawn for every device, so that one more assignment does not change the others' ids.
                let id = AssignmentId::from_bytes(random.uuid_bytes());
                let subject = planned.assigned_to?;
                Some(Assignment { id, device: planned.device.id, subject, interval: Interval::since(since) })
            })
            .collect()
    }

    /// What there is to be seen, a line each, without any patient's name: for the console of a demonstration.
    pub fn storyline(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for planned in &self.devices {
            let place = self.places.iter().find(|place| place.id == planned.place);
            let place = place.map_or("?", |place| place.name.as_str());
            let name = &planned.device.name;
            if let Role::Telemetry { scenes, silence, .. } = &planned.role {
                lines.extend(scenes.iter().map(|scene| {
                    let (from, until) = (scene.from_s / 60, scene.until_s / 60);
                    format!("{place}: {} in minutes {from} to {until}", scene.shows)
                }));
                lines.extend(silence.map(|silence| {
                    format!(
                        "{place}: {name} falls silent for {} s after every {} s",
                        silence.for_s, silence.after_s
                    )
                }));
            }
            lines.extend(planned.trouble.map(|trouble| format!("{place}: {name} {}", trouble.description())));
        }
        lines
    }

    /// The devices with planted trouble.
    pub fn troubles(&self) -> impl Iterator<Item = (&PlannedDevice, Trouble)> {
        self.devices.iter().filter_map(|planned| Some((planned, planned.trouble?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::recordings;

    #[test]
    fn one_seed_makes_one_hospital() {
        let plan = Plan::seeded(7, 24, 12);
        // Not assert_eq: its message would print the whole hospital.
        assert!(plan == Plan::seeded(7, 24, 12));
        assert_ne!(plan.devices[0].device.id, Plan::seeded(8, 24, 12).devices[0].device.id);
        // More beds leave the first ones as they were.
        assert_eq!(plan.patients[0], Plan::seeded(7, 30, 12).patients[0]);
        let text = serde_json::to_string(&plan).unwrap();
        assert!(serde_json::from_str::<Plan>(&text).unwrap() == plan);
    }

    #[test]
    fn every_bed_and_home_has_a_patient_and_devices() {
        let plan = Plan::seeded(1, 24, 12);
        assert_eq!(plan.patients.len(), 36);
        let ids: HashSet<_> = plan.devices.iter().map(|d| d.device.id).collect();
        assert_eq!(ids.len(), plan.devices.len());
        let serials: HashSet<_> = plan.devices.iter().map(|d| d.device.serial.as_str()).collect();
        assert_eq!(serials.len(), plan.devices.len());
        let numbers: HashSet<_> = plan.patients.iter().map(|p| p.record_number.expose().as_str()).collect();
        assert_eq!(numbers.len(), 36);
        for patient in &plan.patients {
            let devices =
                plan.devices.iter().filter(|d| d.assigned_to == Some(Subject::Patient(patient.id))).count();
            assert!(devices >= 2, "{:?} has {devices} devices", patient.id);
        }
    }

    #[test]
    fn every_trouble_is_planted_once() {
        let plan = Plan::seeded(3, 24, 12);
        let troubles: Vec<_> = plan.troubles().map(|(_, trouble)| trouble).collect();
        assert_eq!(troubles.len(), 7);
        assert_eq!(troubles.iter().collect::<HashSet<_>>().len(), 7);
        let since = Timestamp::from_seconds(1_700_000_000);
        assert_eq!(plan.assignments(since).len(), plan.devices.len() - 1);
        assert!(plan.assignments(since).iter().all(|a| a.interval.contains(since.minus(HISTORY))));
        let storyline = plan.storyline();
        assert!(storyline.len() > 7 + 7, "{storyline:?}");
        for patient in &plan.patients {
            let family = patient.family.expose();
            assert!(!storyline.iter().any(|line| line.contains(family.as_str())));
        }
    }

    #[test]
    fn every_recording_of_the_plan_travels_with_it() {
        for planned in Plan::seeded(5, 40, 20).devices {
            match planned.role {
                Role::Telemetry { record, scenes, start_s, .. } => {
                    let record = recordings::record(&record).unwrap();
                    assert!(f64::from(start_s) < record.duration_s());
                    for scene in scenes {
                        assert!(scene.from_s < scene.until_s);
                        assert!(u64::from(scene.until_s) <= STORY_LENGTH.as_secs());
                        let record = recordings::record(&scene.record).unwrap();
                        let end_s = scene.start_s + (scene.until_s - scene.from_s);
                        assert!(f64::from(end_s) <= record.duration_s(), "{scene:?} runs over the end");
                        assert!(record.beat_times_s().len() > 100);
                    }
                }
                Role::Bedside { stay, .. } => assert_eq!(recordings::stay(&stay).unwrap().number, stay),
                Role::HeartRateStrap { record } => assert!(recordings::record(&record).is_ok()),
                _ => {}
            }
        }
    }
}
