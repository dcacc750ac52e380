//! The programs of the cluster, built from `k8s-tests/kube` with Go, once: they lie in the cache, in a folder named by a
//! hash of all that they are made of.
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::{dirs::Dirs, run::Run as _, setup, tell};

/// What the binaries are made of, below `k8s-tests/kube`.
const SOURCES: [&str; 7] =
    ["go.mod", "go.sum", "main.go", "etcd/go.mod", "etcd/go.sum", "etcd/main.go", "etcd/pause/main.go"];
/// Charts ask for the version of Kubernetes, which is not in its module.
const VERSION: &str = "v1.34.4";
const HELM: &str = "v3.19.5";
const PROGRAMS: [&str; 6] = ["kube", "kubectl", "helm", "etcd", "pause", "pause.tar"];
/// The first Go that fetches the toolchain that a module asks for.
const GO_OLDEST: (u32, u32) = (1, 21);

/// The folder, whether it is there or not.
pub(crate) fn folder(dirs: &Dirs) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for name in SOURCES {
        let path = source(dirs).join(name);
        let content = fs::read(&path).with_context(|| format!("{}", path.display()))?;
        hash.update(name.as_bytes());
        hash.update(content.len().to_le_bytes());
        hash.update(content);
    }
    hash.update(flags().join(" ").as_bytes());
    hash.update(std::env::consts::ARCH);
    let hex = hash.finalize().iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Ok(dirs.cache().join("kube").join(hex))
}

/// Nothing would have to be built.
pub(crate) fn are_there(dirs: &Dirs) -> bool {
    folder(dirs).is_ok_and(|folder| is_whole(&folder))
}

fn is_whole(folder: &Path) -> bool {
    PROGRAMS.iter().all(|name| folder.join(name).is_file())
}

/// The folder with all programs in it.
pub(crate) fn ensure(dirs: &Dirs) -> Result<PathBuf> {
    let folder = folder(dirs)?;
    if is_whole(&folder) {
        return Ok(folder);
    }
    let have = go_version();
    if have.is_none_or(|have| have < GO_OLDEST) {
        let (major, minor) = GO_OLDEST;
        bail!(
            "Kubernetes is built here with Go {major}.{minor} or newer, which is not on the PATH; `cargo xtask setup --for cluster`"
        );
    }
    tell(&format!(
        "building Kubernetes {VERSION}, etcd and helm into {}, once: five to twenty minutes",
        folder.display()
    ));
    // By way of another name: a folder with the right name is whole.
    let new = folder.with_extension(format!("new-{}", std::process::id()));
    fs::create_dir_all(&new).with_context(|| format!("{}", new.display()))?;
    let kube = source(dirs);
    build(&kube.join("etcd"), &new, "etcd", ".")?;
    build(&kube.join("etcd"), &new, "pause", "./pause")?;
    build(&kube, &new, "kube", ".")?;
    // It looks at the name that it is called by.
    symlink("kube", new.join("kubectl")).context("cannot make a link")?;
    build(&kube, &new, "helm", "helm.sh/helm/v3/cmd/helm")?;
    Command::new(new.join("pause")).arg("image").arg(new.join("pause.tar")).run()?;
    match fs::rename(&new, &folder) {
        // Somebody else was as fast.
        Err(_) if is_whole(&folder) => fs::remove_dir_all(&new).with_context(|| format!("{}", new.display()))?,
        renamed => renamed.with_context(|| format!("cannot write {}", folder.display()))?,
    }
    ensure!(is_whole(&folder), "{} is not whole; remove it and try again", folder.display());
    Ok(folder)
}

fn source(dirs: &Dirs) -> PathBuf {
    dirs.root().join("k8s-tests/kube")
}

fn build(module: &Path, to: &Path, program: &str, package: &str) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(module).env("CGO_ENABLED", "0").arg("build").args(flags()).arg("-o").arg(to.join(program));
    go.arg(package).run()
}

fn flags() -> Vec<String> {
    let set = |variable: &str, value: &str| format!(" -X {variable}={value}");
    let linker = [
        "-s -w".to_owned(),
        set("k8s.io/component-base/version.gitVersion", VERSION),
        set("k8s.io/component-base/version.gitMajor", "1"),
        set("k8s.io/component-base/version.gitMinor", "34"),
        set("k8s.io/component-base/version.gitTreeState", "clean"),
        set("k8s.io/client-go/pkg/version.gitVersion", VERSION),
        // Without a cluster, helm believes in the one that it was built for.
        set("helm.sh/helm/v3/internal/version.version", HELM),
        set("helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor", "1"),
        set("helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor", "34"),
        set("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor", "1"),
        set("helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor", "34"),
    ];
    vec!["-trimpath".to_owned(), "-buildvcs=false".to_owned(), "-ldflags".to_owned(), linker.concat()]
}

/// Of the `go` on the `PATH`.
pub(crate) fn go_version() -> Option<(u32, u32)> {
    if !setup::on_path("go") {
        return None;
    }
    // In the root directory no module asks for another toolchain.
    parse_go_version(&Command::new("go").current_dir("/").args(["env", "GOVERSION"]).answer().ok()?)
}

pub(crate) fn go_is_fine() -> bool {
    go_version().is_some_and(|version| version >= GO_OLDEST)
}

/// `go1.26.8`
fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split('.');
    let minor = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((numbers.next()?.parse().ok()?, minor(numbers.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_gos_version() {
        assert_eq!(parse_go_version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.25rc1"), Some((1, 25)));
        assert!(parse_go_version("go1.19.8").unwrap() < GO_OLDEST);
        assert_eq!(parse_go_version("devel"), None);
    }

    #[test]
    fn the_folder_is_named_after_all_that_goes_in() {
        let root = std::env::temp_dir().join(format!("loco-xtask-kube-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = root.join("k8s-tests/kube").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in SOURCES {
            write(name, "x");
        }
        let dirs = Dirs::of(&root).unwrap();
        let before = folder(&dirs).unwrap();
        assert_eq!(folder(&dirs).unwrap(), before);
        for name in SOURCES {
            write(name, "y");
            assert_ne!(folder(&dirs).unwrap(), before, "{name} does not count");
            write(name, "x");
        }
        assert!(!is_whole(&root) && !are_there(&dirs));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_version_is_that_of_the_module() {
        let module = include_str!("../../../k8s-tests/kube/go.mod");
        assert!(module.contains(&format!("k8s.io/kubernetes {VERSION}\n")));
        assert!(module.contains(&format!("helm.sh/helm/v3 {HELM}\n")));
    }
}
