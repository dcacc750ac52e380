//! Slots: which there are, which may be given away, which first, and what the container gets with one. Pure.
//!
//! **Invariants.** A slot's name is `slot-N`, N from 0 without leading zeros, so that name and number are one. A container gets one
//! slot or nothing: two would be mounted at one place.
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{CONTAINER_DIR, SOCKET};

/// One place for a guest on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// The text is not the name of a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a slot; slots are called slot-0, slot-1, …")]
pub struct NotASlot(String);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot-{}", self.0)
    }
}

impl FromStr for Slot {
    type Err = NotASlot;
    fn from_str(text: &str) -> Result<Self, NotASlot> {
        let slot = text.strip_prefix("slot-").and_then(|number| number.parse().ok()).map(Self);
        // `slot-01` and `slot-+1` are numbers for the parser and names of nothing.
        slot.filter(|slot| slot.to_string() == text).ok_or_else(|| NotASlot(text.chars().take(80).collect()))
    }
}

/// All slots of this node, with whether each one's door is open: what the kubelet is told.
pub type Doors = BTreeMap<Slot, bool>;

/// What a container gets with its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub slot: Slot,
    /// The slot's directory on the host; in the container it is [`CONTAINER_DIR`], read-only: who connects does not write.
    pub host_dir: PathBuf,
    pub envs: BTreeMap<String, String>,
}

/// Why a container gets none. The kubelet shows the text as the pod's event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoGrant {
    #[error("a container takes exactly one loco.dev/seat, and this one asks for {0}; set the limit to 1")]
    NotOne(usize),
    #[error("this node has no {0}; the agent's --slots was changed, delete the pod so that it is placed anew")]
    Unknown(String),
    #[error("the door of {0} is shut; look at the agent's log")]
    Shut(Slot),
}

/// What a container gets that was given the devices `ids`.
///
/// # Errors
/// [`NoGrant`], when it cannot be one that is here and open.
pub fn grant(ids: &[String], doors: &Doors, seats_dir: &Path) -> Result<Grant, NoGrant> {
    let [id] = ids else { return Err(NoGrant::NotOne(ids.len())) };
    let slot = id.parse().ok().filter(|slot| doors.contains_key(slot)).ok_or_else(|| NoGrant::Unknown(id.clone()))?;
    if !doors[&slot] {
        return Err(NoGrant::Shut(slot));
    }
    let envs = [
        ("LOCO_SLOT".to_owned(), slot.to_string()),
        ("LOCO_AGENT_SOCKET".to_owned(), format!("{CONTAINER_DIR}/{SOCKET}")),
    ];
    Ok(Grant { slot, host_dir: seats_dir.join(id), envs: envs.into() })
}

/// Which `size` of `available` to take: what must be in it, then the lowest numbers, so that the same seats are used again and a
/// person finds the same slot in the same place. Names that are no slots come last.
pub fn prefer(available: &[String], must_include: &[String], size: usize) -> Vec<String> {
    let mut rest: Vec<_> = available.iter().filter(|id| !must_include.contains(id)).collect();
    rest.sort_by_key(|id| (id.parse::<Slot>().map_or(u32::MAX, |slot| slot.0.into()), (*id).clone()));
    rest.dedup();
    must_include.iter().chain(rest).take(size).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn doors() -> Doors {
        [(Slot(0), true), (Slot(1), false), (Slot(10), true)].into()
    }

    #[test]
    fn a_name_is_its_number_and_nothing_else() {
        assert_eq!("slot-0".parse(), Ok(Slot(0)));
        for wrong in ["", "slot-", "slot-01", "slot-+1", "slot--1", "slot-65536", "instance-0", "slot-1 ", "Slot-1"] {
            assert!(wrong.parse::<Slot>().is_err(), "{wrong}");
        }
        assert!("x".repeat(999).parse::<Slot>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn a_container_gets_its_slots_directory_and_says_so_in_its_environment() {
        let grant = grant(&ids("slot-10"), &doors(), Path::new("/run/loco/seats")).unwrap();
        assert_eq!(grant.host_dir, Path::new("/run/loco/seats/slot-10"));
        assert_eq!(grant.envs["LOCO_AGENT_SOCKET"], "/run/loco-seat/agent.sock");
        assert_eq!(grant.envs["LOCO_SLOT"], "slot-10");
    }

    #[test]
    fn what_is_not_one_open_slot_of_ours_is_refused() {
        let refused = |text| grant(&ids(text), &doors(), Path::new("/s")).unwrap_err();
        assert_eq!(refused(""), NoGrant::NotOne(0));
        assert_eq!(refused("slot-0 slot-10"), NoGrant::NotOne(2));
        assert_eq!(refused("slot-7"), NoGrant::Unknown("slot-7".into()));
        assert_eq!(refused("../.."), NoGrant::Unknown("../..".into()));
        assert_eq!(refused("slot-1"), NoGrant::Shut(Slot(1)));
    }

    #[test]
    fn the_lowest_is_taken_first_by_number() {
        assert_eq!(prefer(&ids("slot-10 slot-2 slot-9"), &[], 2), ids("slot-2 slot-9"));
        assert_eq!(prefer(&ids("slot-10 slot-2 slot-9"), &ids("slot-10"), 2), ids("slot-10 slot-2"));
        assert_eq!(prefer(&ids("gpu slot-3"), &[], 5), ids("slot-3 gpu"));
    }

    proptest! {
        /// The kubelet may take the answer as it is: of the size it asked for if there are so many, from what it offered, each once.
        #[test]
        fn a_preference_is_a_choice(
            numbers in proptest::collection::btree_set(0..50u16, 0..20), must in 0..4usize, size in 0..25usize,
        ) {
            let available: Vec<_> = numbers.iter().map(|n| Slot(*n).to_string()).collect();
            let must: Vec<_> = available.iter().rev().take(must).cloned().collect();
            let chosen = prefer(&available, &must, size);
            prop_assert_eq!(chosen.len(), size.min(available.len()));
            let set: std::collections::BTreeSet<_> = chosen.iter().collect();
            prop_assert_eq!(set.len(), chosen.len());
            prop_assert!(chosen.iter().all(|id| available.contains(id)));
            prop_assert!(must.iter().take(size).all(|id| chosen.contains(id)));
        }

        #[test]
        fn every_slot_is_read_back(number: u16) {
            prop_assert_eq!(Slot(number).to_string().parse(), Ok(Slot(number)));
        }
    }
}
