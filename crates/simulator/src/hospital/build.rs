//! How a seed becomes a hospital.

use clinical_model::device::ClockRule;
use clinical_model::id::Subject;
use clinical_model::patient::Gender;
use clinical_model::place::PlaceKind;
use clinical_model::{Device, DeviceId, Patient, PatientId, Place, PlaceId, Private};

use super::names::{FAMILY, FEMALE, MALE};
use super::{Baseline, Plan, PlannedDevice, REFERENCE_YEAR, Role, Scene, Silence, Transport, Trouble};
use crate::client::MqttVersion;
use crate::random::Random;
use crate::recordings;

/// Beds of one ward.
const BEDS_A_WARD: usize = 24;
/// Names of the wards, used in turn.
const WARDS: &[&str] = &["Ward 3", "Ward 4", "Ward 5", "Ward 6", "Ward 7"];
/// Rows of the one-minute numerics with values of oxygen saturation; chosen by looking at them.
const SATURATION_ROWS: std::ops::Range<u32> = 60..1_500;

/// Everyday strips: sinus rhythm, a bundle-branch block, a pacemaker, atrial fibrillation. Drama is for the story.
const STRIPS: &[(&str, u32)] = &[
    ("mitdb/101", 0),
    ("icu/3975656_0015", 0),
    ("mitdb/124", 0),
    ("icu/v102s", 0),
    ("mitdb/220", 0),
    ("mitdb/102", 0),
    ("icu/3975656_0013", 0),
    ("mitdb/230", 0),
    ("mitdb/201", 0),
    ("mitdb/220", 120),
    ("mitdb/101", 95),
    ("mitdb/124", 70),
    ("icu/3975656_0015", 60),
    ("mitdb/220", 80),
    ("mitdb/119", 0),
    ("mitdb/230", 40),
    ("mitdb/102", 100),
    ("mitdb/124", 120),
    ("mitdb/230", 95),
    ("icu/3975656_0013", 40),
    ("mitdb/106", 0),
    ("mitdb/201", 80),
    ("icu/3975656_0015", 120),
    ("mitdb/101", 50),
];

/// Rhythms of people who are well enough to wear a strap at home.
const STRAPS: &[&str] = &["mitdb/101", "icu/3975656_0015", "mitdb/220", "mitdb/102"];

/// The story: bed (from 0), minutes from and until, recording and second in it, what it shows.
const STORY: &[(usize, u32, u32, &str, u32, &str)] = &[
    (3, 2, 4, "mitdb/208", 0, "ventricular couplets and fusion beats"),
    (6, 4, 6, "mitdb/207", 60, "ventricular flutter"),
    (10, 7, 9, "mitdb/203", 30, "atrial fibrillation with runs of ventricular tachycardia"),
    (13, 9, 10, "mitdb/205", 120, "runs of ventricular tachycardia"),
    (16, 11, 13, "mitdb/209", 0, "supraventricular tachycardia"),
    (19, 14, 16, "mitdb/223", 0, "ventricular tachycardia"),
    (3, 16, 18, "mitdb/207", 60, "ventricular flutter"),
];

/// The bed whose transmitter falls silent, from 0.
const SILENT_BED: usize = 8;
const SILENCE: Silence = Silence { after_s: 210, for_s: 90 };

pub(super) fn plan(seed: u64, beds: usize, homes: usize) -> Plan {
    let mut plan = Plan { seed, places: Vec::new(), patients: Vec::new(), devices: Vec::new() };
    let stays = stays_in_turn(seed);
    let mut ward = None;
    for bed in 0..beds {
        if bed % BEDS_A_WARD == 0 {
            ward = Some(add_ward(&mut plan, bed / BEDS_A_WARD));
        }
        add_bed(&mut plan, bed, ward, stays.get(bed % stays.len().max(1)).map(String::as_str));
    }
    if homes > 0 {
        let team = place(seed, "home team", "Home care", PlaceKind::Ward, None);
        let team_id = team.id;
        plan.places.push(team);
        for home in 0..homes {
            add_home(&mut plan, home, team_id);
        }
        plant_troubles(&mut plan);
    }
    plan
}

/// The stays in an order that the seed shuffles.
fn stays_in_turn(seed: u64) -> Vec<String> {
    let mut stays = recordings::stay_names();
    let mut random = Random::for_part(seed, "stays");
    for last in (1..stays.len()).rev() {
        stays.swap(last, random.below(last + 1));
    }
    stays
}

fn place(seed: u64, part: &str, name: &str, kind: PlaceKind, ward: Option<PlaceId>) -> Place {
    let id = PlaceId::from_bytes(Random::for_part(seed, part).uuid_bytes());
    Place { id, name: name.to_owned(), kind, ward }
}

