//! `GET /api/notifications/stream`: the caller's new notifications as server-sent events.
//!
//! Contract:
//! - An event is a row of the inbox: `event: notification`, its `id` a cursor. The table is the only source: an announcement
//!   on `__notification:{partition}:{userId}` only says that it is worth a look, and a lost one delays by [`LOOK`] at most.
//! - It begins with what is new from now on; with `Last-Event-ID` (or `lastEventId`), with what is new since. Rows are stamped before
//!   they are committed, and so those of the last [`OVERLAP`] before the cursor come again: clients know them by their id.
//! - Memory is bounded: a page of rows, and the ids of what was sent of late. A client that is slow is waited for; a database
//!   that is away ends the stream, and the client comes back.

use crate::auth::Called;
use crate::changes::stream::{BEAT, Place, RETRY, event_stream, expiry, last_event_id};
use crate::error::ApiError;
use crate::inbox::notifications;
use crate::router::Shared;
use crate::validate;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::HeaderMap;
use serde::Deserialize;
use smartpulse_clients::database::Row;
use smartpulse_clients::notifications::SharedNotifications;
use smartpulse_clients::pubsub::{Delivery, SharedPubSub};
use smartpulse_pipeline::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

/// How far behind the newest row others may still be committed: a transaction that lasts longer is no insert of ours.
const OVERLAP_MS: i64 = 10_000;

/// How long a row that nobody announced waits.
const LOOK: Duration = Duration::from_secs(15);

/// Rows that are read at once.
const PAGE: u32 = 100;

/// Ids that are remembered as sent. Of a user who is told more within the overlap, some come twice.
const SENT_MAX: usize = 10_000;

/// Announcements that are taken at once.
const TAKEN: usize = 500;

/// How long the pub/sub system is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Who waits for whom.
#[derive(Default)]
pub(crate) struct Inboxes(Mutex<HashMap<Uuid, watch::Sender<u64>>>);

impl Inboxes {
    fn users(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, user: Uuid) -> watch::Receiver<u64> {
        self.users().entry(user).or_default().subscribe()
    }

    /// Forgets a user whom nobody watches: as many are kept as there are streams.
    fn leave(&self, user: Uuid) {
        let mut users = self.users();
        if users.get(&user).is_some_and(|news| news.receiver_count() == 0) {
            users.remove(&user);
        }
    }

    fn tell(&self, delivery: &Delivery) {
        let next = |news: &watch::Sender<u64>| news.send_modify(|count| *count = count.wrapping_add(1));
        let users = self.users();
        match delivery {
            Delivery::Message { channel, .. } => {
                let user = channel.rsplit(':').next().and_then(|user| user.parse().ok());
                user.and_then(|user: Uuid| users.get(&user)).into_iter().for_each(next);
            }
            Delivery::Lost => users.values().for_each(next),
        }
    }

    /// Hears announcements, until `stop` is told or dropped.
    pub async fn run(&self, pubsub: SharedPubSub, partition: &str, mut stop: watch::Receiver<bool>) {
        let pattern = format!("__notification:{partition}:*");
        let hearing = async {
            loop {
                match pubsub.subscribe(&pattern).await {
                    Ok(mut subscriber) => {
                        while let Ok(deliveries) = subscriber.receive(TAKEN).await {
                            deliveries.iter().for_each(|delivery| self.tell(delivery));
                        }
                    }
                    Err(error) => tracing::debug!(error = error.chain(), "announcements are not heard"),
                }
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = hearing => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
}

/// `GET /api/notifications/stream`
#[utoipa::path(
    get, path = "/api/notifications/stream", operation_id = "streamNotifications",
    params(
        ("lastEventId" = Option<String>, Query, description = "As `Last-Event-ID`, for who cannot send it."),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that arrived: the stream goes on after it. What came shortly before may come again.")
    ),
    responses(
        (status = 200, description = "Events whose data are the caller's new notifications.", content_type = "text/event-stream", body = String),
        (status = 400, description = "Parameters that cannot be.")
    )
)]
pub(crate) async fn open(
    State(shared): State<Arc<Shared>>,
    called: Called,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(parameters) = parameters.map_err(|_| ApiError::field("query", "is not readable"))?;
    let asked = validate::stream(&parameters, &[]).map_err(ApiError::Validation)?;
    let cursor = match last_event_id(&headers).or(asked.last_event_id) {
        Some(text) => Some(cursor(&text).ok_or_else(|| ApiError::field("lastEventId", "is no id of this stream"))?),
        None => None,
    };
    let (inbox, place) = (notifications(&shared)?, Place::take(&shared, called.user)?);
    let mut stream = Stream {
        inbox,
        user: called.user,
        newest: Timestamp::from_millis(0),
        sent: VecDeque::new(),
        reading: None,
        begun: false,
        news: shared.inboxes.watch(called.user),
        beat: Instant::now(),
        ending: shared.feed.ending(),
        expires: expiry(&called),
        look: Instant::now() + LOOK,
        place,
        shared,
    };
    match cursor {
        Some((time, id)) => stream.go_on(time, id),
        None => stream.skip_what_is_there().await?,
    }
    Ok(event_stream(stream::unfold(stream, |mut stream| async {
        let chunk = stream.next().await?;
        stream.beat = Instant::now() + stream.shared.feed.heartbeat();
        Some((Ok::<_, Infallible>(chunk), stream))
    })))
}

struct Stream {
    inbox: SharedNotifications,
    user: Uuid,
    /// When the newest row was stamped that was sent.
    newest: Timestamp,
    /// What was sent of late.
    sent: VecDeque<(Timestamp, Uuid)>,
    /// Behind which row the page begins that is to be read; none while there is nothing to read.
    reading: Option<(Timestamp, Uuid)>,
    begun: bool,
    news: watch::Receiver<u64>,
    beat: Instant,
    /// When the table is looked at unasked.
    look: Instant,
    ending: watch::Receiver<bool>,
    expires: Instant,
    place: Place,
    shared: Arc<Shared>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Ours is still counted, and is the last where there is one.
        self.news = watch::channel(0).1;
        self.shared.inboxes.leave(self.user);
    }
}

