//! The binary as a script meets it: exit codes, what is on stdout, signals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;

fn tidewater(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewater"));
    // What the developer's shell has set is not part of the test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEWATER_")) {
        command.env_remove(name);
    }
    command.args(args);
    command
}

fn output(args: &[&str]) -> Output {
    tidewater(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running `dev` on free ports; killed when the test ends early.
struct Dev {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ports: Value,
}

impl Dev {
    fn start(more: &[&str]) -> Self {
        let free =
            ["rtmp", "http", "admin", "cluster"].map(|s| format!("--set={s}.listen=127.0.0.1:0"));
        let mut command = tidewater(&["dev", "--json"]);
        command.args(free).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ports = serde_json::from_str(&line).expect("one line of JSON");
        Self { child, stdout, ports }
    }

    fn admin(&self) -> String {
        format!("--set=admin.listen={}", self.ports["admin"].as_str().unwrap())
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end: exit code, the rest of stdout, all of stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[test]
fn dev_says_one_line_serves_and_ends_well() {
    let dev = Dev::start(&["--edges", "2"]);
    let mut keys: Vec<_> = dev.ports.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["admin", "cluster", "http", "rtmp"]);
    assert_eq!(dev.ports["http"].as_array().unwrap().len(), 2);

    let admin = dev.admin();
    let status = output(&["cluster", "status", "--json", &admin]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["leader"], "o1");
    assert_eq!(status["nodes"][2]["id"], "o1");
    assert_eq!(status["nodes"][2]["roles"], serde_json::json!(["control", "origin"]));

    let key = output(&["key", "create", "live/c", "--json", &admin]);
    let key: Value = serde_json::from_slice(&key.stdout).unwrap();
    let push = format!("rtmp://{}/live/c?token=", dev.ports["rtmp"].as_str().unwrap());
    assert!(key["push_url"].as_str().unwrap().starts_with(&push), "{key}");
    let secret = key["key"].as_str().unwrap().to_owned();
    let revoked = output(&["key", "revoke", key["id"].as_str().unwrap(), &admin]);
    assert_eq!(revoked.status.code(), Some(0));

    let unknown = output(&["room", "show", "live/none", "--json", &admin]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(text(&unknown.stderr), "error: room live/none is not active: nobody publishes it\n");

    dev.signal("TERM");
    let (code, out, err) = dev.end();
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert!(!err.contains(&secret), "the log holds a secret");
    for line in err.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON off a terminal: {line}");
    }
}

#[test]
fn dev_reads_its_configuration_again_on_sighup() {
    let mut dev = Dev::start(&[]);
    dev.signal("HUP");
    let mut err = BufReader::new(dev.child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("nothing has changed") {
        line.clear();
        assert_ne!(err.read_line(&mut line).unwrap(), 0, "ended without saying so");
    }
    dev.signal("INT");
    assert_eq!(dev.child.wait().unwrap().code(), Some(0));
}

#[test]
fn run_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.toml");
    let run = |toml: &str| {
        std::fs::write(&file, toml).unwrap();
        output(&["run", "--config", file.to_str().unwrap()])
    };
    let lacks = [
        ("", "node.id is not set"),
        ("[node]\nid = \"o1\"\n", "tidewater certs node --dir certs o1"),
        ("[cluster]\nca = \"a\"\ncert = \"b\"\nkey = \"c\"\n[node]\nid = \"o1\"\n", "cannot read"),
        ("[node]\nid = \"e1\"\nroles = [\"edge\"]\n", "cluster.control is not set"),
        ("[nod]\nid = \"o1\"\n", "did you mean node?"),
    ];
    for (toml, says) in lacks {
        let output = run(toml);
        assert_eq!(output.status.code(), Some(1), "{toml}");
        let err = text(&output.stderr);
        assert!(err.lines().last().unwrap().starts_with("error: ") && err.contains(says), "{err}");
    }
}

#[test]
fn certificates_are_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("certs");
    let dir = dir.to_str().unwrap();
    let init = ["certs", "init", "--dir", dir];
    let node = ["certs", "node", "--dir", dir, "o1", "--host", "10.0.0.1"];
    let without_ca = output(&node);
    assert_eq!(without_ca.status.code(), Some(1));
    assert!(text(&without_ca.stderr).contains("tidewater certs init --dir"));
    assert_eq!(output(&init).status.code(), Some(0));
    assert_eq!(output(&node).status.code(), Some(0));
    for file in ["ca.pem", "ca.key", "o1.pem", "o1.key"] {
        assert!(Path::new(dir).join(file).is_file(), "{file}");
    }
    assert_eq!(output(&init).status.code(), Some(1), "a second CA would cut the cluster in two");
    assert_eq!(output(&node).status.code(), Some(1));
    assert_eq!(output(&[&node[..], &["--replace"]].concat()).status.code(), Some(0));
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    for (args, code) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["room", "--help"], 0),
        (&[], 2),
        (&["nothing"], 2),
        (&["dev", "--edges", "0"], 2),
        (&["dev", "--set", "hls.part"], 2),
        (&["dev", "--set", "hls.prat=1s"], 1),
        (&["check-config", "/nowhere/x.toml"], 1),
        (&["room", "show", "not-a-room"], 2),
        (&["room", "list", "--set", "admin.listen=127.0.0.1:1"], 1),
    ] {
        assert_eq!(output(args).status.code(), Some(code), "{args:?}");
    }
    assert!(text(&output(&["--version"]).stdout).contains("(wire "));
}

#[test]
fn check_config_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("n.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[hls]\npart = \"200ms\"\n").unwrap();
    assert_eq!(text(&output(&["check-config", path]).stdout), "ok\n");
    std::fs::write(&file, "[hls]\n\nprat = \"200ms\"\nwindow = 1\n").unwrap();
    let output = output(&["check-config", path]);
    assert_eq!(output.status.code(), Some(1));
    let err = text(&output.stderr);
    assert!(
        err.contains(&format!("{path}:3: unknown key hls.prat; did you mean hls.part?")),
        "{err}"
    );
    assert!(err.contains(&format!("{path}:4: hls.window must be")), "{err}");
}
