//! A series as bare points: block after block, without building what nobody asked for.

use clinical_model::{SeriesKey, Timestamp};

use super::SqlStore;
use super::row::Row;
use crate::StoreError;
use crate::sql::{Backend, readable};
use crate::words::{Order, Point, RangeQuery};

impl<B: Backend> SqlStore<B> {
    pub(super) fn scan_points(
        &self,
        series: &SeriesKey,
        from: Timestamp,
        to: Timestamp,
        each: &mut dyn FnMut(&[Point]) -> bool,
    ) -> Result<(), StoreError> {
        let session = self.following_reader("scanning a series")?;
        let Some(number) = self.series_number(series) else { return Ok(()) };
        if from >= to {
            return Ok(());
        }
        let range = RangeQuery { from, to, order: Order::Ascending, limit: usize::MAX };
        // The tail first, as in every query. What blocks hold of it was committed there before, and stands.
        let mut recent = readable(&self.tail).rows(number, &range);
        let mut shown: Option<(i64, u32)> = None;
        let mut points: Vec<Point> = Vec::new();
        let mut goes_on = true;
        self.each_block(&session, number, &range, &mut |block| {
            let rows = self.open_block(&block)?;
            points.clear();
            for row in &rows {
                // Versions of an identity stand beside each other, the first one committed first; a fold while we
                // read may show rows again.
                let is_inside = from.as_micros() <= row.measured_us && row.measured_us < to.as_micros();
                if is_inside && shown.is_none_or(|shown| shown < row.key()) {
                    shown = Some(row.key());
                    points.push(point(row));
                }
            }
            recent.retain(|row| rows.binary_search_by_key(&row.key(), Row::key).is_err());
            goes_on = points.is_empty() || each(&points);
            Ok(goes_on)
        })?;
        drop(session);
        if goes_on && !recent.is_empty() {
            recent.dedup_by_key(|row| row.key());
            points.clear();
            points.extend(recent.iter().map(point));
            each(&points);
        }
        Ok(())
    }
}

fn point(row: &Row) -> Point {
    Point {
        at: Timestamp::from_micros(row.measured_us),
        sequence: row.sequence,
        value: row.value,
        committed_at: Timestamp::from_millis(row.committed_ms),
    }
}