/// A row's place.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stamp {
    id: Uuid,
    created_at: Timestamp,
}

fn cursor(text: &str) -> Option<(Timestamp, Uuid)> {
    let (millis, id) = text.split_once('-')?;
    let millis = millis.parse().ok().filter(|millis| (0..=253_402_300_799_999).contains(millis))?;
    Some((Timestamp::from_millis(millis), id.parse().ok()?))
}

impl Stream {
    fn go_on(&mut self, time: Timestamp, id: Uuid) {
        self.newest = time;
        self.sent.push_back((time, id));
        self.read_again();
    }

    /// Begins with what comes from now on.
    async fn skip_what_is_there(&mut self) -> Result<(), ApiError> {
        if let Some(row) = self.inbox.inbox(self.user, 0, 1).await?.rows.first() {
            let stamp = stamp(row)?;
            self.go_on(stamp.created_at, stamp.id);
            while self.page().await?.is_some() {}
        }
        Ok(())
    }

    fn read_again(&mut self) {
        let from = (self.newest.as_millis() - OVERLAP_MS).max(0);
        self.reading = Some((Timestamp::from_millis(from), Uuid::nil()));
    }

    /// The frames of the next page, which may be none of them; `None` when there is nothing more to read.
    async fn page(&mut self) -> Result<Option<Vec<String>>, ApiError> {
        let Some(after) = self.reading else { return Ok(None) };
        let rows = self.inbox.inbox_after(self.user, after, PAGE).await?;
        let mut frames = Vec::new();
        for row in &rows {
            let stamp = stamp(row)?;
            let place = (stamp.created_at, stamp.id);
            self.reading = Some(place);
            if self.sent.contains(&place) {
                continue;
            }
            self.newest = self.newest.max(stamp.created_at);
            self.sent.push_back(place);
            let document = std::str::from_utf8(&row.document).map_err(|_| ApiError::Internal)?;
            let millis = stamp.created_at.as_millis();
            frames.push(format!("event: notification\nid: {millis}-{}\ndata: {document}\n\n", stamp.id));
        }
        let floor = self.newest.as_millis() - OVERLAP_MS;
        self.sent.retain(|(time, _)| time.as_millis() >= floor);
        self.sent.drain(..self.sent.len().saturating_sub(SENT_MAX));
        if rows.len() < PAGE as usize {
            self.reading = None;
        }
        Ok(Some(frames))
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(Bytes::from_static(RETRY.as_bytes()));
        }
        loop {
            if *self.ending.borrow() || Instant::now() >= self.expires {
                return None;
            }
            if self.news.has_changed().ok()? || Instant::now() >= self.look {
                self.news.borrow_and_update();
                self.look = Instant::now() + LOOK;
                self.read_again();
            }
            while let Some(frames) = self.page().await.ok()? {
                if !frames.is_empty() {
                    self.place.sent(frames.len());
                    return Some(frames.concat().into());
                }
            }
            if Instant::now() >= self.beat {
                return Some(Bytes::from_static(BEAT.as_bytes()));
            }
            tokio::select! {
                changed = self.news.changed() => {
                    changed.ok()?;
                    self.look = Instant::now();
                }
                _ = self.ending.changed() => return None,
                () = sleep_until(self.expires) => return None,
                () = sleep_until(self.look.min(self.beat)) => {}
            }
        }
    }
}

fn stamp(row: &Row) -> Result<Stamp, ApiError> {
    serde_json::from_slice(&row.document).map_err(|error| {
        tracing::error!(%error, key = &*row.key, "a notification has no id or time");
        ApiError::Internal
    })
}
