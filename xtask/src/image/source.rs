//! Which state of the sources an image is made of, and the tag that says so.
use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{dirs::Dirs, run::Run as _};

/// Longest tag that registries take, in bytes.
const TAG_MAX: usize = 128;
/// Hexadecimal digits of a hash in a tag.
const SHORT: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) version: &'static str,
    pub(super) commit: String,
    /// When the commit was made, in seconds since 1970: the one time in an image.
    pub(super) committed: u64,
    /// The same, as labels have it.
    pub(super) created: String,
    /// Of the work tree, where it is not the commit's.
    pub(super) dirty: Option<String>,
    /// Where the sources can be had, if that is public.
    pub(super) url: Option<String>,
}

impl Source {
    pub(super) fn read(dirs: &Dirs) -> Result<Self> {
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(dirs.root()).args(args);
            git
        };
        let ask = |args: &[&str]| Ok::<_, anyhow::Error>(git(args).answer()?.trim().to_owned());
        let commit =
            ask(&["rev-parse", "HEAD"]).context("images say of which commit they are; build them in a git checkout")?;
        let committed =
            ask(&["show", "--no-patch", "--format=%ct", "HEAD"])?.parse().context("git's time of a commit")?;
        let mut created =
            git(&["show", "--no-patch", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", "--format=%cd", "HEAD"]);
        let created = created.env("TZ", "UTC").answer()?.trim().to_owned();
        let tree = work_tree(dirs)?;
        let dirty = (tree != ask(&["rev-parse", "HEAD^{tree}"])?).then(|| format!("{tree:.SHORT$}"));
        let url = ask(&["config", "--get", "remote.origin.url"]).ok().and_then(|url| public(&url));
        Ok(Self { version: env!("CARGO_PKG_VERSION"), commit, committed, created, dirty, url })
    }

    /// `0.1.0-de146f12`, and for a work tree that was changed `0.1.0-de146f12-dirty-0a1b2c3d`.
    pub(super) fn tag(&self) -> String {
        let dirty = self.dirty.as_ref().map_or_else(String::new, |hash| format!("-dirty-{hash}"));
        format!("{}-{:.SHORT$}{dirty}", self.version, self.commit)
    }
}

/// Name of the work tree as git would store it, with all that is neither committed nor ignored. Nothing of the checkout is
/// touched: index and objects are written elsewhere.
fn work_tree(dirs: &Dirs) -> Result<String> {
    let dir = dirs.cache().join(format!("git-{}", std::process::id()));
    let objects = dir.join("objects");
    fs::create_dir_all(&objects).with_context(|| format!("{}", objects.display()))?;
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(dirs.root()).args(args);
        git
    };
    let hash = || {
        let path =
            |what| Ok::<_, anyhow::Error>(dirs.root().join(git(&["rev-parse", "--git-path", what]).answer()?.trim()));
        // Its times save reading every file again.
        if let Ok(index) = path("index") {
            fs::copy(&index, dir.join("index")).with_context(|| format!("{}", index.display()))?;
        }
        let real = path("objects")?;
        let own = |args: &[&str]| {
            let mut git = git(args);
            git.env("GIT_INDEX_FILE", dir.join("index"));
            git.env("GIT_OBJECT_DIRECTORY", &objects).env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &real);
            git
        };
        own(&["add", "--all"]).answer()?;
        Ok(own(&["write-tree"]).answer()?.trim().to_owned())
    };
    let hash = hash();
    fs::remove_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    hash
}

/// Only an address that everybody may read: no path of this machine, no name of a user, no password.
fn public(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://")?;
    let host = rest.split('/').next()?;
    (host.contains('.') && !host.contains('@') && !host.contains(':'))
        .then(|| url.strip_suffix(".git").unwrap_or(url).to_owned())
}

