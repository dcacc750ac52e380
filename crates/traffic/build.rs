//! Builds `../../ebpf` for the kernel's own machine and leaves the object, without its debug information, as
//! `$OUT_DIR/loco.o`. Why it is not done by `aya-build`: docs/adr/0013.
//!
//! | variable | meaning |
//! |---|---|
//! | `EBPF_OBJECT` | take this object and build nothing |
//! | `EBPF_RUSTC` | the compiler; else Debian's `/usr/bin/rustc` of rustc-web |
//! | `EBPF_LINKER` | bpf-linker; else the one that `cargo xtask setup` has put into the cache, else the one in `PATH` |
use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Series of the compiler that the verifier was shown the programs of. Another one is a change to be made on purpose.
const RUSTC_SERIES: &str = "1.96.";
/// Its LLVM, which bpf-linker shares.
const LLVM: &str = "22";
/// As in `xtask/src/setup/bpf.rs`.
const LINKER: &str = "0.13.0";
const TARGET: &str = "bpfel-unknown-none";
const REMEDY: &str = "run `cargo xtask setup`, which installs the BPF tool chain (Debian 12: apt-get install rustc-web \
     libstd-rust-web-dev-bpf llvm-22-dev; then bpf-linker by cargo), or give a ready object in EBPF_OBJECT";

/// Settings of the outer cargo that the inner one must have as well: where crates come from.
const KEPT: [&str; 6] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];

fn main() {
    for variable in ["EBPF_OBJECT", "EBPF_RUSTC", "EBPF_LINKER"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    for path in [
        "build.rs",
        "src/abi.rs",
        "src/select.rs",
        "../../ebpf/src",
        "../../ebpf/Cargo.toml",
        "../../ebpf/Cargo.lock",
        "../wire/src/class.rs",
        "../wire/src/guard.rs",
        "../wire/src/ipx.rs",
        "../wire/src/probe.rs",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(error) = build() {
        // One line, as cargo shows it; no backtrace.
        println!("cargo::error=the eBPF programs cannot be built: {error}");
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let object = out.join("loco.o");
    if let Some(ready) = env::var_os("EBPF_OBJECT") {
        fs::copy(&ready, &object).map_err(|error| format!("EBPF_OBJECT {}: {error}", ready.display()))?;
        println!("cargo::rerun-if-changed={}", ready.display());
        return Ok(());
    }
    let rustc = checked_rustc()?;
    let linker = checked_linker()?;
    let ebpf = fs::canonicalize("../../ebpf").map_err(|error| format!("ebpf/ of the checkout: {error}"))?;
    let root = ebpf.parent().ok_or("ebpf/ lies in the checkout")?;
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    let home = env::var_os("CARGO_HOME").map_or_else(|| "/cargo".into(), PathBuf::from);
    let flags = [
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        // BTF is made from it, and it is stripped off below.
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=.", root.display()),
        format!("--remap-path-prefix={}=cargo", home.display()),
    ];
    let target = out.join("ebpf-target");
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo sets no CARGO")?);
    for (name, _) in env::vars_os() {
        if is_outer(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(&ebpf)
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("RUSTC", &rustc)
        // aya-ebpf asks for `asm_experimental_arch`; this is about the inner build only.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(format!("`cargo build` in ebpf/ failed, see above; {REMEDY}").into());
    }
    let built = target.join(TARGET).join("release/loco");
    let mut strip = Command::new(format!("/usr/lib/llvm-{LLVM}/bin/llvm-strip"));
    let status = strip.arg("-g").arg("-o").arg(&object).arg(&built).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        outcome => Err(format!("llvm-strip of LLVM {LLVM}: {outcome:?}; {REMEDY}").into()),
    }
}

/// What cargo has set for this build and what would change the inner one.
fn is_outer(name: &str) -> bool {
    let cargos = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
    cargos || name.starts_with("RUSTC") || name == "RUSTFLAGS" || name.starts_with("DEP_")
}

fn checked_rustc() -> Result<PathBuf, Box<dyn Error>> {
    let rustc = env::var_os("EBPF_RUSTC").map_or_else(|| "/usr/bin/rustc".into(), PathBuf::from);
    let text = answer(&rustc, &["-vV"])?;
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("unknown").to_owned();
    let (version, llvm) = (line("release: "), line("LLVM version: "));
    if !version.starts_with(RUSTC_SERIES) || llvm.split('.').next() != Some(LLVM) {
        return Err(format!(
            "{} is rustc {version} with LLVM {llvm}; these programs are built by {RUSTC_SERIES}x with LLVM {LLVM}: {REMEDY}",
            rustc.display()
        )
        .into());
    }
    let sysroot = answer(&rustc, &["--print", "sysroot"])?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
    if !core.is_dir() {
        return Err(format!("{} has no core for {TARGET}: {REMEDY}", rustc.display()).into());
    }
    Ok(rustc)
}

fn checked_linker() -> Result<PathBuf, Box<dyn Error>> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let ours = cache.map(|cache| cache.join(format!("loco/bpf-linker-{LINKER}/bin/bpf-linker")));
    let linker = match (env::var_os("EBPF_LINKER"), ours) {
        (Some(given), _) => given.into(),
        (None, Some(ours)) if ours.is_file() => ours,
        _ => PathBuf::from("bpf-linker"),
    };
    let text = answer(&linker, &["--version"])?;
    if text.split_whitespace().nth(1) != Some(LINKER) {
        return Err(format!("{} is `{}`, not {LINKER}: {REMEDY}", linker.display(), text.trim()).into());
    }
    Ok(linker)
}

fn answer(program: &Path, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let failed = |what: String| format!("{}: {what}; {REMEDY}", program.display());
    let output = Command::new(program).args(arguments).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
