//! One client's stream: its place in the log, and what it is sent from there on.

use super::entry::Entry as Change;
use super::log::Read;
use super::snapshot::{Frames, Told};
use super::{Audience, Scope};
use crate::auth::{Called, Caller};
use crate::error::ApiError;
use crate::read::{id, visible};
use crate::router::Shared;
use crate::validate;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How soon a client comes back whose stream has ended, in milliseconds.
pub(crate) const RETRY: &str = "retry: 1000\n\n";

/// What a client is told that has missed changes: what follows are whole documents.
const BEHIND: &str = "event: behind\ndata: {\"code\":\"BEHIND\"}\n\n";

/// How long who opens a stream waits for the log to be as it was before a restart, so that cursors are found.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A comment: the stream lives.
pub(crate) const BEAT: &str = ":\n\n";

/// How many entries are looked at before others have their turn.
const ENTRIES_MAX: usize = 256;

/// How many whole documents are sent at once.
const FRAMES_MAX: usize = 64;

/// `GET /api/changes`
#[utoipa::path(
    get, path = "/api/changes", operation_id = "streamChanges",
    params(
        ("companyId" = Option<Uuid>, Query, description = "Only this company's."),
        ("lastEventId" = Option<String>, Query, description = "As `Last-Event-ID`, for who cannot send it."),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that arrived: the stream goes on after it.")
    ),
    responses(
        (status = 200, description = "Events whose data are DataChanged messages.", content_type = "text/event-stream", body = String),
        (status = 400, description = "Parameters that cannot be."),
        (status = 409, description = "The forecasts change too fast to be listed as a whole.")
    )
)]
pub(crate) async fn of_company(
    State(shared): State<Arc<Shared>>,
    called: Called,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|_| ApiError::field("query", "is not readable"))?;
    let asked = validate::stream(&parameters, &["companyId"]).map_err(ApiError::Validation)?;
    let audience = match asked.company_id {
        Some(company) if called.sees(&company) => Audience::of([&*company]),
        Some(_) => return Err(ApiError::Forbidden),
        None => whole(&called),
    };
    let cursor = last_event_id(&headers).or(asked.last_event_id);
    Stream::open(&shared, &called, Scope { audience, key: None }, cursor).await
}

/// `GET /api/forecasts/{id}/changes`
#[utoipa::path(
    get, path = "/api/forecasts/{id}/changes", operation_id = "streamForecast",
    params(
        ("id" = Uuid, Path, description = "The forecast."),
        ("lastEventId" = Option<String>, Query, description = "As `Last-Event-ID`, for who cannot send it."),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that arrived: the stream goes on after it.")
    ),
    responses(
        (status = 200, description = "Events whose data are DataChanged messages.", content_type = "text/event-stream", body = String),
        (status = 400, description = "Parameters that cannot be."),
        (status = 404, description = "There is none, or it is another company's.")
    )
)]
pub(crate) async fn of_forecast(
    State(shared): State<Arc<Shared>>,
    called: Called,
    path: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = id(path)?;
    let Query(parameters) = parameters.map_err(|_| ApiError::field("query", "is not readable"))?;
    let asked = validate::stream(&parameters, &[]).map_err(ApiError::Validation)?;
    visible(shared.parts.cache.get(&key).await?, &called)?;
    let cursor = last_event_id(&headers).or(asked.last_event_id);
    Stream::open(&shared, &called, Scope { audience: whole(&called), key: Some(key) }, cursor).await
}

/// All that a caller may be told.
fn whole(caller: &Caller) -> Audience {
    if caller.sees_all() { Audience::All } else { Audience::of(caller.companies.iter().map(|company| &**company)) }
}

/// Waits a moment until changes are heard.
///
/// # Errors
///
/// If they are not then. Where there is no bus, nothing is waited for: no stream will be opened.
pub(crate) async fn caught_up(shared: &Shared) -> Result<(), ApiError> {
    if shared.parts.bus.is_none() {
        return Ok(());
    }
    let mut caught_up = shared.feed.caught_up.subscribe();
    match timeout(CATCH_UP, caught_up.wait_for(|caught_up| *caught_up)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(ApiError::ChangesUnavailable),
    }
}

/// The id of the last event that a client has got.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<String> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().map(str::to_owned)
}

/// When a caller's stream ends.
pub(crate) fn expiry(caller: &Caller) -> Instant {
    let left = caller.expires_at.saturating_sub(jsonwebtoken::get_current_timestamp());
    // A token for ever would overflow the clock.
    Instant::now() + Duration::from_secs(left.min(365 * 86_400))
}

/// An answer of events.
pub(crate) fn event_stream(
    events: impl futures::Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    // Proxies that collect answers would collect this one for ever.
    (headers, [("x-accel-buffering", "no")], Body::from_stream(events)).into_response()
}

