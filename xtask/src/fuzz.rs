//! Fuzzing with libFuzzer, on the stable compiler.
//!
//! ```text
//! crates/*/fuzz (cargo-fuzz's layout) ──build, with coverage──> one program per file of fuzz_targets
//! crates/X/tests/captures ──seeds──> corpus in the cache ──> program ──> nothing, or an input that fails
//! ```
//! What cargo-fuzz does for `--sanitizer none`, without it being installed: libFuzzer lives on LLVM's coverage pass, which
//! stable rustc takes; of sanitizers, which only a nightly one takes, there is nothing to be had in code without `unsafe`.
//!
//! **Invariant.** The corpus is kept between runs, so that each begins where the last one ended. A failure names the file
//! with the input.
use std::{
    fs, iter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    build,
    dirs::Dirs,
    print,
    run::{self, Run as _},
    setup,
};

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// For how long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Only these targets
    targets: Vec<String>,
}

impl FuzzArgs {
    /// What CI does each time: enough for what broke at once.
    pub(crate) const fn smoke() -> Self {
        Self { seconds: 5, targets: Vec::new() }
    }
}

/// As cargo-fuzz has them (its `build` without a sanitizer).
const FLAGS: [&str; 6] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Above a LAN's frame, and one that is put together from a few.
const INPUT_MAX: u32 = 4096;
/// In MiB: parsers keep nothing.
const MEMORY_MAX: u32 = 512;
/// For one input. All are done in microseconds.
const STUCK_SECONDS: u32 = 5;

/// A package of fuzz targets.
struct Package {
    dir: PathBuf,
    targets: Vec<String>,
}

pub(crate) fn run(dirs: &Dirs, args: &FuzzArgs) -> Result<()> {
    let packages = packages(dirs)?;
    let known: Vec<&String> = packages.iter().flat_map(|package| &package.targets).collect();
    for target in &args.targets {
        ensure!(known.contains(&target), "there is no fuzz target `{target}`; there are {known:?}");
    }
    setup::ensure(setup::For::Test)?;
    let host = Command::new("rustc").current_dir(dirs.root()).args(["--print", "host-tuple"]).answer()?;
    let mut ran = 0;
    for package in &packages {
        let target_dir = build::fuzz_target(dirs);
        let mut cargo = run::cargo(dirs);
        cargo.current_dir(&package.dir).args(["build", "--release", "--locked", "--bins", "--target"]).arg(host.trim());
        // A target of its own, so that the flags are not those of build scripts.
        cargo.arg("--target-dir").arg(&target_dir).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")).run()?;
        let programs = target_dir.join(host.trim()).join("release");
        for target in &package.targets {
            if !args.targets.is_empty() && !args.targets.contains(target) {
                continue;
            }
            let corpus = dirs.cache().join("fuzz").join(target);
            // What has no captures of its own takes those of the parsers.
            let own = package.dir.join("../tests/captures");
            let captures = if own.is_dir() { own } else { dirs.root().join("crates/wire/tests/captures") };
            sow(&captures, &corpus)?;
            let mut fuzzer = Command::new(programs.join(target));
            fuzzer.arg(format!("-max_total_time={}", args.seconds));
            fuzzer.arg(format!("-max_len={INPUT_MAX}")).arg(format!("-rss_limit_mb={MEMORY_MAX}"));
            fuzzer.arg(format!("-timeout={STUCK_SECONDS}")).args(["-print_final_stats=1", "-verbosity=0"]);
            fuzzer.arg(format!("-artifact_prefix={}-failed-", corpus.display())).arg(&corpus);
            fuzzer.run().with_context(|| format!("fuzz target `{target}`"))?;
            ran += 1;
        }
    }
    print(&format!("{ran} fuzz targets, {} s each: nothing found", args.seconds));
    Ok(())
}

/// Writes what the captures hold into the corpus: each frame, and the same from further behind, where IPv4, IPX over
/// 802.2, and the payloads of UDP and TCP begin. What a target has no use for, libFuzzer finds out itself.
fn sow(captures: &Path, corpus: &Path) -> Result<()> {
    const FROM: [usize; 5] = [0, 14, 17, 42, 66];
    fs::create_dir_all(corpus)?;
    for entry in fs::read_dir(captures).with_context(|| format!("{}", captures.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        for (index, frame) in frames(&fs::read(&path)?).enumerate() {
            for from in FROM {
                if let Some(seed @ [_, ..]) = frame.get(from..) {
                    fs::write(corpus.join(format!("{name}-{index:03}-{from}")), seed)?;
                }
            }
        }
    }
    Ok(())
}

/// The records of a little-endian pcap, as those of this repository are, up to the first that is not whole.
fn frames(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = file.get(24..).unwrap_or(&[]);
    iter::from_fn(move || {
        let (&[_, _, _, _, _, _, _, _, a, b, c, d, ..], behind) = rest.split_first_chunk::<16>()?;
        let (frame, behind) = behind.split_at_checked(usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?)?;
        rest = behind;
        Some(frame)
    })
}

/// The packages `crates/*/fuzz`, and their targets by name.
fn packages(dirs: &Dirs) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(dirs.root().join("crates"))? {
        let dir = entry?.path().join("fuzz");
        if !dir.join("Cargo.toml").is_file() {
            continue;
        }
        let mut targets = Vec::new();
        for entry in fs::read_dir(dir.join("fuzz_targets")).with_context(|| format!("{}", dir.display()))? {
            let file = entry?.path();
            targets.extend(file.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
        targets.sort_unstable();
        packages.push(Package { dir, targets });
    }
    packages.sort_by(|a, b| a.dir.cmp(&b.dir));
    ensure!(!packages.is_empty(), "no package crates/*/fuzz");
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_of_targets_is_found_with_its_targets() {
        let dirs = Dirs::find().unwrap();
        let packages = packages(&dirs).unwrap();
        let wire = packages.iter().find(|package| package.dir.ends_with("wire/fuzz")).unwrap();
        assert!(wire.targets.contains(&"frame".to_owned()), "{:?}", wire.targets);
        let manifest = fs::read_to_string(wire.dir.join("Cargo.toml")).unwrap();
        for target in &wire.targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is a file that nothing builds");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), wire.targets.len());
    }

    #[test]
    fn records_end_at_the_first_that_is_not_whole() {
        let record = [&[0; 8][..], &[2, 0, 0, 0, 2, 0, 0, 0], b"ab"].concat();
        let file = [&[0; 24][..], &record, &record, &record[..17]].concat();
        assert_eq!(frames(&file).collect::<Vec<_>>(), [b"ab", b"ab"]);
        assert_eq!(frames(&[]).count(), 0);
    }
}
