//! Makes the root file system of an image: our programs, what they load, who they belong to, and the list of it all.
//!
//! **Invariants.** Only files that a Debian package or this checkout answers for. No shell, no package manager, nothing with
//! a set-user bit. Names and modes depend on the parts only, not on who stages or with which umask.
use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    closure::{self, Package},
    contents::{Image, Product},
    sbom::{self, Part},
};
use crate::{dirs::Dirs, run::Run as _, setup};

/// Who our programs are where they are not root. Chart and `images/Containerfile` name the same number.
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nloco:x:10001:10001:loco:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nloco:x:10001:\n";
/// Where the list is, in every image.
pub(super) const SBOM: &str = "usr/share/doc/loco/sbom.cdx.json";

/// Fails, before anything is built, on a machine whose libraries cannot be taken.
pub(super) fn check_machine() -> Result<()> {
    ensure!(
        setup::is_debian_12() && setup::on_path("dpkg-query"),
        "the images take their libraries from this machine, which must be Debian 12 for that; elsewhere build them in a \
         container: `docker build -f images/Containerfile --target gateway -t loco/gateway:TAG .`"
    );
    Ok(())
}

/// Fills `root`, which is made anew, and gives the list of what is in it.
pub(super) fn stage(dirs: &Dirs, image: &Image, root: &Path) -> Result<String> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let root = Root::new(root)?;
    let mut programs = Vec::new();
    for product in image.products {
        programs.extend(add_product(dirs, &root, *product)?);
    }
    let mut system: BTreeSet<PathBuf> = BTreeSet::new();
    for path in image.system {
        let path = PathBuf::from(path.replace("{lib}", &library_dir()));
        ensure!(path.is_file(), "{} is not on this machine: run `cargo xtask setup`", path.display());
        if closure::is_elf(&path)? {
            programs.push(path.clone());
        }
        system.insert(path);
    }
    system.extend(closure::find(&programs)?);
    for path in &system {
        root.add(path, &merged(path))?;
    }
    let packages = if system.is_empty() { Vec::new() } else { closure::packages(&Vec::from_iter(system))? };
    if !packages.is_empty() {
        for (link, to) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            symlink(to, root.path.join(link)).with_context(|| format!("cannot link /{link}"))?;
        }
        root.write("etc/passwd", PASSWD)?;
        root.write("etc/group", GROUP)?;
        // Sets the mode beyond the umask; anybody may write there, as anywhere.
        let tmp = root.directory("tmp")?;
        fs::set_permissions(&tmp, Permissions::from_mode(0o1777))?;
        // What scanners for known weaknesses look for.
        root.add(Path::new("/usr/lib/os-release"), Path::new("usr/lib/os-release"))?;
        symlink("../usr/lib/os-release", root.path.join("etc/os-release")).context("cannot link /etc/os-release")?;
        licences(&root, &packages)?;
    }
    for name in ["LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY.md"] {
        root.add(&dirs.root().join(name), &Path::new("usr/share/doc/loco").join(name))?;
    }
    let document = sbom::document(image.name, env!("CARGO_PKG_VERSION"), &parts(dirs, image, &packages)?);
    root.write(SBOM, &document)?;
    let missing = closure::missing(&root.path)?;
    ensure!(missing.is_empty(), "the image {} lacks libraries: {}", image.name, missing.join(", "));
    Ok(document)
}

/// Adds one of ours. What the loader must find libraries for, is returned.
fn add_product(dirs: &Dirs, root: &Root, product: Product) -> Result<Option<PathBuf>> {
    let (built, to) = match product {
        Product::Program { name, .. } => (dirs.binary(name), Path::new("usr/bin").join(name)),
        Product::Static { name, path, .. } => (dirs.binary(name), path.trim_start_matches('/').into()),
        Product::DemoKernel { path } => {
            root.add(&dirs.demo_kernel(), Path::new(path.trim_start_matches('/')))?;
            return Ok(None);
        }
    };
    let to = root.add(&built, &to)?;
    // Names of functions stay, for what is said at a panic; lines take three times the room of the program.
    Command::new("objcopy").args(["--strip-debug", "--remove-section=.comment"]).arg(&to).answer()?;
    fs::set_permissions(&to, Permissions::from_mode(0o755))?;
    Ok(matches!(product, Product::Program { .. }).then_some(built))
}