struct Stream {
    shared: Arc<Shared>,
    scope: Scope,
    place: u64,
    /// What is said next, before anything else.
    notice: Option<&'static str>,
    /// The whole documents that the stream begins with, and how many of them were sent.
    whole: Option<(Arc<Frames>, usize)>,
    /// Which versions were whole documents. While one of them may come again, clients may not resume.
    told: Option<Arc<Told>>,
    /// When the client must have had a byte.
    beat: Instant,
    head: watch::Receiver<u64>,
    ending: watch::Receiver<bool>,
    expires: Instant,
    _place: Place,
}

/// A stream's place among all, and among those of its user, as long as it lives.
pub(crate) struct Place {
    shared: Arc<Shared>,
    user: Uuid,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Takes one.
    ///
    /// # Errors
    ///
    /// When there are too many, of all users or of this one.
    pub fn take(shared: &Arc<Shared>, user: Uuid) -> Result<Self, ApiError> {
        let feed = &shared.feed;
        let permit = Arc::clone(&feed.streams).try_acquire_owned().map_err(|_| {
            feed.http.shed("streams");
            ApiError::Overloaded
        })?;
        let mut users = feed.users();
        let streams = users.entry(user).or_default();
        if *streams >= feed.user_streams_max {
            feed.http.shed("user_streams");
            return Err(ApiError::TooManyStreams);
        }
        *streams += 1;
        feed.metrics.clients.inc();
        Ok(Self { shared: Arc::clone(shared), user, _permit: permit })
    }

    /// Counts events that were sent from it.
    pub fn sent(&self, events: usize) {
        self.shared.feed.metrics.sent.inc_by(events as u64);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let feed = &self.shared.feed;
        feed.metrics.clients.dec();
        let mut users = feed.users();
        if let Entry::Occupied(mut streams) = users.entry(self.user) {
            *streams.get_mut() -= 1;
            if *streams.get() == 0 {
                streams.remove();
            }
        }
    }
}

impl Stream {
    /// The answer: what there is to begin with is ready before its head is sent, so that a refusal is a status.
    async fn open(
        shared: &Arc<Shared>,
        caller: &Caller,
        scope: Scope,
        cursor: Option<String>,
    ) -> Result<Response, ApiError> {
        let feed = &shared.feed;
        if shared.parts.bus.is_none() {
            return Err(ApiError::ChangesUnavailable);
        }
        let mut stream = Self::new(shared, caller, scope)?;
        match cursor.and_then(|cursor| feed.log.after(&cursor)) {
            Some(place) => {
                feed.metrics.begun.with_label_values(&["cursor"]).inc();
                stream.place = place;
            }
            None => {
                feed.metrics.begun.with_label_values(&["snapshot"]).inc();
                stream.begin().await?;
            }
        }
        let body = stream::unfold(stream, |mut stream| async {
            let chunk = stream.next().await?;
            stream.beat = Instant::now() + stream.shared.feed.heartbeat;
            Some((Ok::<_, Infallible>(chunk), stream))
        });
        Ok(event_stream(body))
    }

    fn new(shared: &Arc<Shared>, caller: &Caller, scope: Scope) -> Result<Self, ApiError> {
        let feed = &shared.feed;
        Ok(Self {
            shared: Arc::clone(shared),
            scope,
            place: 0,
            notice: Some(RETRY),
            whole: None,
            told: None,
            beat: Instant::now() + feed.heartbeat,
            head: feed.log.watch(),
            ending: feed.ending.subscribe(),
            expires: expiry(caller),
            _place: Place::take(shared, caller.user)?,
        })
    }

    /// Takes whole documents to begin with.
    async fn begin(&mut self) -> Result<(), ApiError> {
        let snapshot = self.shared.feed.snapshot(&self.scope).await?;
        self.place = snapshot.place;
        self.whole = Some((snapshot.frames, 0));
        self.told = Some(snapshot.told);
        Ok(())
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let shared = Arc::clone(&self.shared);
        let feed = &shared.feed;
        loop {
            if *self.ending.borrow() || Instant::now() >= self.expires {
                return None;
            }
            if let Some(notice) = self.notice.take() {
                return Some(Bytes::from_static(notice.as_bytes()));
            }
            if let Some(documents) = self.documents() {
                return Some(documents);
            }
            // Whatever others are told of: this client waits for a byte.
            if Instant::now() >= self.beat {
                return Some(Bytes::from_static(BEAT.as_bytes()));
            }
            self.head.borrow_and_update();
            match feed.log.read(self.place, ENTRIES_MAX) {
                Read::Behind => {
                    feed.metrics.behind.inc();
                    // What is missed cannot be told: without whole documents the stream ends, and the client comes back.
                    self.begin().await.ok()?;
                    self.notice = Some(BEHIND);
                }
                Read::Entries(entries, _) if entries.is_empty() => {
                    tokio::select! {
                        changed = self.head.changed() => changed.ok()?,
                        _ = self.ending.changed() => return None,
                        () = sleep_until(self.expires) => return None,
                        () = sleep_until(self.beat) => {}
                    }
                }
                Read::Entries(entries, next) => {
                    self.place = next;
                    let frames: Vec<Bytes> = entries.iter().filter_map(|entry| self.frame(entry)).collect();
                    match self.chunk(&frames) {
                        Some(chunk) => return Some(chunk),
                        None => tokio::task::yield_now().await,
                    }
                }
            }
        }
    }

