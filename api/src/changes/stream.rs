//! One client's stream: its place in the log, and what it is sent from there on.

use super::entry::{Entry, whole_frame};
use super::log::Read;
use super::snapshot::Snapshot;
use crate::auth::{Called, Caller};
use crate::error::ApiError;
use crate::read::{id, visible};
use crate::router::Shared;
use crate::validate;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use smartpulse_json::Document;
use smartpulse_pipeline::Key;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How soon a client comes back whose stream has ended, in milliseconds.
const RETRY: &[u8] = b"retry: 1000\n\n";

/// How many entries are looked at before others have their turn.
const ENTRIES_MAX: usize = 256;

/// How many whole documents are sent at once.
const FRAMES_MAX: usize = 64;

/// What a stream is of.
#[derive(Debug, Clone)]
enum Audience {
    /// All forecasts.
    All,
    /// Those of these companies.
    Companies(Vec<Box<str>>),
}

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
        Some(company) if called.sees(&company) => Audience::Companies(vec![company.into()]),
        Some(_) => return Err(ApiError::Forbidden),
        None if called.sees_all() => Audience::All,
        None => Audience::Companies(called.companies.clone()),
    };
    let cursor = last_event_id(&headers).or(asked.last_event_id);
    Stream::open(&shared, &called, audience, None, cursor).await
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
    let audience = if called.sees_all() { Audience::All } else { Audience::Companies(called.companies.clone()) };
    let cursor = last_event_id(&headers).or(asked.last_event_id);
    Stream::open(&shared, &called, audience, Some(key), cursor).await
}

fn last_event_id(headers: &HeaderMap) -> Option<String> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().map(str::to_owned)
}

struct Stream {
    shared: Arc<Shared>,
    audience: Audience,
    key: Option<Key>,
    place: u64,
    /// What the stream began with: changes up to these versions are not told again.
    began: Option<Arc<Snapshot>>,
    waiting: VecDeque<Bytes>,
    head: watch::Receiver<u64>,
    ending: watch::Receiver<bool>,
    expires: Instant,
    _permit: OwnedSemaphorePermit,
    _open: OpenStream,
}

/// Counts a stream as long as it lives.
struct OpenStream(Arc<Shared>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.feed.metrics.clients.dec();
    }
}

