//! The pages in `docs/` against the code: what they list exists, and what exists is listed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

fn read(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Every part of `text` between two `quote`s for which `keep` says yes.
fn quoted(text: &str, quote: char, keep: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let pieces = text.lines().flat_map(|line| line.split(quote).skip(1).step_by(2));
    pieces.filter(|piece| keep(piece)).map(str::to_owned).collect()
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

fn ensure_same(page: &str, listed: &BTreeSet<String>, there: &BTreeSet<String>) -> Result<()> {
    let missing: Vec<_> = there.difference(listed).collect();
    let unknown: Vec<_> = listed.difference(there).collect();
    ensure!(missing.is_empty(), "{page} lacks {missing:?}");
    ensure!(unknown.is_empty(), "{page} lists {unknown:?}, which does not exist");
    Ok(())
}

#[test]
fn every_configuration_key_is_documented_with_its_default() -> Result<()> {
    let page = read("docs/configuration.md")?;
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let listed = rows.iter().filter_map(|row| row.split('`').nth(1)).map(str::to_owned).collect();
    let there = node::config::keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
    ensure_same("docs/configuration.md", &listed, &there)?;
    for key in node::config::keys::KEYS {
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{}`", key.name)));
        let cells: Vec<_> = row.context(key.name)?.split('|').map(str::trim).collect();
        let default = match key.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        ensure!(cells[3] == default, "{}: the default is {default}, not {}", key.name, cells[3]);
        ensure!(cells[1].ends_with('↻') == key.reload, "{}: reload is {}", key.name, key.reload);
    }
    Ok(())
}

#[test]
fn every_metric_is_documented() -> Result<()> {
    let is_metric = |text: &str| {
        text.starts_with("tidewater_")
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let mut files = Vec::new();
    for name in ["wire", "hooks", "events", "cluster", "origin", "edge", "node"] {
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"),
            &mut files,
        )?;
    }
    let mut there = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if !file.ends_with("tests.rs") {
            there.extend(quoted(code, '"', is_metric));
        }
    }
    ensure!(there.len() > 20, "the walk found only {} metrics", there.len());
    let page = read("docs/metrics.md")?;
    let page = page.split("## Questions").next().unwrap_or_default();
    let spans = quoted(page, '`', |span| span.starts_with("tidewater_"));
    let name = |span: &String| span.split('{').next().unwrap_or_default().to_owned();
    let listed = spans.iter().map(name).filter(|name| is_metric(name)).collect();
    ensure_same("docs/metrics.md", &listed, &there)
}
