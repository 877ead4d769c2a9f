//! A database with devices, and a pusher.

use crate::server::Server;
use serde_json::{Value, json};
use smartpulse_clients::database::{Database, SharedDatabase};
use smartpulse_clients::delivery::{Device, SharedDelivery};
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_config::Secret;
use smartpulse_push::endpoint::{Lookup, system_lookup};
use smartpulse_push::vapid::{Generated, generate};
use smartpulse_push::{DeviceType, FcmConfig, Outcome, PushMessage, PushServicesConfig, Pusher, WebPushConfig};
use smartpulse_testing::{device, uuid};
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

/// A browser's keys: those of RFC 8291's example.
pub const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
pub const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

/// The user of the tests.
pub const USER: u64 = 7;

/// How long the pusher waits for an answer in tests about answers that never come.
pub const TIMEOUT_MS: u64 = 2_000;

pub struct Place {
    pub database: SharedDatabase,
    pub delivery: SharedDelivery,
    pub keys: Generated,
    pub folder: TempDir,
}

impl Place {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = prometheus::Registry::new();
        let database = SqliteDatabase::open("w", &SqliteConfig::default(), folder.path(), &registry).unwrap();
        database.create_schema().await.unwrap();
        let delivery = database.delivery().unwrap();
        Self { database: Arc::new(database), delivery, keys: generate().unwrap(), folder }
    }

    pub async fn browser(&self, id: u64, user: u64, endpoint: &str) {
        let subscription = json!({"endpoint": endpoint, "keys": {"p256dh": P256DH, "auth": AUTH}}).to_string();
        self.register(id, user, 0, &subscription).await;
    }

    pub async fn register(&self, id: u64, user: u64, integration: u8, address: &str) {
        let rows = [device(id, user, integration, address)];
        self.database.insert_absent("SysUserDeviceInfo", &rows).await.unwrap();
    }

    pub fn web_push(&self) -> Pusher {
        config(&self.keys.private_key).pusher(self.delivery.clone(), system_lookup()).unwrap()
    }

    /// A pusher as in production, with a resolver of its own.
    pub fn strict(&self, lookup: Lookup) -> Pusher {
        let config = PushServicesConfig { loopback: false, ..config(&self.keys.private_key) };
        config.pusher(self.delivery.clone(), lookup).unwrap()
    }

    pub fn fcm(&self, service_account: &Value, server: &Server) -> Pusher {
        let fcm = FcmConfig { service_account: Secret::new(service_account.to_string()), endpoint: server.url("") };
        let config =
            PushServicesConfig { web_push: None::<WebPushConfig>, fcm: Some(fcm), ..config(&self.keys.private_key) };
        config.pusher(self.delivery.clone(), system_lookup()).unwrap()
    }

    pub async fn devices(&self) -> Vec<Device> {
        self.delivery.devices(id(USER)).await.unwrap()
    }

    /// Tells the user's only device.
    pub async fn tell(&self, pusher: &Pusher, message: &PushMessage) -> Outcome {
        let devices = self.devices().await;
        pusher.tell(&devices[0], message, message.ttl).await.unwrap()
    }
}

/// Settings under which services on this machine are called.
pub fn config(private_key: &str) -> PushServicesConfig {
    let config = json!({
        "database": "main_db", "timeout_ms": TIMEOUT_MS, "loopback": true,
        "web_push": {"private_key": private_key, "contact": "mailto:ops@example.com", "services": ["127.0.0.1"]},
    });
    serde_json::from_value(config).unwrap()
}

pub fn id(number: u64) -> Uuid {
    Uuid::parse_str(&uuid(number)).unwrap()
}

/// A message to the user.
pub fn message(number: u64) -> PushMessage {
    let message = json!({
        "id": uuid(number), "userId": uuid(USER), "title": "Forecast", "body": "Gr\u{fc}\u{df}e \u{1f300}",
        "url": "https://app.example/forecasts/1", "data": {"forecastId": uuid(1), "version": 7}, "ttl": 600,
        "urgency": "high", "topic": "forecast-1",
    });
    let message = PushMessage::parse(message.to_string().as_bytes()).unwrap();
    assert_eq!(message.device_type, DeviceType::Both);
    message
}
