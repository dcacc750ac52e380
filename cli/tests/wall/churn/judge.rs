//! Whether the judge of a rest sees what is wrong: a wall is spoilt by what no agent mends, and each of it has to be named.
//!
//! A run without a word proves something only if there would have been one.
use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    TUNNEL, fabric,
    fault::{self, DAMAGES, Directory, Step},
    held::Held,
    node_netns, rest, run_dir,
};
use crate::status;

/// Until a game's silence is judged: losses are of the last minute, and the doctor looks at as much.
const NAMED_WITHIN: Duration = Duration::from_secs(75);
const MOUNT: &str = "/run/loco-churn-spoilt";

/// Waits until each of `words` is in what is said to be wrong.
fn named(words: &[&str], underlay: &[String], first: &Held) {
    let began = Instant::now();
    loop {
        let mut wrong = rest::wrong(underlay);
        wrong.extend(Held::now().map(|held| held.more_than(first)).unwrap_or_default());
        let missing: Vec<_> = words.iter().filter(|word| !wrong.iter().any(|said| said.contains(**word))).collect();
        if missing.is_empty() {
            return;
        }
        assert!(began.elapsed() < NAMED_WITHIN, "spoilt, and {missing:?} is not said: {wrong:#?}");
        thread::sleep(Duration::from_millis(500));
    }
}

fn done(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// More is held than at first: a link, a mount, a process, a pin. All is as before afterwards.
pub(super) fn names_what_is_kept(underlay: &[String], first: &Held) {
    let pin = format!("{}/bpf/spoilt", run_dir(1));
    assert!(fault::shell(&node_netns(0), "ip link add spoilt0 type veth peer name spoilt1"));
    fs::create_dir(MOUNT).unwrap();
    done("mount", &["-n", "-t", "tmpfs", "none", MOUNT]);
    std::os::unix::fs::symlink("nothing", &pin).unwrap();
    let mut process = Command::new("sleep").arg("600").spawn().unwrap();

    named(&["links: ", "mounts: ", "processes: ", "pins: "], underlay, first);

    process.kill().unwrap();
    process.wait().unwrap();
    fs::remove_file(&pin).unwrap();
    done("umount", &["-n", MOUNT]);
    fs::remove_dir(MOUNT).unwrap();
    assert!(fault::shell(&node_netns(0), "ip link del spoilt0"));
}

/// Two nodes stay parted, a seat stays away from the directory, and a table stays damaged as its agent stands still. All is mended afterwards.
pub(super) fn names_what_does_not_play(underlay: &[String], first: &Held, directory: &mut Directory) {
    let now = status();
    let on = |node: usize| &now.instances.iter().find(|instance| instance.node == now.nodes[node].name).unwrap().id;
    let agent = now.nodes[0].agent_pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw).unwrap();
    let flushed = DAMAGES.iter().position(|(_, line)| line.contains("fdb flush")).unwrap();

    assert!(fault::one(Step::Leave(8), directory));
    named(&["instance-8 is "], underlay, first);
    assert!(fault::one(Step::Join(8), directory));
    // Who joins is silent as well for a while, and that is not what comes next.
    drop(super::come_to_rest(underlay, Some(first)).unwrap_or_else(|wrong| panic!("{wrong:#?}")));

    assert!(fault::one(Step::Cut(1, 2), directory));
    named(&["underlay-blocked: ", "no frames from ", &format!("{} to {}", on(1), on(2))], underlay, first);
    assert!(fault::one(Step::Mend(1, 2), directory));

    kill(agent, Signal::SIGSTOP).unwrap();
    assert!(fault::one(Step::Damage(0, flushed), directory), "{TUNNEL} in {}", fabric(0));
    named(&["node-a has the rows "], underlay, first);
    kill(agent, Signal::SIGCONT).unwrap();
}
