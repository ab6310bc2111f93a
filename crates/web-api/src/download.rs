//! Downloads that may take long: read part by part as their readers take them, few at one time, and no thread waits for a
//! reader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use futures_util::stream;
use pipeline::audited::ReadError;
use store::Actor;

use crate::access::Access;
use crate::problem::{Code, Problem};
use crate::state::Web;

/// Downloads of the site at one time: each keeps what it is to read next, and one part, about a MiB at most.
pub(crate) const DOWNLOADS_LIMIT: usize = 16;
/// Downloads of one person or program at one time.
pub(crate) const DOWNLOADS_LIMIT_EACH: usize = 4;
/// A download of which nothing was taken for so long gives its place to the next one that needs it.
const STALLED_AFTER: Duration = Duration::from_secs(60);
/// Bytes that are handed over at once; a part ends with the page that goes beyond it.
const PART_BYTES: usize = 64 << 10;
/// When it is worth trying again, in seconds.
pub(crate) const RETRY_AFTER_S: u64 = 5;

/// Why there is no place for a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    /// The site has as many as it bears.
    #[error("too many downloads are under way here; try again in a moment")]
    Site,
    /// Whoever asks has their share.
    #[error(
        "you have {DOWNLOADS_LIMIT_EACH} downloads under way; wait until one of them has ended, or break it off"
    )]
    Yours,
}

impl From<NoPlace> for Problem {
    fn from(error: NoPlace) -> Self {
        Problem::new(Code::Busy, error.to_string()).retry_after(RETRY_AFTER_S)
    }
}

struct Open {
    number: u64,
    by: Actor,
    taken_at: Instant,
}

#[derive(Default)]
struct Table {
    last: u64,
    open: Vec<Open>,
}

/// The downloads that are under way.
#[derive(Clone, Default)]
pub(crate) struct Downloads(Arc<Mutex<Table>>);

impl Downloads {
    /// A place for a download of somebody.
    pub(crate) fn begin(&self, by: Actor) -> Result<Place, NoPlace> {
        self.begin_at(by, Instant::now())
    }

    fn begin_at(&self, by: Actor, now: Instant) -> Result<Place, NoPlace> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.refusal(&by).is_some() {
            table.open.retain(|open| now.saturating_duration_since(open.taken_at) < STALLED_AFTER);
        }
        if let Some(why) = table.refusal(&by) {
            return Err(why);
        }
        table.last += 1;
        let number = table.last;
        table.open.push(Open { number, by, taken_at: now });
        Ok(Place { downloads: self.clone(), number })
    }
}

impl Table {
    fn refusal(&self, by: &Actor) -> Option<NoPlace> {
        if self.open.iter().filter(|open| open.by == *by).count() >= DOWNLOADS_LIMIT_EACH {
            Some(NoPlace::Yours)
        } else {
            (self.open.len() >= DOWNLOADS_LIMIT).then_some(NoPlace::Site)
        }
    }
}

/// The place of one download, free again when it is dropped.
pub(crate) struct Place {
    downloads: Downloads,
    number: u64,
}

impl Place {
    /// Notes that the reader takes more; false where the place was given to somebody else meanwhile.
    fn goes_on(&self, now: Instant) -> bool {
        let mut table = self.downloads.0.lock().unwrap_or_else(PoisonError::into_inner);
        match table.open.iter_mut().find(|open| open.number == self.number) {
            Some(open) => {
                open.taken_at = now;
                true
            }
            None => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.downloads.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.open.retain(|open| open.number != self.number);
    }
}

/// Why a download ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The store failed.
    #[error("what is downloaded cannot be read")]
    Read(#[from] ReadError),
    /// Whoever asked may not see it any more.
    #[error("whoever asked may not see it any more")]
    Unseen,
}

/// What the reader of a broken download meets, so that nobody takes the part for the whole.
#[derive(Debug, thiserror::Error)]
#[error("the download could not be read to its end")]
struct Cut;

struct Reading<P> {
    web: Arc<Web>,
    access: Access,
    place: Place,
    parts: P,
}

impl<P: FnMut(&Web, &mut String) -> Result<bool, Broken>> Reading<P> {
    /// The next part, and whether another one follows.
    fn part(&mut self) -> Result<(Bytes, bool), Broken> {
        if !self.access.still_stands(&self.web) {
            return Err(Broken::Unseen);
        }
        let mut text = String::with_capacity(PART_BYTES);
        loop {
            let goes_on = (self.parts)(&self.web, &mut text)?;
            if !goes_on || text.len() >= PART_BYTES {
                return Ok((Bytes::from(text), goes_on));
            }
        }
    }
}

/// A body that is read from the chart while it is sent. `parts` writes some more of it each time, a page, and says whether
/// anything follows; it is called off the async threads, and only once the reader has taken what came before, while whoever
/// asked is still let in.
pub(crate) fn body(
    web: Arc<Web>,
    access: Access,
    place: Place,
    parts: impl FnMut(&Web, &mut String) -> Result<bool, Broken> + Send + 'static,
) -> Body {
    let begin = Some(Reading { web, access, place, parts });
    Body::from_stream(stream::unfold(begin, |reading| async move {
        let mut reading = reading?;
        if !reading.place.goes_on(Instant::now()) {
            return Some((Err(Cut), None));
        }
        let read = tokio::task::spawn_blocking(move || {
            let part = reading.part();
            (reading, part)
        });
        match read.await {
            Ok((reading, Ok((part, goes_on)))) => Some((Ok(part), goes_on.then_some(reading))),
            Ok((_, Err(error))) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a download broke off");
                Some((Err(Cut), None))
            }
            // It panicked, which is told elsewhere.
            Err(_) => Some((Err(Cut), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: usize) -> Actor {
        Actor::Program(name.to_string())
    }

    #[test]
    fn nobody_takes_all_places_and_who_stalls_loses_theirs() {
        let (downloads, now) = (Downloads::default(), Instant::now());
        let mut places: Vec<Place> = (0..DOWNLOADS_LIMIT)
            .map(|n| downloads.begin_at(program(n / DOWNLOADS_LIMIT_EACH), now).unwrap())
            .collect();
        assert_eq!(downloads.begin_at(program(0), now).err(), Some(NoPlace::Yours));
        assert_eq!(downloads.begin_at(program(99), now).err(), Some(NoPlace::Site));
        places.pop();
        places.push(downloads.begin_at(program(99), now).unwrap());

        let later = now + STALLED_AFTER;
        assert!(places[0].goes_on(later));
        let next = downloads.begin_at(program(1), later).unwrap();
        assert!(places[0].goes_on(later) && next.goes_on(later));
        assert!(!places[1].goes_on(later), "it was stalled, and its place is another's");
        drop(places);
        assert_eq!(downloads.0.lock().unwrap().open.len(), 1);
    }
}