fn add_ward(plan: &mut Plan, number: usize) -> PlaceId {
    let name = match (WARDS[number % WARDS.len()], number / WARDS.len()) {
        (name, 0) => name.to_owned(),
        (name, round) => format!("{name} {}", round + 1),
    };
    let ward = place(plan.seed, &format!("ward {number}"), &name, PlaceKind::Ward, None);
    let id = ward.id;
    plan.places.push(ward);
    id
}

fn add_bed(plan: &mut Plan, bed: usize, ward: Option<PlaceId>, stay_name: Option<&str>) {
    let seed = plan.seed;
    let number = bed + 1;
    let here = place(seed, &format!("bed {bed}"), &format!("Bed {number:02}"), PlaceKind::Bed, ward);
    let stay = stay_name.and_then(|name| recordings::stay(name).ok());
    let (age, gender) =
        stay.as_ref().map_or((60, Gender::Unknown), |s| (s.age_years.unwrap_or(60), s.gender));
    let patient = patient(seed, &format!("bed patient {bed}"), plan.patients.len(), age, gender, here.id);
    let subject = Some(Subject::Patient(patient.id));

    let (record, start_s) = STRIPS[bed % STRIPS.len()];
    let scenes = STORY
        .iter()
        .filter(|(of, ..)| *of == bed)
        .map(|(_, from_min, until_min, record, start_s, shows)| Scene {
            from_s: from_min * 60,
            until_s: until_min * 60,
            record: (*record).to_owned(),
            start_s: *start_s,
            shows: (*shows).to_owned(),
        })
        .collect();
    let silence = (bed == SILENT_BED).then_some(SILENCE);
    let role = Role::Telemetry { record: record.to_owned(), start_s, scenes, silence };
    let about = About {
        part: format!("telemetry {bed}"),
        name: format!("Transmitter {number:02}"),
        kind: "telemetry transmitter",
        manufacturer: "Nordwell",
        model: "Wave 2",
        expected_interval_s: Some(15),
        utc_offset_min: 0,
    };
    // Every third transmitter is an older one.
    let version = if bed % 3 == 2 { MqttVersion::V311 } else { MqttVersion::V5 };
    plan.devices.push(device(seed, about, here.id, subject, Transport::Mqtt(version), role));

    if let Some(stay) = stay_name {
        let mut random = Random::for_part(seed, &format!("saturation {bed}"));
        let rows = (SATURATION_ROWS.end - SATURATION_ROWS.start) as usize;
        let saturation_from_row = SATURATION_ROWS.start + random.below(rows) as u32;
        let role = Role::Bedside { stay: stay.to_owned(), saturation_from_row };
        let about = About {
            part: format!("bedside {bed}"),
            name: format!("Monitor {number:02}"),
            kind: "bedside monitor",
            manufacturer: "Calder Medical",
            model: "BM-7",
            expected_interval_s: Some(90),
            utc_offset_min: 0,
        };
        let transport = if bed % 8 == 7 { Transport::Https } else { Transport::Mqtt(MqttVersion::V5) };
        plan.devices.push(device(seed, about, here.id, subject, transport, role));
    }
    plan.places.push(here);
    plan.patients.push(patient);
}

fn add_home(plan: &mut Plan, home: usize, team: PlaceId) {
    let seed = plan.seed;
    let number = home + 1;
    let here =
        place(seed, &format!("home {home}"), &format!("Home {number:02}"), PlaceKind::Home, Some(team));
    let mut random = Random::for_part(seed, &format!("home person {home}"));
    let gender = if random.below(2) == 0 { Gender::Female } else { Gender::Male };
    let age = random.between(48.0, 88.0) as u8;
    let baseline = baseline(&mut random);
    let patient = patient(seed, &format!("home patient {home}"), plan.patients.len(), age, gender, here.id);
    let subject = Some(Subject::Patient(patient.id));

    let oximeter = if home.is_multiple_of(2) {
        Role::SpotOximeter(baseline)
    } else {
        Role::ContinuousOximeter(baseline)
    };
    let mut roles = vec![
        ("cuff", "blood pressure cuff", "Halden", "Arm 3", Role::Cuff(baseline)),
        ("oximeter", "pulse oximeter", "Brightfinger", "Ox 20", oximeter),
        ("thermometer", "thermometer", "Halden", "Temp 1", Role::Thermometer(baseline)),
        ("scale", "scale", "Grund & Sohn", "W200", Role::Scale(baseline)),
    ];
    if home.is_multiple_of(3) {
        let record = STRAPS[home / 3 % STRAPS.len()].to_owned();
        roles.push(("strap", "heart-rate strap", "Rundt", "Beat", Role::HeartRateStrap { record }));
    }
    for (index, (part, kind, manufacturer, model, role)) in roles.into_iter().enumerate() {
        let about = About {
            part: format!("{part} {home}"),
            name: format!("{}{} {number:02}", part[..1].to_uppercase(), &part[1..]),
            kind,
            manufacturer,
            model,
            expected_interval_s: Some(180),
            // Home devices show local time: most stand an hour east of UTC, some at UTC.
            utc_offset_min: if home % 4 == 3 { 0 } else { 60 },
        };
        let transport = match (home + index) % 3 {
            0 => Transport::Mqtt(MqttVersion::V5),
            1 => Transport::Https,
            _ => Transport::Mqtt(MqttVersion::V311),
        };
        plan.devices.push(device(seed, about, here.id, subject, transport, role));
    }
    plan.places.push(here);
    plan.patients.push(patient);
}

