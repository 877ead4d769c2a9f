//! Layers of settings.

use std::collections::BTreeMap;
use std::path::Path;

use smartpulse_config::{LoadOptions, LogFormat, RetryPolicy, RetryRef, Settings};

/// Options with files in a folder, variables and sets.
struct Setup {
    folder: tempfile::TempDir,
    options: LoadOptions,
}

fn setup(files: &[(&str, &str)], env: &[(&str, &str)], sets: &[&str]) -> Setup {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let options = LoadOptions {
        config_dir: Some(folder.path().to_path_buf()),
        environment: None,
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    Setup { folder, options }
}

/// The problems as `place path: message (help)`.
fn problems(setup: &Setup) -> Vec<String> {
    let folder = format!("{}/", setup.folder.path().display());
    let diagnostics = Settings::load(&setup.options).expect_err("these settings are wrong");
    let lines = diagnostics.problems().into_iter().map(|problem| {
        let place = problem.span.as_ref().map_or_else(String::new, ToString::to_string);
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
        format!("{place} {}: {}{help}", problem.path, problem.message).replace(&folder, "")
    });
    lines.collect()
}

#[test]
fn the_built_in_defaults_are_the_contract() {
    let settings = Settings::default();
    assert_eq!(settings.environment, "development");
    assert_eq!(settings.partition, "production");
    assert_eq!(settings.data_dir, Path::new("./data"));
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.api.body_bytes_max, 1 << 20);
    assert_eq!(settings.api.header_timeout_ms, 10_000);
    assert_eq!(settings.api.cache_control, "max-age=60, private");
    assert_eq!((settings.cache.l1_ttl_s, settings.cache.l2_ttl_s), (60, 60));
    assert_eq!((settings.cache.warm_entries_max, settings.cache.tier_timeout_ms), (10_000, 5_000));
    assert_eq!((settings.runtime.channel_batches, settings.runtime.drain_timeout_ms), (16, 30_000));
    assert_eq!(settings.player.changes_per_second, 200);
    let types: Vec<_> = settings.resources.values().map(|resource| (&*resource.name, &*resource.type_name)).collect();
    let expected = [
        ("bus", "embedded_bus"),
        ("forecasts", "cache"),
        ("mail", "mail_folder"),
        ("main_db", "sqlite"),
        ("pubsub", "embedded_pubsub"),
        ("state", "state_file"),
    ];
    assert_eq!(types, expected);
}

#[test]
fn the_files_beside_this_crate_hold_the_values_of_each_environment() {
    for (environment, ttl_s, level) in
        [("development", 60, "info,smartpulse=debug"), ("staging", 300, "info"), ("production", 3_600, "warn")]
    {
        let options = LoadOptions {
            config_dir: Some(env!("CARGO_MANIFEST_DIR").into()),
            environment: Some(environment.into()),
            ..LoadOptions::default()
        };
        let settings = Settings::load(&options).expect("they are valid");
        assert_eq!(settings.environment, environment);
        assert_eq!((settings.cache.l1_ttl_s, settings.cache.l2_ttl_s, &*settings.log.level), (ttl_s, ttl_s, level));
    }
}

#[test]
fn retry_policies_wait_as_the_contract_says() {
    let policies = Settings::default().retries;
    let waits = |name: &str, random: f64| -> Vec<u64> {
        (0..).map_while(|retry| policies[name].delay_ms(retry, random)).collect()
    };
    assert_eq!(waits("redis", 0.5), vec![50; 100]);
    assert_eq!(waits("exponential", 0.0), [100, 200, 400, 800]);
    assert_eq!(waits("exponential", 1.0), [50, 100, 200, 400]);
    assert_eq!(waits("transient_sql", 0.0), [1_000, 5_000, 25_000]);
    assert_eq!(RetryPolicy::Fixed { attempts: 0, delay_ms: 5 }.delay_ms(0, 0.0), None);
    let steep = RetryPolicy::Exponential { attempts: u32::MAX, initial_ms: 1, factor: 100.0, max_ms: 9, jitter: false };
    assert_eq!(steep.delay_ms(u32::MAX - 1, 0.0), Some(9));
}

#[test]
fn a_retry_by_name_is_found_or_named_with_the_nearest() {
    let settings = Settings::default();
    let at = &settings.resources["bus"].located;
    let found = RetryRef::Name("redis".into()).resolve(&settings.retries, at).cloned();
    assert_eq!(found, Ok(RetryPolicy::Fixed { attempts: 100, delay_ms: 50 }));
    let problem = RetryRef::Name("reddis".into()).resolve(&settings.retries, at).expect_err("there is none");
    assert_eq!(problem.message, "there is no retry policy `reddis`");
    assert_eq!(problem.help.as_deref(), Some("did you mean `redis`?"));
}

