//! The push services: how many calls each takes at once, and what is known of it.

use crate::circuit::Circuit;
use crate::outcome::{Answer, Outcome};
use moka::sync::Cache;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Services that are remembered at once: there are a handful, and whoever registers a device may name others.
const SERVICES_MAX: u64 = 1_000;

/// A service that nobody calls is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The longest wait that is granted: to a service that we know, and to any other, which shall not hold up a pipeline.
const WAIT_MAX_KNOWN: Duration = Duration::from_secs(60);
const WAIT_MAX: Duration = Duration::from_millis(800);

/// How calls are made.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Calls to one service at once.
    pub concurrency: usize,
    /// How long a call may take.
    pub timeout: Duration,
    /// Hosts of services whose outage holds the pipeline, with all hosts below them. The outage of any other costs its
    /// messages their tries.
    pub known: Vec<String>,
}

/// All services, by host.
pub(crate) struct Services {
    limits: Limits,
    services: Cache<String, Arc<Service>>,
}

impl Services {
    pub fn new(limits: Limits) -> Self {
        let services = Cache::builder().max_capacity(SERVICES_MAX).time_to_idle(FORGOTTEN_AFTER).build();
        Self { limits, services }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn of(&self, host: &str) -> Arc<Service> {
        self.services.get_with_by_ref(host, || {
            let below = |known: &String| host.strip_suffix(known.as_str()).is_some_and(|rest| rest.ends_with('.'));
            let known = self.limits.known.iter().any(|known| known == host || below(known));
            Arc::new(Service {
                host: host.to_owned(),
                known,
                timeout: self.limits.timeout,
                calls: Semaphore::new(self.limits.concurrency),
                circuit: Mutex::new(Circuit::new()),
            })
        })
    }
}

/// One service.
pub(crate) struct Service {
    host: String,
    known: bool,
    timeout: Duration,
    calls: Semaphore,
    circuit: Mutex<Circuit>,
}

impl Service {
    /// Makes a call, unless the service is known to be away.
    pub async fn call(&self, work: impl Future<Output = Answer>) -> Outcome {
        let Ok(_permit) = self.calls.acquire().await else { return self.away("it is closed") };
        if !self.with(|circuit| circuit.admits(Instant::now(), self.timeout)) {
            return self.away("it did not answer");
        }
        match work.await {
            Answer::Said(outcome) => {
                self.with(Circuit::answered);
                match outcome {
                    Outcome::Later { reason, after } => Outcome::Later { reason, after: self.granted(after) },
                    outcome => outcome,
                }
            }
            Answer::Silent { reason, after } => {
                let open = self.with(|circuit| {
                    circuit.failed(Instant::now());
                    circuit.is_open()
                });
                if open {
                    tracing::warn!(host = self.host, reason, "a push service is away");
                    return self.away(&reason);
                }
                Outcome::Later { reason, after: self.granted(after) }
            }
        }
    }

    fn away(&self, reason: &str) -> Outcome {
        let reason = format!("{} is away: {reason}", self.host);
        if self.known { Outcome::Away(reason) } else { Outcome::Later { reason, after: None } }
    }

    fn granted(&self, after: Option<Duration>) -> Option<Duration> {
        let most = if self.known { WAIT_MAX_KNOWN } else { WAIT_MAX };
        after.map(|after| after.min(most))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Circuit) -> T) -> T {
        use_it(&mut self.circuit.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Services {
        let known = vec!["push.example".to_owned()];
        Services::new(Limits { concurrency: 2, timeout: Duration::from_secs(5), known })
    }

    async fn fail(service: &Service, times: usize) -> Outcome {
        let mut last = Outcome::Sent;
        for _ in 0..times {
            let after = Some(Duration::from_secs(600));
            last = service.call(async { Answer::Silent { reason: "time-out".to_owned(), after } }).await;
        }
        last
    }

    #[tokio::test]
    async fn only_a_known_service_holds_others_up() {
        let services = services();
        let waits = |outcome: Outcome| match outcome {
            Outcome::Later { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(waits(fail(&services.of("eu.push.example"), 1).await), Some(WAIT_MAX_KNOWN));
        assert_eq!(waits(fail(&services.of("evilpush.example"), 1).await), Some(WAIT_MAX));
        assert!(matches!(fail(&services.of("eu.push.example"), 2).await, Outcome::Away(_)));
        assert!(matches!(fail(&services.of("evilpush.example"), 9).await, Outcome::Later { .. }));
        let spoken = services.of("push.example").call(async { Answer::Said(Outcome::Sent) }).await;
        assert_eq!(spoken, Outcome::Sent, "each host has a circuit of its own");
    }

    #[tokio::test]
    async fn a_service_that_is_away_is_not_called() {
        let services = services();
        let service = services.of("push.example");
        fail(&service, 3).await;
        let outcome = service.call(async { panic!("it was called") }).await;
        assert_eq!(outcome, Outcome::Away("push.example is away: it did not answer".to_owned()));
    }
}