    /// Some of the whole documents that are still to be sent. With the last of them they are let go of.
    fn documents(&mut self) -> Option<Bytes> {
        let (frames, sent) = self.whole.take()?;
        let rest = &frames.all[sent..];
        let some = &rest[..rest.len().min(FRAMES_MAX)];
        let chunk = self.chunk(some);
        if some.len() < rest.len() {
            let sent = sent + some.len();
            self.whole = Some((frames, sent));
        }
        chunk
    }

    /// Frames as they are sent together.
    fn chunk(&self, frames: &[Bytes]) -> Option<Bytes> {
        self.shared.feed.metrics.sent.inc_by(frames.len() as u64);
        match frames {
            [] => None,
            [only] => Some(only.clone()),
            _ => Some(frames.concat().into()),
        }
    }

    /// What of an entry is sent.
    fn frame(&mut self, entry: &Change) -> Option<Bytes> {
        let mut first = false;
        if let Some(told) = &self.told {
            if told.knows(entry) {
                return None;
            }
            first = !told.has(&entry.key);
            if told.is_settled_by(entry) {
                self.told = None;
            }
        }
        if self.scope.key.as_ref().is_some_and(|key| *key != entry.key) {
            return None;
        }
        let audience = &self.scope.audience;
        let frame = if first { entry.first_frame(audience) } else { entry.frame(audience) }?;
        Some(if self.told.is_none() { frame.clone() } else { entry.without_id(frame) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Taking;
    use super::*;
    use crate::auth::Role;
    use crate::testing;
    use serde_json::json;
    use smartpulse_clients::database::Write;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn everything() -> Scope {
        Scope { audience: Audience::All, key: None }
    }

    fn admin(user: u128) -> Caller {
        Caller { user: Uuid::from_u128(user), role: Role::Admin, companies: [].into(), expires_at: u64::MAX }
    }

    #[tokio::test]
    async fn whole_documents_are_bounded_and_let_go_of_when_they_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let database = testing::database(folder.path()).await;
        let rows = (0..150).map(|n| {
            let members = json!({
                "id": Uuid::from_u128(n).to_string(), "companyId": Uuid::nil().to_string(),
                "productionUnitId": Uuid::nil().to_string(), "forecastDate": "2026-01-01T00:00:00.000Z", "demand": 0,
                "confidenceLevel": 0.5, "status": "x".repeat(32), "createdAt": "2026-01-01T00:00:00.000Z",
                "updatedAt": "2026-01-01T00:00:00.000Z"
            });
            Write::Insert { members: members.as_object().unwrap().clone() }
        });
        database.write("Forecasts", rows.collect()).await.unwrap();
        let shared = testing::api_over(database).shared;
        let feed = &shared.feed;
        let room = feed.room.available_permits();

        let taken = feed.room.try_acquire_many(u32::try_from(room - 50).unwrap()).unwrap();
        let mut refused = Stream::new(&shared, &admin(1), everything()).unwrap();
        assert_eq!(refused.begin().await, Err(ApiError::Overloaded), "150 documents take more than 50 KiB");
        drop(taken);
        let mut stream = Stream::new(&shared, &admin(1), everything()).unwrap();
        stream.begin().await.unwrap();
        let frames = Arc::downgrade(&stream.whole.as_ref().unwrap().0);
        let mut text = Vec::new();
        while String::from_utf8_lossy(&text).matches("event: change").count() < 150 {
            text.extend_from_slice(&stream.next().await.unwrap());
        }
        assert_eq!(feed.metrics.sent.get(), 150, "whole documents are events");
        // Others may share them for a moment.
        let gone = async {
            while frames.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, gone).await.unwrap();
        let versions = room - feed.room.available_permits();
        assert!((1..40).contains(&versions), "{versions} KiB for the versions alone");
        drop(stream);
        assert_eq!(feed.room.available_permits(), room);
    }

    #[tokio::test]
    async fn what_the_log_has_left_behind_is_not_shared() {
        let folder = tempfile::tempdir().unwrap();
        let shared = testing::api_over(testing::database(folder.path()).await).shared;
        let feed = &shared.feed;
        let one: Arc<Taking> = feed.taking(&everything());
        assert!(Arc::ptr_eq(&one, &feed.taking(&everything())));
        feed.log.leave(1);
        assert!(!Arc::ptr_eq(&one, &feed.taking(&everything())));
    }

    #[tokio::test]
    async fn a_user_has_so_many_streams_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let shared = testing::api_over(testing::database(folder.path()).await).shared;
        let open = |user| Stream::new(&shared, &admin(user), everything());
        let mut streams: Vec<Stream> = (0..shared.feed.user_streams_max).map(|_| open(1).unwrap()).collect();
        assert_eq!(open(1).err(), Some(ApiError::TooManyStreams));
        assert!(open(2).is_ok());
        streams.pop();
        assert!(open(1).is_ok());
        drop(streams);
        assert!(shared.feed.users().is_empty() && shared.feed.metrics.clients.get() == 0);
    }
}
