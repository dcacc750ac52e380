//! Which libraries programs need, by the loader of this machine; and whether a root file system has them all, by its files.
//!
//! The two do not share a method on purpose: `find` asks the loader, `missing` reads the headers of what was staged.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::Run as _;

/// Files of libraries that `programs` need, with those that they need in turn; and the loader.
pub(super) fn find(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        let text = Command::new("ldd").arg(program).answer()?;
        let libraries = libraries(&text).map_err(|missing| {
            anyhow::anyhow!(
                "{} needs {missing}, which is not on this machine: run `cargo xtask setup`",
                program.display()
            )
        })?;
        found.extend(libraries);
    }
    Ok(found)
}

/// What `ldd` has printed; the name of the library that it did not find.
fn libraries(text: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let line = line.rsplit_once(" (0x").map_or(line, |(line, _)| line);
        match line.split_once(" => ") {
            Some((name, "not found")) => return Err(name.to_owned()),
            Some((_, path)) => found.push(path.into()),
            // The loader itself; `linux-vdso` is no file.
            None if line.starts_with('/') => found.push(line.into()),
            None => {}
        }
    }
    Ok(found)
}

/// Whether it is a program or library for a loader.
pub(super) fn is_elf(path: &Path) -> Result<bool> {
    use std::io::Read as _;
    let mut file = fs::File::open(path).with_context(|| format!("{}", path.display()))?;
    let mut magic = [0; 18];
    let read = file.read(&mut magic).with_context(|| format!("{}", path.display()))?;
    // e_type 3: a library or a program that can be moved. The demo game is neither.
    Ok(read == magic.len() && magic.starts_with(b"\x7fELF") && magic[16] == 3)
}

/// `program or library: what it needs and `root` does not have`, for all files below `root`.
pub(super) fn missing(root: &Path) -> Result<Vec<String>> {
    let mut needs: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))? {
            let path = entry?.path();
            let kind = fs::symlink_metadata(&path)?;
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() && is_elf(&path)? {
                let text =
                    Command::new("readelf").args(["--wide", "--dynamic", "--program-headers"]).arg(&path).answer()?;
                names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
                needs.insert(path, needed(&text));
            }
        }
    }
    let inside = |path: &Path| format!("/{}", path.strip_prefix(root).unwrap_or(path).display());
    let complaint = |path: &Path, need: &str| match need.strip_prefix('/') {
        Some(loader) => (!root.join(loader).is_file()).then(|| format!("{}: {need}", inside(path))),
        None => (!names.contains(need)).then(|| format!("{}: {need}", inside(path))),
    };
    Ok(needs.iter().flat_map(|(path, needs)| needs.iter().filter_map(|need| complaint(path, need))).collect())
}

/// Names of libraries, and the path of the loader, that `readelf` tells.
fn needed(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = line.trim();
        if line.contains("(NEEDED)") {
            return Some(line.split_once('[')?.1.strip_suffix(']')?.to_owned());
        }
        Some(line.strip_prefix("[Requesting program interpreter: ")?.strip_suffix(']')?.to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Debian packages, with versions, that own files of this machine. Sorted by name.
pub(super) fn packages(files: &[PathBuf]) -> Result<Vec<Package>> {
    let names_of: Vec<(&PathBuf, BTreeSet<PathBuf>)> =
        files.iter().map(|file| Ok((file, names_of(file)?))).collect::<Result<_>>()?;
    // It fails if one path is unknown, and some of each file's names are; it tells of the others all the same.
    let mut search = Command::new("dpkg-query");
    search.arg("--search").args(names_of.iter().flat_map(|(_, names)| names));
    let output = search.output().context("cannot run dpkg-query")?;
    let owners = owners(&String::from_utf8_lossy(&output.stdout));
    for (file, names) in &names_of {
        let known = names.iter().any(|name| owners.contains_key(name.to_string_lossy().as_ref()));
        ensure!(known, "{} belongs to no Debian package; so nobody knows its version", file.display());
    }
    let names: BTreeSet<&String> = owners.values().collect();
    let mut query = Command::new("dpkg-query");
    query.args([
        "--show",
        "--showformat",
        "${binary:Package} ${Architecture} ${Version} ${source:Package} ${source:Version}\\n",
    ]);
    let text = query.args(names).answer()?;
    text.lines().map(package).collect()
}

/// By which a package may know a file: through links (some are made at the installation), and with or without `/usr`, where
/// /lib is a link to /usr/lib.
fn names_of(file: &Path) -> Result<BTreeSet<PathBuf>> {
    let real = file.canonicalize().with_context(|| format!("{}", file.display()))?;
    let other = |path: &Path| match path.strip_prefix("/usr") {
        Ok(rest) => Path::new("/").join(rest),
        Err(_) => Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path)),
    };
    Ok([other(file), other(&real), file.to_owned(), real].into())
}