fn baseline(random: &mut Random) -> Baseline {
    // Few digits, so that a plan written as text reads back the same.
    let rounded = |value: f64, steps: f64| (value * steps).round() / steps;
    let systolic_mmhg = rounded(random.between(112.0, 148.0), 1.0);
    let height_m = rounded(random.between(1.54, 1.88), 100.0);
    Baseline {
        systolic_mmhg,
        diastolic_mmhg: rounded(systolic_mmhg * random.between(0.58, 0.66), 1.0),
        heart_rate_per_min: rounded(random.between(58.0, 84.0), 1.0),
        saturation_percent: rounded(random.between(94.5, 98.5), 10.0),
        temperature_cel: rounded(random.between(36.3, 36.9), 10.0),
        weight_kg: rounded(height_m * height_m * random.between(22.0, 31.0), 10.0),
        height_m,
    }
}

/// What makes a device this device.
struct About {
    part: String,
    name: String,
    kind: &'static str,
    manufacturer: &'static str,
    model: &'static str,
    expected_interval_s: Option<u32>,
    utc_offset_min: i16,
}

fn device(
    seed: u64,
    about: About,
    place: PlaceId,
    assigned_to: Option<Subject>,
    transport: Transport,
    role: Role,
) -> PlannedDevice {
    let mut random = Random::for_part(seed, &about.part);
    let id = DeviceId::from_bytes(random.uuid_bytes());
    let device = Device {
        id,
        name: about.name,
        kind: about.kind.to_owned(),
        manufacturer: about.manufacturer.to_owned(),
        model: about.model.to_owned(),
        serial: format!("{:010X}", random.next_u64() >> 24),
        clock: ClockRule::Trust,
        utc_offset_min: about.utc_offset_min,
        expected_interval_s: about.expected_interval_s,
        retired: false,
    };
    PlannedDevice { device, place, assigned_to, transport, role, trouble: None }
}

fn patient(seed: u64, part: &str, number: usize, age: u8, gender: Gender, place: PlaceId) -> Patient {
    let mut random = Random::for_part(seed, part);
    let given = match gender {
        Gender::Female => random.pick(FEMALE),
        _ => random.pick(MALE),
    };
    // In turn, so that no two patients of a ward share a family name.
    let family = FAMILY[(number * 7 + Random::for_part(seed, "families").below(FAMILY.len())) % FAMILY.len()];
    let birth_date = format!(
        "{:04}-{:02}-{:02}",
        REFERENCE_YEAR - u16::from(age),
        1 + random.below(10),
        1 + random.below(28)
    );
    Patient {
        id: PatientId::from_bytes(random.uuid_bytes()),
        family: Private::new(family.to_owned()),
        given: Private::new((*given).to_owned()),
        birth_date: Some(Private::new(birth_date)),
        gender,
        record_number: Private::new(format!("MRN-{:06}", 100_000 + number * 137)),
        place: Some(place),
        active: true,
    }
}

/// Each trouble sits in the next home, on the device that can have it.
fn plant_troubles(plan: &mut Plan) {
    let homes: Vec<PlaceId> =
        plan.places.iter().filter(|place| place.kind == PlaceKind::Home).map(|place| place.id).collect();
    let fits = |trouble: Trouble, role: &Role| match trouble {
        Trouble::Fahrenheit | Trouble::RepeatsEveryFrame => matches!(role, Role::Thermometer(_)),
        Trouble::Kilopascal | Trouble::ClockAYearAhead => matches!(role, Role::Cuff(_)),
        Trouble::AssignedToNobody | Trouble::DemonstrationMode => {
            matches!(role, Role::SpotOximeter(_) | Role::ContinuousOximeter(_))
        }
        Trouble::TruncatesFrames => matches!(role, Role::Scale(_)),
    };
    let troubles = [
        Trouble::Fahrenheit,
        Trouble::Kilopascal,
        Trouble::ClockAYearAhead,
        Trouble::RepeatsEveryFrame,
        Trouble::AssignedToNobody,
        Trouble::TruncatesFrames,
        Trouble::DemonstrationMode,
    ];
    for (number, trouble) in troubles.into_iter().enumerate() {
        let home = homes[number % homes.len()];
        let device = plan.devices.iter_mut().find(|planned| {
            planned.place == home && planned.trouble.is_none() && fits(trouble, &planned.role)
        });
        if let Some(planned) = device {
            planned.trouble = Some(trouble);
            if trouble == Trouble::AssignedToNobody {
                planned.assigned_to = None;
            }
        }
    }
}
