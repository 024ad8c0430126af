//! A node without a certificate gets one with a token: once, in time, from the cluster it was meant for.

use anyhow::{Result, ensure};
use tests::eventually;
use tests::process::Tidewater;

use crate::places::lay_out;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_admits_one_new_node_and_every_other_use_is_told_why_not() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [o1, e1] = &lay_out(dir.path(), ["o1", "e1"]).await?;
    o1.set("cluster", r#"ca_key = "certs/ca.key""#)?;
    let origin = o1.start().await?;
    // The machine of e1 has no file of the cluster.
    let fresh = dir.path().join("fresh");
    let fresh_dir = fresh.to_str().unwrap_or_default();
    let at = o1.quic();
    let join = async |id: &str, token: &str, more: &[&str]| -> Result<(Option<i32>, String)> {
        let args = ["certs", "node", id, "--dir", fresh_dir, "--join", &at, "--token", token];
        let (code, _, error) = Tidewater::command(&[&args, more].concat()).await?;
        Ok((code, error))
    };
    let token = async |more: &[&str]| -> Result<String> {
        let made = o1.json(&[&["cluster", "token"], more].concat()).await?;
        ensure!(made["join"] == at.as_str(), "{made}");
        Ok(made["token"].as_str().unwrap_or_default().to_owned())
    };

    let good = token(&[]).await?;
    let (code, error) = join("o1", &good, &[]).await?;
    ensure!(code == Some(1) && error.contains("has a node o1 already"), "{error}");
    let (code, error) = join("e1", &good, &["--host", "no name"]).await?;
    ensure!(code == Some(1) && error.contains("no host name"), "{error}");
    let (code, error) = join("e1", &good, &[]).await?;
    ensure!(code == Some(0), "what was refused before cost no token: {error}");
    let (code, error) = join("e2", &good, &[]).await?;
    ensure!(code == Some(1) && error.contains("was used by e1"), "{error}");

    // With nothing else it runs.
    let text = std::fs::read_to_string(&e1.config)?.replace("\"certs/", "\"fresh/");
    std::fs::write(&e1.config, text)?;
    let edge = e1.start().await?;
    let status = o1.json(&["cluster", "status"]).await?;
    ensure!(status["nodes"][0]["id"] == "e1" && status["nodes"][0]["state"] == "up", "{status}");

    // Of another CA, of another secret, for another node, too late.
    let other_ca = format!("{}{}", &good[..good.len() - 4], "0000");
    let (code, error) = join("e2", &other_ca, &[]).await?;
    ensure!(code == Some(1) && error.contains("not of the cluster of this token"), "{error}");
    let pieces: Vec<&str> = good.split('-').collect();
    let guessed = [pieces[0], pieces[1], &"0".repeat(40), pieces[3]].join("-");
    let (code, error) = join("e2", &guessed, &[]).await?;
    ensure!(code == Some(1) && error.contains("unknown to this cluster"), "{error}");
    let (code, error) = join("e2", "nonsense", &[]).await?;
    ensure!(code == Some(1) && error.contains("not a join token"), "{error}");
    let only = token(&["--node", "e3"]).await?;
    let (code, error) = join("e2", &only, &[]).await?;
    ensure!(code == Some(1) && error.contains("for e3 alone"), "{error}");
    let short = token(&["--ttl", "1s"]).await?;
    let late = eventually("the token expires", async || {
        // e1 is there already, so nothing is used up before its time is over.
        let (_, error) = join("e1", &short, &["--replace"]).await.ok()?;
        error.contains("has expired").then_some(())
    });
    late.await?;
    let (code, _, error) = o1.command(&["cluster", "token", "--ttl", "8d"]).await?;
    ensure!(code == Some(1) && error.contains("604800 seconds"), "{error}");

    // A token for a node that is there renews its certificate.
    let renew = token(&["--node", "e1"]).await?;
    let (code, error) = join("e1", &renew, &[]).await?;
    ensure!(code == Some(1) && error.contains("--replace"), "{error}");
    let (code, error) = join("e1", &renew, &["--replace"]).await?;
    ensure!(code == Some(0), "{error}");

    let log = origin.log();
    ensure!(log.has(&["certificate issued for a join token", "e1"]));
    ensure!(!log.has(&[pieces[2]]), "the secret is in the log");
    for node in [edge, origin] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}
