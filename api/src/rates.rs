//! How often one user may call, with what is remembered of users bounded.
//!
//! A generic cell rate algorithm per user (`governor`). Its own keyed store grows with every user there ever was; here the
//! limiters of at most [`USERS_MAX`] users are kept, the least active go, and one that comes back starts afresh.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use smartpulse_config::RateSettings;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How many users are remembered: some 30 MB.
const USERS_MAX: u64 = 100_000;

/// How long a user is remembered who does not call: longer than any burst takes to be forgiven.
const IDLE: Duration = Duration::from_secs(3_600);

/// The limiters of all users.
pub(crate) struct Rates {
    /// `None` for no limit.
    quota: Option<Quota>,
    users: Cache<Uuid, Arc<DefaultDirectRateLimiter>>,
    clock: DefaultClock,
}

impl Rates {
    pub fn new(settings: &RateSettings) -> Self {
        let burst = NonZeroU32::new(settings.burst).unwrap_or(NonZeroU32::MIN);
        let quota = NonZeroU32::new(settings.per_second).map(|rate| Quota::per_second(rate).allow_burst(burst));
        let users = Cache::builder().max_capacity(USERS_MAX).time_to_idle(IDLE).build();
        Self { quota, users, clock: DefaultClock::default() }
    }

    /// Counts a call.
    ///
    /// # Errors
    ///
    /// The time to wait, if the user calls too often.
    pub fn count(&self, user: Uuid) -> Result<(), Duration> {
        let Some(quota) = self.quota else { return Ok(()) };
        let limiter = self.users.get_with(user, || Arc::new(RateLimiter::direct(quota)));
        limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_calls_too_often_waits_and_others_do_not() {
        let rates = Rates::new(&RateSettings { per_second: 1, burst: 3 });
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for _ in 0..3 {
            assert_eq!(rates.count(a), Ok(()));
        }
        let wait = rates.count(a).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(rates.count(b), Ok(()));
        let off = Rates::new(&RateSettings { per_second: 0, burst: 1 });
        assert!((0..1_000).all(|_| off.count(a).is_ok()));
    }

    #[test]
    fn a_million_users_are_remembered_within_the_bound() {
        let rates = Rates::new(&RateSettings { per_second: 1_000, burst: 1_000 });
        for n in 0..1_000_000 {
            assert_eq!(rates.count(Uuid::from_u128(n)), Ok(()));
        }
        rates.users.run_pending_tasks();
        assert!(rates.users.entry_count() <= USERS_MAX, "{}", rates.users.entry_count());
        let users = rates.users.iter().count();
        // A map node and places in queues beside them.
        let bytes = users * (size_of::<(Uuid, DefaultDirectRateLimiter)>() + 200);
        assert!((10_000..=USERS_MAX as usize).contains(&users) && bytes <= 30 << 20, "{users} users, {bytes} bytes");
    }
}
