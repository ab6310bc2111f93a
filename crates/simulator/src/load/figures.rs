//! What a load measured.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Fate;

/// Longest latency that is told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Latencies to the acknowledgement, in microseconds: from when a paced message was due, else from when it had its
/// place in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Latency {
    /// Shortest.
    pub least_us: u64,
    /// Half were shorter.
    pub p50_us: u64,
    /// Nine of ten were shorter.
    pub p90_us: u64,
    /// 99 of 100 were shorter.
    pub p99_us: u64,
    /// 999 of 1000 were shorter.
    pub p999_us: u64,
    /// Longest.
    pub most_us: u64,
}

/// The result of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Figures {
    /// Messages that were acknowledged.
    pub acked_messages: u64,
    /// Readings in them.
    pub acked_readings: u64,
    /// Messages that had to be sent more than once before they were acknowledged.
    pub resent_messages: u64,
    /// Messages that the server refused.
    pub refused_messages: u64,
    /// Messages without an answer.
    pub lost_messages: u64,
    /// How long the load took, in seconds.
    pub elapsed_s: f64,
    /// Acknowledged messages a second.
    pub messages_per_s: f64,
    /// Acknowledged readings a second.
    pub readings_per_s: f64,
    /// Latency of the acknowledged messages.
    pub latency: Latency,
}

/// Gathers outcomes.
pub(super) struct Recorder {
    latencies: Option<Histogram<u64>>,
    acked: u64,
    resent: u64,
    refused: u64,
    lost: u64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        // The bounds are constants that the histogram accepts; a test sees to it.
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, DIGITS).ok();
        Recorder { latencies, acked: 0, resent: 0, refused: 0, lost: 0 }
    }

    pub(super) fn note(&mut self, fate: Fate, latency: Duration) {
        match fate {
            Fate::Acked { resent } => {
                self.acked += 1;
                self.resent += u64::from(resent);
                if let Some(latencies) = &mut self.latencies {
                    latencies
                        .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US).max(1));
                }
            }
            Fate::Refused => self.refused += 1,
            Fate::Lost => self.lost += 1,
        }
    }

    pub(super) fn figures(&self, batch: u64, elapsed: Duration) -> Figures {
        let elapsed_s = elapsed.as_secs_f64();
        let per_s = |count: u64| if elapsed_s > 0.0 { count as f64 / elapsed_s } else { 0.0 };
        let latency =
            self.latencies.as_ref().filter(|h| !h.is_empty()).map_or(Latency::default(), |h| Latency {
                least_us: h.min(),
                p50_us: h.value_at_quantile(0.5),
                p90_us: h.value_at_quantile(0.9),
                p99_us: h.value_at_quantile(0.99),
                p999_us: h.value_at_quantile(0.999),
                most_us: h.max(),
            });
        Figures {
            acked_messages: self.acked,
            acked_readings: self.acked * batch,
            resent_messages: self.resent,
            refused_messages: self.refused,
            lost_messages: self.lost,
            elapsed_s,
            messages_per_s: per_s(self.acked),
            readings_per_s: per_s(self.acked * batch),
            latency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_summed_up() {
        let mut recorder = Recorder::new();
        for millis in 1..=100 {
            recorder.note(Fate::Acked { resent: millis > 98 }, Duration::from_millis(millis));
        }
        recorder.note(Fate::Refused, Duration::ZERO);
        recorder.note(Fate::Lost, Duration::ZERO);
        let figures = recorder.figures(10, Duration::from_secs(4));
        assert_eq!(
            (figures.acked_messages, figures.acked_readings, figures.resent_messages),
            (100, 1_000, 2)
        );
        assert_eq!((figures.refused_messages, figures.lost_messages), (1, 1));
        assert_eq!(figures.readings_per_s, 250.0);
        assert!((49_000..=51_000).contains(&figures.latency.p50_us), "{figures:?}");
        assert!((98_000..=100_100).contains(&figures.latency.p99_us), "{figures:?}");
    }

    #[test]
    fn nothing_is_not_an_error() {
        assert_eq!(Recorder::new().figures(1, Duration::ZERO), Figures::default());
    }
}
