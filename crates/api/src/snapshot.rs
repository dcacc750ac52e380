//! The snapshot file: the directory of a cluster without Kubernetes. Written by `loco up`, followed by agents and gateway.
//!
//! ```
//! let text = r#"{"version":1,
//!   "lans":[{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}],
//!   "nodes":[{"name":"node-a","underlay_ip":"10.99.0.11","agent_url":"http://10.99.0.11:14780"}],
//!   "instances":[{"id":"instance-0","lan":"party","seat":0,"node":"node-a"}]}"#;
//! assert_eq!(api::snapshot::parse(text).unwrap().instances().count(), 1);
//! ```
use std::net::Ipv4Addr;

use model::{InvalidSnapshot, Lan, Node, PlacedInstance, Rate, Rules, Seat, Snapshot, Vni};
use serde::{Deserialize, Serialize};

/// Raw form. A misspelt key is an error, not a silent default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotFile {
    /// Must be 1.
    pub version: u32,
    pub lans: Vec<RawLan>,
    pub nodes: Vec<RawNode>,
    pub instances: Vec<RawInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawLan {
    pub name: String,
    pub vni: u32,
    pub mode: String,
    pub subnet: String,
    pub seats: u8,
    /// What the ports let through; the usual rules when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<RawGuard>,
}

/// The guard of a LAN's ports. A rule that is left out holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawGuard {
    /// Only the seat's own source address.
    pub own_source: bool,
    /// No DHCP server and no IPv6 router among the guests.
    pub no_servers: bool,
    /// Broadcasts and multicasts that a guest may send in a second, 0 to 1,000,000; `null`: any number.
    pub broadcasts_per_second: Option<u32>,
}

impl Default for RawGuard {
    fn default() -> Self {
        Rules::default().into()
    }
}

impl From<Rules> for RawGuard {
    fn from(rules: Rules) -> Self {
        Self {
            own_source: rules.own_source,
            no_servers: rules.no_servers,
            broadcasts_per_second: rules.broadcasts.map(|rate| rate.per_second),
        }
    }
}

impl TryFrom<RawGuard> for Rules {
    type Error = TooManyBroadcasts;

    fn try_from(raw: RawGuard) -> Result<Self, TooManyBroadcasts> {
        let rate = |per_second: u32| {
            // Two seconds' worth at once.
            let burst = per_second.saturating_mul(2);
            if per_second > BROADCASTS_MAX {
                Err(TooManyBroadcasts(per_second))
            } else {
                Ok(Rate { per_second, burst })
            }
        };
        let broadcasts = raw.broadcasts_per_second.map(rate).transpose()?;
        Ok(Self { own_source: raw.own_source, no_servers: raw.no_servers, broadcasts })
    }
}

/// More than any link of a LAN carries; a finer share of time the kernel's clock does not know.
const BROADCASTS_MAX: u32 = 1_000_000;

#[derive(Debug, thiserror::Error)]
#[error("{0} broadcasts a second are out of range; use 0 to 1000000, or null for any number")]
pub struct TooManyBroadcasts(pub u32);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNode {
    pub name: String,
    pub underlay_ip: Ipv4Addr,
    pub agent_url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawInstance {
    pub id: String,
    pub lan: String,
    pub seat: u8,
    pub node: String,
    /// MAC of the card of a guest that was moved here from the seat that it was started for: that seat's. Left out of all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
}

impl From<&PlacedInstance> for RawInstance {
    fn from(placed: &PlacedInstance) -> Self {
        Self {
            id: placed.id.to_string(),
            lan: placed.lan.to_string(),
            seat: placed.seat.0,
            node: placed.node.to_string(),
            card: placed.card.map(|card| card.to_string()),
        }
    }
}

/// The file of LANs: what a cluster with Kubernetes says of its LANs; the rest of its directory comes from the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LansFile {
    /// Must be 1.
    pub version: u32,
    pub lans: Vec<RawLan>,
}

