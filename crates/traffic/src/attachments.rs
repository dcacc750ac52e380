//! Which devices are watched: compared with what is wanted, again and again, and mended. Counts belong to an instance or
//! a LAN; the numbers of devices, by which the kernel keeps them, come and go.
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    sync::Arc,
};

use aya::maps::{MapError, PerCpuValues};
use model::{InstanceId, LanName, MacAddr, Rate, Rules};
use nix::net::if_::if_nametoindex;
use wire::guard::Refusal;

use crate::{
    abi::{
        CLASSES_MAX, Count, EGRESS, FLAG_EVENTS, FLAG_PAIRS, GUARD_SERVERS, GUARD_SOURCE, GUARD_STORM, GuardRow,
        INGRESS, Loss, PAIRS_MAX, PORT_ROW_WORDS, REFUSALS_MAX,
    },
    bpffs::Pins,
    events::{Place, Places},
    programs::{Device, Direction, GUARD_WORDS, Link, Maps, Programs},
    report::{ClassCounts, Directions, Pair, PortReport, Report},
};

/// Devices that are to be watched, all in the fabric's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Tap or macvtap of each instance.
    pub ports: BTreeMap<InstanceId, String>,
    /// Those of them whose device is a macvtap: what the guest sends goes out of it, where it comes in at a tap.
    pub turned: BTreeSet<InstanceId>,
    /// VXLAN device of each LAN.
    pub tunnels: BTreeMap<LanName, String>,
    /// Tap of each LAN's IPX relay.
    pub relays: BTreeMap<LanName, String>,
    /// What each instance's tap lets through, and whose card it is; an instance that is not here may send anything.
    pub guards: BTreeMap<InstanceId, (MacAddr, Rules)>,
    /// This node's bridge in each LAN: the tunnel answers questions for it.
    pub answers: BTreeMap<LanName, MacAddr>,
}

/// A device that is watched.
struct Watched {
    device: String,
    turned: bool,
    ifindex: u32,
    /// In the order of [`Direction::ALL`]; `None`: it is not wanted, or could not be attached.
    links: [Option<Link>; Direction::ALL.len()],
}

/// Everything that is attached, and the counts.
pub(crate) struct Attachments {
    programs: Programs,
    pins: Option<Pins>,
    maps: Maps,
    cpus: usize,
    watched: BTreeMap<Place, Watched>,
    /// What taps that are gone have counted for instances that are still here.
    earlier: BTreeMap<Arc<InstanceId>, PortReport>,
    earlier_tunnels: BTreeMap<Arc<LanName>, Directions>,
    earlier_relays: BTreeMap<Arc<LanName>, Directions>,
    earlier_refused: BTreeMap<Arc<InstanceId>, [u64; REFUSALS]>,
    /// Programs that somebody took off and that were put on again.
    repairs: u64,
}

/// Words of a row: classes, buckets, flags, owner.
const ROW_FLAGS: usize = PORT_ROW_WORDS - 2;
const ROW_OWNER: usize = PORT_ROW_WORDS - 1;
/// Words of a row of refusals: reasons, owner.
const REFUSALS: usize = Refusal::ALL.len();
const REFUSED_OWNER: usize = REFUSALS_MAX - 1;
const _: () = assert!(REFUSALS <= REFUSED_OWNER);
const NS_PER_S: u64 = 1_000_000_000;

impl Wanted {
    fn is_turned(&self, place: &Place) -> bool {
        matches!(place, Place::Port(instance) if self.turned.contains(&**instance))
    }
}

impl Attachments {
    pub(crate) fn new(programs: Programs, pins: Option<Pins>, maps: Maps) -> Self {
        // Every CPU that there may ever be has its own copy of a row.
        let cpus = aya::util::nr_cpus().unwrap_or(1);
        Self {
            programs,
            pins,
            maps,
            cpus,
            watched: BTreeMap::new(),
            earlier: BTreeMap::new(),
            earlier_tunnels: BTreeMap::new(),
            earlier_relays: BTreeMap::new(),
            earlier_refused: BTreeMap::new(),
            repairs: 0,
        }
    }

    /// Devices by number, for the events.
    pub(crate) fn places(&self) -> Places {
        self.watched.iter().map(|(place, watched)| (watched.ifindex, place.clone())).collect()
    }

