use super::*;
use smartpulse_clients::database::{Database, LogQuery};
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_config::{LogTableLevel, Secret, Settings};
use tempfile::TempDir;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

/// Far beyond what any step takes.
const LONG: Duration = Duration::from_secs(30);

fn settings() -> LogTableSettings {
    LogTableSettings { level: LogTableLevel::Info, days: 30, rows_max: 1_000 }
}

/// A database in a folder of its own.
fn database() -> (TempDir, Arc<SqliteDatabase>) {
    let folder = tempfile::tempdir().unwrap();
    let database = SqliteDatabase::open("main", &SqliteConfig::default(), folder.path(), &Registry::new()).unwrap();
    (folder, Arc::new(database))
}

/// A queue that this thread logs into.
fn logging() -> (LogTable, LogMetrics, DefaultGuard) {
    let (lines, table) = queue(Uuid::from_u128(7), &Registry::new()).unwrap();
    let metrics = table.metrics.clone();
    (table, metrics, tracing::subscriber::set_default(tracing_subscriber::registry().with(lines)))
}

async fn kept(database: &SqliteDatabase) -> Vec<Value> {
    let query = LogQuery { levels: vec!["ERROR", "WARN", "INFO"], limit: 10_000, ..LogQuery::default() };
    let rows = database.logs(&query).await.unwrap();
    rows.iter().rev().map(|row| serde_json::from_slice(&row.document).unwrap()).collect()
}

fn dropped(metrics: &LogMetrics, reason: &str) -> u64 {
    metrics.dropped.with_label_values(&[reason]).get()
}

/// Waits until it is so.
async fn until(mut is: impl FnMut() -> bool) {
    timeout(LONG, async {
        while !is() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("in time");
}

#[tokio::test]
async fn lines_are_kept_with_their_fields_in_order_and_secrets_stay_hidden() {
    let (_folder, database) = database();
    database.create_schema().await.unwrap();
    let (table, metrics, _guard) = logging();
    let secret = Secret::new("hunter2");
    tracing::warn!(component = "broadcast", error = "no route", tries = 3, ?secret, "sink is away");
    tracing::info!(message = %"x".repeat(5_000), long = "\u{1f300}".repeat(1_500));
    let writing = table.start(database.clone(), &settings(), None);
    // Later ones come too, and the end waits for the last.
    until(|| metrics.written.get() == 2).await;
    tracing::error!("the last");
    writing.end().await;
    let lines = kept(&database).await;
    assert_eq!(metrics.written.get(), 3);
    let part = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let first = &lines[0];
    assert_eq!(part(first, "level") + " " + &part(first, "component"), "WARN broadcast");
    assert_eq!((part(first, "message"), first["seq"].as_i64()), ("sink is away".to_owned(), Some(1)));
    assert_eq!(part(first, "fields"), r#"{"error":"no route","tries":3,"secret":"<redacted>"}"#);
    assert_eq!(part(first, "instance"), Uuid::from_u128(7).to_string());
    // Of this crate, and cut to what the columns and the bound of a field hold.
    assert_eq!((part(&lines[1], "component"), part(&lines[1], "message").len()), ("smartpulse".to_owned(), 4_000));
    assert_eq!(part(&lines[1], "fields").chars().filter(|c| *c == '\u{1f300}').count(), 1_000);
    assert_eq!((part(&lines[2], "message"), &lines[2]["fields"]), ("the last".to_owned(), &Value::Null));
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_nobody_waits() {
    let (table, metrics, _guard) = logging();
    for _ in 0..QUEUE_LINES + 7 {
        tracing::warn!("once more");
    }
    assert_eq!(dropped(&metrics, "full"), 7);
    drop(table);
    tracing::warn!("nobody takes it");
    assert_eq!(dropped(&metrics, "full"), 8);
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for_and_one_that_refuses_is_not() {
    let (folder, database) = database();
    let (lines, table) = queue(Uuid::nil(), &Registry::new()).unwrap();
    let (metrics, waiting) = (table.metrics.clone(), lines.queue.clone());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
    // Without a schema there is no such table.
    tracing::warn!("refused");
    let writing = table.start(database.clone(), &settings(), None);
    until(|| dropped(&metrics, "refused") == 1).await;
    database.create_schema().await.unwrap();
    // Another program holds the file.
    let other = rusqlite::Connection::open(folder.path().join("main.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    tracing::warn!("waits");
    until(|| waiting.capacity() == QUEUE_LINES).await;
    assert_eq!(metrics.written.get(), 0);
    other.execute_batch("COMMIT").unwrap();
    until(|| metrics.written.get() == 1).await;
    writing.end().await;
    let lines = kept(&database).await;
    // Nothing of what the writer itself said.
    assert_eq!(lines.iter().map(|line| line["message"].as_str().unwrap()).collect::<Vec<_>>(), ["waits"]);
}

#[tokio::test]
async fn old_lines_and_too_many_are_removed() {
    let (_folder, database) = database();
    database.create_schema().await.unwrap();
    let (table, metrics, _guard) = logging();
    for n in 0..20 {
        tracing::warn!(n, "one of many");
    }
    let writing = table.start(database.clone(), &settings(), None);
    until(|| metrics.written.get() == 20).await;
    writing.end().await;
    let (_, table) = queue(Uuid::nil(), &Registry::new()).unwrap();
    let writing = table.start(database.clone(), &LogTableSettings { rows_max: 5, ..settings() }, None);
    timeout(LONG, async {
        // Lines of one millisecond go together.
        while kept(&database).await.len() > 5 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    writing.end().await;
}

#[tokio::test]
async fn an_error_becomes_a_mail_to_the_operators_and_a_warning_does_not() {
    let (folder, database) = database();
    database.create_schema().await.unwrap();
    let (table, _, _guard) = logging();
    let mut told = Settings { environment: "production".to_owned(), ..Settings::default() };
    told.notifications.operators.mail_to = vec!["ops@example.com".to_owned()];
    let alerts = Alerts::new(&told, &Registry::new()).unwrap();
    tracing::warn!("this heals");
    tracing::error!(component = "capture", table = "Forecasts", "rows were lost");
    let writing = table.start(database, &settings(), alerts);
    let other = rusqlite::Connection::open(folder.path().join("main.db")).unwrap();
    let mails = || -> Vec<(String, String, String)> {
        let mut query = other.prepare("SELECT ToAddress, Subject, BodyText FROM NheaMailQueue").unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    until(|| !mails().is_empty()).await;
    tracing::error!(component = "capture", table = "Units", "rows were lost");
    writing.end().await;
    let mails = mails();
    let [(to, subject, text)] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!((&**to, &**subject), ("ops@example.com", "SmartPulse production: capture: rows were lost"));
    assert!(text.contains("rows were lost") && text.contains("Forecasts"), "{text}");
}