#[test]
fn later_layers_win() {
    let layers: [(&str, &str); 3] = [
        ("default.yaml", "cache: { l1_ttl_s: 61, l2_ttl_s: 61, tier_timeout_ms: 61, warm_entries_max: 61 }\n"),
        ("staging.yaml", "cache: { l2_ttl_s: 62, tier_timeout_ms: 62, warm_entries_max: 62, l2_entries_max: 62 }\n"),
        ("local.yaml", "cache: { tier_timeout_ms: 63, warm_entries_max: 63, l2_entries_max: 63 }\n"),
    ];
    let env = [
        ("SMARTPULSE_ENV", "staging"),
        ("SMARTPULSE__CACHE__WARM_ENTRIES_MAX", "64"),
        ("SMARTPULSE__CACHE__L2_ENTRIES_MAX", "64"),
        ("SMARTPULSE_UNRELATED", "x"),
    ];
    let setup = setup(&layers, &env, &["cache.l2_entries_max=65"]);
    let cache = Settings::load(&setup.options).expect("they are valid").cache;
    assert_eq!(
        [cache.l1_ttl_s, cache.l2_ttl_s, cache.tier_timeout_ms, cache.warm_entries_max, cache.l2_entries_max],
        [61, 62, 63, 64, 65]
    );
    assert_eq!(cache.l1_bytes_max, Settings::default().cache.l1_bytes_max);
}

#[test]
fn the_environment_comes_from_the_argument_then_the_variables() {
    let files = [("a.yaml", "partition: a"), ("b.yaml", "partition: b"), ("c.yaml", "partition: c")];
    let variables = [("SMARTPULSE_ENV", "b"), ("SMARTPULSE__ENVIRONMENT", "c")];
    for (argument, variables, expected) in [
        (Some("a"), &variables[..], "a"),
        (None, &variables[..], "b"),
        (None, &variables[1..], "c"),
        (None, &[], "production"),
    ] {
        let mut setup = setup(&files, variables, &[]);
        setup.options.environment = argument.map(str::to_owned);
        let settings = Settings::load(&setup.options).expect("they are valid");
        assert_eq!(settings.partition, expected);
        assert_eq!(settings.environment, if expected == "production" { "development" } else { expected });
    }
}

#[test]
fn a_changed_type_replaces_the_resource_and_the_same_type_merges() {
    let local = "resources:\n  main_db: { type: sqlserver, host: db }\n  bus: { retention_h: 2 }\nretries:\n  redis: { kind: \
                 exponential, attempts: 1, initial_ms: 1, max_ms: 2 }\n  exponential: { attempts: 9 }\napi:\n";
    let setup = setup(&[("local.yaml", local)], &[], &[]);
    let settings = Settings::load(&setup.options).expect("they are valid");
    let keys = |name: &str| -> Vec<String> {
        let params = settings.resources[name].params.as_mapping().expect("a mapping");
        params.entries.iter().map(|entry| entry.key.name.to_string()).collect()
    };
    assert_eq!(
        (keys("main_db"), keys("bus")),
        (vec!["host".to_owned()], vec!["state".to_owned(), "retention_h".to_owned()])
    );
    assert_eq!(settings.resources["bus"].type_name, "embedded_bus");
    assert_eq!(settings.retries["redis"].attempts(), 1);
    assert_eq!(settings.retries["exponential"].delay_ms(8, 0.0), Some(800));
}

#[test]
fn a_type_in_a_variable_or_a_set_is_said_before_the_keys_beside_it() {
    let expected = ["host", "password"];
    let keys = |setup: &Setup| {
        let settings = Settings::load(&setup.options).expect("these settings are right");
        let resource = &settings.resources["main_db"];
        assert_eq!(resource.type_name, "sqlserver");
        let mut keys: Vec<String> =
            resource.params.as_mapping().unwrap().entries.iter().map(|entry| entry.key.name.to_string()).collect();
        keys.sort();
        keys
    };
    // As the environment gives them, HOST comes before TYPE.
    let variable = |key: &str| format!("SMARTPULSE__RESOURCES__MAIN_DB__{key}");
    let (host, password, kind) = (variable("HOST"), variable("PASSWORD"), variable("TYPE"));
    let env = [(host.as_str(), "db"), (password.as_str(), "secret"), (kind.as_str(), "sqlserver")];
    assert_eq!(keys(&setup(&[], &env, &[])), expected, "no path of the built-in sqlite is left");
    let sets = ["resources.main_db.host=db", "resources.main_db.password=p", "resources.main_db.type=sqlserver"];
    assert_eq!(keys(&setup(&[], &[], &sets)), expected);
    let file = "resources:\n  main_db: { type: sqlserver, host: db, password: \"${env:P}\" }\n";
    assert_eq!(keys(&setup(&[("local.yaml", file)], &[("P", "secret")], &[])), expected);
}