    /// Makes it as wanted, as far as the devices are there. Returns why something is not. Needs the thread to be in the
    /// fabric's namespace.
    pub(crate) fn reconcile(&mut self, wanted: &Wanted) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(Err(error)) = self.pins.as_ref().map(Pins::ensure) {
            problems.push(format!("the folder of pins is gone and cannot be made again: {error}; restart the agent"));
        }
        let ports = wanted.ports.iter().map(|(id, device)| (Place::Port(Arc::new(id.clone())), device));
        let tunnels = wanted.tunnels.iter().map(|(lan, device)| (Place::Tunnel(Arc::new(lan.clone())), device));
        let relays = wanted.relays.iter().map(|(lan, device)| (Place::Relay(Arc::new(lan.clone())), device));
        // A device that is not there yet is no problem of ours: the fabric says why.
        let there: BTreeMap<Place, (&String, u32)> = ports
            .chain(tunnels)
            .chain(relays)
            .filter_map(|(place, device)| Some((place, (device, if_nametoindex(device.as_str()).ok()?))))
            .collect();
        let gone: Vec<Place> = self
            .watched
            .iter()
            .filter(|(place, watched)| there.get(place).is_none_or(|(_, ifindex)| *ifindex != watched.ifindex))
            .map(|(place, _)| place.clone())
            .collect();
        for place in gone {
            let wanted = match &place {
                Place::Port(instance) => wanted.ports.contains_key(&**instance),
                Place::Tunnel(lan) => wanted.tunnels.contains_key(&**lan),
                Place::Relay(lan) => wanted.relays.contains_key(&**lan),
            };
            self.forget(&place, wanted);
        }
        for (place, (device, ifindex)) in &there {
            let on = Device { name: device.as_str(), turned: wanted.is_turned(place) };
            if let Err(problem) = self.watch(place, on, *ifindex, wanted) {
                problems.push(format!("{device} cannot be watched: {problem}"));
            }
        }
        self.sweep();
        self.earlier.retain(|instance, _| wanted.ports.contains_key(&**instance));
        self.earlier_refused.retain(|instance, _| wanted.ports.contains_key(&**instance));
        self.earlier_tunnels.retain(|lan, _| wanted.tunnels.contains_key(&**lan));
        self.earlier_relays.retain(|lan, _| wanted.relays.contains_key(&**lan));
        problems
    }

    fn pin(&self, place: &Place, ifindex: u32, direction: Direction) -> Option<PathBuf> {
        // With the device's number: a tap that was made anew needs a link of its own.
        Some(self.pins.as_ref()?.link(&format!("{}_{ifindex}_{}", place.word(), direction.word())))
    }

    /// Puts on one device the programs that belong there, or sees that they still are there.
    fn watch(&mut self, place: &Place, device: Device<'_>, ifindex: u32, wanted: &Wanted) -> Result<(), String> {
        let row = guard_row(place, wanted);
        if let Some((_, row)) = row {
            self.make_guard(place, ifindex, row).map_err(|error| format!("no room for its rules: {error}"))?;
        }
        let guard = row.map(|(direction, _)| direction);
        for direction in [Direction::Ingress, Direction::Egress].into_iter().chain(guard) {
            let slot = direction as usize;
            let linked = self.watched.get(place).is_some_and(|watched| watched.links[slot].is_some());
            // Somebody may have taken our program off.
            if linked && self.programs.is_on(device, direction) != Some(false) {
                continue;
            }
            // First the row: a frame without one would not be counted.
            if Some(direction) != guard {
                self.make_row(place, ifindex, direction).map_err(|error| format!("no room for its counts: {error}"))?;
            }
            let pin = self.pin(place, ifindex, direction);
            if linked {
                tracing::warn!(
                    device = device.name,
                    ?direction,
                    "the program was taken off by somebody; it is put on again"
                );
                let _ = pin.as_ref().map(std::fs::remove_file);
            }
            let link = self.programs.put_on(device, direction, pin.as_deref())?;
            tracing::debug!(device = device.name, ifindex, ?direction, ?link, "watched");
            self.repairs += u64::from(linked);
            let watched = self.watched.entry(place.clone()).or_insert_with(|| Watched {
                device: device.name.to_owned(),
                turned: device.turned,
                ifindex,
                links: [const { None }; Direction::ALL.len()],
            });
            watched.links[slot] = Some(link);
        }
        Ok(())
    }

    /// Makes the rules of a device as wanted, and the row that counts what they refuse.
    fn make_guard(&mut self, place: &Place, ifindex: u32, row: [u64; GUARD_WORDS]) -> Result<(), MapError> {
        let owner = owner(place);
        let refused = self.maps.refused.get(&ifindex, 0);
        if !refused.is_ok_and(|row| row.iter().all(|row| row[REFUSED_OWNER] == owner)) {
            let mut row = [0; REFUSALS_MAX];
            row[REFUSED_OWNER] = owner;
            self.maps.refused.insert(ifindex, per_cpu(row, self.cpus)?, 0)?;
        }
        // The last word is the bucket, which the kernel's side writes.
        let rules = ..GUARD_WORDS - 1;
        if self.maps.guards.get(&ifindex, 0).is_ok_and(|old| old[rules] == row[rules]) {
            return Ok(());
        }
        self.maps.guards.insert(ifindex, row, 0)
    }

    /// Makes the row of a device and direction, unless it is there and is this place's.
    fn make_row(&mut self, place: &Place, ifindex: u32, direction: Direction) -> Result<(), MapError> {
        let key = [ifindex, u32::from(direction.number())];
        let owner = owner(place);
        if self.maps.ports.get(&key, 0).is_ok_and(|row| row.iter().all(|row| row[ROW_OWNER] == owner)) {
            return Ok(());
        }
        let mut row = [0; PORT_ROW_WORDS];
        row[ROW_OWNER] = owner;
        row[ROW_FLAGS] = match (place, direction) {
            (Place::Port(_), _) => FLAG_EVENTS | FLAG_PAIRS,
            // What goes out there came in somewhere else on this node, and was shown there.
            (Place::Tunnel(_) | Place::Relay(_), Direction::Ingress) => FLAG_EVENTS,
            (Place::Tunnel(_) | Place::Relay(_), _) => 0,
        };
        self.maps.ports.insert(key, per_cpu(row, self.cpus)?, 0)
    }

    /// Lets go of a device; what it counted is kept for the next one of the same place, if there will be one.
    fn forget(&mut self, place: &Place, keep: bool) {
        let Some(watched) = self.watched.remove(place) else { return };
        let device = Device { name: &watched.device, turned: watched.turned };
        for (slot, (direction, link)) in Direction::ALL.into_iter().zip(watched.links).enumerate() {
            let Some(link) = link else { continue };
            let pin = self.pin(place, watched.ifindex, direction);
            if let Err(problem) = Programs::take_off(device, direction, link, pin.as_deref()) {
                tracing::warn!(device = watched.device, slot, problem, "a program stays at a device of no use");
            }
        }
        if !keep {
            return;
        }
        match place {
            Place::Port(instance) => {
                let mut report = self.port_of(watched.ifindex);
                report.pairs = self.pairs_by_device().remove(&watched.ifindex).unwrap_or_default();
                self.earlier.entry(Arc::clone(instance)).or_default().add(&report);
                let refused = self.refused_of(watched.ifindex);
                add(self.earlier_refused.entry(Arc::clone(instance)).or_default(), &refused);
            }
            Place::Tunnel(lan) => {
                let counts = self.directions_of(watched.ifindex);
                *self.earlier_tunnels.entry(Arc::clone(lan)).or_default() += &counts;
            }
            Place::Relay(lan) => {
                let counts = self.directions_of(watched.ifindex);
                *self.earlier_relays.entry(Arc::clone(lan)).or_default() += &counts;
            }
        }
    }

    /// Removes rows and pins of devices that are not watched: of earlier taps, and of earlier agents.
    fn sweep(&mut self) {
        let live: BTreeSet<u32> = self.watched.values().map(|watched| watched.ifindex).collect();
        let dead: Vec<_> = self
            .maps
            .ports
            .keys()
            .flatten()
            .filter(|[ifindex, _]| !live.contains(ifindex))
            .take(crate::SWEEP_MAX)
            .collect();
        for key in dead {
            // It may be gone already.
            self.maps.ports.remove(&key).ok();
        }
        let dead: Vec<_> = self
            .maps
            .pairs
            .keys()
            .flatten()
            .filter(|key| !live.contains(&pair_device(key)))
            .take(crate::SWEEP_MAX)
            .collect();
        for key in dead {
            self.maps.pairs.remove(&key).ok();
        }
        let dead: Vec<u32> = self.maps.guards.keys().flatten().filter(|key| !live.contains(key)).collect();
        for key in dead {
            self.maps.guards.remove(&key).ok();
            self.maps.refused.remove(&key).ok();
        }
        if let Some(pins) = &self.pins {
            let names: BTreeSet<String> = self
                .watched
                .iter()
                .flat_map(|(place, watched)| {
                    Direction::ALL.map(|direction| format!("{}_{}_{}", place.word(), watched.ifindex, direction.word()))
                })
                .collect();
            pins.sweep(|name| names.contains(name));
        }
    }

    fn directions_of(&self, ifindex: u32) -> Directions {
        let read = |direction: u8| {
            let rows = self.maps.ports.get(&[ifindex, u32::from(direction)], 0);
            rows.map(|rows| classes(rows.iter())).unwrap_or_default()
        };
        Directions { ingress: read(INGRESS), egress: read(EGRESS) }
    }

    /// Frames that the guard at a device dropped, by [`Refusal`].
    fn refused_of(&self, ifindex: u32) -> [u64; REFUSALS] {
        let mut sum = [0; REFUSALS];
        for row in self.maps.refused.get(&ifindex, 0).iter().flat_map(|rows| rows.iter()) {
            row.first_chunk().into_iter().for_each(|counts| add(&mut sum, counts));
        }
        sum
    }

    fn port_of(&self, ifindex: u32) -> PortReport {
        PortReport { classes: self.directions_of(ifindex), pairs: BTreeMap::new() }
    }

    fn pairs_by_device(&self) -> BTreeMap<u32, BTreeMap<MacAddr, Pair>> {
        // While rows come and go the walk may start again, so it has an end of its own, and a row seen twice counts once.
        let limit = usize::try_from(PAIRS_MAX).unwrap_or(usize::MAX) * 2;
        let rows: BTreeMap<_, _> = self
            .maps
            .pairs
            .iter()
            .take(limit)
            .flatten()
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(key, values)| {
                let mut sum = Count::default();
                values.iter().for_each(|[frames, bytes]| sum += Count { frames: *frames, bytes: *bytes });
                (key, sum)
            })
            .collect();
        let mut devices: BTreeMap<u32, BTreeMap<MacAddr, Pair>> = BTreeMap::new();
        for (key, count) in rows {
            let [_, _, _, _, direction, group, peer @ ..] = key;
            let pair = devices.entry(pair_device(&key)).or_default().entry(MacAddr(peer)).or_default();
            if direction == INGRESS {
                pair.from_guest += count;
            } else {
                pair.to_guest += count;
                if group == 1 {
                    pair.to_guest_broadcasts = pair.to_guest_broadcasts.wrapping_add(count.frames);
                }
            }
        }
        devices
    }

    /// Everything that was counted.
    pub(crate) fn report(&self) -> Report {
        let mut pairs = self.pairs_by_device();
        let mut report = Report { repairs: self.repairs, ..Report::default() };
        for (place, watched) in &self.watched {
            report.attach = Some(self.programs.attach_mode());
            match place {
                Place::Port(instance) => {
                    let mut port = self.port_of(watched.ifindex);
                    port.pairs = pairs.remove(&watched.ifindex).unwrap_or_default();
                    if let Some(earlier) = self.earlier.get(instance) {
                        port.add(earlier);
                    }
                    report.ports.insert(InstanceId::clone(instance), port);
                    if watched.links[Direction::Guard as usize].is_some() {
                        let mut refused = self.refused_of(watched.ifindex);
                        self.earlier_refused.get(instance).into_iter().for_each(|earlier| add(&mut refused, earlier));
                        let refused = Refusal::ALL.into_iter().map(Refusal::name).zip(refused);
                        report.refused.insert(InstanceId::clone(instance), refused.collect());
                    }
                }
                Place::Tunnel(lan) => {
                    let mut counts = self.directions_of(watched.ifindex);
                    self.earlier_tunnels.get(lan).into_iter().for_each(|earlier| counts += earlier);
                    report.tunnels.insert(LanName::clone(lan), counts);
                }
                Place::Relay(lan) => {
                    let mut counts = self.directions_of(watched.ifindex);
                    self.earlier_relays.get(lan).into_iter().for_each(|earlier| counts += earlier);
                    report.relays.insert(LanName::clone(lan), counts);
                }
            }
        }
        for loss in Loss::ALL {
            let count = self.maps.lost.get(&(loss as u32), 0).map(|values| values.iter().sum()).unwrap_or_default();
            report.lost.insert(loss.name(), count);
        }
        report
    }
}

