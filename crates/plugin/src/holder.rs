//! Which pod holds a slot, from what the kubelet lists. Pure.
//!
//! **Invariant.** Only exactly one holder is a proof. None: the kubelet has not caught up, or somebody came in by a door that is not
//! theirs. Two: an old and a new pod overlap in the kubelet's book, and it does not say which one is which.
use crate::{RESOURCE, Slot, proto::v1::PodResources as Listed};

/// One slot of ours in the hands of one container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    pub slot: Slot,
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// Why nobody is proven to hold a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoHolder {
    #[error("the kubelet knows no pod that holds {0}")]
    Nobody(Slot),
    #[error("the kubelet lists {} pods that hold {slot}: {}", holders.len(), names(holders))]
    Several { slot: Slot, holders: Vec<Holding> },
}

fn names(holders: &[Holding]) -> String {
    let names: Vec<_> = holders.iter().map(|holding| format!("{}/{}", holding.namespace, holding.pod)).collect();
    names.join(", ")
}

/// The one container that holds `slot`.
///
/// # Errors
/// When there is none or more than one.
pub fn of(slot: Slot, holdings: &[Holding]) -> Result<&Holding, NoHolder> {
    let hits: Vec<_> = holdings.iter().filter(|holding| holding.slot == slot).collect();
    match hits.as_slice() {
        [] => Err(NoHolder::Nobody(slot)),
        [one] => Ok(one),
        several => Err(NoHolder::Several { slot, holders: several.iter().map(|holding| (*holding).clone()).collect() }),
    }
}

/// The slots of ours in a listing of everything. Other resources are none of our business, and neither is an id of ours that is no
/// slot: an older release may have called its devices otherwise.
pub(crate) fn read(listed: Vec<Listed>) -> Vec<Holding> {
    let mut holdings = Vec::new();
    for pod in listed {
        for container in pod.containers {
            let ours = container.devices.iter().filter(|devices| devices.resource_name == RESOURCE);
            for slot in ours.flat_map(|devices| &devices.device_ids).filter_map(|id| id.parse().ok()) {
                holdings.push(Holding {
                    slot,
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    container: container.name.clone(),
                });
            }
        }
    }
    // The kubelet lists the devices of one container in groups, by NUMA node; the same one twice is still one.
    holdings.sort();
    holdings.dedup();
    holdings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{ContainerDevices, ContainerResources};

    fn pod(namespace: &str, name: &str, devices: &[(&str, &str)]) -> Listed {
        let devices = devices
            .iter()
            .map(|(resource, id)| ContainerDevices {
                resource_name: (*resource).to_owned(),
                device_ids: vec![(*id).to_owned()],
            })
            .collect();
        let containers = vec![ContainerResources { name: "runner".into(), devices }];
        Listed { name: name.into(), namespace: namespace.into(), containers }
    }

    #[test]
    fn exactly_one_holder_is_a_proof() {
        let holdings = read(vec![
            pod("loco", "instance-0", &[(RESOURCE, "slot-2")]),
            pod("loco", "instance-1", &[(RESOURCE, "slot-0"), ("example.com/gpu", "slot-1")]),
            pod("kube-system", "dns", &[]),
            pod("loco", "old", &[(RESOURCE, "seat-7")]),
        ]);
        assert_eq!(holdings.len(), 2);
        let holder = of(Slot(2), &holdings).unwrap();
        assert_eq!(
            (holder.namespace.as_str(), holder.pod.as_str(), holder.container.as_str()),
            ("loco", "instance-0", "runner")
        );
        assert_eq!(of(Slot(1), &holdings), Err(NoHolder::Nobody(Slot(1))), "another resource's slot-1 is not ours");
    }

    #[test]
    fn two_holders_prove_nothing_and_are_named() {
        let holdings = read(vec![
            pod("loco", "instance-0", &[(RESOURCE, "slot-2")]),
            pod("loco", "instance-4", &[(RESOURCE, "slot-2")]),
        ]);
        let error = of(Slot(2), &holdings).unwrap_err().to_string();
        assert!(error.contains("loco/instance-0, loco/instance-4"), "{error}");
    }

    #[test]
    fn the_same_device_in_two_groups_is_one() {
        let holdings = read(vec![pod("loco", "instance-0", &[(RESOURCE, "slot-2"), (RESOURCE, "slot-2")])]);
        assert!(of(Slot(2), &holdings).is_ok());
    }
}