/// Why a snapshot file, or a file of LANs, cannot be used. Names the key and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("it is not valid JSON of the expected shape: {0}")]
    Json(#[from] serde_json::Error),
    #[error("`version` is {0}; this program reads version 1")]
    Version(u32),
    #[error("`{key}` is not usable: {source}")]
    Value {
        key: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("it contradicts itself: {0}")]
    Invalid(#[from] InvalidSnapshot),
}

/// Parses and checks the text of a snapshot file.
pub fn parse(text: &str) -> Result<Snapshot, SnapshotError> {
    serde_json::from_str::<SnapshotFile>(text)?.try_into()
}

/// Parses and checks the text of a file of LANs.
pub fn parse_lans(text: &str) -> Result<Vec<Lan>, SnapshotError> {
    let file: LansFile = serde_json::from_str(text)?;
    let lans = lans(file.version, file.lans)?;
    // The checks over all of them, such as two LANs with one VNI.
    Snapshot::new(lans.iter().cloned(), [], [])?;
    Ok(lans)
}

fn lans(version: u32, raw: Vec<RawLan>) -> Result<Vec<Lan>, SnapshotError> {
    if version != 1 {
        return Err(SnapshotError::Version(version));
    }
    let mut lans = Vec::with_capacity(raw.len());
    for (i, raw) in raw.into_iter().enumerate() {
        let key = |field: &'static str| move || format!("lans[{i}].{field}");
        let name = value(key("name"), raw.name.parse())?;
        let vni = value(key("vni"), Vni::new(raw.vni).map_err(VniError))?;
        let mode = value(key("mode"), raw.mode.parse::<model::NetworkMode>())?;
        let subnet = value(key("subnet"), raw.subnet.parse::<model::Subnet>())?;
        let lan = value(key("seats"), Lan::new(name, vni, mode, subnet, raw.seats))?;
        let guard = value(key("guard.broadcasts_per_second"), raw.guard.unwrap_or_default().try_into())?;
        lans.push(lan.with_guard(guard));
    }
    Ok(lans)
}

impl From<&Snapshot> for SnapshotFile {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            version: 1,
            lans: snapshot
                .lans()
                .map(|lan| RawLan {
                    name: lan.name().to_string(),
                    vni: lan.vni().get(),
                    mode: lan.mode().to_string(),
                    subnet: lan.subnet().to_string(),
                    seats: lan.seats(),
                    guard: (lan.guard() != Rules::default()).then(|| lan.guard().into()),
                })
                .collect(),
            nodes: snapshot
                .nodes()
                .map(|node| RawNode {
                    name: node.name.to_string(),
                    underlay_ip: node.underlay_ip,
                    agent_url: node.agent_url.clone(),
                })
                .collect(),
            instances: snapshot.instances().map(RawInstance::from).collect(),
        }
    }
}

fn value<T, E>(key: impl FnOnce() -> String, result: Result<T, E>) -> Result<T, SnapshotError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    result.map_err(|source| SnapshotError::Value { key: key(), source: Box::new(source) })
}

impl TryFrom<SnapshotFile> for Snapshot {
    type Error = SnapshotError;