/// Each package's terms, and the licences that those point to.
fn licences(root: &Root, packages: &[Package]) -> Result<()> {
    for Package { name, .. } in packages {
        let file = PathBuf::from(format!("usr/share/doc/{name}/copyright"));
        root.add(&Path::new("/").join(&file), &file)?;
        let status = Command::new("dpkg-query").arg("--status").arg(name).answer()?;
        root.write(&format!("var/lib/dpkg/status.d/{name}"), &status)?;
    }
    let common = Path::new("usr/share/common-licenses");
    for entry in fs::read_dir(Path::new("/").join(common)).context("/usr/share/common-licenses")? {
        let name = entry?.file_name();
        root.add(&Path::new("/").join(common).join(&name), &common.join(&name))?;
    }
    Ok(())
}

fn parts(dirs: &Dirs, image: &Image, packages: &[Package]) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = packages.iter().map(sbom::debian).collect();
    for product in image.products {
        parts.extend(match product {
            Product::Program { package, .. } | Product::Static { package, .. } => {
                sbom::crates(dirs, "Cargo.toml", package)?
            }
            Product::DemoKernel { .. } => sbom::crates(dirs, "demo-guest/Cargo.toml", "demo-guest")?,
        });
        parts.push(sbom::rust(dirs)?);
        if *product == (Product::Program { package: "gateway", name: "gateway" }) {
            parts.extend(sbom::page(dirs)?);
        }
    }
    Ok(parts)
}

fn library_dir() -> String {
    format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)
}

/// Where a file of this machine is in an image, relative to its root: below /usr, as /lib is a link to /usr/lib there.
fn merged(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.starts_with("lib") || path.starts_with("lib64") { Path::new("usr").join(path) } else { path.to_owned() }
}

struct Root {
    path: PathBuf,
}

impl Root {
    fn new(path: &Path) -> Result<Self> {
        let root = Self { path: path.to_owned() };
        root.directory("")?;
        Ok(root)
    }

    fn directory(&self, inside: impl AsRef<Path>) -> Result<PathBuf> {
        let mut path = self.path.clone();
        for part in Path::new("").join(inside).components() {
            path.push(part);
            if !path.is_dir() {
                fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
                fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            }
        }
        if !path.is_dir() {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Copies a file, or what a link points to. Its mode says only whether it runs.
    fn add(&self, from: &Path, to: &Path) -> Result<PathBuf> {
        self.directory(to.parent().unwrap_or(Path::new("")))?;
        let to = self.path.join(to);
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        let runs = fs::metadata(from)?.permissions().mode() & 0o111 != 0;
        fs::set_permissions(&to, Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
        Ok(to)
    }

    fn write(&self, to: &str, text: &str) -> Result<()> {
        self.directory(Path::new(to).parent().unwrap_or(Path::new("")))?;
        let to = self.path.join(to);
        fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(fs::set_permissions(&to, Permissions::from_mode(0o644))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_below_usr_whatever_the_loader_calls_them() {
        for (path, want) in [
            ("/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
            ("/lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"),
            ("/usr/lib/qemu/a.so", "usr/lib/qemu/a.so"),
            ("/library/a", "library/a"),
        ] {
            assert_eq!(merged(Path::new(path)), Path::new(want));
        }
    }

    #[test]
    fn names_and_modes_do_not_follow_whoever_stages() {
        let dir = std::env::temp_dir().join(format!("loco-image-stage-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let from = dir.join("source");
        fs::write(&from, "x").unwrap();
        fs::set_permissions(&from, Permissions::from_mode(0o4711)).unwrap();
        let root = Root::new(&dir.join("root")).unwrap();
        let to = root.add(&from, Path::new("usr/bin/x")).unwrap();
        root.write("etc/passwd", PASSWD).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode(&to), mode(&root.path.join("usr")), mode(&root.path.join("etc/passwd"))),
            (0o755, 0o755, 0o644)
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
