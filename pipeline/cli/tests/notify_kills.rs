//! `kill -9` at random moments while people are told: in-app exactly once, mails and push at most one batch under way again, and
//! nothing lost.
//!
//! Scale: `SMARTPULSE_NOTIFICATIONS` (20,000 by default) and `SMARTPULSE_KILLS` (12): about 40 s of a debug build on two processors.
#![cfg(feature = "push")]

mod process;
mod told;

use process::{PATIENCE, pipeline, random};
use serde_json::json;
use smartpulse_testing::uuid;
use std::time::{Duration, Instant};
use told::{COMPANY, Scene};

const USERS: u64 = 20;
const CHANNELS: u64 = 3;

/// What is under way at most when the process dies: a batch of `mail_sender`, and one of push.yaml.
const MAIL_BATCH: u64 = 50;
const PUSH_BATCH: u64 = 100;

fn scale(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn kills_lose_nothing_and_repeat_no_more_than_what_was_under_way() {
    let (notifications, kills) = (scale("SMARTPULSE_NOTIFICATIONS", 20_000), scale("SMARTPULSE_KILLS", 12));
    let requests = notifications.div_ceil(USERS * CHANNELS);
    let each = requests * USERS;
    let scene = Scene::new(USERS);
    (1..=USERS).for_each(|user| scene.browser(user));
    // What a killed sender had claimed is soon free again.
    let yaml = std::fs::read_to_string(pipeline("notify")).unwrap();
    let quick = yaml.replace("{ type: mail_sender,", "{ type: mail_sender, lease_ms: 3000,");
    assert_ne!(quick, yaml);
    let notify = scene.folder.path().join("notify.yaml");
    std::fs::write(&notify, quick).unwrap();
    let request = |version: u64| {
        json!({"rule": "killed", "entity": uuid(9), "version": version, "tell": {"company": uuid(COMPANY)},
               "channels": ["All"], "title": format!("number {version}"), "body": "b", "type": "x"})
    };
    let mut asked = 0;
    for life in 1..=kills {
        let until = requests * life / kills;
        let some: Vec<_> = (asked + 1..=until).map(request).collect();
        asked = until;
        let instance = scene.run(notify.clone());
        scene.request(&some);
        std::thread::sleep(Duration::from_millis(random(600)));
        instance.kill();
    }

    let instance = scene.run(notify);
    let inbox = || scene.number("SELECT count(*) FROM Notifications");
    let sent = || scene.number("SELECT count(*) FROM NheaMailQueue WHERE Status = 'Sent'");
    let ended = |channel: &str| {
        let of = format!("SELECT count(*) FROM NotificationDeliveries WHERE Id = DeliveryId AND Channel = '{channel}'");
        scene.number(&of)
    };
    let all = i64::try_from(each).unwrap();
    let patience = PATIENCE + Duration::from_millis(10 * notifications);
    let start = Instant::now();
    loop {
        let state = [inbox(), ended("InApp"), sent(), ended("Email"), ended("PushNotification")];
        if state == [all; 5] {
            break;
        }
        assert!(start.elapsed() < patience, "{state:?} of {all}:\n{}", instance.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    instance.kill();

    assert_eq!(scene.number("SELECT count(*) FROM (SELECT DISTINCT UserId, Title FROM Notifications)"), all);
    assert_eq!(scene.mails().len() as u64, each, "every mail left");
    let tries = scene.number("SELECT sum(Attempts) FROM NheaMailQueue") as u64;
    assert!(tries <= each + kills * MAIL_BATCH, "{tries} tries of {each} mails with {kills} kills");
    let told: Vec<u64> = (1..=USERS).map(|user| scene.service.told(user)).collect();
    assert!(told.iter().all(|told| *told >= requests), "{told:?} of {requests}");
    let pushed: u64 = told.iter().sum();
    assert!(pushed <= each + kills * PUSH_BATCH, "{pushed} messages for {each} with {kills} kills");
    println!("{each} by each channel, {kills} kills: {pushed} pushed, {tries} tries of mails");
}
