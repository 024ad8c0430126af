//! The configuration as an operator meets it: precedence, errors with their place, paths, reload.

use std::time::Duration;

use super::*;

/// A configuration file in a folder of its own.
fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Sources { file: Some(path), ..Sources::default() })
}

fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn problems(sources: &Sources) -> Vec<String> {
    Config::load(sources).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.rtmp.listen, "0.0.0.0:1935".parse().unwrap());
    assert_eq!(config.http.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.cluster.listen, "0.0.0.0:7400".parse().unwrap());
    assert_eq!(config.admin.listen, "127.0.0.1:8081");
    assert_eq!(config.api.listen, None);
    assert_eq!(config.hls.part, Duration::from_millis(200));
    assert_eq!(config.room.publish_grace, Duration::from_secs(10));
    assert!(!config.auth.publish_open && !config.auth.allow_guests && !config.room.open_gifts);
    assert_eq!(config.open_doors(), Vec::<&str>::new());
    assert_eq!(config.node.roles.len(), 3);
}

#[test]
fn dev_opens_the_doors_on_loopback() {
    let config = Config::load(&Sources { dev: true, ..Sources::default() }).unwrap();
    assert_eq!(config.rtmp.listen, "127.0.0.1:1935".parse().unwrap());
    assert_eq!(
        config.open_doors(),
        ["auth.publish=open", "auth.allow_guests=true", "room.open_gifts=true"]
    );
}

#[test]
fn only_the_doors_of_this_node_count() {
    let open = |roles: &str| {
        let set = set(&[("auth.publish", "open"), ("auth.allow_guests", "true")]);
        let sources = Sources { set, roles: Some(roles.to_owned()), ..Sources::default() };
        Config::load(&sources).unwrap().open_doors()
    };
    assert_eq!(open("control,origin"), ["auth.publish=open"]);
    assert_eq!(open("edge"), ["auth.allow_guests=true"]);
    assert_eq!(open("control"), Vec::<&str>::new());
}

#[test]
fn each_layer_goes_over_the_one_before() {
    let (_dir, mut sources) = file("[hls]\npart = \"300ms\"\nsegment = \"2s\"\nwindow = 9\n");
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.hls.part.as_millis(), config.hls.window), (300, 9));

    sources.env = set(&[("TIDEWATER_HLS__PART", "400ms"), ("TIDEWATER_HLS__WINDOW", "10")]);
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.hls.part.as_millis(), config.hls.window), (400, 10));

    sources.set = set(&[("hls.part", "500ms")]);
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.hls.part.as_millis(), config.hls.window), (500, 10));
    assert_eq!(config.hls.segment.as_secs(), 2);
}

#[test]
fn unknown_keys_name_themselves_and_the_nearest() {
    let (dir, mut sources) =
        file("[hls]\npart = \"200ms\"\n\n# slip\nprat = \"1s\"\n[htpp]\nx = 1\n");
    sources.env = set(&[("TIDEWATER_ROOM__OPENGIFTS", "true")]);
    sources.set = set(&[("auth.publsh", "open")]);
    let path = dir.path().join("t.toml").display().to_string();
    assert_eq!(
        problems(&sources),
        [
            format!("{path}:5: unknown key hls.prat; did you mean hls.part?"),
            format!("{path}:6: unknown section htpp; did you mean http?"),
            "TIDEWATER_ROOM__OPENGIFTS: unknown key room.opengifts; did you mean room.open_gifts?"
                .to_owned(),
            "--set auth.publsh: unknown key auth.publsh; did you mean auth.publish?".to_owned(),
        ]
    );
}

#[test]
fn environment_without_a_section_is_not_ours() {
    let sources = Sources {
        env: set(&[
            ("TIDEWATER_SERVICE_HOST", "10.0.0.9"),
            ("TIDEWATER_LOG", "debug"),
            ("A__B", "1"),
        ]),
        ..Sources::default()
    };
    assert!(Config::load(&sources).is_ok());
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let (_dir, sources) = file("[hls]\npart = 200\nwindow = \"8\"\n[auth]\npublish = \"all\"\n");
    let found = problems(&sources);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("t.toml:2: hls.part is 200 without a unit"), "{}", found[0]);
    assert!(found[1].contains("t.toml:3: hls.window must be a number"), "{}", found[1]);
    assert!(found[2].contains("t.toml:5: auth.publish is \"all\""), "{}", found[2]);
}

#[test]
fn broken_toml_says_where() {
    let (_dir, sources) = file("[hls]\npart = \"200ms\n");
    assert!(problems(&sources)[0].contains("t.toml:2: "), "{:?}", problems(&sources));
    let (_dir, sources) = file("[hls]\nwindow = 8\nwindow = 9\n");
    assert!(problems(&sources)[0].contains("t.toml:3: "), "{:?}", problems(&sources));
}

#[test]
fn a_missing_file_is_named() {
    let sources = Sources { file: Some("/nowhere/t.toml".into()), ..Sources::default() };
    assert!(problems(&sources)[0].contains("/nowhere/t.toml"));
}

#[test]
fn paths_start_at_the_file_or_the_working_directory() {
    let (dir, mut sources) = file("[node]\ndata = \"d/o1\"\n[cluster]\nca = \"certs/ca.pem\"\n");
    sources.set = set(&[("cluster.cert", "certs/o1.pem")]);
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.node.data, dir.path().join("d/o1"));
    assert_eq!(config.cluster.ca, Some(dir.path().join("certs/ca.pem")));
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.cluster.cert, Some(here.join("certs/o1.pem")));
    assert_eq!(config.events.store, EventStore::Sqlite(None));
}

