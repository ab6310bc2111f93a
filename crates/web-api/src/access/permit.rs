//! Permits: what a handler holds that the gate let pass. Without the permit of an operation its methods are not there.

use std::ops::Deref;
use std::sync::Arc;

use ::access::{Granted, May, ReadsChart};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use clinical_model::{PatientId, SeriesKey};
use pipeline::audited::{Act, ReadError};
use pipeline::chart::Chart;

use super::{Access, LOOK_LASTS};
use crate::problem::{Code, Problem};
use crate::state::Web;

/// Who asks, with the proof that the policies let them try `P`.
///
/// The table of operations takes only handlers whose permit is that of their row, and the chart is read through a permit
/// that reads charts:
///
/// ```compile_fail,E0599
/// # use web_api::access::{Permit, may};
/// # use pipeline::audited::Act;
/// fn reads(permit: &Permit<may::ManagePeople>, web: &web_api::Web, act: Act) {
///     let _ = permit.read(web, act, |chart| Ok(chart.open_alerts()));
/// }
/// ```
///
/// ```
/// # use web_api::access::{Permit, may};
/// # use pipeline::audited::Act;
/// fn reads(permit: &Permit<may::ReadChart>, web: &web_api::Web, act: Act) {
///     let _ = permit.read(web, act, |chart| Ok(chart.open_alerts()));
/// }
/// ```
pub struct Permit<P> {
    access: Access,
    granted: Granted<P>,
}

impl<P: May> Permit<P> {
    pub(super) const fn of(access: Access, granted: Granted<P>) -> Self {
        Permit { access, granted }
    }

    /// Who asks.
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// The proof alone.
    pub const fn granted(&self) -> Granted<P> {
        self.granted
    }
}

impl<P> Clone for Permit<P> {
    fn clone(&self) -> Self {
        Permit { access: self.access.clone(), granted: self.granted }
    }
}

impl<P: May> std::fmt::Debug for Permit<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({})", P::PERMISSION)
    }
}

impl<P> Deref for Permit<P> {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl<P: ReadsChart> Permit<P> {
    /// Records an act and then lets `read` see the chart, as far as whoever asks may see it. Blocks: call it off the
    /// async threads.
    ///
    /// # Errors
    /// [`ReadError::Audit`] when the record could not be written: `read` was not called then.
    pub fn read<T>(
        &self,
        web: &Web,
        act: Act,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let sight = self.access.sight(web);
        let seen = |series: &SeriesKey| sight.series(series);
        web.site.read(self.access.reading(web, act), |chart| read(&chart.seen_by(&seen)))
    }

    /// As [`Permit::read`], for what shows several patients and is asked for time and again: one record of the act, and one
    /// of each patient of whom this look is not in the log yet, all or none.
    ///
    /// # Errors
    /// As [`Permit::read`].
    pub fn read_looking<T>(
        &self,
        web: &Web,
        act: Act,
        patients: impl IntoIterator<Item = PatientId>,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let patients = patients.into_iter().map(|patient| (patient, LOOK_LASTS));
        let mut due = self.access.due_looks(web, &act, patients);
        let acts = std::iter::once(act).chain(due.take_acts()).collect();
        self.read_each(web, acts, |chart| {
            due.recorded(web);
            read(chart)
        })
    }

    /// As [`Permit::read`], for an act that concerns several patients: one record each, all or none.
    ///
    /// # Errors
    /// As [`Permit::read`].
    pub fn read_each<T>(
        &self,
        web: &Web,
        acts: Vec<Act>,
        read: impl FnOnce(&Chart<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let sight = self.access.sight(web);
        let seen = |series: &SeriesKey| sight.series(series);
        let acts = acts.into_iter().map(|act| self.access.reading(web, act)).collect();
        web.site.read_each(acts, |chart| read(&chart.seen_by(&seen)))
    }
}

impl<P: May> FromRequestParts<Arc<Web>> for Permit<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Web>) -> Result<Self, Problem> {
        let access = parts.extensions.get::<Access>();
        let permit = access.and_then(Access::permit);
        permit.ok_or_else(|| Problem::new(Code::Forbidden, "your role does not permit this"))
    }
}

/// Arguments of a handler that takes the permit of `P`: the site first, then the permit, then what it likes.
pub trait Taken<P> {}

impl<M, P> Taken<P> for (M, State<Arc<Web>>, Permit<P>) {}
impl<M, P, A> Taken<P> for (M, State<Arc<Web>>, Permit<P>, A) {}
impl<M, P, A, B> Taken<P> for (M, State<Arc<Web>>, Permit<P>, A, B) {}
impl<M, P, A, B, C> Taken<P> for (M, State<Arc<Web>>, Permit<P>, A, B, C) {}
impl<M, P, A, B, C, D> Taken<P> for (M, State<Arc<Web>>, Permit<P>, A, B, C, D) {}