/// The program beside those that count, and its row.
fn guard_row(place: &Place, wanted: &Wanted) -> Option<(Direction, [u64; GUARD_WORDS])> {
    let (direction, row) = match place {
        Place::Port(instance) => {
            let (card, rules) = wanted.guards.get(&**instance)?;
            let flag = |on, flag| if on { flag } else { 0 };
            let flags = flag(rules.own_source, GUARD_SOURCE)
                | flag(rules.no_servers, GUARD_SERVERS)
                | flag(rules.broadcasts.is_some(), GUARD_STORM);
            let rate = rules.broadcasts.unwrap_or(Rate { per_second: 0, burst: 0 });
            // A rate of 0 lets nothing through: a share of time that no burst has room for.
            let interval_ns = NS_PER_S.checked_div(rate.per_second.into()).unwrap_or(NS_PER_S);
            let burst_ns = if rate.per_second == 0 { 0 } else { interval_ns.saturating_mul(rate.burst.into()) };
            (Direction::Guard, GuardRow { mac: card.0, flags, interval_ns, burst_ns, full_at: 0 })
        }
        Place::Tunnel(lan) => {
            (Direction::Answer, GuardRow { mac: wanted.answers.get(&**lan)?.0, ..GuardRow::default() })
        }
        Place::Relay(_) => return None,
    };
    let [a, b, c, d, e, f] = row.mac;
    let [g, h] = row.flags.to_ne_bytes();
    let first = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
    Some((direction, [first, row.interval_ns, row.burst_ns, row.full_at]))
}

