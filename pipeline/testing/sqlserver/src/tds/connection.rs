//! A connection, from its first words to its end.
//!
//! One task owns it. While the engine works on a request, on a thread of its own, the task sends on what the engine has
//! made and listens for an attention or for the client's going away; both make the engine stop.

use super::handshake::{self, Io};
use super::packet::{MESSAGE_BYTES_MAX, Message, PacketReader, PacketWriter, kind};
use super::response::{PORTIONS_MAX, Portion, Response};
use super::tokens::{self, status};
use super::work::{Finished, Kept, Work};
use crate::faults::{Action, Armed, Network};
use crate::server::Shared;
use crate::session;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// How often a delay on request looks whether it was cancelled.
const DELAY_STEP: Duration = Duration::from_millis(5);

/// Serves a connection until it ends.
///
/// # Errors
/// Why it ended, when neither side wanted it to.
pub(crate) async fn serve(tcp: TcpStream, process: u16, shared: &Arc<Shared>) -> Result<()> {
    let Some(opened) = handshake::open(tcp, process, shared).await? else { return Ok(()) };
    let (reader, writer) = tokio::io::split(opened.io);
    let mut writer = PacketWriter::new(writer, process);
    writer.set_packet_bytes(opened.packet_bytes);
    let mut connection = Connection {
        reader: PacketReader::new(reader, MESSAGE_BYTES_MAX),
        writer,
        engine: Some((opened.session, Kept::default())),
        cancelled: Arc::default(),
        bulk_fault: None,
        network: shared.faults.network(),
        shared: shared.clone(),
    };
    connection.run().await
}

/// Holds until the blackhole is over; true when there was one.
pub(super) async fn hold(network: &mut watch::Receiver<Network>) -> bool {
    let mut held = false;
    while network.borrow_and_update().blackhole {
        held = true;
        if network.changed().await.is_err() {
            break;
        }
    }
    held
}

struct Connection {
    reader: PacketReader<ReadHalf<Io>>,
    writer: PacketWriter<WriteHalf<Io>>,
    engine: Option<(Box<dyn session::Session>, Kept)>,
    cancelled: Arc<AtomicBool>,
    bulk_fault: Option<Armed>,
    network: watch::Receiver<Network>,
    shared: Arc<Shared>,
}

