//! What changed between one wall and the next, told once for all readers.
//!
//! A wall of 1,000 instances is 3 MB of JSON. Most of what moves in it are counters; a reader that has a wall needs only the rows
//! that are other now. With many instances, rows in which nothing but numbers moved are told in turn, a bounded number at once:
//! a state that changes is told at once, a counter within some rounds.
//!
//! **Invariants.** A reader that takes the wall of number n and every change after it has, but for such numbers, the newest wall.
//! Changes are made only while somebody reads. One change is written as JSON once, however many read it.
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
};

use api::{
    agent::{InstanceStatus, Picture},
    gateway::{Instance, Wall, WallChange},
    lan::{Connectivity, LanInstance, LanStatus},
};
use serde::Serialize;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use crate::lan::{MANY, history::slim};

/// Rows of each kind of which only numbers moved, in one change, with many instances.
const IN_TURN: usize = 128;

/// Changes that are held for readers who are slow; whoever is slower begins again with a wall.
const HELD: usize = 32;

/// Where readers get changes.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The newest wall, and its number.
    newest: watch::Receiver<(u64, Arc<Wall>)>,
    /// What made it of the one before: a [`WallChange`] as JSON, and its number.
    changes: broadcast::Sender<(u64, Arc<str>)>,
}

/// One reader.
#[derive(Debug)]
pub(crate) struct Reader {
    newest: watch::Receiver<(u64, Arc<Wall>)>,
    changes: broadcast::Receiver<(u64, Arc<str>)>,
    /// Number of what was read last.
    last: Option<u64>,
}

/// What a reader gets: first a wall.
#[derive(Debug)]
pub(crate) enum Heard {
    Wall(Arc<Wall>),
    /// Of what was heard before it.
    Change(Arc<str>),
}

impl Changes {
    pub(crate) fn read(&self) -> Reader {
        Reader { changes: self.changes.subscribe(), newest: self.newest.clone(), last: None }
    }
}

impl Reader {
    /// `None` once there are no more walls.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        let Some(last) = self.last else { return Some(self.whole()) };
        loop {
            match self.changes.recv().await {
                // Of before the wall that this reader began with.
                Ok((number, _)) if number <= last => {}
                Ok((number, json)) if number == last + 1 => {
                    self.last = Some(number);
                    return Some(Heard::Change(json));
                }
                Ok(_) | Err(RecvError::Lagged(_)) => return Some(self.whole()),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn whole(&mut self) -> Heard {
        let (number, wall) = self.newest.borrow().clone();
        self.last = Some(number);
        Heard::Wall(wall)
    }
}

/// Makes a change of every wall from now on.
pub(crate) fn start(mut walls: watch::Receiver<Arc<Wall>>) -> Changes {
    let mut before = Arc::clone(&walls.borrow_and_update());
    let (sender, newest) = watch::channel((0, Arc::clone(&before)));
    let (changes, _) = broadcast::channel(HELD);
    let readers = changes.clone();
    tokio::spawn(async move {
        let mut teller: Option<Teller> = None;
        let mut number = 0;
        while walls.changed().await.is_ok() {
            let wall = Arc::clone(&walls.borrow_and_update());
            number += 1;
            let change = if readers.receiver_count() == 0 {
                // Nobody has a wall that a change could be of.
                teller = None;
                None
            } else {
                // The first reader began with the wall before, whole.
                teller.get_or_insert_with(|| Teller::after(&before)).json(&wall)
            };
            before = Arc::clone(&wall);
            // The wall first: a reader who takes it knows by the number that its change is in it.
            sender.send_replace((number, wall));
            if let Some(json) = change
                && readers.send((number, json)).is_err()
            {
                tracing::debug!("the last reader of changes has gone");
            }
        }
    });
    Changes { newest, changes }
}

/// What was told of a row.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// Of everything in it.
    all: u64,
    /// Of what is told at once.
    essence: u64,
    /// Round in which it was told.
    told: u64,
}

/// What readers know.
#[derive(Debug, Default)]
pub struct Teller {
    round: u64,
    instances: HashMap<String, Row>,
    lan: HashMap<String, Row>,
    pairs: HashMap<[String; 2], Row>,
    lists: Option<u64>,
}

impl Teller {
    /// Of readers who have this wall.
    fn after(wall: &Wall) -> Self {
        let mut teller = Self::default();
        teller.change(wall);
        teller
    }

