//! When and how often a failed operation is tried again.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::{Problem, advise};
use crate::located::Located;

/// Retry policies by name. `redis`, `exponential` and `transient_sql` are built in (`default.yaml`).
pub type RetryPolicies = BTreeMap<String, RetryPolicy>;

/// How a failed operation is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RetryPolicy {
    /// The same wait before every retry.
    Fixed {
        /// Retries after the first failure; 0 gives up at once. At most 10,000.
        #[schemars(range(max = 10_000))]
        attempts: u32,
        /// Wait before each retry, in milliseconds; at most one hour.
        #[schemars(range(max = 3_600_000))]
        delay_ms: u64,
    },
    /// A wait that grows by a factor.
    Exponential {
        /// Retries after the first failure; 0 gives up at once. At most 10,000.
        #[schemars(range(max = 10_000))]
        attempts: u32,
        /// Wait before the first retry, in milliseconds; at most one hour.
        #[schemars(range(max = 3_600_000))]
        initial_ms: u64,
        /// Each wait is this many times the one before. Default 2; 1 keeps it the same.
        #[serde(default = "default_factor")]
        #[schemars(range(min = 1.0, max = 100.0))]
        factor: f64,
        /// Longest wait, in milliseconds; at most one hour.
        #[schemars(range(max = 3_600_000))]
        max_ms: u64,
        /// Whether each wait is shortened by a random part of up to half, so that many clients do not come
        /// back at the same moment. Default true.
        #[serde(default = "default_jitter")]
        jitter: bool,
    },
}

fn default_factor() -> f64 {
    2.0
}

fn default_jitter() -> bool {
    true
}

impl RetryPolicy {
    /// Retries after the first failure.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Fixed { attempts, .. } | Self::Exponential { attempts, .. } => *attempts,
        }
    }

    /// The wait before retry number `retry` (from 0), in milliseconds; `None` when it is time to give up.
    /// `random` is in `0.0..1.0` and is used only for jitter: the caller owns the dice.
    pub fn delay_ms(&self, retry: u32, random: f64) -> Option<u64> {
        if retry >= self.attempts() {
            return None;
        }
        Some(match self {
            Self::Fixed { delay_ms, .. } => *delay_ms,
            Self::Exponential { initial_ms, factor, max_ms, jitter, .. } => {
                let exponent = i32::try_from(retry).unwrap_or(i32::MAX);
                // Large powers become infinite, which `min` turns into the longest wait.
                let full = (*initial_ms as f64 * factor.powi(exponent)).min(*max_ms as f64);
                let part = if *jitter { 1.0 - random.clamp(0.0, 1.0) / 2.0 } else { 1.0 };
                (full * part).round() as u64
            }
        })
    }
}

/// The `retry:` of a sink: the name of a policy, or a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RetryRef {
    /// A policy of the settings' `retries`.
    Name(String),
    /// A policy of its own.
    Inline(RetryPolicy),
}

impl RetryRef {
    /// The policy meant.
    ///
    /// # Errors
    /// A problem at `retry` of the component when there is no policy of that name.
    pub fn resolve<'a>(&'a self, policies: &'a RetryPolicies, at: &Located) -> Result<&'a RetryPolicy, Problem> {
        match self {
            Self::Inline(policy) => Ok(policy),
            Self::Name(name) => policies.get(name).ok_or_else(|| {
                let help = advise(name, policies.keys().map(String::as_str), "policies");
                at.problem("retry", format!("there is no retry policy `{name}`"), Some(help))
            }),
        }
    }
}