/// `package: path` lines of `dpkg-query --search`.
fn owners(text: &str) -> BTreeMap<String, String> {
    let owner = |line: &str| {
        let (package, path) = line.split_once(": ")?;
        // `diversion by x from: path` names no owner.
        (!package.contains(' ')).then(|| (path.to_owned(), package.to_owned()))
    };
    text.lines().filter_map(owner).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Without the architecture.
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) version: String,
    /// What it was built from, where that has another name or version.
    pub(super) source: String,
    pub(super) source_version: String,
}

fn package(line: &str) -> Result<Package> {
    let [name, architecture, version, source, source_version] = line.split(' ').collect::<Vec<_>>()[..] else {
        bail!("dpkg-query printed `{line}`");
    };
    let name = name.split(':').next().unwrap_or(name);
    Ok(Package {
        name: name.to_owned(),
        architecture: architecture.to_owned(),
        version: version.to_owned(),
        source: source.to_owned(),
        source_version: source_version.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_loader_says() {
        let text =
            "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x00007f)\n";
        assert_eq!(libraries(text).unwrap(), [Path::new("/lib/x/libm.so.6"), Path::new("/lib64/ld.so.2")]);
        assert_eq!(libraries("\tlibx264.so.164 => not found\n").unwrap_err(), "libx264.so.164");
        assert_eq!(libraries("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn reads_what_a_header_says() {
        let text = "      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]\n \
                    0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n \
                    0x000000000000000e (SONAME)             Library soname: [libm.so.6]\n";
        assert_eq!(needed(text), ["/lib64/ld-linux-x86-64.so.2", "libc.so.6"]);
    }

    #[test]
    fn reads_what_dpkg_says() {
        let text = "diversion by a from: /usr/x\nlibc6:amd64: /lib/libc.so.6\nseabios: /usr/share/bios.bin\n";
        let owners = owners(text);
        assert_eq!(owners.len(), 2);
        assert_eq!(owners["/lib/libc.so.6"], "libc6:amd64");
        let libc = package("libc6:amd64 amd64 2.36-9 glibc 2.36-9").unwrap();
        assert_eq!((libc.name.as_str(), libc.source.as_str()), ("libc6", "glibc"));
        assert!(package("libc6:amd64 amd64").is_err());
    }

    /// With this very program: all its libraries are there, and without one it is named.
    #[test]
    fn a_library_that_is_not_there_is_named_with_who_needs_it() {
        let program = std::env::current_exe().unwrap();
        let root = std::env::temp_dir().join(format!("loco-image-closure-{}", std::process::id()));
        let mut libc = None;
        for file in find(std::slice::from_ref(&program)).unwrap() {
            let at = root.join(file.strip_prefix("/").unwrap());
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::copy(&file, &at).unwrap();
            if at.ends_with("libc.so.6") {
                libc = Some(at);
            }
        }
        fs::copy(&program, root.join("program")).unwrap();
        assert_eq!(missing(&root).unwrap(), Vec::<String>::new());
        fs::remove_file(libc.unwrap()).unwrap();
        let complaints = missing(&root).unwrap();
        assert!(complaints.contains(&"/program: libc.so.6".to_owned()), "{complaints:?}");
        fs::remove_dir_all(root).unwrap();
    }
}
