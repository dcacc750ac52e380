//! `loco instance move ID --lan NAME`: a guest goes from one LAN to another and is not restarted.
//!
//! ```text
//! wall:        snapshot.json ──> the seat is found, or refused in words ──> the file is replaced ──┐
//! Kubernetes:  kubectl annotate pod, with the rights of who calls it ──> every agent's directory ──┴──> each makes its own part so
//! ```
//! **Invariant.** Nothing is changed unless all of the new directory holds: what is refused leaves the guest where it is.
use std::fs::File;

use anyhow::{Context as _, Result};
use api::snapshot::SnapshotFile;
use clap::Args;
use model::{InstanceId, LanName, PlacedInstance, Seat, Snapshot};

use crate::{
    deploy::{Cmd, answer},
    lan::Answer,
    paths::Paths,
    state,
};

/// The pod's annotation that says where its guest was moved to; the directory reads it (`crates/directory`).
const MOVED_TO: &str = "loco.dev/moved-to";

#[derive(Debug, Args)]
pub(crate) struct MoveFlags {
    /// The instance, as `loco status` names it
    #[arg(value_name = "ID")]
    instance: InstanceId,
    /// The LAN it goes to
    #[arg(long, value_name = "NAME")]
    lan: LanName,
    /// The seat there, from 0; when left out the one that it was started at, else the first that is nobody's
    #[arg(long, value_name = "N")]
    seat: Option<u8>,
    /// Not a guest of this machine's wall but a pod of this namespace; the seat must then be given
    #[arg(long, value_name = "NAME", requires = "seat")]
    namespace: Option<String>,
    /// Context of kubectl
    #[arg(long, value_name = "NAME", requires = "namespace")]
    context: Option<String>,
    /// How kubectl is called
    #[arg(long, env = "LOCO_KUBECTL", value_name = "WORDS", default_value = "kubectl")]
    kubectl: String,
}

impl MoveFlags {
    /// What notes the move at the guest's pod.
    fn annotate(&self, namespace: &str, seat: u8) -> Cmd {
        let context = self.context.iter().flat_map(|context| ["--context", context]).map(str::to_owned);
        let (instance, place) = (self.instance.to_string(), format!("{MOVED_TO}={}/{seat}", self.lan));
        let words = ["--namespace", namespace, "annotate", "pod", &instance, &place, "--overwrite"].map(str::to_owned);
        Cmd::of(&self.kubectl, context.chain(words))
    }
}

pub(crate) async fn run(flags: &MoveFlags, paths: &Paths) -> Result<Answer> {
    if let (Some(namespace), Some(seat)) = (&flags.namespace, flags.seat) {
        answer(&flags.annotate(namespace, seat)).await?;
        let text = format!(
            "the pod of {} says that it is at seat {seat} of LAN {}; if it stays where it was, `/api/instances/discovery-info` says why",
            flags.instance, flags.lan
        );
        return Ok(Answer::Said { text, ok: true });
    }
    if !paths.wall().try_exists().with_context(|| format!("cannot look at {}", paths.wall().display()))? {
        return Ok(Answer::NothingRuns);
    }
    in_file(flags, paths)
}

/// In the directory of this machine's wall.
fn in_file(flags: &MoveFlags, paths: &Paths) -> Result<Answer> {
    let path = paths.snapshot();
    // Two moves at a time would each take the other's back.
    let locked = File::open(paths.run()).and_then(|run| run.lock().map(|()| run));
    let _lock = locked.with_context(|| format!("cannot lock {}; root is needed", paths.run().display()))?;
    let file: SnapshotFile = state::read_json(&path)?;
    let damaged = || format!("{} is damaged; run `loco down`", path.display());
    let before = Snapshot::try_from(file).with_context(damaged)?;
    let mut after = before.clone();
    if let Err(why) = after.move_to(&flags.instance, &flags.lan, flags.seat.map(Seat)) {
        return Ok(Answer::Usage(why.to_string()));
    }
    if after == before {
        return Ok(Answer::Said { text: format!("{} is there already", flags.instance), ok: true });
    }
    state::write_json(&path, &SnapshotFile::from(&after))?;
    let text = after.instance(&flags.instance).map(|placed| words(&after, placed)).unwrap_or_default();
    Ok(Answer::Said { text, ok: true })
}

fn words(snapshot: &Snapshot, placed: &PlacedInstance) -> String {
    let PlacedInstance { id, lan, seat, .. } = placed;
    let ip = snapshot.identity(placed).map(|identity| identity.ip.to_string()).unwrap_or_default();
    format!(
        "{id} goes to seat {} of LAN {lan}, where its address is {ip}; `loco lan show {lan}` shows it. A guest that keeps its old address is \
         to ask for a new one: in Windows 98 by `winipcfg`",
        seat.0
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plan::tests::wall;

    fn flags(instance: &str, lan: &str, seat: Option<u8>) -> MoveFlags {
        let (instance, lan) = (instance.parse().unwrap(), lan.parse().unwrap());
        MoveFlags {
            instance,
            lan,
            seat,
            namespace: None,
            context: None,
            kubectl: "cargo xtask tool kubectl --".to_owned(),
        }
    }

    #[test]
    fn in_a_cluster_the_pod_is_told_by_who_calls() {
        let flags = MoveFlags { context: Some("here".to_owned()), ..flags("instance-3", "party-2", None) };
        assert_eq!(
            flags.annotate("loco", 4).line(),
            "cargo xtask tool kubectl -- --context here --namespace loco annotate pod instance-3 loco.dev/moved-to=party-2/4 --overwrite"
        );
    }

    #[test]
    fn a_wall_s_directory_is_replaced_or_left_as_it_is() {
        let dir = std::env::temp_dir().join(format!("loco-move-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let paths = Paths::new(&dir, "/nonexistent");
        let wall = wall("--guests 4 --nodes 2 --lans 2");
        state::write_json(&paths.snapshot(), &wall.snapshot()).unwrap();
        let text = || fs::read_to_string(paths.snapshot()).unwrap();
        let from = wall.instances[0].clone();
        let to = wall.lans.iter().find(|lan| lan.name != from.lan).unwrap().name.clone();
        let untouched = text();
        for (refused, why) in [
            (flags("instance-99", &to, None), "no instance `instance-99`"),
            (flags(&from.id, "nowhere", None), "no LAN `nowhere`"),
            (flags(&from.id, &to, Some(0)), "is taken by"),
            (flags(&from.id, &to, Some(200)), "seat 200 does not exist"),
        ] {
            let Answer::Usage(said) = in_file(&refused, &paths).unwrap() else { panic!("{refused:?}") };
            assert!(said.contains(why), "{said}");
            assert_eq!(text(), untouched);
        }
        let Answer::Said { text: said, ok: true } = in_file(&flags(&from.id, &to, None), &paths).unwrap() else {
            panic!()
        };
        assert!(said.contains(&format!("of LAN {to}")), "{said}");
        let after = api::snapshot::parse(&text()).unwrap();
        let placed = after.instance(&from.id.parse().unwrap()).unwrap();
        assert_eq!((placed.lan.as_str(), placed.card.map(|card| card.seat().0)), (to.as_str(), Some(from.seat)));
        // Home again, and the file is the one of before.
        in_file(&flags(&from.id, &from.lan, None), &paths).unwrap();
        assert_eq!(text(), untouched);
        let Answer::Said { text: said, .. } = in_file(&flags(&from.id, &from.lan, None), &paths).unwrap() else {
            panic!()
        };
        assert!(said.contains("already"), "{said}");
        fs::remove_dir_all(dir).unwrap();
    }
}
