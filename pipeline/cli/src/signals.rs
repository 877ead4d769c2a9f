//! SIGINT and SIGTERM: the first asks for an orderly end, the second aborts.

use crate::screen::Screen;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What shells give a process that SIGINT ended: 128 + 2.
const ABORTED: i32 = 130;

/// Tells of the first signal. Clones hear of the same one.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Receiver<bool>,
}

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen(screen: &Screen) -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (ask, asked) = watch::channel(false);
        let screen = screen.clone();
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if first {
                    screen.print("finishing what is on its way; Ctrl-C again aborts\n");
                    ask.send_replace(true);
                }
            }
            screen.print("aborted: what was not finished comes again at the next start\n");
            // Not a return through main: threads that hang in a system call must not hold it up.
            std::process::exit(ABORTED);
        });
        Ok(Self { asked })
    }

    /// Returns when an end was asked for.
    pub async fn requested(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // The listener lives as long as the runtime.
            std::future::pending::<()>().await;
        }
    }
}
