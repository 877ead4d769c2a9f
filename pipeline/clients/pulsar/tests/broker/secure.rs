//! Who is let in, and over what.

use crate::{Space, numbers, publish, subscribe, take};
use serde_json::json;
use smartpulse_clients::bus::{Bus, SubscriptionType};
use smartpulse_config::Secret;
use smartpulse_pipeline::error::ErrorKind;
use smartpulse_pulsar::{PulsarBus, PulsarConfig};
use smartpulse_testing::pulsar::{ADMIN_TOKEN, Broker, NOBODYS_TOKEN};

fn with_token(config: PulsarConfig, token: &str) -> PulsarConfig {
    PulsarConfig { token: Some(Secret::new(token)), ..config }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_ends_the_start_and_says_what_to_do() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let wrong = with_token(Space::new().unwrap().config(), &ADMIN_TOKEN[..ADMIN_TOKEN.len() - 4]);
    let Err(refused) = PulsarBus::connect(&wrong).await else { panic!("it was let in") };
    assert_eq!(refused.kind(), ErrorKind::Fatal, "{refused:?}");
    assert!(refused.chain().contains("check `token` of the bus resource"), "{}", refused.chain());
    assert!(!refused.chain().contains(&ADMIN_TOKEN[..20]), "the token is shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_permission_is_told_how_to_get_it() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = PulsarBus::connect(&with_token(space.config(), NOBODYS_TOKEN)).await.unwrap();
    let refused = bus.publish("t", vec![crate::outgoing("k", 1)]).await.unwrap_err();
    assert!(refused.chain().contains("grant-permission"), "{}", refused.chain());
    // Retention is not its to set either: a warning, and nothing changes.
    bus.keep_messages().await;
    assert_eq!(retention(&space), json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_namespace_is_told_to_keep_messages_for_a_week() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let bus = PulsarBus::connect(&with_token(space.config(), ADMIN_TOKEN)).await.unwrap();
    bus.keep_messages().await;
    assert_eq!(retention(&space), json!({ "retentionTimeInMinutes": 10_080, "retentionSizeInMB": -1 }));
    // What an administrator has made longer stays.
    let longer = json!({ "retentionTimeInMinutes": -1, "retentionSizeInMB": -1 });
    broker.admin("POST", &format!("namespaces/public/{}/retention", space.name), &longer.to_string());
    bus.keep_messages().await;
    assert_eq!(retention(&space), longer);
}

fn retention(space: &Space) -> serde_json::Value {
    space.broker.admin("GET", &format!("namespaces/public/{}/retention", space.name), "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_verified() {
    let Some(broker) = Broker::shared() else { return };
    let _peace = broker.in_peace().await;
    let space = Space::new().unwrap();
    let unknown = PulsarConfig { service_url: broker.tls_url.clone(), connect_timeout_ms: 3_000, ..space.config() };
    let Err(refused) = PulsarBus::connect(&unknown).await else { panic!("an unknown certificate was believed") };
    assert!(refused.chain().contains("certificate"), "{}", refused.chain());
    let ca_file = Some(broker.ca_file.to_str().unwrap().to_owned());
    let known = PulsarConfig { service_url: broker.tls_url.clone(), ca_file, ..space.config() };
    let bus = PulsarBus::connect(&with_token(known.clone(), ADMIN_TOKEN)).await.unwrap();
    publish(&bus, "t", [1, 2]).await;
    let mut consumer = bus.subscribe(subscribe("t", SubscriptionType::Exclusive)).await.unwrap();
    assert_eq!(numbers(&take(&mut consumer, 2).await), [1, 2]);
    let missing = PulsarConfig { ca_file: Some("no/such.pem".into()), ..known };
    let Err(refused) = PulsarBus::connect(&missing).await else { panic!("a missing file was no matter") };
    assert!(refused.chain().contains("no/such.pem"), "{}", refused.chain());
}