#[test]
fn every_layer_reports_its_own_problems_even_those_a_later_layer_hides() {
    let files = [
        ("default.yaml", "cache:\n  l1_ttl_s: soon\n  l1_tll_s: 60\n"),
        ("development.yaml", "api: { listen: localhost }\nlog: { format: jsn }\nenvironment: staging\n"),
        ("local.yaml", "cache: { l1_ttl_s: 70 }\nresources:\n  db: { path: x }\n  main_db: 5\n"),
    ];
    let env = [("SMARTPULSE__API__LISTEN", "127.0.0.1"), ("SMARTPULSE__APO__LISTEN", "hunter2")];
    let setup = setup(&files, &env, &["cache.l1_ttl_s=5", "cache", "runtime..x=1", "environment=staging"]);
    assert_eq!(
        problems(&setup),
        [
            "default.yaml:2:13 cache.l1_ttl_s: expected an integer, found the string `soon`",
            "default.yaml:3:3 cache.l1_tll_s: unknown key `l1_tll_s` in `cache` (`l1_ttl_s` is given already: remove this one)",
            "development.yaml:1:16 api.listen: expected an address and port such as `127.0.0.1:8080`, found `localhost`",
            "development.yaml:2:16 log.format: unknown value `jsn` (did you mean `json`?)",
            "development.yaml:3:14 environment: the environment is `development`, and a file cannot change it (remove the key; choose with `--env` or `SMARTPULSE_ENV`)",
            "local.yaml:3:3 resources.db: missing key `type` (`smartpulse list` names the types)",
            "local.yaml:4:12 resources.main_db: expected a mapping, found the number 5",
            "environment variable SMARTPULSE__API__LISTEN api.listen: expected an address and port such as `127.0.0.1:8080`, found `127.0.0.1`",
            "environment variable SMARTPULSE__APO__LISTEN apo: unknown key `apo` (did you mean `api`?)",
            "--set cache.l1_ttl_s cache.l1_ttl_s: expected a number from 60 to 3600, found 5",
            "--set : expected `path=value` (for example `--set cache.l1_ttl_s=300`)",
            "--set runtime..x : this is not a path of settings (write it as `SMARTPULSE__API__LISTEN` or `--set api.listen=..`)",
            "--set environment environment: the environment is not chosen by --set (use `--env` or `SMARTPULSE_ENV`)",
        ]
        .map(String::from)
    );
}

#[test]
fn an_error_in_a_variable_names_the_variable() {
    let env: BTreeMap<_, _> = [("SMARTPULSE__API__LISTEN".to_owned(), "nowhere".to_owned())].into();
    let diagnostics = Settings::load(&LoadOptions { env, ..LoadOptions::default() }).expect_err("it is wrong");
    assert_eq!(
        diagnostics.to_string(),
        "\
error: expected an address and port such as `127.0.0.1:8080`, found `nowhere`
--> environment variable SMARTPULSE__API__LISTEN
 = note: at `api.listen`"
    );
}

#[test]
fn what_may_be_a_secret_is_shown_in_no_error() {
    let file = "api:\n  auth: { keys: [{ kind: hs256, pwd: hunter2 }] }\n";
    for (files, env, expected) in [
        (
            vec![],
            vec![("SMARTPULSE__API__AUTH__KEYS", "[{kind: hs256, secret: hunter2")],
            "expected a list, found a scalar",
        ),
        (vec![], vec![("SMARTPULSE__API__AUTH__KEYS", "hunter2")], "expected a list, found a scalar"),
        (
            vec![],
            vec![("SMARTPULSE__RESOURCES__MAIN_DB", "{type: sqlserver, password: hunter2")],
            "check its brackets and quotes",
        ),
        (vec![("local.yaml", file)], vec![], "unknown key `pwd`"),
    ] {
        let setup = setup(&files, &env, &[]);
        let text = Settings::load(&setup.options).expect_err("it is wrong").to_string();
        assert!(text.contains(expected) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn variables_and_sets_take_lists_and_mappings() {
    let env = [("SMARTPULSE__RETRIES__MINE", "{ kind: fixed, attempts: 2, delay_ms: 3 }")];
    let setup = setup(&[], &env, &["retries.yours={ kind: fixed, attempts: 4, delay_ms: 5 }"]);
    let retries = Settings::load(&setup.options).expect("they are valid").retries;
    assert_eq!(retries["mine"], RetryPolicy::Fixed { attempts: 2, delay_ms: 3 });
    assert_eq!(retries["yours"], RetryPolicy::Fixed { attempts: 4, delay_ms: 5 });
}

#[test]
fn a_misspelled_environment_is_refused() {
    for (name, expected) in [
        ("prodution", "there is no prodution.yaml (did you mean `production`?)"),
        ("../etc/passwd", "cannot be the name of an environment"),
        ("local", "cannot be the name of an environment"),
    ] {
        let mut setup = setup(&[("production.yaml", "partition: a")], &[], &[]);
        setup.options.environment = Some(name.into());
        let problems = problems(&setup);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
    }
}

#[test]
fn the_schema_has_defaults_and_requires_nothing() {
    let schema = Settings::schema();
    let schema = schema.as_value();
    assert_eq!(schema.get("required"), None);
    assert_eq!(schema["$defs"]["CacheSettings"]["properties"]["l1_ttl_s"]["default"], 60);
    assert_eq!(schema["$defs"]["CacheSettings"].get("required"), None);
    assert_eq!(schema["properties"]["partition"]["default"], "production");
}
