//! The plugin against the other side of the protocol, over real Unix sockets: registration, lists, allocation, and every way in
//! which a kubelet and an agent lose each other.
#![expect(clippy::unwrap_used, reason = "tests, and helpers of tests")]

use std::{path::PathBuf, time::Duration};

use plugin::{
    Metrics, Plugin, PluginConfig, PluginError, PodResources, RESOURCE, Slot, State,
    peer::{Kubelet, Lists, Registered},
    slots::Doors,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// Long enough for a starved machine.
const SOON: Duration = Duration::from_secs(20);

struct Node {
    dir: PathBuf,
    doors: watch::Sender<Doors>,
}

impl Node {
    fn new(name: &str, slots: u16) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-plugin-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self { dir, doors: watch::Sender::new((0..slots).map(|n| (Slot(n), true)).collect()) }
    }

    /// An agent's plugin; aborting the task is the agent's death.
    fn agent(&self) -> (JoinHandle<()>, watch::Receiver<State>) {
        let config = PluginConfig { kubelet_dir: self.dir.clone(), seats_dir: "/run/loco/seats".into() };
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let plugin = Plugin::new(config, self.doors.subscribe(), metrics);
        let state = plugin.state();
        (tokio::spawn(async move { match plugin.run().await {} }), state)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

async fn registered(kubelet: &mut Kubelet) -> Registered {
    timeout(SOON, kubelet.registered()).await.expect("registers in time").expect("kubelet lives")
}

async fn next(lists: &mut Lists) -> Option<Vec<(String, bool)>> {
    timeout(SOON, lists.next()).await.expect("a list in time")
}

async fn until(state: &mut watch::Receiver<State>, want: impl Fn(&State) -> bool) -> State {
    timeout(SOON, state.wait_for(want)).await.expect("in time").expect("the plugin lives").clone()
}

#[tokio::test]
async fn a_plugin_registers_lists_prefers_and_allocates() {
    let node = Node::new("whole", 3);
    let mut kubelet = Kubelet::start(&node.dir).unwrap();
    let (agent, mut state) = node.agent();
    let said = registered(&mut kubelet).await;
    let want = Registered {
        version: "v1beta1".into(),
        endpoint: "loco.sock".into(),
        resource: RESOURCE.into(),
        pre_start_required: false,
    };
    assert_eq!(said, want);
    let mut caller = kubelet.call(&said.endpoint).await.unwrap();
    let mut lists = caller.watch().await.unwrap();
    let all = |open: [bool; 3]| Some((0..3).map(|n| (format!("slot-{n}"), open[n])).collect::<Vec<_>>());
    assert_eq!(next(&mut lists).await, all([true; 3]));
    until(&mut state, |state| *state == State::Watched).await;

    assert_eq!(caller.prefer(&["slot-2", "slot-1", "slot-0"], 1).await.unwrap(), ["slot-0"]);
    let given = caller.allocate(&["slot-1"]).await.unwrap();
    assert_eq!(given.mounts, [("/run/loco/seats/slot-1".into(), "/run/loco-seat".into(), true)]);
    assert_eq!(given.envs["LOCO_AGENT_SOCKET"], "/run/loco-seat/agent.sock");
    for wrong in [vec![], vec!["slot-0", "slot-1"], vec!["slot-9"]] {
        let refusal = caller.allocate(&wrong).await.unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::FailedPrecondition, "{refusal}");
        assert!(refusal.message().contains(';'), "{refusal}");
    }

    // A door that shuts is told at once, and no container gets it.
    let door = |open| node.doors.send_modify(|doors| *doors.get_mut(&Slot(1)).unwrap() = open);
    door(false);
    assert_eq!(next(&mut lists).await, all([true, false, true]));
    assert!(caller.allocate(&["slot-1"]).await.unwrap_err().message().contains("shut"));
    door(true);
    assert_eq!(next(&mut lists).await, all([true; 3]));
    agent.abort();
    assert_eq!(next(&mut lists).await, None, "an agent that dies ends the list: the kubelet gives nothing away then");
    assert!(agent.await.unwrap_err().is_cancelled());
    assert!(!node.dir.join("device-plugins/loco.sock").exists(), "one that ends in order leaves nothing");
}

#[tokio::test]
async fn a_kubelet_that_is_restarted_meets_the_plugin_again() {
    let node = Node::new("restart", 1);
    let (_agent, mut state) = node.agent();
    // No kubelet yet: said in words, and waited for.
    let State::Away(why) =
        until(&mut state, |state| matches!(state, State::Away(why) if why.contains("kubelet-dir"))).await
    else {
        panic!("not away");
    };
    assert!(why.contains("kubelet.sock"), "{why}");
    for round in 0..3 {
        let mut kubelet = Kubelet::start(&node.dir).unwrap();
        let said = registered(&mut kubelet).await;
        let mut caller = kubelet.call(&said.endpoint).await.unwrap();
        let mut lists = caller.watch().await.unwrap();
        assert_eq!(next(&mut lists).await, Some(vec![("slot-0".to_owned(), true)]), "round {round}");
        until(&mut state, |state| *state == State::Watched).await;
        drop((lists, caller));
        until(&mut state, |state| *state != State::Watched).await;
        kubelet.stop();
    }
}

#[tokio::test]
async fn a_kubelet_that_stops_watching_is_asked_again() {
    let node = Node::new("unwatched", 1);
    let mut kubelet = Kubelet::start(&node.dir).unwrap();
    let (_agent, mut state) = node.agent();
    let said = registered(&mut kubelet).await;
    let mut caller = kubelet.call(&said.endpoint).await.unwrap();
    let lists = caller.watch().await.unwrap();
    until(&mut state, |state| *state == State::Watched).await;
    drop(lists);
    until(&mut state, |state| *state == State::Unwatched).await;
    registered(&mut kubelet).await;
    assert!(kubelet.call(&said.endpoint).await.is_ok());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_removed_one_is_made_anew() {
    let node = Node::new("stale", 1);
    let mut kubelet = Kubelet::start(&node.dir).unwrap();
    let socket = node.dir.join("device-plugins/loco.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_err(), "what an agent that died left");
    let (_agent, _state) = node.agent();
    let said = registered(&mut kubelet).await;
    let mut caller = kubelet.call(&said.endpoint).await.unwrap();
    let mut lists = caller.watch().await.unwrap();
    assert!(next(&mut lists).await.is_some());
    std::fs::remove_file(&socket).unwrap();
    registered(&mut kubelet).await;
    kubelet.call(&said.endpoint).await.unwrap();
    assert_eq!(next(&mut lists).await, None, "the old stream ends, so that the kubelet has one list only");
}

#[tokio::test]
async fn a_new_agent_takes_over_from_one_that_died() {
    let node = Node::new("roll", 1);
    let mut kubelet = Kubelet::start(&node.dir).unwrap();
    for _ in 0..2 {
        let (agent, mut state) = node.agent();
        let said = registered(&mut kubelet).await;
        let mut caller = kubelet.call(&said.endpoint).await.unwrap();
        let _lists = caller.watch().await.unwrap();
        until(&mut state, |state| *state == State::Watched).await;
        agent.abort();
    }
}

#[tokio::test]
async fn who_holds_a_slot_is_asked_within_a_deadline() {
    let node = Node::new("holder", 2);
    let pods = PodResources::new(&node.dir);
    assert!(matches!(pods.holdings().await, Err(PluginError::Connect { .. })), "no kubelet");
    let kubelet = Kubelet::start(&node.dir).unwrap();
    assert_eq!(pods.holdings().await.unwrap(), []);
    kubelet.give(Slot(1), "loco", "instance-4");
    let holdings = pods.holdings().await.unwrap();
    let holder = plugin::holder::of(Slot(1), &holdings).unwrap();
    assert_eq!((holder.namespace.as_str(), holder.pod.as_str()), ("loco", "instance-4"));
    kubelet.give(Slot(1), "loco", "instance-5");
    assert!(plugin::holder::of(Slot(1), &pods.holdings().await.unwrap()).is_err());
    kubelet.take(Slot(1));
    assert_eq!(pods.holdings().await.unwrap(), []);
    kubelet.stop();

    // One that takes connections and says nothing.
    let socket = node.dir.join("pod-resources/kubelet.sock");
    std::fs::remove_file(&socket).unwrap();
    let _mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(pods.holdings().await, Err(PluginError::Silent { .. })));
}