impl Stream {
    /// The answer: what there is to begin with is ready before its head is sent, so that a refusal is a status.
    async fn open(
        shared: &Arc<Shared>,
        caller: &Caller,
        audience: Audience,
        key: Option<Key>,
        cursor: Option<String>,
    ) -> Result<Response, ApiError> {
        let feed = &shared.feed;
        if shared.parts.bus.is_none() {
            return Err(ApiError::ChangesUnavailable);
        }
        let permit = Arc::clone(&feed.streams).try_acquire_owned().map_err(|_| ApiError::Overloaded)?;
        // After a restart: until the log is as it was, so that cursors are found. The gate limits the wait.
        let _ = feed.caught_up.subscribe().wait_for(|caught_up| *caught_up).await;
        feed.metrics.clients.inc();
        let left = caller.expires_at.saturating_sub(jsonwebtoken::get_current_timestamp());
        let mut stream = Self {
            shared: Arc::clone(shared),
            audience,
            key,
            place: 0,
            began: None,
            waiting: VecDeque::from([Bytes::from_static(RETRY)]),
            head: feed.log.watch(),
            ending: feed.ending.subscribe(),
            // A token for ever would overflow the clock.
            expires: Instant::now() + Duration::from_secs(left.min(365 * 86_400)),
            _permit: permit,
            _open: OpenStream(Arc::clone(shared)),
        };
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
            Some((Ok::<_, Infallible>(chunk), stream))
        });
        let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
        // Proxies that collect answers would collect this one for ever.
        Ok((headers, [("x-accel-buffering", "no")], Body::from_stream(body)).into_response())
    }

    /// Takes whole documents to begin with.
    async fn begin(&mut self) -> Result<(), ApiError> {
        let feed = &self.shared.feed;
        let snapshot = match (&self.key, &self.audience) {
            (Some(key), _) => self.document(key).await?,
            (None, Audience::All) => feed.snapshot(None).await?,
            (None, Audience::Companies(companies)) => feed.snapshot(Some(companies)).await?,
        };
        self.place = snapshot.place;
        self.waiting.extend(snapshot.frames.iter().cloned());
        self.began = Some(snapshot);
        Ok(())
    }

    /// The one document, if it is there and the caller's.
    async fn document(&self, key: &Key) -> Result<Arc<Snapshot>, ApiError> {
        let feed = &self.shared.feed;
        let place = feed.log.head();
        let mut snapshot = Snapshot { place, frames: Vec::new(), versions: Default::default() };
        if let Some(hit) = self.shared.parts.cache.reload(key).await? {
            if hit.stale {
                return Err(ApiError::DatabaseUnavailable);
            }
            let document = Document::parse(hit.document).map_err(|_| ApiError::Internal)?;
            let company = super::entry::company(&document);
            if company.is_some_and(|company| self.audience.sees(&company)) {
                let cursor = feed.log.cursor(place);
                snapshot.frames.push(whole_frame(&feed.source, key, hit.version, &document, cursor.as_deref()));
                snapshot.versions.insert(key.clone(), hit.version);
            }
        }
        Ok(Arc::new(snapshot))
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let shared = Arc::clone(&self.shared);
        let feed = &shared.feed;
        loop {
            if *self.ending.borrow() || Instant::now() >= self.expires {
                return None;
            }
            if !self.waiting.is_empty() {
                let some = self.waiting.len().min(FRAMES_MAX);
                return Some(
                    self.waiting
                        .drain(..some)
                        .fold(BytesMut::new(), |mut all, frame| {
                            all.extend_from_slice(&frame);
                            all
                        })
                        .freeze(),
                );
            }
            self.head.borrow_and_update();
            match feed.log.read(self.place, ENTRIES_MAX) {
                Read::Behind => {
                    feed.metrics.behind.inc();
                    // What is missed cannot be told: without whole documents the stream ends, and the client comes back.
                    self.begin().await.ok()?;
                    self.waiting.push_front(Bytes::from_static(b"event: behind\ndata: {\"code\":\"BEHIND\"}\n\n"));
                }
                Read::Entries(entries, _) if entries.is_empty() => {
                    tokio::select! {
                        changed = self.head.changed() => changed.ok()?,
                        _ = self.ending.changed() => return None,
                        () = sleep_until(self.expires) => return None,
                        () = sleep(feed.heartbeat) => return Some(Bytes::from_static(b":\n\n")),
                    }
                }
                Read::Entries(entries, next) => {
                    self.place = next;
                    let frames: Vec<&Bytes> = entries.iter().filter_map(|entry| self.frame(entry)).collect();
                    feed.metrics.sent.inc_by(frames.len() as u64);
                    match frames[..] {
                        [] => tokio::task::yield_now().await,
                        [only] => return Some(only.clone()),
                        _ => {
                            return Some(
                                frames
                                    .into_iter()
                                    .fold(BytesMut::new(), |mut all, frame| {
                                        all.extend_from_slice(frame);
                                        all
                                    })
                                    .freeze(),
                            );
                        }
                    }
                }
            }
        }
    }

    fn frame<'e>(&self, entry: &'e Entry) -> Option<&'e Bytes> {
        if self.key.as_ref().is_some_and(|key| *key != entry.key) {
            return None;
        }
        let told = self.began.as_ref().and_then(|began| began.versions.get(&entry.key));
        if told.is_some_and(|version| entry.version <= *version) {
            return None;
        }
        entry.frame(|company| self.audience.sees(company))
    }
}

impl Audience {
    fn sees(&self, company: &str) -> bool {
        match self {
            Self::All => true,
            Self::Companies(companies) => companies.iter().any(|own| **own == *company),
        }
    }
}