    fn try_from(file: SnapshotFile) -> Result<Self, SnapshotError> {
        let lans = lans(file.version, file.lans)?;
        let mut nodes = Vec::with_capacity(file.nodes.len());
        for (i, raw) in file.nodes.into_iter().enumerate() {
            let name = value(|| format!("nodes[{i}].name"), raw.name.parse())?;
            nodes.push(Node { name, underlay_ip: raw.underlay_ip, agent_url: raw.agent_url });
        }
        let mut instances = Vec::with_capacity(file.instances.len());
        for (i, raw) in file.instances.into_iter().enumerate() {
            let key = |field: &'static str| move || format!("instances[{i}].{field}");
            instances.push(PlacedInstance {
                id: value(key("id"), raw.id.parse())?,
                lan: value(key("lan"), raw.lan.parse())?,
                seat: Seat(raw.seat),
                node: value(key("node"), raw.node.parse())?,
                card: value(key("card"), raw.card.map(|card| card.parse()).transpose())?,
            });
        }
        Ok(Self::new(lans, nodes, instances)?)
    }
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct VniError(model::InvalidVni);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lan: &str, extra: &str) -> String {
        format!(
            r#"{{"version":1{extra},"lans":[{lan}],"nodes":[{{"name":"node-a","underlay_ip":"10.99.0.11","agent_url":"u"}}],"instances":[]}}"#
        )
    }

    #[track_caller]
    fn refuses(text: &str, want: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn the_guard_of_a_lan_is_switched_rule_by_rule() {
        let guard = |guard: &str| {
            let lan = format!(r#"{{"name":"party","vni":7,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9{guard}}}"#);
            parse(&text(&lan, "")).map(|snapshot| {
                // What is written is read again.
                let again = serde_json::to_string(&SnapshotFile::from(&snapshot)).unwrap();
                assert_eq!(parse(&again).unwrap().lans().next(), snapshot.lans().next());
                snapshot.lans().next().unwrap().guard()
            })
        };
        assert_eq!(guard("").unwrap(), Rules::default());
        assert_eq!(guard(r#","guard":{}"#).unwrap(), Rules::default());
        let free = guard(r#","guard":{"own_source":false,"broadcasts_per_second":null}"#).unwrap();
        assert_eq!(free, Rules { own_source: false, no_servers: true, broadcasts: None });
        let few = guard(r#","guard":{"broadcasts_per_second":50}"#).unwrap();
        assert_eq!(few.broadcasts, Some(Rate { per_second: 50, burst: 100 }));
        assert!(
            guard(r#","guard":{"broadcasts_per_second":1000001}"#).unwrap_err().to_string().contains("out of range")
        );
        assert!(guard(r#","guard":{"own_sauce":true}"#).is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let lan = r#"{"name":"party","vni":7,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}"#;
        let mut file: SnapshotFile = serde_json::from_str(&text(lan, "")).unwrap();
        let instance = |n: u8, card: Option<&str>| RawInstance {
            id: format!("instance-{n}"),
            lan: "party".into(),
            seat: n,
            node: "node-a".into(),
            card: card.map(str::to_owned),
        };
        file.instances = vec![instance(3, None), instance(4, Some("02:4c:00:00:09:01"))];
        let snapshot = Snapshot::try_from(file.clone()).unwrap();
        assert_eq!(SnapshotFile::from(&snapshot), file);
        assert!(!serde_json::to_string(&file.instances[0]).unwrap().contains("card"));
        file.instances[1].card = Some("52:54:00:12:34:56".into());
        let error = Snapshot::try_from(file).unwrap_err().to_string();
        assert!(error.contains("`instances[1].card`") && error.contains("no card of a seat"), "{error}");
    }

    #[test]
    fn a_file_of_lans_is_checked_like_a_snapshot() {
        let lan = |name: &str, vni: u32| {
            format!(r#"{{"name":"{name}","vni":{vni},"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}}"#)
        };
        let file = |lans: &[String]| format!(r#"{{"version":1,"lans":[{}]}}"#, lans.join(","));
        assert_eq!(parse_lans(&file(&[lan("party", 7), lan("other", 8)])).unwrap().len(), 2);
        let error = parse_lans(&file(&[lan("party", 7), lan("other", 7)])).unwrap_err().to_string();
        assert!(error.contains("VNI 7"), "{error}");
        let error = parse_lans(r#"{"version":1,"lans":[],"nodes":[]}"#).unwrap_err().to_string();
        assert!(error.contains("nodes"), "{error}");
    }

    #[test]
    fn errors_name_the_key() {
        let lan = r#"{"name":"party","vni":0,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9}"#;
        refuses(&text(lan, ""), "`lans[0].vni`");
        refuses(&text(&lan.replace("\"vni\":0", "\"vni\":7").replace("vxlan", "carrier-pigeon"), ""), "`lans[0].mode`");
        refuses(&text("", r#","extra":1"#), "unknown field `extra`");
        refuses(r#"{"version":2,"lans":[],"nodes":[],"instances":[]}"#, "`version` is 2");
        refuses("{\"version\":1", "EOF");
    }
}
