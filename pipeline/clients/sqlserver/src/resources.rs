//! The resource type that settings can name: `sqlserver`.

use crate::config::SqlServerConfig;
use smartpulse_pipeline::registry::{Check, Config};

impl Config for SqlServerConfig {
    const TYPE: &'static str = "sqlserver";

    fn validate(&self, check: &mut Check<'_>) {
        self.check(check);
    }
}
