//! Outages of the server: capture resumes by itself, loses and repeats nothing, and says so.
//!
//! While the server is away another program goes on writing. What is timed begins when the server is back and ends when
//! all of that was told.

use crate::log::Log;
use crate::site::{FORECASTS, MODES, Process, Site, blocking, checked};
use smartpulse_clients::database::CaptureMode;
use smartpulse_clients::embedded::MemoryStore;
use smartpulse_stand_in::faults::Fault;
use smartpulse_testing::{FaultProxy, Flow};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long capture may take to resume. The promise is 5 s; a loaded machine gets twice that.
const RESUME_MAX: Duration = Duration::from_secs(10);

/// How long a blackhole lasts: beyond every time-out there is.
const BLACKHOLE: Duration = Duration::from_secs(10);

/// How long links are half open: until soon after an attempt to connect has begun, whose time-out must then pass first. Of
/// all lengths this one takes longest to recover from.
const HALF_OPEN: Duration = Duration::from_millis(6_600);

/// A capturing process that has told five rows, at version 2 each.
struct Captured {
    site: Site,
    process: Process,
    graph: smartpulse_testing::Graph,
    log: Log,
    mode: CaptureMode,
    link: FaultProxy,
}

/// What was written in all, as (key, last version).
const WRITTEN: [(u64, i64); 6] = [(1, 4), (2, 4), (3, 4), (4, 4), (5, 5), (6, 1)];

impl Captured {
    async fn new(mode: CaptureMode) -> Self {
        let log = Log::new();
        let site = Site::new().await;
        let link = FaultProxy::to(site.server.address().port()).await;
        site.insert(1..=5).await;
        let process = site.process_at(link.port(), Arc::new(MemoryStore::new()));
        let settings = format!("stall_after_ms: 1000, {FORECASTS}");
        let graph = process.rig.start(&checked(mode, &settings)).await;
        process.until_told(5, 1).await;
        site.until_streaming().await;
        for id in 1..=5 {
            site.update(id).await;
        }
        for id in 1..=5 {
            process.until_told(id, 2).await;
        }
        Self { site, process, graph, log, mode, link }
    }

    /// What another program writes while the server is away.
    async fn write(&self) {
        for id in 1..=5 {
            self.site.update(id).await;
        }
        for id in 1..=5 {
            self.site.update(id).await;
        }
        self.site.delete(5).await;
        self.site.insert([6]).await;
    }

    /// The server is back since then: everything is told soon, and goes on being told.
    async fn resumes(self, outage: &str, back: Instant) {
        let Self { site, process, graph, log, mode, link } = self;
        for (id, version) in WRITTEN {
            process.until_told(id, version).await;
        }
        let took = back.elapsed();
        println!("{outage}, {mode:?}: capture resumed {:.2} s after the server's return", took.as_secs_f64());
        assert!(took < RESUME_MAX, "{outage}, {mode:?}: {took:?}");
        process.until_metric("capture_stalled", 0.0).await;
        site.update(6).await;
        process.until_told(6, 2).await;
        assert!(process.metric("capture_interruptions_total") >= 1.0, "{outage}, {mode:?}");
        log.assert_says(&["WARN"]);
        log.assert_says(&["INFO", "capture resumes", "Forecasts"]);
        graph.stop().await.unwrap();
        drop(link);
        for (id, version) in WRITTEN {
            let told = process.versions(id);
            let last = if id == 6 { 2 } else { version };
            match mode {
                CaptureMode::Cdc => assert_eq!(told, (1..=last).collect::<Vec<_>>(), "{outage}: {id}"),
                CaptureMode::ChangeTracking => {
                    assert!(told.is_sorted_by(|a, b| a < b), "{outage}: {id}: {told:?}");
                    assert_eq!(told.last(), Some(&last), "{outage}: {id}");
                }
            }
        }
    }
}

async fn restart(mode: CaptureMode) {
    let captured = Captured::new(mode).await;
    let server = Arc::clone(&captured.site.server);
    assert!(blocking(move || server.stop()).await);
    captured.write().await;
    captured.process.until_metric("capture_stalled", 1.0).await;
    let server = Arc::clone(&captured.site.server);
    blocking(move || server.start_again().unwrap()).await;
    captured.resumes("a restart", Instant::now()).await;
}

#[tokio::test]
async fn edge_23_a_restart_of_the_server_under_change_tracking() {
    restart(CaptureMode::ChangeTracking).await;
}

#[tokio::test]
async fn edge_23_a_restart_of_the_server_under_cdc() {
    restart(CaptureMode::Cdc).await;
}

/// The server takes what it is sent and does not answer; what waited for it hears of its end.
async fn blackhole(mode: CaptureMode) {
    let captured = Captured::new(mode).await;
    captured.site.server.faults().begin_blackhole();
    let began = Instant::now();
    captured.write().await;
    captured.process.until_metric("capture_stalled", 1.0).await;
    tokio::time::sleep(BLACKHOLE.saturating_sub(began.elapsed())).await;
    captured.site.server.faults().end_blackhole();
    captured.resumes("a blackhole", Instant::now()).await;
}

#[tokio::test]
async fn edge_23_a_blackhole_under_change_tracking() {
    blackhole(CaptureMode::ChangeTracking).await;
}

#[tokio::test]
async fn edge_23_a_blackhole_under_cdc() {
    blackhole(CaptureMode::Cdc).await;
}

/// Links that were made before and during it stay half open for good, as after a failover of the network: nobody is told.
async fn half_open(mode: CaptureMode) {
    let captured = Captured::new(mode).await;
    captured.link.set(Flow::Frozen);
    let began = Instant::now();
    captured.write().await;
    captured.process.until_metric("capture_stalled", 1.0).await;
    tokio::time::sleep(HALF_OPEN.saturating_sub(began.elapsed())).await;
    captured.link.set(Flow::Open);
    captured.resumes("half-open links", Instant::now()).await;
}

#[tokio::test]
async fn edge_23_half_open_links_under_change_tracking() {
    half_open(CaptureMode::ChangeTracking).await;
}

#[tokio::test]
async fn edge_23_half_open_links_under_cdc() {
    half_open(CaptureMode::Cdc).await;
}

#[tokio::test]
async fn edge_22_answers_that_break_off_in_the_middle() {
    for mode in MODES {
        let captured = Captured::new(mode).await;
        let text = match mode {
            CaptureMode::ChangeTracking => "CHANGETABLE",
            CaptureMode::Cdc => "[dbo_Forecasts_CT]",
        };
        // Behind the third row, whichever result it is of.
        let faults = captured.site.server.faults();
        let broken = faults.arm(Fault::break_after_rows(3).on(text).always());
        captured.write().await;
        captured.process.until_metric("capture_interruptions_total", 1.0).await;
        faults.disarm(&broken);
        assert!(broken.struck() >= 3, "each poll is tried three times: {}", broken.struck());
        captured.resumes("answers broken off", Instant::now()).await;
    }
}

#[tokio::test]
async fn edge_22_one_answer_that_breaks_off_interrupts_nothing() {
    for mode in MODES {
        let site = Site::new().await;
        site.insert(1..=30).await;
        let process = site.process();
        let broken = site.server.faults().arm(Fault::break_after_rows(7).on("FROM [dbo].[Forecasts]"));
        let graph = process.rig.start(&checked(mode, FORECASTS)).await;
        process.until_told(30, 1).await;
        graph.stop().await.unwrap();
        assert_eq!(broken.struck(), 1);
        let told = process.told();
        assert_eq!(told.len(), 30, "{told:?}");
    }
}