/// What happened to the client while the engine worked.
#[derive(Debug, Default)]
struct Heard {
    attention: bool,
    gone: bool,
    next: Option<Message>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Whatever still runs has nobody to run for.
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Connection {
    async fn run(&mut self) -> Result<()> {
        let mut next = None;
        loop {
            let message = match next.take() {
                Some(message) => message,
                None => match self.receive().await? {
                    Some(message) => message,
                    None => return Ok(()),
                },
            };
            if message.kind == kind::ATTENTION {
                // What it was to stop is over; it wants to be told all the same.
                self.acknowledge().await?;
                continue;
            }
            match self.request(message).await? {
                Some(heard) => next = heard.next,
                None => return Ok(()),
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Message>> {
        let next = self.reader.next();
        let received = match self.shared.options.idle_kill {
            Some(time) => match tokio::time::timeout(time, next).await {
                Ok(received) => received,
                Err(_) => return Ok(None),
            },
            None => next.await,
        };
        let broken = received.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionAborted);
        if let Some(fault) = self.bulk_fault.take().filter(|_| broken) {
            fault.strike();
            return Ok(None);
        }
        self.reader.break_bulk_after(None);
        let swallowed = hold(&mut self.network).await;
        Ok(received?.filter(|_| !swallowed))
    }

    async fn acknowledge(&mut self) -> Result<()> {
        self.cancelled.store(false, Ordering::Relaxed);
        let mut bytes = Vec::new();
        tokens::done(&mut bytes, tokens::DONE, status::ATTENTION, 0, 0);
        self.writer.write(&bytes).await?;
        self.writer.finish().await
    }

    /// Serves a request; none when the connection is to end.
    async fn request(&mut self, message: Message) -> Result<Option<Heard>> {
        let Some((session, mut kept)) = self.engine.take() else { return Ok(None) };
        let work = Work::read(&message, &mut kept);
        let faults = self.shared.faults.at(&work.text(&kept));
        let struck = |wanted: fn(&Action) -> bool| faults.iter().any(|fault| wanted(fault.action()) && fault.strike());
        if struck(|action| *action == Action::BreakBefore) {
            return Ok(None);
        }
        let swallow = struck(|action| *action == Action::BreakAfter);
        if let (Work::AnnounceBulk(_), Some((fault, bytes))) = (&work, bulk_fault(&faults)) {
            self.bulk_fault = Some(fault);
            self.reader.break_bulk_after(Some(bytes));
        }
        let (sender, mut portions) = mpsc::channel(PORTIONS_MAX);
        let job = Job { session, kept, work, reset: message.reset, faults, cancelled: self.cancelled.clone() };
        let engine = tokio::task::spawn_blocking(move || job.run(sender));
        let mut heard = Heard::default();
        loop {
            tokio::select! {
                portion = portions.recv() => match portion {
                    Some(Portion::Bytes(bytes)) if !swallow => {
                        hold(&mut self.network).await;
                        self.writer.write(&bytes).await?;
                    }
                    Some(Portion::Bytes(_)) => {}
                    Some(Portion::Break) => {
                        self.writer.break_off().await?;
                        return Ok(None);
                    }
                    None => break,
                },
                event = self.reader.next(), if heard.next.is_none() && !heard.gone => self.hear(event, &mut heard),
            }
        }
        let finished = engine.await;
        hold(&mut self.network).await;
        if swallow || heard.gone {
            return Ok(None);
        }
        self.answered(finished, heard).await
    }

    fn hear(&self, event: Result<Option<Message>>, heard: &mut Heard) {
        let blackhole = self.network.borrow().blackhole;
        match event {
            Ok(Some(message)) if message.kind == kind::ATTENTION && !blackhole => heard.attention = true,
            Ok(Some(message)) if !blackhole => heard.next = Some(message),
            // Gone; or swallowed, which ends the connection, but lets the engine finish.
            other => {
                heard.gone = true;
                if matches!(other, Ok(Some(_))) {
                    return;
                }
            }
        }
        if heard.attention || heard.gone {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }

    async fn answered(
        &mut self,
        finished: std::result::Result<Finished, tokio::task::JoinError>,
        mut heard: Heard,
    ) -> Result<Option<Heard>> {
        let Ok(finished) = finished else {
            let mut bytes = Vec::new();
            tokens::message(&mut bytes, &panicked());
            tokens::done(&mut bytes, tokens::DONE, status::ERROR, 0, 0);
            self.writer.write(&bytes).await?;
            self.writer.finish().await?;
            return Ok(None);
        };
        if heard.attention {
            let mut bytes = Vec::new();
            tokens::done(&mut bytes, tokens::DONE, status::ATTENTION, 0, 0);
            self.writer.write(&bytes).await?;
            heard.attention = false;
            self.cancelled.store(false, Ordering::Relaxed);
        }
        self.writer.finish().await?;
        self.engine = Some((finished.session, finished.kept));
        Ok((finished.stays && !finished.outcome.fatal).then_some(heard))
    }
}

fn bulk_fault(faults: &[Armed]) -> Option<(Armed, usize)> {
    faults.iter().find_map(|fault| match fault.action() {
        Action::BreakBulk(bytes) => Some((fault.clone(), *bytes)),
        _ => None,
    })
}

fn panicked() -> session::Message {
    session::Message {
        number: 50_000,
        state: 1,
        class: 20,
        text: "fault in the stand-in, not in your program: its engine panicked; see its standard error".to_owned(),
        procedure: String::new(),
        line: 1,
    }
}

/// A request on its way to the engine's thread.
struct Job {
    session: Box<dyn session::Session>,
    kept: Kept,
    work: Work,
    reset: bool,
    faults: Vec<Armed>,
    cancelled: Arc<AtomicBool>,
}

impl Job {
    fn run(self, portions: mpsc::Sender<Portion>) -> Finished {
        let Job { mut session, mut kept, work, reset, faults, cancelled } = self;
        let mut response = Response::new(portions, &cancelled, &faults);
        if reset {
            session.reset();
            kept.reset();
            response.reset();
        }
        for fault in &faults {
            if let Action::Delay(time) = fault.action()
                && fault.strike()
            {
                delay(*time, &cancelled);
            }
        }
        let failure = faults.iter().find_map(|fault| match fault.action() {
            Action::Fail(failure) if fault.strike() => Some(failure),
            _ => None,
        });
        let stays = match failure {
            // Taken back, or its client gone, before it began: it must not happen after all.
            _ if cancelled.load(Ordering::Relaxed) => true,
            Some(failure) => {
                work.fail(failure, &mut *session, &mut response);
                true
            }
            None => work.run(&mut *session, &mut kept, &cancelled, &mut response),
        };
        let outcome = response.close();
        Finished { session, kept, outcome, stays }
    }
}

fn delay(time: Duration, cancelled: &AtomicBool) {
    let end = Instant::now() + time;
    while !cancelled.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(DELAY_STEP));
    }
}

/// An error of somebody who does not keep to the protocol.
pub(super) fn protocol(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, text.into())
}
