//! A link that breaks on command: between a client and a server on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They pass.
    Open,
    /// They are swallowed, and nobody is told: a link that is half open. Who connected before stays cut off.
    Frozen,
    /// Every connection is closed, and new ones are closed at once.
    Closed,
}

/// A proxy for TCP connections; ends when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
}

impl FaultProxy {
    /// A proxy in front of a port of this machine.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (flow, watched) = watch::channel(Flow::Open);
        tokio::spawn(accept(listener, port, watched));
        Self { address, flow }
    }

    /// Where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on bytes flow like this.
    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn accept(listener: TcpListener, port: u16, mut flow: watch::Receiver<Flow>) {
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            gone = flow.wait_for(|_| false) => { drop(gone); return }
        };
        if let Ok((client, _)) = client {
            tokio::spawn(carry(client, port, flow.clone()));
        }
    }
}

async fn carry(client: TcpStream, port: u16, mut flow: watch::Receiver<Flow>) {
    if *flow.borrow() == Flow::Closed {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let there = pump(client_reads, server_writes, flow.clone());
    let back = pump(server_reads, client_writes, flow.clone());
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        // Closed, or the proxy is gone.
        closed = flow.wait_for(|flow| *flow == Flow::Closed) => drop(closed),
    }
}

/// Carries bytes one way. Once frozen it never carries any again: nobody may think the link had recovered.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, flow: watch::Receiver<Flow>) {
    let mut watched = flow.clone();
    let frozen = async {
        if watched.wait_for(|flow| *flow == Flow::Frozen).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let carried = async {
        let mut bytes = vec![0; 16 << 10];
        loop {
            match from.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    if *flow.borrow() == Flow::Frozen {
                        std::future::pending::<()>().await;
                    }
                    if to.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = frozen => {}
        () = carried => {}
    }
}
