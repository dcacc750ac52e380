//! Makes an image of staged files with buildah, and tries the image as it would be shipped.
use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    contents::{Image, Trial},
    source::Source,
};
use crate::{
    dirs::Dirs,
    run::{self, Run as _},
};

/// Longest that a trial may take, in seconds. QEMU starts in half a second on an idle machine.
const TRIAL_LIMIT: &str = "60";

/// buildah with a store of its own, which is gone with it.
#[derive(Debug)]
pub(super) struct Buildah {
    home: PathBuf,
}

impl Buildah {
    pub(super) fn new(home: &Path) -> Self {
        Self { home: home.to_owned() }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new("buildah");
        // Nothing is run in the image while it is built, so nothing is isolated; and plain copies need no file system of
        // a certain kind.
        command.env("BUILDAH_ISOLATION", "chroot").args(["--storage-driver", "vfs", "--root"]);
        command.arg(self.home.join("root")).arg("--runroot").arg(self.home.join("run")).arg(verb);
        command
    }

    /// Builds `image` of the files in `staged` and gives its id: the hash of its configuration, `sha256:…`.
    pub(super) fn build(&self, dirs: &Dirs, image: &Image, staged: &Path, source: &Source) -> Result<String> {
        let context = self.home.join("empty");
        fs::create_dir_all(&context).with_context(|| format!("{}", context.display()))?;
        let id = self.home.join("id");
        let mut command = self.command("bud");
        // The other format's configuration has a host name and an id made up at each build; the id here would follow them.
        command.args(["--quiet", "--format", "oci", "--identity-label=false", "--target", image.name, "--iidfile"]);
        command.arg(&id).arg("--timestamp").arg(source.committed.to_string());
        // In the place of the stage that would do the same in a container.
        command.arg("--build-context").arg(format!("staged={}", staged.display()));
        let labels = [("created", source.created.as_str()), ("revision", &source.commit), ("version", source.version)];
        for (name, value) in labels {
            command.arg("--label").arg(format!("org.opencontainers.image.{name}={value}"));
        }
        if let Some(url) = &source.url {
            command.arg("--label").arg(format!("org.opencontainers.image.source={url}"));
        }
        command.arg("--file").arg(dirs.root().join("images/Containerfile")).arg(&context).answer()?;
        Ok(fs::read_to_string(&id).with_context(|| format!("{}", id.display()))?.trim().to_owned())
    }

    /// Writes the image as a file that `docker load`, `ctr images import`, `kind load` and `minikube image load` take.
    pub(super) fn save(&self, id: &str, reference: &str, tar: &Path) -> Result<()> {
        // buildah adds to an archive that is there.
        let new = tar.with_extension("tar.new");
        for old in [&new, tar] {
            if old.exists() {
                fs::remove_file(old).with_context(|| format!("cannot remove {}", old.display()))?;
            }
        }
        let mut to = std::ffi::OsString::from("docker-archive:");
        to.push(&new);
        to.push(format!(":{reference}"));
        self.command("push").args(["--quiet", id]).arg(to).answer()?;
        fs::rename(&new, tar).with_context(|| format!("cannot write {}", tar.display()))
    }

    /// Sends the image to its registry, and gives the digest by which it is known there.
    pub(super) fn push(&self, id: &str, reference: &str, plain_http: bool) -> Result<String> {
        let digest = self.home.join("digest");
        let mut push = self.command("push");
        push.args(["--quiet", "--digestfile"]).arg(&digest);
        if plain_http {
            push.arg("--tls-verify=false");
        }
        push.arg(id).arg(format!("docker://{reference}")).answer()?;
        Ok(fs::read_to_string(&digest).with_context(|| format!("{}", digest.display()))?.trim().to_owned())
    }
}

/// An image's file, unpacked.
struct Unpacked {
    root: PathBuf,
    user: String,
    env: Vec<String>,
    entrypoint: Vec<String>,
}

fn unpack(tar: &Path, into: &Path) -> Result<Unpacked> {
    if into.exists() {
        fs::remove_dir_all(into).with_context(|| format!("cannot remove {}", into.display()))?;
    }
    let (parts, root) = (into.join("archive"), into.join("root"));
    for dir in [&parts, &root] {
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    }
    let untar = |file: &Path, to: &Path| Command::new("tar").arg("-xpf").arg(file).arg("-C").arg(to).answer().map(drop);
    untar(tar, &parts)?;
    let read = |name: &str| -> Result<Value> {
        let path = parts.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
    };
    let manifest = read("manifest.json")?;
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    for layer in words(&manifest[0]["Layers"]) {
        untar(&parts.join(layer), &root)?;
    }
    // The one place that every pod of ours may write to.
    let tmp = root.join("tmp");
    fs::create_dir_all(&tmp).and_then(|()| fs::set_permissions(&tmp, Permissions::from_mode(0o1777)))?;
    let config = &read(manifest[0]["Config"].as_str().context("the archive names no configuration")?)?["config"];
    Ok(Unpacked {
        root,
        user: config["User"].as_str().filter(|user| !user.is_empty()).unwrap_or("0:0").to_owned(),
        env: words(&config["Env"]),
        entrypoint: words(&config["Entrypoint"]),
    })
}

/// Unpacks the file and starts what is in it, as the user that it names and with nothing else around it.
pub(super) fn try_out(image: &Image, tar: &Path, work: &Path) -> Result<()> {
    let unpacked = unpack(tar, work)?;
    let first = image.trials[0].argv[0];
    ensure!(
        unpacked.entrypoint.first().map(String::as_str) == Some(first),
        "the entry point of {} is {:?}, and {first} is tried",
        image.name,
        unpacked.entrypoint
    );
    for trial in image.trials {
        let words = trial.argv.join(" ");
        try_one(&unpacked, trial).with_context(|| format!("the image {} does not run `{words}`", image.name))?;
    }
    fs::remove_dir_all(work).with_context(|| format!("cannot remove {}", work.display()))
}

fn try_one(image: &Unpacked, trial: &Trial) -> Result<()> {
    let mut command = Command::new("timeout");
    command.arg(TRIAL_LIMIT);
    if !run::is_root() {
        // Root of a namespace of its own may change the root directory; it is the user of the image to nobody else.
        command.args(["unshare", "--user", "--map-root-user"]);
    }
    command.arg("chroot");
    if run::is_root() {
        command.arg(format!("--userspec={}", image.user));
    }
    command.arg(&image.root).args(trial.argv).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(image.env.iter().filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name != "PATH"));
    let mut child = command.spawn().context("cannot run chroot")?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    stdin.write_all(trial.stdin.as_bytes()).context("it does not read its input")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said = format!("{}\n{}", out.trim(), err.trim());
    ensure!(output.status.success(), "{}: {}", output.status, said.trim());
    ensure!(said.contains(trial.says), "it does not say `{}`, but: {}", trial.says, said.trim());
    Ok(())
}
