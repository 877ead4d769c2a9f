//! The wire, driven by `tiberius` and by `python-tds`, with a session that does as it is told.

mod faults;
mod pytds;
mod raw;
mod requests;
mod session;
mod types;

use session::{Scripted, Seen};
use smartpulse_stand_in::server::{Options, Sessions, StandIn};
use std::sync::Arc;
use std::time::Duration;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

/// Generous: only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

type Tiberius = Client<Compat<TcpStream>>;

fn start(options: Options) -> (StandIn, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let shared = seen.clone();
    let sessions: Sessions = Arc::new(move |_| Ok(Box::new(Scripted::new(shared.clone()))));
    (StandIn::with_sessions(options, sessions).unwrap(), seen)
}

fn config(server: &StandIn) -> Config {
    let mut config = Config::new();
    config.host("localhost");
    config.port(server.address().port());
    config.authentication(AuthMethod::sql_server("sa", "Stand-in-1"));
    config.encryption(EncryptionLevel::NotSupported);
    config
}

async fn connect_with(server: &StandIn, config: Config) -> tiberius::Result<Tiberius> {
    let tcp = TcpStream::connect(server.address()).await?;
    let connecting = Box::pin(Client::connect(config, tcp.compat_write()));
    tokio::time::timeout(PATIENCE, connecting).await.expect("connects in time")
}

async fn connect(server: &StandIn) -> Tiberius {
    connect_with(server, config(server)).await.unwrap()
}

/// Waits until it is true.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