fn per_cpu<T: aya::Pod>(row: T, cpus: usize) -> Result<PerCpuValues<T>, MapError> {
    PerCpuValues::try_from(vec![row; cpus])
        .map_err(|error| MapError::SyscallError(aya::sys::SyscallError { call: "possible CPUs", io_error: error }))
}

fn add(sum: &mut [u64; REFUSALS], more: &[u64; REFUSALS]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.wrapping_add(*more));
}

fn pair_device(key: &[u8; size_of::<crate::abi::PairKey>()]) -> u32 {
    let [a, b, c, d, ..] = *key;
    u32::from_ne_bytes([a, b, c, d])
}

/// A number for a name, the same in every build: rows outlive this program.
fn owner(place: &Place) -> u64 {
    let mut hasher = DefaultHasher::new();
    place.word().hash(&mut hasher);
    hasher.finish()
}

/// The sum over all CPUs.
fn classes<'a>(rows: impl Iterator<Item = &'a [u64; PORT_ROW_WORDS]>) -> ClassCounts {
    let mut sum = ClassCounts::default();
    for row in rows {
        let counts = row.as_chunks::<2>().0.iter().take(CLASSES_MAX);
        for (mine, [frames, bytes]) in sum.0.iter_mut().zip(counts) {
            *mine += Count { frames: *frames, bytes: *bytes };
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use wire::class::TrafficClass;

    use super::*;

    #[test]
    fn a_row_is_summed_over_the_cpus_and_ends_before_the_buckets() {
        let mut row = [0; PORT_ROW_WORDS];
        row[2 * TrafficClass::Dhcp as usize..][..2].copy_from_slice(&[3, 900]);
        row[2 * CLASSES_MAX..].fill(77);
        let sum = classes([row, row].iter());
        assert_eq!(sum[TrafficClass::Dhcp], Count { frames: 6, bytes: 1800 });
        assert_eq!(sum.total().frames, 6);
    }

    #[test]
    fn places_have_names_of_their_own() {
        let port = Place::Port(Arc::new("a".parse().unwrap()));
        let lan: Arc<LanName> = Arc::new("a".parse().unwrap());
        let places = [port, Place::Tunnel(Arc::clone(&lan)), Place::Relay(lan)];
        assert_eq!(places.iter().map(owner).collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(places.iter().map(Place::word).collect::<BTreeSet<_>>().len(), 3);
    }
}
