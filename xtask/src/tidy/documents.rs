//! Documents: the paths that they name exist.
//!
//! Checked are the targets of links, relative to the document, and words in backticks that look like a path of this
//! repository (they begin with one of its top directories), relative to the checkout.
use std::path::{Component, Path};

use super::{Tracked, files::has_extension};

/// `exists`: whether a path relative to the checkout is a tracked file or directory.
pub(super) fn complaints(files: &[Tracked], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let tops: Vec<&str> = files.iter().filter_map(|file| Some(file.path.split_once('/')?.0)).collect();
    for file in files {
        let Some(text) = file.text.as_ref().filter(|_| has_extension(&file.path, &["md"])) else { continue };
        let dir = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for (number, line) in prose(text) {
            let linked = links(line).filter_map(|target| normal(&dir.join(target)).map(|path| (target, path)));
            let named = ticked(line).filter(|word| looks_like_a_path(word, &tops)).map(|word| (word, word.to_owned()));
            for (said, path) in linked.chain(named) {
                if !exists(&path) {
                    complaints.push(format!("{}:{number}: `{said}` does not exist", file.path));
                }
            }
        }
    }
    complaints
}

/// Lines outside of fenced blocks, with their numbers: a block shows commands and output, which name what they make.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)` that are files: no address, no place within the document.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split_once(')')?.0.split(['#', ' ']).next()?;
        (!target.is_empty() && !target.contains(':')).then_some(target)
    })
}

fn ticked(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn looks_like_a_path(word: &str, tops: &[&str]) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    // Capitals stand for what the reader puts in, as in docs/adr/NNNN-title.md.
    let placeholder =
        word.split(['/', '-', '.', '_']).any(|part| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase()));
    let top = word.split_once('/').is_some_and(|(top, _)| tops.contains(&top));
    plain && top && (!placeholder || word.ends_with("README.md"))
}

/// Without `.` and `..`; `None` outside of the checkout.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let file = |path: &str, text: &str| Tracked { path: path.into(), bytes: 0, text: Some(text.into()) };
        let files = [file("docs/a.md", text), file("crates/x/src/lib.rs", ""), file("README.md", "")];
        let there = ["docs/a.md", "docs", "crates/x/src/lib.rs", "crates/x", "README.md"];
        let found = complaints(&files, &|path| there.contains(&path.trim_end_matches('/')));
        assert_eq!(found, want, "{text}");
    }

    #[test]
    fn links_are_relative_to_the_document() {
        check("[a](a.md) [b](../README.md#top) [c](http://x.example/y) [d](#here) [e](../crates/x)", &[]);
        check("fine\n[gone](gone.md)", &["docs/a.md:2: `gone.md` does not exist"]);
    }

    #[test]
    fn words_in_ticks_are_relative_to_the_checkout() {
        check(
            "`crates/x/src/lib.rs` `docs/` `cargo xtask up` `/run/loco` `a/b` `docs/adr/NNNN-title.md` `docs/*.md`",
            &[],
        );
        check("see `crates/x/src/gone.rs`", &["docs/a.md:1: `crates/x/src/gone.rs` does not exist"]);
    }

    #[test]
    fn blocks_are_not_prose() {
        check("```\n`docs/gone` [x](gone.md)\n```\n`docs/a.md`", &[]);
    }
}
