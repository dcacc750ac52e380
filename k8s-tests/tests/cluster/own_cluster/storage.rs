//! A guest's disk follows it: kept when its pod moves to another node, is deleted, and over `helm uninstall`.
//!
//! Of this cluster alone, as its nodes have one file system in common, which stands for a share that they mount.
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use kube::api::ListParams;

use crate::harness::{
    LONG, Wall,
    commands::{helm, kubectl, run},
    scenario_undone, until,
};

/// Who guests run as, in every image.
const GUEST: u32 = 10001;
/// What the guest has written before its disk is looked at: more than the record of an empty overlay.
const WRITTEN: u64 = 4 << 20;

/// What `storage.hostPath.path` names; gone with the test.
struct Share {
    dir: PathBuf,
}

impl Share {
    /// With a base image that boots into a guest that writes for ever.
    fn new() -> Result<Self> {
        let share = Self { dir: PathBuf::from(format!("/srv/loco-test-{}", std::process::id())) };
        let (base, disks) = (share.dir.join("base"), share.disks());
        fs::create_dir_all(&base)?;
        fs::create_dir_all(&disks)?;
        let image = base.join("writer.img");
        fs::write(&image, testkit::writer_boot_sector())?;
        fs::File::options().write(true).open(&image)?.set_len(256 << 20)?;
        fs::set_permissions(&image, fs::Permissions::from_mode(0o644))?;
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
        // As docs/install.md has it.
        chown(&disks, None, Some(GUEST))?;
        fs::set_permissions(&disks, fs::Permissions::from_mode(0o2770))?;
        Ok(share)
    }

    fn disks(&self) -> PathBuf {
        self.dir.join("disks")
    }

    fn values(&self) -> Vec<String> {
        let path = format!("storage.hostPath.path={}", self.dir.display());
        let of = [
            "lans[0].replicas=2",
            "guest.kind=disk",
            "guest.memory=64",
            "storage.mode=hostPath",
            "storage.lifetime=persistent",
            "storage.base.file=writer.img",
            "storage.overlay.size=1Gi",
            "storage.hostPath.shared=true",
            &path,
        ];
        of.map(str::to_owned).to_vec()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The overlay's file: which it is, and how much is in it.
fn overlay(disks: &Path) -> Result<(u64, u64)> {
    let path = disks.join("instance-0/overlay.qcow2");
    let data = fs::metadata(&path).with_context(|| format!("{}", path.display()))?;
    Ok((data.ino(), data.len()))
}

/// The guests' pods, and what they claim, are gone: Kubernetes refuses to change the claims of a `StatefulSet`.
async fn no_guests(wall: &Wall) -> Result<()> {
    // Those of every LAN: one without guests has the same claims in its template.
    let all = ["delete", "statefulset", "-l", "app.kubernetes.io/component=instance"];
    run(kubectl().args(["-n", &wall.namespace]).args(all)).await?;
    until(LONG, "no guest", async || {
        // Other scenarios' peers sit on the LAN, too, and are no guests.
        let selector = "app.kubernetes.io/component=instance,loco.dev/lan=party";
        let pods = wall.pods().list(&ListParams::default().labels(selector)).await?;
        ensure!(pods.items.is_empty(), "{} are left", pods.items.len());
        Ok(())
    })
    .await
}

async fn ready(wall: &Wall) -> Result<String> {
    until(LONG, "instance-0 to be ready", async || {
        let pod = wall.pods().get("instance-0").await?;
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        ensure!(pod.metadata.deletion_timestamp.is_none(), "it is on its way out");
        ensure!(conditions.iter().any(|is| is.type_ == "Ready" && is.status == "True"), "it is not");
        pod.spec.and_then(|spec| spec.node_name).context("it is nowhere")
    })
    .await
}

/// The runner's word, beside the file's own identity.
async fn kept(wall: &Wall, disks: &Path, before: (u64, u64)) -> Result<()> {
    let log = run(kubectl().args(["-n", &wall.namespace, "logs", "instance-0"])).await?;
    ensure!(log.contains("fresh=false"), "the runner began a new disk: {log}");
    let now = overlay(disks)?;
    ensure!(now.0 == before.0 && now.1 >= before.1, "the disk was {before:?} (inode, bytes) and is {now:?}");
    Ok(())
}

async fn play(wall: &Wall, share: &Share) -> Result<()> {
    let disks = share.disks();
    let values = share.values();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    wall.upgrade(&values).await?;
    let first = ready(wall).await?;
    let written = until(LONG, "the guest to write", async || {
        let is = overlay(&disks)?;
        ensure!(is.1 > WRITTEN, "{} bytes", is.1);
        Ok(is)
    })
    .await?;
    // Away from its node.
    run(kubectl().args(["cordon", &first])).await?;
    run(kubectl().args(["-n", &wall.namespace, "delete", "pod", "instance-0"])).await?;
    let second = ready(wall).await;
    run(kubectl().args(["uncordon", &first])).await?;
    ensure!(second? != first, "it did not move");
    kept(wall, &disks, written).await?;
    // Over the end of the release.
    let before = overlay(&disks)?;
    run(helm().args(["uninstall", "loco", "-n", &wall.namespace, "--wait", "--timeout", "240s"])).await?;
    no_guests(wall).await?;
    wall.upgrade(&values).await?;
    ready(wall).await?;
    kept(wall, &disks, before).await
}

/// Neither guests nor what they claimed.
async fn nothing_kept(wall: &Wall) -> Result<()> {
    no_guests(wall).await?;
    let claims = ["disk-instance-0", "disk-instance-1", "loco-base"];
    run(kubectl().args(["-n", &wall.namespace, "delete", "pvc", "--ignore-not-found"]).args(claims)).await?;
    run(kubectl().args(["delete", "pv", "-l", "app.kubernetes.io/part-of=loco"])).await?;
    wall.upgrade(&[]).await
}

#[tokio::test]
#[ignore = "cluster: run by `cargo xtask test --cluster`"]
async fn a_persistent_disk_follows_its_guest_and_outlives_the_release() {
    scenario_undone(
        "persistent-disk",
        async |wall| {
            let share = Share::new()?;
            no_guests(wall).await?;
            play(wall, &share).await
        },
        // Other scenarios' guests have no claims.
        nothing_kept,
    )
    .await;
}