    fn json(&mut self, wall: &Wall) -> Option<Arc<str>> {
        match serde_json::to_string(&self.change(wall)) {
            Ok(json) => Some(json.into()),
            Err(error) => {
                tracing::error!(%error, "a change could not be written as JSON");
                None
            }
        }
    }

    /// What is to be told of `wall` after all that was told before.
    pub fn change(&mut self, wall: &Wall) -> WallChange {
        self.round += 1;
        let many = wall.instances.len() > MANY;
        let slimmed = many.then(|| slim(&wall.lan));
        let lan = slimmed.as_ref().unwrap_or(&wall.lan);
        let limit = if many { IN_TURN } else { usize::MAX };

        let rows = wall.instances.iter().map(|i| (i.id.clone(), i, digest(i), digest(&essence(i))));
        let (instances, gone) = tell(&mut self.instances, rows, self.round, limit);
        let rows = lan.instances.iter().map(|(id, i)| (id.clone(), (id, i), digest(i), digest(&lan_essence(i))));
        let (lan_rows, lan_gone) = tell(&mut self.lan, rows, self.round, limit);
        let rows = lan.connectivity.iter().map(|row| {
            ([row.from.clone(), row.to.clone()], row, digest(row), digest(&(row.reachable, row.broadcast_seen)))
        });
        let (pairs, pairs_gone) = tell(&mut self.pairs, rows, self.round, limit);

        let lists = lists_of(lan);
        let of_lists = digest(&LanStatus { at: 0.0, ..lists.clone() });
        let other_lists = self.lists.replace(of_lists) != Some(of_lists);
        WallChange {
            at: wall.at,
            directory: wall.directory.clone(),
            active: wall.active.clone(),
            instances: instances.into_iter().cloned().collect(),
            gone,
            lan: LanStatus {
                instances: lan_rows
                    .into_iter()
                    .map(|(id, row): (&String, &LanInstance)| (id.clone(), row.clone()))
                    .collect(),
                connectivity: pairs.into_iter().cloned().collect::<Vec<Connectivity>>(),
                ..if other_lists {
                    lists
                } else {
                    LanStatus { at: lan.at, network_mode: lan.network_mode.clone(), ..LanStatus::default() }
                }
            },
            lan_gone,
            pairs_gone,
            lists: other_lists,
        }
    }
}

/// A wall in parts of at most `size` instances, for a reader who has nothing: the first with everything but rows. Ten thousand
/// instances are 30 MB of JSON, which is not to lie in memory for each reader who comes.
#[derive(Debug)]
pub(crate) struct Parts {
    wall: Arc<Wall>,
    size: usize,
    next: usize,
}

impl Parts {
    pub(crate) fn new(wall: Arc<Wall>, size: usize) -> Self {
        Self { wall, size, next: 0 }
    }

    fn count(&self) -> usize {
        self.wall.instances.len().div_ceil(self.size).max(1)
    }