/// Checks a tag that was given.
pub(super) fn check_tag(tag: &str) -> Result<()> {
    ensure!(
        tag != "latest",
        "--tag latest says nothing of what is in the image; leave --tag out, or give one of your own"
    );
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    ensure!(
        !tag.is_empty() && tag.len() <= TAG_MAX && tag.chars().all(fine) && !tag.starts_with(['.', '-']),
        "--tag {tag}: a tag has 1 to {TAG_MAX} letters, digits, `_`, `.` or `-`, and begins with none of the last two"
    );
    Ok(())
}

/// `tag` with what all the images are made of: the same content always has the same name, and no other has it.
pub(super) fn unique(tag: &str, ids: &[&str]) -> Result<String> {
    let mut hash = Command::new("git");
    hash.args(["hash-object", "--stdin"]);
    let tag = format!("{tag}-{:.SHORT$}", super::answer_to(&mut hash, &ids.join("\n"))?.trim());
    check_tag(&tag)?;
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_version_commit_and_what_was_changed() {
        let source = |dirty: Option<&str>| Source {
            version: "0.1.0",
            commit: "de146f1278aa".to_owned(),
            committed: 0,
            created: String::new(),
            dirty: dirty.map(str::to_owned),
            url: None,
        };
        assert_eq!(source(None).tag(), "0.1.0-de146f12");
        assert_eq!(source(Some("0a1b2c3d")).tag(), "0.1.0-de146f12-dirty-0a1b2c3d");
    }

    #[test]
    fn tags_that_say_nothing_or_that_no_registry_takes_are_refused() {
        for tag in ["latest", "", "-a", ".a", "a/b", "a:b", "é", &"a".repeat(TAG_MAX + 1)] {
            assert!(check_tag(tag).is_err(), "{tag}");
        }
        for tag in ["1", "v1.2_3-x", "_", &"a".repeat(TAG_MAX)] {
            check_tag(tag).unwrap();
        }
    }

    #[test]
    fn a_unique_tag_follows_what_the_images_are() {
        let one = unique("1-a", &["sha256:1", "sha256:2"]).unwrap();
        assert_eq!(unique("1-a", &["sha256:1", "sha256:2"]).unwrap(), one);
        assert_ne!(unique("1-a", &["sha256:1", "sha256:3"]).unwrap(), one);
        assert!(one.starts_with("1-a-") && one.len() == 4 + SHORT, "{one}");
    }

    #[test]
    fn only_public_addresses_get_into_a_label() {
        assert_eq!(public("https://example.org/loco.git").as_deref(), Some("https://example.org/loco"));
        for url in [
            "/srv/git/loco",
            "file:///srv/loco",
            "git@example.org:loco",
            "https://u:p@example.org/x",
            "https://h:80/x",
            "https://h/x",
        ] {
            assert_eq!(public(url), None, "{url}");
        }
    }

    /// A file that git does not know yet makes another tree, and the checkout's own index does not learn of it.
    #[test]
    fn what_is_not_committed_counts_and_nothing_is_left() {
        let base = std::env::temp_dir().join(format!("loco-image-source-{}", std::process::id()));
        let checkout = base.join("checkout");
        fs::create_dir_all(&checkout).unwrap();
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(&checkout).args(["-c", "user.name=t", "-c", "user.email=t@example.org"]).args(args);
            git.answer().unwrap()
        };
        git(&["init", "--quiet"]);
        fs::write(checkout.join("a"), "1").unwrap();
        fs::write(checkout.join(".gitignore"), "product\n").unwrap();
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", "one"]);
        let dirs = Dirs::of(&checkout).unwrap();
        let read = || Source::read(&dirs).unwrap().dirty;
        assert_eq!(read(), None);
        fs::write(checkout.join("product"), "ignored").unwrap();
        assert_eq!(read(), None);
        fs::write(checkout.join("new"), "2").unwrap();
        let new = read();
        assert!(new.is_some());
        fs::write(checkout.join("new"), "3").unwrap();
        assert!(read().is_some() && read() != new);
        assert_eq!(git(&["status", "--porcelain"]), "?? new\n");
        fs::remove_dir_all(base).unwrap();
    }
}
