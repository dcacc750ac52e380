//! `loco status`: what the supervisor runs, joined with what the gateway has heard from the agents.
//!
//! **Invariant.** No state is invented: without a word from the gateway an instance is `starting` while its runner
//! runs, `recovering` while it is being started again, `stopped` once its guest switched itself off.
use std::{collections::HashMap, fmt::Write as _, fs, io, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api::{
    agent::State as Word,
    gateway::LiveInstances,
    status::{Status, StatusInstance, StatusNode},
};
use model::Snapshot;

use crate::{
    down,
    paths::Paths,
    plan::{Wall, agent_url},
    processes, secrets,
    state::{self, Role, State},
};

/// What is known of a wall, and why it is not more.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) status: Status,
    /// For people, one line each: who does not answer, and what that means for the states.
    pub(crate) problems: Vec<String>,
}

/// `None`: nothing runs.
pub(crate) async fn read(paths: &Paths) -> Result<Option<Report>> {
    if let Err(error) = fs::metadata(paths.wall()) {
        // A directory that cannot be looked into is not one that is not there.
        ensure!(error.kind() == io::ErrorKind::NotFound, "cannot look at {}: {error}", paths.wall().display());
        return Ok(None);
    }
    let supervisor = down::supervisor(paths);
    if supervisor.is_none() && processes::of_wall(paths).is_empty() {
        // Without root neither is visible; the file's own permissions then say why.
        fs::File::open(paths.wall())
            .with_context(|| format!("cannot read {}; root is needed", paths.wall().display()))?;
        return Ok(None);
    }
    let wall: Wall = state::read_json(&paths.wall())?;
    let mut state = State::read(paths).unwrap_or_else(|_| State { supervisor_pid: 0, children: Vec::new() });
    let token = secrets::read(paths)?;
    let mut problems = Vec::new();
    if supervisor.is_none() {
        problems.push("the supervisor is gone, so nothing is started again: `loco down`, then `loco up`".to_owned());
        // Nobody writes them down any more.
        for child in &mut state.children {
            child.pid = child.pid.filter(|pid| i32::try_from(*pid).is_ok_and(processes::is_alive));
        }
    }
    let live = match live(&wall, &token).await {
        Ok(live) => Some(live),
        Err(error) => {
            problems.push(format!("states are the supervisor's only: {error:#}"));
            None
        }
    };
    // Where the guests are now: some may have been moved.
    let snapshot = fs::read_to_string(paths.snapshot()).map_err(anyhow::Error::from);
    let snapshot = snapshot.and_then(|text| Ok(api::snapshot::parse(&text)?));
    let snapshot = snapshot.with_context(|| format!("{} is damaged; run `loco down`", paths.snapshot().display()))?;
    let mut status = merge(&wall, &snapshot, &state, &token, live.as_ref())?;
    for instance in status.instances.iter_mut().filter(|instance| instance.qemu_pid.is_none()) {
        let runner = instance.runner_pid.and_then(|pid| i32::try_from(pid).ok());
        let qemu = runner.and_then(processes::qemu_of);
        instance.qemu_pid = qemu.and_then(|pid| u32::try_from(pid).ok());
    }
    Ok(Some(Report { status, problems }))
}

/// Asks the gateway.
pub(crate) async fn live(wall: &Wall, token: &str) -> Result<LiveInstances> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).no_proxy().build()?;
    let url = format!("{}/api/instances/live", wall.base_url());
    let answer = client.get(&url).bearer_auth(token).send().await.with_context(|| format!("{url} does not answer"))?;
    let answer = answer.error_for_status()?;
    answer.json().await.with_context(|| format!("{url} answered something else"))
}

/// Joins the plan, the supervisor's state and the gateway's view.
pub(crate) fn merge(
    wall: &Wall,
    snapshot: &Snapshot,
    state: &State,
    token: &str,
    live: Option<&LiveInstances>,
) -> Result<Status> {
    let heard: HashMap<&str, _> =
        live.iter().flat_map(|live| &live.instances).map(|instance| (instance.id.as_str(), instance)).collect();
    let nodes = wall.nodes.iter().map(|node| StatusNode {
        name: node.name.clone(),
        agent_pid: state.pid(&Role::Agent(node.name.clone())),
        agent_url: agent_url(node.ip),
    });
    let mut instances = Vec::with_capacity(wall.instances.len());
    let planned = Snapshot::try_from(wall.snapshot())?;
    for plan in &wall.instances {
        let id = plan.id.parse()?;
        // One that somebody took out of the directory's file still has its runner, and is told at the seat that it was started for.
        let known = [snapshot, &planned].into_iter().find_map(|directory| Some((directory, directory.instance(&id)?)));
        let (directory, placed) = known.with_context(|| format!("{id} is nowhere in the plan; run `loco down`"))?;
        let identity = directory.identity(placed).context("an instance without its LAN")?;
        let runner = state.child(&Role::Runner(plan.id.clone()));
        let heard = heard.get(plan.id.as_str());
        let word = match (runner, heard) {
            (Some(runner), _) if runner.off => Word::Stopped,
            (_, Some(heard)) => heard.state,
            (Some(runner), None) if runner.pid.is_none() && runner.starts > 0 => Word::Recovering,
            (_, None) => Word::Starting,
        };
        instances.push(StatusInstance {
            id: plan.id.clone(),
            name: heard.map_or_else(|| format!("Seat {}", u16::from(placed.seat.0) + 1), |heard| heard.name.clone()),
            node: plan.node.clone(),
            lan: placed.lan.to_string(),
            seat: placed.seat.0,
            mac: identity.mac.to_string(),
            ip: identity.ip.to_string(),
            state: word,
            qemu_pid: heard.and_then(|heard| heard.status.as_ref()?.qemu_pid),
            runner_pid: runner.and_then(|runner| runner.pid),
        });
    }
    Ok(Status { url: wall.page_url(token), token: token.to_owned(), nodes: nodes.collect(), instances })
}

