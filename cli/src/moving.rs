//! `loco instance move ID --lan NAME`: a guest goes from one LAN to another and is not restarted.
//!
//! ```text
//! wall:        snapshot.json ──> the seat is found, or refused in words ──> the file is replaced ──┐
//! Kubernetes:  kubectl annotate pod, with the rights of who calls it ──> every agent's directory ──┴──> each makes its own part so
//! ```
//! **Invariant.** Nothing is changed unless all of the new directory holds: what is refused leaves the guest where it is.
use std::fs::File;

use anyhow::{Context as _, Result};
use api::{MOVED_TO, snapshot::SnapshotFile};
use clap::Args;
use model::{InstanceId, LanName, PlacedInstance, Seat, Snapshot};

use crate::{
    deploy::{Cmd, answer},
    lan::Answer,
    paths::Paths,
    state,
};

#[derive(Debug, Args)]
pub(crate) struct MoveFlags {
    /// The instance, as `loco status` names it
    #[arg(value_name = "ID")]
    instance: InstanceId,
    /// The LAN it goes to
    #[arg(long, value_name = "NAME")]
    lan: LanName,
    /// The seat there, from 0; when left out the one where it is if that is in this LAN, else the one that it was started at, else the first that
    /// is nobody's
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
    fn kubectl(&self, words: &[&str]) -> Cmd {
        let context = self.context.iter().flat_map(|context| ["--context", context]);
        Cmd::of(&self.kubectl, context.chain(words.iter().copied()).map(str::to_owned))
    }

    /// What notes the move at the guest's pod.
    fn annotate(&self, namespace: &str, place: &str) -> Cmd {
        let note = format!("{MOVED_TO}={place}");
        self.kubectl(&["--namespace", namespace, "annotate", "pod", self.instance.as_str(), &note, "--overwrite"])
    }

    /// In Kubernetes' directory.
    async fn in_pods(&self, namespace: &str, seat: u8) -> Result<Answer> {
        let place = format!("{}/{seat}", self.lan);
        // Of two pods that ask for one seat the newer gets it: whoever plays there would be thrown out.
        let pods = answer(&self.kubectl(&["--namespace", namespace, "get", "pods", "--output", "json"])).await?;
        let pods = serde_json::from_str(&pods).context("kubectl did not answer with JSON")?;
        if let Some(by) = asks_for(&pods, (self.lan.as_str(), seat)).find(|by| *by != self.instance.as_str()) {
            let text = format!(
                "seat {seat} of LAN {} is that of pod `{by}`, by its annotation {MOVED_TO}; choose another one",
                self.lan
            );
            return Ok(Answer::Usage(text));
        }
        answer(&self.annotate(namespace, &place)).await?;
        let text = format!(
            "the pod of {} asks for seat {seat} of LAN {}; if the guest stays where it was, `/api/instances/discovery-info` says why",
            self.instance, self.lan
        );
        Ok(Answer::Said { text, ok: true })
    }
}

pub(crate) async fn run(flags: &MoveFlags, paths: &Paths) -> Result<Answer> {
    if let (Some(namespace), Some(seat)) = (&flags.namespace, flags.seat) {
        return flags.in_pods(namespace, seat).await;
    }
    if !paths.wall().try_exists().with_context(|| format!("cannot look at {}", paths.wall().display()))? {
        return Ok(Answer::NothingRuns);
    }
    in_file(flags, paths)
}

/// Names of the pods whose annotation says that place. Of one that has ended it says nothing any more.
fn asks_for<'a>(pods: &'a serde_json::Value, place: (&'a str, u8)) -> impl Iterator<Item = &'a str> {
    let runs = |pod: &&serde_json::Value| !["Failed", "Succeeded"].map(Some).contains(&pod["status"]["phase"].as_str());
    let asks = move |pod: &&serde_json::Value| {
        let says = pod["metadata"]["annotations"][MOVED_TO].as_str().and_then(|says| says.split_once('/'));
        says.and_then(|(lan, seat)| Some((lan, seat.parse().ok()?))) == Some(place)
    };
    let pods = pods["items"].as_array().into_iter().flatten();
    pods.filter(runs).filter(asks).filter_map(|pod| pod["metadata"]["name"].as_str())
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
            flags.annotate("loco", "party-2/4").line(),
            "cargo xtask tool kubectl -- --context here --namespace loco annotate pod instance-3 loco.dev/moved-to=party-2/4 --overwrite"
        );
    }

    #[tokio::test]
    async fn nobody_is_thrown_out_of_a_seat_in_a_cluster() {
        let pods = r#"{"items":[{"metadata":{"name":"o-1","annotations":{"loco.dev/moved-to":"party-2/04"}}},{"metadata":{"name":"o-2"}},
            {"metadata":{"name":"o-3","annotations":{"loco.dev/moved-to":"party-2/5"}},"status":{"phase":"Failed"}}]}"#;
        let dir = std::env::temp_dir().join(format!("loco-pods-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let kubectl = dir.join("kubectl");
        // It notes what it is asked, and answers with the pods.
        let text = format!("#!/bin/sh\necho \"$@\" >>{0}/calls\ncat {0}/pods\n", dir.display());
        fs::write(dir.join("pods"), pods).unwrap();
        fs::write(&kubectl, text).unwrap();
        let told = async |instance: &str, seat: u8| {
            let flags =
                MoveFlags { kubectl: format!("sh {}", kubectl.display()), ..flags(instance, "party-2", Some(seat)) };
            flags.in_pods("loco", seat).await.unwrap()
        };
        let Answer::Usage(said) = told("instance-3", 4).await else { panic!() };
        assert!(said.contains("pod `o-1`"), "{said}");
        for (instance, seat) in [("o-1", 4), ("instance-3", 5)] {
            assert!(matches!(told(instance, seat).await, Answer::Said { ok: true, .. }));
        }
        let calls = fs::read_to_string(dir.join("calls")).unwrap();
        let annotated: Vec<_> = calls.lines().filter(|call| call.contains(" annotate ")).collect();
        assert_eq!(annotated.len(), 2, "{calls}");
        assert!(annotated[1].ends_with("annotate pod instance-3 loco.dev/moved-to=party-2/5 --overwrite"), "{calls}");
        fs::remove_dir_all(dir).unwrap();
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
