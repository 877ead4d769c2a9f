//! The beginning of a connection: first words, TLS, login.

use super::connection::{hold, protocol};
use super::login::{self, Login};
use super::packet::{
    LOGIN_BYTES_MAX, Message, PACKET_BYTES_DEFAULT, PACKET_BYTES_MAX, PACKET_BYTES_MIN, PacketReader, PacketWriter,
    kind,
};
use super::prelogin::{self, Agreed, Prelogin};
use super::tls::Wrapped;
use crate::faults::Action;
use crate::server::Shared;
use crate::session::{self, Session};
use std::io::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long a client may take until it is logged in.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(30);
/// The first byte of a connection that begins with TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// A stream, whatever is in it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream, whatever is in it.
pub(super) type Io = Box<dyn Stream>;

/// A connection that is logged in.
pub(super) struct Opened {
    pub io: Io,
    pub packet_bytes: usize,
    pub session: Box<dyn Session>,
}

/// Opens a connection; none when the client was turned away.
pub(super) async fn open(tcp: TcpStream, process: u16, shared: &Arc<Shared>) -> Result<Option<Opened>> {
    let mut network = shared.faults.network();
    let opening = async {
        if hold(&mut network).await {
            return Ok(None);
        }
        tcp.set_nodelay(true)?;
        let Some((mut io, login)) = begin(tcp, process, shared).await? else { return Ok(None) };
        if hold(&mut network).await {
            return Ok(None);
        }
        match admit(&login, shared).await {
            Ok(session) => {
                let database = shared.database(&login).to_owned();
                let packet_bytes = packet_bytes(&login);
                let mut answer = Vec::new();
                login::accepted(&mut answer, &login, &database, packet_bytes);
                send(&mut io, process, &answer).await?;
                Ok(Some(Opened { io, packet_bytes, session }))
            }
            Err(messages) => {
                let mut answer = Vec::new();
                refuse(&mut answer, &messages);
                send(&mut io, process, &answer).await?;
                Ok(None)
            }
        }
    };
    let blackhole = shared.faults.network();
    tokio::select! {
        opened = opening => opened,
        () = expire(blackhole) => Err(protocol("the client took too long to log in")),
    }
}

/// Time runs out, but not while nothing can be heard.
async fn expire(mut network: tokio::sync::watch::Receiver<crate::faults::Network>) {
    loop {
        tokio::time::sleep(HANDSHAKE_TIME_MAX).await;
        if !hold(&mut network).await {
            return;
        }
    }
}

fn refuse(out: &mut Vec<u8>, messages: &[session::Message]) {
    if let [first @ .., last] = messages {
        first.iter().for_each(|message| super::tokens::message(out, message));
        login::refused(out, last);
    }
}

fn packet_bytes(login: &Login) -> usize {
    match login.packet_bytes as usize {
        0 => PACKET_BYTES_DEFAULT,
        bytes => bytes.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX),
    }
}

async fn begin(tcp: TcpStream, process: u16, shared: &Shared) -> Result<Option<(Io, Login)>> {
    let mut first = [0];
    if tcp.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first == [TLS_HANDSHAKE] {
        let mut io = shared.identity.strict().accept(tcp).await?;
        let Some(says) = first_words(&mut io).await? else { return Ok(None) };
        let answer = prelogin::answer(prelogin::Encryption::On, says.federated);
        send(&mut io, process, &answer).await?;
        return log_in(Box::new(io), process).await;
    }
    let mut tcp = tcp;
    let Some(says) = first_words(&mut tcp).await? else { return Ok(None) };
    let (answer, agreed) = prelogin::negotiate(says.encryption, shared.options.tls);
    if hold(&mut shared.faults.network()).await {
        return Ok(None);
    }
    send(&mut tcp, process, &prelogin::answer(answer, says.federated)).await?;
    match agreed {
        Agreed::Nothing => Ok(None),
        Agreed::Clear => log_in(Box::new(tcp), process).await,
        Agreed::LoginOnly | Agreed::All => {
            let mut tls = shared.identity.wrapped().accept(Wrapped::new(tcp)).await?;
            tls.get_mut().0.unwrap();
            if agreed == Agreed::All {
                return log_in(Box::new(tls), process).await;
            }
            // Only the login record is encrypted: from its end on both sides speak in the clear.
            let Some(message) = receive(&mut tls, kind::LOGIN).await? else { return Ok(None) };
            let (wrapped, _) = tls.into_inner();
            read_login(&message, Box::new(wrapped.into_inner()), process).await
        }
    }
}

async fn first_words(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<Prelogin>> {
    let Some(message) = receive(io, kind::PRELOGIN).await? else { return Ok(None) };
    Prelogin::read(&message.body).map(Some).map_err(|malformed| protocol(malformed.text))
}

async fn log_in(mut io: Io, process: u16) -> Result<Option<(Io, Login)>> {
    match receive(&mut io, kind::LOGIN).await? {
        Some(message) => read_login(&message, io, process).await,
        None => Ok(None),
    }
}

async fn read_login(message: &Message, mut io: Io, process: u16) -> Result<Option<(Io, Login)>> {
    match Login::read(&message.body) {
        Ok(login) => Ok(Some((io, login))),
        Err(malformed) => {
            let mut answer = Vec::new();
            let text = malformed.text;
            let (procedure, number) = (String::new(), malformed.number);
            login::refused(&mut answer, &session::Message { number, state: 1, class: 20, text, procedure, line: 1 });
            send(&mut io, process, &answer).await?;
            Ok(None)
        }
    }
}

async fn receive(io: &mut (impl AsyncRead + Unpin), expected: u8) -> Result<Option<Message>> {
    match PacketReader::new(io, LOGIN_BYTES_MAX).next().await? {
        Some(message) if message.kind != expected => {
            Err(protocol(format!("a message of kind {} where one of kind {expected} belongs", message.kind)))
        }
        other => Ok(other),
    }
}

async fn send(io: &mut (impl AsyncWrite + Unpin), process: u16, bytes: &[u8]) -> Result<()> {
    let mut writer = PacketWriter::new(io, process);
    writer.write(bytes).await?;
    writer.finish().await
}

async fn admit(login: &Login, shared: &Arc<Shared>) -> std::result::Result<Box<dyn Session>, Vec<session::Message>> {
    for fault in shared.faults.at(&login.application) {
        if let Action::FailLogin(failure) = fault.action()
            && fault.strike()
        {
            return Err(vec![failure.message()]);
        }
    }
    if !shared.knows(login) {
        return Err(vec![login::failed(&login.user)]);
    }
    if !shared.has_database(shared.database(login)) {
        return Err(vec![login::no_database(&login.database), login::failed(&login.user)]);
    }
    let (shared, login) = (shared.clone(), login.clone());
    let made = tokio::task::spawn_blocking(move || shared.session(&login)).await.map_err(Error::other);
    match made {
        Ok(session) => session.map_err(|message| vec![message]),
        Err(error) => {
            let text = format!("fault in the stand-in, not in your program: no session could be made: {error}");
            let procedure = String::new();
            Err(vec![session::Message { number: 50_000, state: 1, class: 20, text, procedure, line: 1 }])
        }
    }
}