    /// The next part: a [`WallChange`], and whether it is the first. `None` after the last.
    pub(crate) fn next(&mut self) -> Option<(bool, WallChange)> {
        let (number, count) = (self.next, self.count());
        if number >= count {
            return None;
        }
        self.next += 1;
        let wall = &self.wall;
        let instances: Vec<Instance> =
            wall.instances.iter().skip(number * self.size).take(self.size).cloned().collect();
        let row = |i: &Instance| wall.lan.instances.get(&i.id).map(|row| (i.id.clone(), row.clone()));
        let pairs = wall.lan.connectivity.len().div_ceil(count);
        let connectivity = wall.lan.connectivity.iter().skip(number * pairs).take(pairs).cloned().collect();
        let rest =
            if number == 0 { lists_of(&wall.lan) } else { LanStatus { at: wall.lan.at, ..LanStatus::default() } };
        let network_mode = wall.lan.network_mode.clone();
        let lan =
            LanStatus { instances: instances.iter().filter_map(row).collect(), connectivity, network_mode, ..rest };
        let change = WallChange {
            at: wall.at,
            directory: wall.directory.clone(),
            active: wall.active.clone(),
            lan: if wall.instances.len() > MANY { slim(&lan) } else { lan },
            instances,
            lists: number == 0,
            ..WallChange::default()
        };
        Some((number == 0, change))
    }
}

/// All of it but the rows.
fn lists_of(lan: &LanStatus) -> LanStatus {
    LanStatus {
        network_mode: lan.network_mode.clone(),
        at: lan.at,
        lans: lan.lans.clone(),
        instances: BTreeMap::new(),
        connectivity: Vec::new(),
        sessions: lan.sessions.clone(),
        players: lan.players.clone(),
        diagnosis: lan.diagnosis.clone(),
        timelines: lan.timelines.clone(),
        lags: lan.lags.clone(),
        strangers: lan.strangers.clone(),
        foreign: lan.foreign.clone(),
        anomalies: lan.anomalies.clone(),
        observers: lan.observers.clone(),
    }
}

/// The rows to tell, and the keys of those that are no more: all that are new or other in essence, and up to `limit` of those
/// in which only numbers moved, the one first that was told longest ago.
fn tell<K: Hash + Eq + Ord + Clone, R: Copy>(
    told: &mut HashMap<K, Row>,
    rows: impl Iterator<Item = (K, R, u64, u64)>,
    round: u64,
    limit: usize,
) -> (Vec<R>, Vec<K>) {
    let (mut now, mut moved, mut there) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (key, row, all, essence) in rows {
        match told.get(&key) {
            Some(old) if old.all == all => {}
            Some(old) if old.essence == essence => moved.push((old.told, key.clone(), row, all)),
            _ => {
                told.insert(key.clone(), Row { all, essence, told: round });
                now.push(row);
            }
        }
        there.insert(key);
    }
    if moved.len() > limit {
        moved.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        moved.truncate(limit);
    }
    for (_, key, row, all) in moved {
        if let Some(old) = told.get_mut(&key) {
            (old.all, old.told) = (all, round);
        }
        now.push(row);
    }
    let mut gone: Vec<K> = told.keys().filter(|key| !there.contains(*key)).cloned().collect();
    gone.sort();
    for key in &gone {
        told.remove(key);
    }
    (now, gone)
}

/// Without what moves by itself.
fn essence(instance: &Instance) -> Instance {
    Instance {
        agent_silent_for: instance.agent_silent_for.map(|_| 0.0),
        status: instance.status.as_ref().map(|status| {
            Arc::new(InstanceStatus {
                counters: None,
                picture: status.picture.as_ref().map(|picture| Picture {
                    width: picture.width,
                    height: picture.height,
                    changes: 0,
                    still_for: 0.0,
                }),
                stream: None,
                classes: BTreeMap::new(),
                pairs: Vec::new(),
                ..InstanceStatus::clone(status)
            })
        }),
        ..instance.clone()
    }
}

fn lan_essence(instance: &LanInstance) -> LanInstance {
    LanInstance { counters: None, classes: BTreeMap::new(), stream: None, ..instance.clone() }
}

/// A number that is another one when the JSON is, but for one chance in 2^64.
fn digest(value: &impl Serialize) -> u64 {
    struct Into<'a>(&'a mut DefaultHasher);
    impl io::Write for Into<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = DefaultHasher::new();
    // What cannot be written is told as it is: the two walls of a bad row differ from none.
    match serde_json::to_writer(Into(&mut hasher), value) {
        Ok(()) => hasher.finish(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use api::{agent::State, gateway::WallDirectory};

    use super::*;

    fn instance(number: usize) -> Instance {
        Instance {
            id: format!("instance-{number}"),
            name: format!("Seat {number}"),
            lan: "party".into(),
            seat: 0,
            node: "n1".into(),
            mac: String::new(),
            ip: String::new(),
            state: State::Live,
            agent_silent_for: None,
            status: None,
        }
    }

    fn row(node: &str, frames: u64) -> LanInstance {
        LanInstance {
            ip: None,
            mac: String::new(),
            node: node.into(),
            lan: "party".into(),
            link: None,
            counters: None,
            classes: BTreeMap::from([("arp".to_owned(), api::lan::ClassCount { tx_frames: frames, rx_frames: 0 })]),
            names: Vec::new(),
            arp: BTreeMap::new(),
            ports_seen_open: Vec::new(),
            directplay: None,
            ipx: None,
            stream: None,
        }
    }

    fn wall(count: usize) -> Wall {
        let instances: Vec<Instance> = (0..count).map(instance).collect();
        let lan = LanStatus {
            instances: instances.iter().map(|i| (i.id.clone(), row("n1", 0))).collect(),
            ..LanStatus::default()
        };
        Wall { at: 1.0, directory: WallDirectory::default(), instances, lan, active: Vec::new() }
    }

    /// What a reader does with a change.
    fn apply(wall: &mut Wall, change: WallChange) {
        wall.instances.retain(|i| !change.gone.contains(&i.id) && !change.instances.iter().any(|new| new.id == i.id));
        wall.instances.extend(change.instances);
        wall.instances.sort_by(|a, b| a.id.cmp(&b.id));
        wall.lan.instances.retain(|id, _| !change.lan_gone.contains(id));
        let mut lan = if change.lists { change.lan.clone() } else { wall.lan.clone() };
        lan.instances.clone_from(&wall.lan.instances);
        lan.instances.extend(change.lan.instances);
        lan.at = change.lan.at;
        wall.lan = lan;
        (wall.at, wall.directory, wall.active) = (change.at, change.directory, change.active);
    }

    #[test]
    fn a_wall_and_its_changes_are_the_newest_wall() {
        let (mut teller, mut mine) = (Teller::default(), wall(3));
        mine.instances.sort_by(|a, b| a.id.cmp(&b.id));
        apply(&mut mine, teller.change(&wall(3)));
        let mut newer = wall(4);
        newer.instances[1].node = "n2".into();
        newer.instances.remove(0);
        newer.lan.instances.remove("instance-0");
        newer.lan.instances.insert("instance-2".into(), row("n2", 7));
        newer.lan.sessions.push(api::observe::Session::default());
        newer.active.push("instance-1".into());
        let change = teller.change(&newer);
        assert_eq!((change.instances.len(), change.gone.as_slice()), (2, ["instance-0".to_owned()].as_slice()));
        assert!(change.lists);
        apply(&mut mine, change);
        assert_eq!(mine, newer);
        let none = teller.change(&newer);
        assert!(none.instances.is_empty() && none.lan.instances.is_empty() && !none.lists && none.gone.is_empty());
    }

    #[test]
    fn a_wall_in_parts_is_the_wall() {
        for count in [0, 1, 7, 10, 11] {
            let mut want = wall(count);
            want.lan.connectivity = (0..count * 3)
                .map(|i| Connectivity { from: i.to_string(), to: "x".into(), ..serde_json::from_str(PAIR).unwrap() })
                .collect();
            want.lan.sessions.push(api::observe::Session::default());
            want.lan.network_mode = Some("vxlan".into());
            want.instances.sort_by(|a, b| a.id.cmp(&b.id));
            let mut parts = Parts::new(Arc::new(want.clone()), 5);
            let mut got = Wall { lan: LanStatus::default(), instances: Vec::new(), ..want.clone() };
            let mut first = true;
            while let Some((is_first, change)) = parts.next() {
                assert_eq!(is_first, std::mem::take(&mut first));
                assert!(change.instances.len() <= 5);
                let pairs = [got.lan.connectivity.clone(), change.lan.connectivity.clone()].concat();
                apply(&mut got, change);
                got.lan.connectivity = pairs;
            }
            assert_eq!(got, want, "{count} instances");
        }
    }

    const PAIR: &str = r#"{"from":"a","to":"b","reachable":true}"#;

    #[test]
    fn with_many_instances_numbers_come_in_turn_and_states_at_once() {
        let mut teller = Teller::default();
        teller.change(&wall(1000));
        let mut next = wall(1000);
        // Classes are no part of a slim wall; counters are.
        let counters = api::lan::PortCounters { tx_frames: 9, ..api::lan::PortCounters::default() };
        for row in next.lan.instances.values_mut() {
            row.counters = Some(counters);
        }
        next.instances[700].state = State::Failed;
        let mut told = BTreeSet::new();
        for round in 0..8 {
            let change = teller.change(&next);
            assert!(change.lan.instances.len() <= IN_TURN);
            assert_eq!(change.instances.len(), usize::from(round == 0), "the state that changed, and only it");
            told.extend(change.lan.instances.into_keys());
        }
        assert_eq!(told.len(), 1000, "every row has had its turn");
        assert!(teller.change(&next).lan.instances.is_empty());
    }
}
