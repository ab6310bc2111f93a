//! Which events a live stream is asked for.

use crate::problem::Problem;

/// Which events of patients and devices a stream shows; all others it always does. A page that needs alerts alone follows no
/// values, and so looks at nobody whose values come.
#[derive(Clone, Copy)]
pub(super) struct Only {
    pub(super) vitals: bool,
    pub(super) alerts: bool,
    pub(super) devices: bool,
}

impl Only {
    /// A list of words with commas; everything where there is none.
    pub(super) fn of(list: Option<&str>) -> Result<Self, Problem> {
        let Some(list) = list else { return Ok(Only { vitals: true, alerts: true, devices: true }) };
        let mut only = Only { vitals: false, alerts: false, devices: false };
        for word in list.split(',') {
            match word.trim() {
                "vitals" => only.vitals = true,
                "alerts" => only.alerts = true,
                "devices" => only.devices = true,
                _ => {
                    return Err(Problem::bad_request(
                        "\"only\" is a list of \"vitals\", \"alerts\" and \"devices\"",
                    ));
                }
            }
        }
        Ok(only)
    }

    /// What a look at a patient is called in the audit log.
    pub(super) const fn object(self) -> &'static str {
        if self.vitals || self.devices { "live events" } else { "live alerts" }
    }
}
