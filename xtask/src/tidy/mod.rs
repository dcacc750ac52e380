//! What no compiler checks. Each rule is a pure function from texts to complaints; this file reads the texts.
mod direction;
mod documents;
mod files;
mod programs;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    dirs::Dirs,
    run::{self, Run as _},
    tell,
};

/// A file that git tracks.
#[derive(Debug, Clone)]
struct Tracked {
    /// Relative to the checkout.
    path: String,
    bytes: u64,
    /// `None`: not text.
    text: Option<String>,
}

/// Fails with every complaint of every rule.
pub(crate) fn check(dirs: &Dirs) -> Result<()> {
    let files = tracked(dirs)?;
    let mut complaints = files::complaints(&files, &parent_of(dirs.root()));
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    complaints.extend(documents::complaints(&files, &|path| exists(&paths, dirs, path)));
    complaints.extend(programs::complaints(&files));
    for manifest in ["Cargo.toml", "demo-guest/Cargo.toml", "ebpf/Cargo.toml"] {
        let mut cargo = run::cargo(dirs);
        cargo.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]);
        complaints.extend(direction::complaints(&cargo.answer()?)?);
    }
    complaints.extend(crate::monitoring::check_files(dirs)?);
    complaints.extend(crate::chart::complaints(dirs)?);
    let texts = files.iter().filter_map(|file| Some((file.path.as_str(), file.text.as_deref()?)));
    complaints.extend(crate::paper::complaints(texts));
    complaints.extend(crate::paper::versions(dirs.root())?);
    complaints.extend(generated(dirs)?);
    if complaints.is_empty() {
        tell(&format!("tidy: {} files are in order", files.len()));
        return Ok(());
    }
    for complaint in &complaints {
        tell(&format!("tidy: {complaint}"));
    }
    bail!("tidy found {} faults", complaints.len())
}

fn tracked(dirs: &Dirs) -> Result<Vec<Tracked>> {
    let list = Command::new("git").current_dir(dirs.root()).args(["ls-files", "-z"]).answer()?;
    let read = |path: &str| {
        // A file that was deleted and not yet committed is nobody's fault.
        let bytes = fs::read(dirs.root().join(path)).ok()?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Some(Tracked { path: path.to_owned(), bytes: length, text: String::from_utf8(bytes).ok() })
    };
    Ok(list.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect())
}

/// Where checkouts of this machine lie; nothing that is committed may say it.
fn parent_of(root: &Path) -> String {
    format!("{}/", root.parent().unwrap_or(root).display())
}

/// A tracked file, or a directory with tracked files in it.
fn exists(tracked: &BTreeSet<&str>, dirs: &Dirs, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let below = format!("{path}/");
    tracked.contains(path)
        || tracked.range(below.as_str()..).next().is_some_and(|next| next.starts_with(&below))
        || (path.is_empty() && dirs.root().is_dir())
}

/// Files that programs write from other files, compared with what those programs write now.
fn generated(dirs: &Dirs) -> Result<Vec<String>> {
    let openapi = dirs.root().join("gateway/openapi.json");
    if !openapi.is_file() {
        return Ok(Vec::new());
    }
    let mut complaints = Vec::new();
    // The gateway embeds the page, so the page must be there before it compiles.
    crate::build::page(dirs)?;
    let described =
        run::cargo(dirs).args(["run", "--quiet", "--package", "gateway", "--", "--print-openapi"]).answer()?;
    let kept = fs::read_to_string(&openapi).with_context(|| format!("{}", openapi.display()))?;
    let remedy = "write it anew: `cargo run --package gateway -- --print-openapi > gateway/openapi.json`";
    complaints.extend(stale("gateway/openapi.json", &kept, &described, remedy));
    let types = dirs.ui().join("src/api/types.gen.ts");
    if types.is_file() {
        let kept = fs::read_to_string(&types).with_context(|| format!("{}", types.display()))?;
        let fresh = types_from(dirs, &openapi)?;
        let remedy = "write it anew: `npm run codegen` in gateway/ui";
        complaints.extend(stale("gateway/ui/src/api/types.gen.ts", &kept, &fresh, remedy));
    }
    Ok(complaints)
}

/// The page's types as the generator writes them for `openapi`.
fn types_from(dirs: &Dirs, openapi: &Path) -> Result<String> {
    let out: PathBuf = std::env::temp_dir().join(format!("loco-types-{}.ts", std::process::id()));
    let mut npx = run::node(dirs, "npx", &dirs.ui());
    npx.args(["--no-install", "openapi-typescript"]).arg(openapi).arg("-o").arg(&out).answer()?;
    let text = fs::read_to_string(&out).with_context(|| format!("{}", out.display()))?;
    fs::remove_file(&out)?;
    Ok(text)
}

fn stale(path: &str, kept: &str, fresh: &str, remedy: &str) -> Option<String> {
    (kept.trim_end() != fresh.trim_end()).then(|| format!("{path} is not what its generator writes; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_named_and_a_fresh_one_is_not() {
        assert_eq!(stale("a", "x\n", "x", "do"), None);
        assert_eq!(stale("a", "x", "y", "do").unwrap(), "a is not what its generator writes; do");
    }
}