pub(crate) fn word(state: Word) -> &'static str {
    match state {
        Word::Starting => "starting",
        Word::Live => "live",
        Word::Recovering => "recovering",
        Word::Failed => "failed",
        Word::Stopped => "stopped",
    }
}

/// For people: nodes, then instances, then the page.
pub(crate) fn table(status: &Status) -> String {
    let pid = |pid: Option<u32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let mut rows = vec![["NODE", "AGENT", "URL", "", "", "", "", ""].map(str::to_owned)];
    rows.extend(status.nodes.iter().map(|node| {
        let empty = String::new;
        [node.name.clone(), pid(node.agent_pid), node.agent_url.clone(), empty(), empty(), empty(), empty(), empty()]
    }));
    let mut text = columns(&rows);
    let head = ["INSTANCE", "STATE", "NODE", "LAN", "SEAT", "IP", "MAC", "QEMU"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(status.instances.iter().map(|i| {
        let (seat, word) = (i.seat.to_string(), word(i.state).to_owned());
        [i.id.clone(), word, i.node.clone(), i.lan.clone(), seat, i.ip.clone(), i.mac.clone(), pid(i.qemu_pid)]
    }));
    text.push('\n');
    text.push_str(&columns(&rows));
    text + &format!("\n{}\n", status.url)
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _infallible = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::tests::wall, state::ChildState};

    fn heard(id: &str, state: &str) -> LiveInstances {
        serde_json::from_value(serde_json::json!({
            "mode": "file",
            "stats": {"total": 1, "ready": 1, "degraded": 0, "notReady": 0},
            "instances": [{"id": id, "name": "Seat 1", "lan": "party", "seat": 0, "node": "node-a", "mac": "", "ip": "", "state": state}],
        }))
        .unwrap()
    }

    /// The directory as `up` writes it.
    fn of(wall: &Wall) -> Snapshot {
        wall.snapshot().try_into().unwrap()
    }

    fn runner(instance: &str, pid: Option<u32>, starts: u32, off: bool) -> ChildState {
        ChildState { pid, starts, off, ..ChildState::new(Role::Runner(instance.to_owned())) }
    }

    #[test]
    fn who_is_out_of_the_directory_is_told_at_its_own_seat_with_all_others() {
        let wall = wall("--guests 4 --nodes 1");
        let whole = of(&wall);
        let here: Vec<_> = whole.instances().filter(|instance| instance.id.as_str() != "instance-1").cloned().collect();
        let less = Snapshot::new(whole.lans().cloned(), whole.nodes().cloned(), here).unwrap();
        let state = State { supervisor_pid: 1, children: vec![runner("instance-1", Some(11), 1, false)] };
        let status = merge(&wall, &less, &state, "t", None).unwrap();
        let as_planned = merge(&wall, &whole, &state, "t", None).unwrap();
        assert_eq!(status.instances, as_planned.instances);
        assert_eq!(status.instances[1].runner_pid, Some(11));
    }

    #[test]
    fn joins_what_the_gateway_and_the_supervisor_know() {
        let wall = wall("--guests 4 --nodes 1");
        let children = vec![
            runner("instance-0", Some(10), 1, false),
            runner("instance-1", Some(11), 1, false),
            runner("instance-2", None, 3, false),
            runner("instance-3", None, 1, true),
        ];
        let state = State { supervisor_pid: 1, children };
        let words = |live: Option<&LiveInstances>| {
            let status = merge(&wall, &of(&wall), &state, "t", live).unwrap();
            status.instances.iter().map(|i| word(i.state)).collect::<Vec<_>>()
        };
        assert_eq!(words(Some(&heard("instance-0", "live"))), ["live", "starting", "recovering", "stopped"]);
        assert_eq!(words(None), ["starting", "starting", "recovering", "stopped"]);
        assert_eq!(words(Some(&heard("instance-3", "recovering")))[3], "stopped");
        let status = merge(&wall, &of(&wall), &state, "t", None).unwrap();
        assert_eq!((status.instances[1].runner_pid, status.instances[2].runner_pid), (Some(11), None));
        assert_eq!(
            (status.instances[2].mac.as_str(), status.instances[2].ip.as_str()),
            ("02:4c:00:10:68:03", "10.98.0.3")
        );
    }

    #[test]
    fn the_table_is_aligned_and_ends_with_the_page() {
        let state = State { supervisor_pid: 1, children: Vec::new() };
        let wall = wall("--guests 1 --nodes 1");
        let text = table(&merge(&wall, &of(&wall), &state, "t", None).unwrap());
        let want = "NODE    AGENT  URL\n\
                    node-a  -      http://10.99.0.11:14780\n\
                    \n\
                    INSTANCE    STATE     NODE    LAN    SEAT  IP         MAC                QEMU\n\
                    instance-0  starting  node-a  party  0     10.98.0.1  02:4c:00:10:68:01  -\n\
                    \n\
                    http://127.0.0.1:8080/#token=t\n";
        assert_eq!(text, want);
    }

    #[tokio::test]
    async fn nothing_runs_where_nothing_is() {
        assert!(read(&Paths::new("/nonexistent/loco", "/nonexistent")).await.unwrap().is_none());
    }
}
