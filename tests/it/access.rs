//! Who may push and watch where nothing is open.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::http::{self, Answer};
use tests::process::{Ready, Tidewater};
use tests::publisher::{Publisher, Refused};
use tests::{eventually, flv};

const SECRET: &str = "a secret of thirty-two bytes, here";

async fn closed() -> Result<(tempfile::TempDir, Tidewater, Ready)> {
    let data = tempfile::tempdir()?;
    let secret = format!("auth.token_secret={SECRET}");
    let settings = [
        "auth.publish=key",
        "auth.allow_guests=false",
        &secret,
        "auth.tx_push_key=e12c46f2612d5106e2034781ab261ca3",
    ];
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let (node, ready) = Tidewater::dev(data.path(), &args).await?;
    Ok((data, node, ready))
}

async fn token(ready: &Ready, args: &[&str]) -> Result<String> {
    let admin = format!("admin.listen={}", ready.admin);
    let all: Vec<&str> =
        ["token", "create"].iter().chain(args).chain(&["--set", &admin]).copied().collect();
    let (code, out, error) = Tidewater::command(&all).await?;
    ensure!(code == Some(0), "{error}");
    Ok(out.trim().to_owned())
}

async fn refusal(ready: &Ready, key: &str) -> Result<String> {
    let refused = Publisher::connect(ready.rtmp, "live", key).await.err();
    let refused = refused.context("the push is not refused")?.downcast::<Refused>()?;
    Ok(refused.0)
}

fn is_refused(answer: &Answer, why: &str) -> Result<()> {
    ensure!(answer.status == 401 && answer.text().contains(why), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_what_it_says_and_nothing_else() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    let edge = ready.http[0];
    let push = token(&ready, &["live/c", "--role", "publisher"]).await?;
    let watch = token(&ready, &["live/c", "--user", "u7"]).await?;
    let elsewhere = token(&ready, &["live/d", "--role", "host"]).await?;
    for key in ["c", "c?token=x", &format!("c?token={watch}"), &format!("c?token={elsewhere}")] {
        let said = refusal(&ready, key).await?;
        ensure!(said.contains("Denied") && !said.contains(&watch), "{key}: {said}");
    }
    let mut publisher = Publisher::connect(ready.rtmp, "live", &format!("c?token={push}")).await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });

    is_refused(&http::get(edge, "/live/c.m3u8").await?, "a token is needed")?;
    is_refused(&http::get(edge, "/live/c.flv?token=x").await?, "cannot be read")?;
    is_refused(&http::get(edge, &format!("/live/c.flv?token={push}")).await?, "does not allow")?;
    is_refused(
        &http::get(edge, &format!("/live/c.m3u8?token={elsewhere}")).await?,
        "another room",
    )?;
    let mut viewer = flv::Viewer::connect(edge, &format!("/live/c.flv?token={watch}")).await?;
    viewer.watch(|seen| seen.video >= 30).await?;

    // The files of a playlist are had with the cookie that came with it.
    let path = format!("/live/c/main.m3u8?token={watch}");
    let list = eventually("the playlist", async || {
        http::get(edge, &path).await.ok().filter(|answer| answer.status == 200)
    })
    .await?;
    ensure!(list.header("cache-control").starts_with("private"), "{list:?}");
    let text = list.text();
    let named = text.lines().find(|line| line.ends_with(".m4s")).context("no segment")?;
    let file = format!("/live/c/{named}");
    is_refused(&http::get(edge, &file).await?, "a token is needed")?;
    let cookie = list.header("set-cookie");
    ensure!(cookie.contains("Path=/live/c;") && cookie.contains("HttpOnly"), "{cookie}");
    let kept = cookie.split(';').next().unwrap_or_default();
    let media = http::request(edge, "GET", &file, &[("cookie", kept)]).await?;
    ensure!(media.status == 200 && !media.header("cache-control").contains("private"), "{media:?}");

    pushing.abort();
    let log = node.log();
    for secret in [watch.as_str(), &push, SECRET] {
        ensure!(!log.has(&[secret]), "a secret is logged");
    }
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_signed_as_tencent_does_lets_a_publisher_in_until_its_time() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    // Of 2018, by the documentation of Tencent Cloud; and of 2100, by the same key.
    let old = "test?txSecret=f85a2ab363fe4deaffef9754d79da6fe&txTime=5C271099";
    let said = refusal(&ready, old).await?;
    ensure!(said.contains("Denied"), "{said}");
    let good = "test?txSecret=40e2f6e42a4a4216b465826b249643d4&txTime=F4865700";
    let said = refusal(&ready, &good.replace("test?", "tess?")).await?;
    ensure!(said.contains("Denied"), "{said}");
    let mut publisher = Publisher::connect(ready.rtmp, "live", good).await?;
    publisher.send(Duration::from_millis(200)).await?;
    publisher.finish().await?;
    node.kill().await
}
