//! Command lines of the wall's processes. Pure; the flags are those programs' own (their `--help`).
use std::{ffi::OsString, path::Path};

use model::{NetworkMode, Seat, Subnet};

use crate::{
    paths::Paths,
    plan::{AGENT_PORT, InstancePlan, NodePlan, Wall},
};

/// UDP ports on which an agent sends media.
const MEDIA_PORTS: &str = "14900-14999";
/// 4789 and 8472 are other people's.
const VXLAN_PORT: u16 = 14789;

struct Flags(Vec<OsString>);

impl Flags {
    fn with(mut self, flag: &str, value: impl Into<OsString>) -> Self {
        self.0.extend([OsString::from(flag), value.into()]);
        self
    }

    fn switch(mut self, flag: &str, on: bool) -> Self {
        self.0.extend(on.then(|| OsString::from(flag)));
        self
    }

    fn maybe(self, flag: &str, value: Option<impl Into<OsString>>) -> Self {
        match value {
            Some(value) => self.with(flag, value),
            None => self,
        }
    }
}

pub(crate) fn agent(wall: &Wall, paths: &Paths, node: &NodePlan) -> Vec<OsString> {
    // One relay for the wall: two would be two worlds to whoever must choose where to connect.
    let relay = wall.ipx_relay.filter(|_| wall.nodes.first() == Some(node)).zip(wall.lans.first());
    Flags(Vec::new())
        .with("--node", &node.name)
        .with("--snapshot", paths.snapshot())
        .with("--run-dir", paths.node(&node.name))
        .with("--listen", format!("{}:{AGENT_PORT}", node.ip))
        .with("--media-ip", node.ip.to_string())
        .with("--media-ports", MEDIA_PORTS)
        .with("--token-file", paths.agent_token())
        .with("--vxlan-port", VXLAN_PORT.to_string())
        .maybe("--encryption", wall.encryption.as_ref())
        .maybe("--kvm-probe", wall.kvm_probe.as_deref())
        .maybe("--ipx-relay", relay.map(|(port, _)| format!("{}:{port}", node.ip)))
        .maybe("--ipx-relay-lan", relay.map(|(_, lan)| &lan.name))
        .0
}

pub(crate) fn gateway(wall: &Wall, paths: &Paths) -> Vec<OsString> {
    Flags(Vec::new())
        .with("--listen", format!("127.0.0.1:{}", wall.port))
        .with("--snapshot", paths.snapshot())
        .with("--tokens-file", paths.tokens())
        .with("--agent-token-file", paths.agent_token())
        .0
}

/// `work`: the runner's own directory, see [`Wall::work_dir`].
pub(crate) fn runner(wall: &Wall, paths: &Paths, instance: &InstancePlan, work: &Path) -> Vec<OsString> {
    Flags(Vec::new())
        .with("--instance", &instance.id)
        .with("--agent-socket", paths.seat_socket(&instance.node, &instance.id))
        .with("--work-dir", work)
        .with("--listen", format!("{}:{}", instance.node_ip, instance.health_port))
        .maybe("--kernel", wall.boot.kernel.as_deref())
        .maybe("--append", wall.append(instance))
        .maybe("--disk", wall.boot.disk.as_deref())
        // Overlays that `down` removes need not outlive a power cut, and Windows starts faster.
        .maybe("--write-through", (wall.boot.disk.is_some() && wall.boot.keep_disks.is_none()).then_some("off"))
        .maybe("--cdrom", wall.boot.cdrom.as_deref())
        .switch("--vnc", wall.boot.vnc)
        .with("--uid", instance.uid.to_string())
        .with("--gid", instance.uid.to_string())
        .0
}

impl Wall {
    /// The guest's command line. In mode `macvlan` the LAN is the wire between the nodes, and nobody there answers DHCP.
    fn append(&self, instance: &InstancePlan) -> Option<String> {
        let words = self.boot.append.as_ref()?;
        let address = self.lans.iter().filter(|lan| lan.mode == NetworkMode::Macvlan.as_str()).find_map(|lan| {
            let subnet: Subnet = lan.subnet.parse().ok().filter(|_| lan.name == instance.lan)?;
            Some(format!(" ip={}/{}", subnet.seat(Seat(instance.seat)), subnet.prefix_len()))
        });
        Some(format!("{words}{}", address.unwrap_or_default()))
    }

