//! What one agent's model tells the next one's.
use observe::{Limits, Memory, Observer};
use serde_json::json;
use std::time::Duration;
use wire::{
    MacAddr,
    dplay::{Body, Id, Membership},
};

use crate::{
    net::{Net, ip, mac},
    written::{BOB, BOB_ID, CAROL, HOST, leaves, party, waits},
};

/// The same net, seen by the model of an agent that has just started and found what the one before knew.
fn followed(mut net: Net) -> Net {
    let memory = serde_json::to_vec(&net.observer.memory(|_, _| true)).unwrap();
    net.observer = Observer::default();
    net.observer.recall(&serde_json::from_slice(&memory).unwrap(), net.now);
    net
}

/// What is told of games, but not when and by which frame it was seen, nor what only a whole life knows.
fn games(net: &mut Net) -> serde_json::Value {
    let mut observed = net.observed();
    observed.sessions.iter_mut().for_each(|session| session.evidence = None);
    observed.players.iter_mut().for_each(|player| player.evidence = None);
    observed.system_players.iter_mut().for_each(|system| system.evidence = None);
    json!([observed.sessions, observed.players, observed.system_players, observed.groups, observed.join_order])
}

#[test]
fn the_next_agent_knows_who_is_in_the_game_and_sees_them_leave() {
    let mut net = Net::new();
    party(&mut net);
    let before = games(&mut net);
    let mut net = followed(net);
    assert_eq!(games(&mut net), before);
    let observed = net.observed();
    let evidence = observed.sessions[0].evidence.as_ref().unwrap();
    assert!(evidence.what.ends_with(", seen by the agent before"), "{evidence:?}");
    // The words do not grow with each agent.
    net = followed(net);
    assert_eq!(net.observed().sessions, observed.sessions);

    net.wait(2_000);
    BOB.user(&mut net, HOST, BOB_ID, false);
    assert_eq!(games(&mut net), before, "who plays on is nobody new");
    let membership = Membership { to: Id::NONE, player: BOB.system, group: Id::NONE };
    BOB.says(&mut net, HOST, &Body::DeletePlayer(membership));
    assert_eq!(leaves(&mut net), json!([{"name": "Bob", "evidence": "DELETEPLAYER"}]));
    // And who has left is told to nobody after it.
    let observed = followed(net).observed();
    assert_eq!((observed.players.len(), observed.leave_order.len()), (2, 0));
}

#[test]
fn who_is_silent_after_an_agents_change_is_gone_and_a_game_that_is_over_is_not_recalled() {
    let mut net = Net::new();
    party(&mut net);
    net.wait(110_000);
    let mut net = followed(net);
    net.observer.tick(net.now + Duration::from_secs(100));
    assert_eq!(net.observer.observed().leave_order.len(), 0, "it may have spoken while nobody listened");
    net.observer.tick(net.now + Duration::from_secs(130));
    assert_eq!(net.observer.observed().leave_order.len(), 3);
    assert!(net.observer.memory(|_, _| true).is_empty());
}

#[test]
fn a_session_that_waits_for_the_first_to_join_is_recalled() {
    let mut net = Net::new();
    let game = waits(&mut net);
    let mut net = followed(net);
    assert_eq!(net.observed().sessions[0].name.as_deref(), Some("Allein"));
    game.joined_by(&mut net, BOB, &[], (BOB_ID, "Bob"));
    let observed = net.observed();
    assert_eq!((observed.sessions.len(), observed.players.len()), (1, 1));
}

/// The file may be anybody's who can write there: it fills no more than frames do, and steers no terminal.
#[test]
fn a_hostile_memory_is_bounded_and_cleaned() {
    let mut net = Net::new();
    party(&mut net);
    let mut memory = serde_json::to_value(net.observer.memory(|_, _| true)).unwrap();
    memory["sessions"][0]["name"] = json!(format!("\u{1b}[2J{}", "x".repeat(10_000)));
    for table in ["systems", "players"] {
        let one = memory["sessions"][0][table][0].clone();
        let many = (0..100_u32).map(|id| {
            let mut other = one.clone();
            other["id"] = json!(id + if table == "players" { 100_000 } else { 1 });
            other
        });
        memory["sessions"][0][table] = many.collect();
    }
    memory["sessions"] = vec![memory["sessions"][0].clone(); 30].into();
    memory["programs"][0]["session"] = json!(29);
    memory["programs"][0]["hosts"] = (0..10_000).collect();

    let limits = Limits { sessions: 4, players: 8, processes: 16, ..Limits::default() };
    let mut observer = Observer::new(limits);
    observer.recall(&serde_json::from_value(memory).unwrap(), net.now);
    assert!(observer.entries() <= 4 * (1 + 8 + 8) + 4 + 2 * 16, "{}", observer.entries());
    let name = observer.observed().sessions[0].name.clone().unwrap();
    assert!(!name.contains('\u{1b}') && name.chars().count() <= limits.text, "{name}");
    assert_eq!(serde_json::from_value::<Memory>(json!({"sessions": 1})).ok(), None);
}

/// Its host is out already, by its own word; the next agent has to know that as well, to tell that the last one who goes ends it.
#[test]
fn a_game_without_its_host_ends_with_its_last_player_under_the_next_agent() {
    let mut net = Net::new();
    party(&mut net);
    let machine = |player| Body::DeletePlayer(Membership { to: Id::NONE, player, group: Id::NONE });
    HOST.says(&mut net, BOB, &machine(HOST.system));
    let mut net = followed(followed(net));
    let open = |net: &mut Net| net.observed().sessions.iter().filter(|it| it.certainty.is_alive()).count();
    assert_eq!(open(&mut net), 1, "Bob and Carol are in it");
    BOB.says(&mut net, CAROL, &machine(BOB.system));
    CAROL.says(&mut net, BOB, &machine(CAROL.system));
    assert_eq!(open(&mut net), 0);
    assert_eq!(
        leaves(&mut net),
        json!([{"name": "Bob", "evidence": "DELETEPLAYER"}, {"name": "Carol", "evidence": "DELETEPLAYER"}])
    );
}

/// What the others say to each other once Bob is out goes past his node, and so would their end.
#[test]
fn a_game_of_others_only_is_theirs_to_remember() {
    let mut net = Net::new();
    party(&mut net);
    let known = |net: &Net, machine: u8| {
        let by_card = net.observer.memory(|card, _| card == Some(MacAddr(mac(machine))));
        assert_eq!(by_card, net.observer.memory(|_, address| address == Some(ip(machine))));
        !by_card.is_empty()
    };
    assert!(known(&net, BOB.machine) && known(&net, CAROL.machine) && !known(&net, 77));
    BOB.says(&mut net, HOST, &Body::DeletePlayer(Membership { to: Id::NONE, player: BOB.system, group: Id::NONE }));
    assert!(!known(&net, BOB.machine) && known(&net, CAROL.machine));
}

#[test]
fn a_session_that_waits_is_its_hosts_to_remember() {
    let mut net = Net::new();
    waits(&mut net);
    let known = |machine| !net.observer.memory(|_, address| address == Some(ip(machine))).is_empty();
    assert!(known(HOST.machine) && !known(BOB.machine));
}