#[test]
fn nested_keys_and_sections_of_other_roles_are_checked() {
    let (dir, mut sources) = file("[http]\ntls.cert = \"a.pem\"\ntls.key = \"a.key\"\n");
    sources.roles = Some("control".to_owned());
    let tls = Config::load(&sources).unwrap().http.tls.unwrap();
    assert_eq!(tls.cert, dir.path().join("a.pem"));

    let (_dir, mut sources) = file("[http.tls]\ncert = \"a.pem\"\n[rtmp]\nlisten = \"x\"\n");
    sources.roles = Some("control".to_owned());
    let found = problems(&sources);
    assert!(found[0].contains("rtmp.listen"), "{found:?}");
}

#[test]
fn settings_must_agree() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("hls.part", "2s"), ("hls.segment", "1s")], "hls.part must not be longer"),
        (&[("hls.target_duration", "2500ms")], "whole number of seconds"),
        (&[("http.advertise", "e1.example.org")], "must start with http"),
        (&[("cluster.control", "a@h:1,b@h:2")], "lists 2 nodes"),
        (&[("cluster.control", "a@h:1,a@h:2,c@h:3")], "lists a node twice"),
        (&[("cluster.control", "10.0.0.1:7400")], "write id@host:port"),
        (&[("cluster.control", "a@h:1"), ("node.id", "b")], "does not list b"),
        (
            &[("cluster.control", "a@h:1"), ("node.id", "a"), ("node.roles", "edge")],
            "node.roles lacks control",
        ),
        (&[("node.id", "No Host")], "node.id node id contains"),
        (&[("node.roles", "viewer")], "roles are control, origin and edge"),
        (&[("admin.require_token", "true")], "needs a token"),
        (&[("admin.listen", "")], "admin.listen is empty"),
        (&[("api.listen", "127.0.0.1:9000")], "TIDEWATER_ADMIN__TOKEN"),
        (&[("api.listen", "0.0.0.0:9000"), ("admin.token", "t")], "api.tls.cert"),
        (&[("http.tls.key", "k")], "needs http.tls.cert"),
        (&[("events.store", "mysql://x")], "events.store must be sqlite"),
        (&[("events.store", "postgres://u@h/d?a=b")], "events.store is not a PostgreSQL URL"),
        (&[("room.shop_key", "short")], "room.shop_key must have at least 32 bytes"),
        (&[("auth.token_secret", "short")], "auth.token_secret has 5 bytes"),
        (&[("auth.tx_play_backup_key", "k")], "set auth.tx_play_key too"),
        (&[("log.filter", "a=b=c")], "log.filter"),
    ];
    for (pairs, expected) in cases {
        let found = problems(&Sources { set: set(pairs), ..Sources::default() });
        assert!(found.iter().any(|p| p.contains(expected)), "{pairs:?}: {found:?}");
    }
}

#[test]
fn dev_refuses_what_it_chooses_itself() {
    let sources = Sources { dev: true, set: set(&[("node.id", "x")]), ..Sources::default() };
    assert!(problems(&sources)[0].contains("chosen by tidewater dev"));
}

#[test]
fn a_reload_says_what_it_takes() {
    let old = Config::load(&Sources::default()).unwrap();
    let sources = Sources {
        set: set(&[
            ("node.shutdown_grace", "20s"),
            ("hls.part", "400ms"),
            ("log.filter", "debug"),
            ("admin.token", "new"),
        ]),
        ..Sources::default()
    };
    let new = Config::load(&sources).unwrap();
    let changes = new.changes_from(&old);
    let taken: Vec<_> = changes.iter().filter(|c| c.applied).map(|c| c.key).collect();
    let left: Vec<_> = changes.iter().filter(|c| !c.applied).map(|c| c.key).collect();
    assert_eq!(taken, ["node.shutdown_grace", "admin.token", "log.filter"]);
    assert_eq!(left, ["hls.part"]);

    let live = old.reloaded(&new);
    assert_eq!(live.node.shutdown_grace.as_secs(), 20);
    assert_eq!(live.log.filter, "debug");
    assert_eq!(live.admin.token.as_ref().unwrap().reveal(), "new");
    assert_eq!(live.hls.part, old.hls.part);
    // What was taken over is no change any more; what was not still is.
    let again: Vec<_> = new.changes_from(&live).iter().map(|c| c.key).collect();
    assert_eq!(again, ["hls.part"]);
}

#[test]
fn secrets_do_not_show() {
    let sources = Sources {
        set: set(&[("admin.token", "hunter2"), ("events.store", "postgres://u:pw9@h/d")]),
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    let shown = format!("{:?} {:?}", config.admin, config.events);
    assert!(!shown.contains("hunter2") && !shown.contains("pw9"), "{shown}");
}

#[test]
fn the_example_configurations_are_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config");
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|ending| ending == "toml") {
            // What an example leaves to the environment, as it says itself.
            let env = set(&[("TIDEWATER_ADMIN__TOKEN", "example")]);
            let sources = Sources { file: Some(path.clone()), env, ..Sources::default() };
            if let Err(problems) = Config::load(&sources) {
                panic!("{problems}");
            }
        }
    }
}