    /// Where the runner of `instance` keeps its overlay: with `--keep-disks` there, with `--disk` on a real disk, else
    /// below the run directory.
    pub(crate) fn work_dir(&self, paths: &Paths, instance: &str) -> std::path::PathBuf {
        match (&self.boot.keep_disks, &self.boot.disk) {
            (Some(dir), _) => dir.join(instance),
            (None, Some(_)) => paths.disks().join(instance),
            (None, None) => paths.work(instance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Boot, tests::wall};

    fn joined(argv: &[OsString]) -> String {
        argv.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn command_lines_are_as_agreed_with_the_programs() {
        let paths = Paths::machine();
        let mut wall = wall("--port 8123");
        wall.kvm_probe = Some("/c/demo-guest.elf".into());
        assert_eq!(
            joined(&agent(&wall, &paths, &wall.nodes[1])),
            "--node node-b --snapshot /run/loco/snapshot.json --run-dir /run/loco/node-b --listen 10.99.0.12:14780 \
             --media-ip 10.99.0.12 --media-ports 14900-14999 --token-file /run/loco/agent-token --vxlan-port 14789 \
             --kvm-probe /c/demo-guest.elf"
        );
        wall.encryption = Some("wireguard".to_owned());
        assert!(
            joined(&agent(&wall, &paths, &wall.nodes[1])).contains("--vxlan-port 14789 --encryption wireguard --kvm")
        );
        wall.ipx_relay = Some(213);
        assert!(
            joined(&agent(&wall, &paths, &wall.nodes[0])).ends_with("--ipx-relay 10.99.0.11:213 --ipx-relay-lan party")
        );
        assert!(!joined(&agent(&wall, &paths, &wall.nodes[1])).contains("relay"));
        assert_eq!(
            joined(&gateway(&wall, &paths)),
            "--listen 127.0.0.1:8123 --snapshot /run/loco/snapshot.json --tokens-file /run/loco/tokens \
             --agent-token-file /run/loco/agent-token"
        );
        wall.boot = Boot { kernel: Some("/k".into()), append: Some("a b".into()), ..Boot::default() };
        let last = &wall.instances[8];
        assert_eq!(
            joined(&runner(&wall, &paths, last, &wall.work_dir(&paths, &last.id))),
            "--instance instance-8 --agent-socket /run/loco/node-c/seats/instance-8/agent.sock \
             --work-dir /run/loco/guests/instance-8 --listen 10.99.0.13:14808 --kernel /k --append a b \
             --uid 1098008 --gid 1098008"
        );
        // On the wire between the nodes nobody gives addresses.
        wall.lans[0].mode = "macvlan".to_owned();
        let told = joined(&runner(&wall, &paths, last, &wall.work_dir(&paths, &last.id)));
        assert!(told.contains("--append a b ip=10.98.0.9/24 "), "{told}");
    }

    #[test]
    fn overlays_go_where_there_is_room_or_where_they_are_kept() {
        let (paths, mut wall) = (Paths::machine(), wall(""));
        wall.boot = Boot { disk: Some("/d.img".into()), cdrom: Some("/c.iso".into()), ..Boot::default() };
        let work = wall.work_dir(&paths, "instance-0");
        assert_eq!(work, Path::new("/var/lib/loco/overlays/instance-0"));
        let argv = joined(&runner(&wall, &paths, &wall.instances[0], &work));
        assert!(
            argv.contains("--disk /d.img --write-through off --cdrom /c.iso") && !argv.contains("--kernel"),
            "{argv}"
        );
        wall.boot.keep_disks = Some("/kept".into());
        assert_eq!(wall.work_dir(&paths, "instance-0"), Path::new("/kept/instance-0"));
    }
}
