//! Rules of the house that no compiler holds: layers, file sizes, links.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Code lines (tests not counted) over which a file has more than one subject.
const MAX_CODE_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !["target", "node_modules", "dist", "fuzz"].contains(&name) && !name.starts_with('.')
            {
                sources(&path, out)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

#[test]
fn every_file_opens_with_what_it_owns_and_has_one_subject() -> Result<()> {
    let mut files = Vec::new();
    sources(&root(), &mut files)?;
    ensure!(files.len() > 50, "the walk found only {} files", files.len());
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        if !text.starts_with("//!") {
            faults.push(format!("{} does not open with //!", file.display()));
        }
        let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//"));
        let count = lines.count();
        let is_test =
            file.components().any(|c| c.as_os_str() == "tests") || file.ends_with("tests.rs");
        if count > MAX_CODE_LINES && !is_test {
            faults.push(format!("{} has {count} code lines", file.display()));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn crates_depend_downward_only() -> Result<()> {
    let allowed: [(&str, &[&str]); 8] = [
        ("media", &[]),
        ("wire", &[]),
        ("hooks", &[]),
        ("events", &["wire"]),
        ("cluster", &["wire"]),
        ("origin", &["media", "wire", "cluster", "hooks"]),
        ("edge", &["media", "wire", "cluster", "hooks"]),
        ("bench", &["media", "wire"]),
    ];
    let ours =
        ["media", "wire", "hooks", "events", "cluster", "origin", "edge", "node", "bench", "tests"];
    for (name, may) in allowed {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml"))?;
        let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for dependency in ours {
            let uses = normal.lines().any(|line| line.starts_with(&format!("{dependency}.")));
            ensure!(!uses || may.contains(&dependency), "{name} must not use {dependency}");
        }
    }
    Ok(())
}

#[test]
fn only_cluster_names_raft() -> Result<()> {
    for name in ["media", "wire", "events", "origin", "edge", "node", "bench"] {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml"))?;
        ensure!(!manifest.lines().any(|l| l.starts_with("raft")), "{name} must not use raft");
    }
    Ok(())
}

#[test]
fn links_between_documents_lead_somewhere() -> Result<()> {
    let mut pages = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    for dir in ["docs", "deploy"] {
        for entry in fs::read_dir(root().join(dir))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    let mut broken = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let base = page.parent().unwrap_or(Path::new("."));
            if !base.join(target).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}
