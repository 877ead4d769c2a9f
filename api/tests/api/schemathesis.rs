//! The description against the running server: schemathesis makes requests from it, good and bad ones, and judges the
//! answers by it.
//!
//! Needs `python3` with `venv`, and PyPI for the first run: the tool is installed below the target folder. Where that
//! cannot be, the test says so and passes, unless `CI` is `true`.

use crate::common::{COMPANY, UNIT, admin, settings};
use crate::people::{Nobody, links};
use serde_json::json;
use smartpulse_api::{Api, Parts, Readiness, bind};
use smartpulse_cache::{Cache, CacheConfig};
use smartpulse_clients::database::{SharedDatabase, Write};
use smartpulse_clients::embedded::{SqliteConfig, SqliteDatabase};
use smartpulse_config::ApiSettings;
use smartpulse_testing::python_with;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// The version that passed when this was written.
const PACKAGE: &str = "schemathesis==4.32.5";

/// Requests per operation and phase: enough to find what an earlier run found, few enough for every `make test`.
const EXAMPLES: &str = "25";

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_failure() {
    let installed = tokio::task::spawn_blocking(|| python_with(env!("CARGO_TARGET_TMPDIR"), &[PACKAGE]));
    let Some(python) = installed.await.unwrap() else { return };
    let tool = python.with_file_name("schemathesis");
    let folder = tempfile::tempdir().unwrap();
    let registry = prometheus::Registry::new();
    let database: SharedDatabase =
        Arc::new(SqliteDatabase::open("main", &SqliteConfig::default(), folder.path(), &registry).unwrap());
    database.create_schema().await.unwrap();
    for n in 0..5 {
        let members = json!({
            "id": format!("0b0a1c60-0000-4000-8000-00000000000{n}"), "companyId": COMPANY, "productionUnitId": UNIT,
            "forecastDate": "2026-01-01T00:00:00.000Z", "demand": n, "confidenceLevel": 0.5, "status": "Draft",
            "createdAt": "2026-01-01T00:00:00.000Z", "updatedAt": "2026-01-01T00:00:00.000Z"
        });
        let insert = Write::Insert { members: members.as_object().unwrap().clone() };
        database.write("Forecasts", vec![insert]).await.unwrap();
    }
    let cache = Cache::new(CacheConfig::default(), Arc::clone(&database), &registry).unwrap();
    let parts = Parts {
        cache,
        database,
        bus: None,
        pubsub: None,
        push: Some(Arc::new(Nobody)),
        unsubscribe: links().map(Arc::new),
        partition: "production".to_owned(),
        readiness: Arc::new(Readiness::default()),
        registry,
        tracer: None,
    };
    let settings = ApiSettings { body_bytes_max: 1 << 20, ..settings() };
    let listener = bind(&settings).await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Api::new(settings, "development", parts).unwrap();
    tokio::spawn(api.serve(listener, std::future::pending()));

    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/schemathesis.toml");
    let work = folder.path().to_owned();
    let run = tokio::task::spawn_blocking(move || {
        Command::new(tool)
            .arg("--config-file")
            .arg(config)
            .args(["run", &format!("http://{address}/openapi.json")])
            .args(["--header", &format!("Authorization: {}", admin())])
            .args(["--exclude-path-regex", "(changes|stream)$"])
            .args(["--max-examples", EXAMPLES, "--seed", "1", "--generation-deterministic"])
            .args(["--suppress-health-check", "all", "--warnings", "off", "--no-color"])
            .current_dir(work)
            .output()
    });
    let output = run.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("generated"), "nothing was tested:\n{text}");
}
