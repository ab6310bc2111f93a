//! Intensive-care stays as text: the format of the PhysioNet/CinC Challenge 2012 (`Time,Parameter,Value`).

use clinical_model::Decimal;
use clinical_model::measure::{
    ARTERIAL_DIASTOLIC, ARTERIAL_MEAN, ARTERIAL_SYSTOLIC, BODY_TEMPERATURE, DIASTOLIC, GLASGOW_COMA_SCORE,
    HEART_RATE, MEAN_PRESSURE, Measure, OXYGEN_SATURATION, RESPIRATORY_RATE, SYSTOLIC,
};
use clinical_model::patient::Gender;

/// Most rows of one stay that are read: the densest published one has fewer than 3,000.
pub const MAX_ROWS: usize = 20_000;

/// One measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StayRow {
    /// Minutes since the stay began.
    pub minute: u32,
    /// What was measured.
    pub measure: Measure,
    /// The value, digits as written; the unit is the one of the measure.
    pub value: Decimal,
}

/// One stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Stay {
    /// Number of the stay in its source.
    pub number: String,
    /// Age in years at admission, up to 90.
    pub age_years: Option<u8>,
    /// Gender as stated.
    pub gender: Gender,
    /// Weight at admission in kilograms.
    pub weight_kg: Option<f64>,
    /// Height in centimetres.
    pub height_cm: Option<f64>,
    /// Vital signs in order of time.
    pub rows: Vec<StayRow>,
}

/// Why a stay could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StayError {
    /// The first line is not the one of the format.
    #[error("the first line is not \"Time,Parameter,Value\"")]
    NotAStay,
    /// A line has not three fields, or one is no time or number.
    #[error("line {line}: {field} is not as it should be: \"{text}\"")]
    Field {
        /// Line, from 1.
        line: usize,
        /// Which field.
        field: &'static str,
        /// The text there, cut to 60 characters.
        text: String,
    },
    /// More than [`MAX_ROWS`] rows.
    #[error("it has more than {MAX_ROWS} rows")]
    TooLong,
}

/// The measure of a parameter; `None` for what is not a vital sign.
fn measure(parameter: &str) -> Option<Measure> {
    Some(match parameter {
        "HR" => HEART_RATE,
        "Temp" => BODY_TEMPERATURE,
        "RespRate" => RESPIRATORY_RATE,
        "NISysABP" => SYSTOLIC,
        "NIDiasABP" => DIASTOLIC,
        "NIMAP" => MEAN_PRESSURE,
        "SysABP" => ARTERIAL_SYSTOLIC,
        "DiasABP" => ARTERIAL_DIASTOLIC,
        "MAP" => ARTERIAL_MEAN,
        "SaO2" => OXYGEN_SATURATION,
        "GCS" => GLASGOW_COMA_SCORE,
        _ => return None,
    })
}

impl Stay {
    /// Reads a stay; parameters that are no vital signs are left out.
    ///
    /// # Errors
    /// [`StayError`] with the line at fault.
    pub fn parse(text: &str) -> Result<Stay, StayError> {
        let mut lines = text.lines().map(str::trim).enumerate();
        if lines.next().map(|(_, line)| line) != Some("Time,Parameter,Value") {
            return Err(StayError::NotAStay);
        }
        let mut stay = Stay {
            number: String::new(),
            age_years: None,
            gender: Gender::Unknown,
            weight_kg: None,
            height_cm: None,
            rows: Vec::new(),
        };
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let bad =
                |field| StayError::Field { line: index + 1, field, text: line.chars().take(60).collect() };
            let mut fields = line.split(',');
            let (Some(time), Some(parameter), Some(value), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(bad("the number of fields"));
            };
            let minute = minutes(time).ok_or_else(|| bad("the time"))?;
            if let Some(measure) = measure(parameter) {
                let value = value.parse().map_err(|_| bad("the value"))?;
                if stay.rows.len() == MAX_ROWS {
                    return Err(StayError::TooLong);
                }
                stay.rows.push(StayRow { minute, measure, value });
            } else {
                stay.describe(parameter, value);
            }
        }
        stay.rows.sort_by_key(|row| row.minute);
        Ok(stay)
    }

    /// Last minute with a value.
    pub fn last_minute(&self) -> u32 {
        self.rows.last().map_or(0, |row| row.minute)
    }

    fn describe(&mut self, parameter: &str, value: &str) {
        // -1 stands for "not known" in the general descriptors.
        let number = value.parse::<f64>().ok().filter(|number| *number >= 0.0);
        match parameter {
            "RecordID" => value.clone_into(&mut self.number),
            "Age" => self.age_years = number.map(|years| years as u8),
            "Weight" if self.weight_kg.is_none() => self.weight_kg = number.filter(|kg| *kg > 0.0),
            "Height" => self.height_cm = number,
            "Gender" => {
                self.gender = match value {
                    "0" => Gender::Female,
                    "1" => Gender::Male,
                    _ => Gender::Unknown,
                };
            }
            _ => {}
        }
    }
}

/// `47:59` as minutes.
fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let minutes = minutes.parse::<u32>().ok().filter(|minutes| *minutes < 60)?;
    hours.parse::<u32>().ok().filter(|hours| *hours < 10_000).map(|hours| hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stay_is_read() {
        let text = "Time,Parameter,Value\n00:00,RecordID,7\n00:00,Age,54\n00:00,Gender,0\n00:00,Height,-1\n\
                    01:37,HR,60\n00:07,Temp,35.10\n00:07,Urine,900\n";
        let stay = Stay::parse(text).unwrap();
        assert_eq!((stay.number.as_str(), stay.age_years, stay.gender), ("7", Some(54), Gender::Female));
        assert_eq!(stay.height_cm, None);
        let rows: Vec<_> = stay.rows.iter().map(|r| (r.minute, r.measure, r.value.to_string())).collect();
        assert_eq!(rows, vec![(7, BODY_TEMPERATURE, "35.10".into()), (97, HEART_RATE, "60".into())]);
    }

    #[test]
    fn what_is_no_stay_is_refused() {
        let check = |text: &str| Stay::parse(text).unwrap_err();
        assert_eq!(check("a,b,c\n"), StayError::NotAStay);
        let body = |line: &str| check(&format!("Time,Parameter,Value\n{line}\n"));
        assert!(matches!(body("00:61,HR,60"), StayError::Field { line: 2, field: "the time", .. }));
        assert!(matches!(body("00:01,HR"), StayError::Field { .. }));
        assert!(matches!(body("00:01,HR,sixty"), StayError::Field { field: "the value", .. }));
    }
}
