//! Real encoders and players, as processes. `make setup` installs them; a missing one fails the test.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Starts a program with its output thrown away.
///
/// # Errors
/// When it is not installed.
pub fn start(program: &str, args: &[&str]) -> Result<Child> {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} is needed: run make setup"))
}

/// Runs a program to its end and returns standard output and error.
///
/// # Errors
/// When it is not installed, fails, or takes longer than `limit`.
pub async fn run(program: &str, args: &[&str], limit: Duration) -> Result<(String, String)> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(limit, output)
        .await
        .with_context(|| format!("{program} takes longer than {limit:?}"))?
        .with_context(|| format!("{program} is needed: run make setup"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{program} {args:?} failed: {err}");
    Ok((out, err))
}
