//! Configuration files and command lines of what runs in the cluster. Pure: plan in, text out.
//!
//! What each odd setting is for is in docs/cluster.md, by the fault that it avoids.
use std::path::Path;

use serde_json::json;

use super::{
    certs::{file, kubeconfig},
    plan::{CONTROL_PLANE, Node, PODS, SERVICES, STATE},
};

/// What `pause image` names itself.
pub(crate) const PAUSE: &str = "localhost/loco/pause:1";

/// What of the machine goes into the files.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// `overlayfs`, or `native` where that cannot lie on the disk below.
    pub(crate) snapshotter: &'static str,
    /// Where the CNI plugins are.
    pub(crate) cni_bin: &'static str,
    /// Hard limit of open files, which nobody here may raise.
    pub(crate) open_files: u64,
}

pub(crate) fn containerd(machine: &Machine) -> String {
    let Machine { snapshotter, cni_bin, .. } = machine;
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "/etc/cni/net.d"
"#
    )
}

/// JSON, which is YAML too.
pub(crate) fn kubelet(node: Node, machine: &Machine) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": file("ca.crt")}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.cgroup()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "maxOpenFiles": machine.open_files,
        "protectKernelDefaults": false,
        "makeIPTablesUtilChains": false,
        "clusterDomain": "cluster.local",
        "resolvConf": format!("{}/etc/resolv.conf", node.dir().display()),
        // The disk is the machine's: what others do to it is not to evict anybody here.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        // Images are imported, not pulled: one that was collected would not come back.
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "5s",
        "featureGates": {"KubeletInUserNamespace": true},
    });
    format!("{config:#}\n")
}

/// Pods of one node on a bridge of their own.
pub(crate) fn cni(node: Node) -> String {
    let config = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
         "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/networks",
                  "ranges": [[{"subnet": node.pods()}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
    ]});
    format!("{config:#}\n")
}

/// Parts of the control plane, in the order in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Etcd,
    Api,
    Manager,
    Scheduler,
}

impl Part {
    /// Of its log, and of its processes' mark.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Api => "kube-apiserver",
            Self::Manager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }

    /// Its command line, with the programs of folder `bin`.
    pub(crate) fn command(self, bin: &Path) -> Vec<String> {
        let kube = |args: &[String]| {
            let mut words = vec![bin.join("kube").display().to_string(), self.name().to_owned()];
            words.extend_from_slice(args);
            words
        };
        let client = |user: &str| {
            vec![
                format!("--kubeconfig={}", kubeconfig(user)),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
            ]
        };
        match self {
            Self::Etcd => {
                let mut words = vec![bin.join("etcd").display().to_string()];
                words.extend(
                    [
                        "--unsafe-no-fsync",
                        "--listen-client-urls=http://127.0.0.1:2379",
                        "--advertise-client-urls=http://127.0.0.1:2379",
                        "--listen-peer-urls=http://127.0.0.1:2380",
                        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                        "--initial-cluster=default=http://127.0.0.1:2380",
                        "--log-level=warn",
                    ]
                    .map(str::to_owned),
                );
                words.push(format!("--data-dir={STATE}/etcd"));
                words
            }
            Self::Api => kube(&[
                "--etcd-servers=http://127.0.0.1:2379".to_owned(),
                "--bind-address=0.0.0.0".to_owned(),
                "--secure-port=6443".to_owned(),
                format!("--advertise-address={CONTROL_PLANE}"),
                "--allow-privileged=true".to_owned(),
                format!("--tls-cert-file={}", file("apiserver.crt")),
                format!("--tls-private-key-file={}", file("apiserver.key")),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--token-auth-file={}", file("tokens.csv")),
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
                format!("--service-account-key-file={}", file("sa.pub")),
                format!("--service-account-signing-key-file={}", file("sa.key")),
                format!("--service-cluster-ip-range={SERVICES}"),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
                format!("--kubelet-client-key={}", file("kubelet-client.key")),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                // At `api stop` long requests, watches among them, end at once.
                "--shutdown-delay-duration=0s".to_owned(),
            ]),
            Self::Manager => {
                let mut args = client("system:kube-controller-manager");
                args.extend([
                    format!("--service-account-private-key-file={}", file("sa.key")),
                    format!("--root-ca-file={}", file("ca.crt")),
                    "--use-service-account-credentials=true".to_owned(),
                    format!("--cluster-signing-cert-file={}", file("ca.crt")),
                    format!("--cluster-signing-key-file={}", file("ca.key")),
                    "--node-monitor-period=2s".to_owned(),
                    "--node-monitor-grace-period=16s".to_owned(),
                    "--enable-hostpath-provisioner=true".to_owned(),
                ]);
                kube(&args)
            }
            Self::Scheduler => kube(&client("system:kube-scheduler")),
        }
    }
}

/// What runs on a node beside its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Containerd,
    Kubelet,
    Proxy,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }

    /// As the kernel names its process.
    pub(crate) fn process(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet | Self::Proxy => "kube",
        }
    }

    pub(crate) fn command(self, node: Node, bin: &Path) -> Vec<String> {
        let etc = node.dir().join("etc");
        let kube = bin.join("kube").display().to_string();
        match self {
            Self::Containerd => {
                vec!["containerd".to_owned(), "--config".to_owned(), etc.join("containerd.toml").display().to_string()]
            }
            Self::Kubelet => vec![
                kube,
                self.name().to_owned(),
                format!("--config={}", etc.join("kubelet.json").display()),
                format!("--kubeconfig={}", kubeconfig(&format!("system:node:{node}"))),
                format!("--hostname-override={node}"),
                format!("--node-ip={}", node.ip()),
                "--root-dir=/var/lib/kubelet".to_owned(),
            ],
            Self::Proxy => vec![
                kube,
                self.name().to_owned(),
                format!("--kubeconfig={}", kubeconfig("system:kube-proxy")),
                format!("--hostname-override={node}"),
                "--proxy-mode=nftables".to_owned(),
                format!("--cluster-cidr={PODS}"),
                // The machine's conntrack is not this cluster's to size.
                "--conntrack-max-per-core=0".to_owned(),
                "--conntrack-tcp-timeout-established=0".to_owned(),
                "--conntrack-tcp-timeout-close-wait=0".to_owned(),
            ],
        }
    }
}

/// A class for claims, so that a chart's claims are bound without a word about classes. The volumes lie on the machine's
/// disk, which every node sees: they follow a pod to another node, as a network's do.
pub(crate) const STORAGE_CLASS: &str = r#"{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
 "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
 "provisioner": "kubernetes.io/host-path", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}
"#;

/// The bridge refuses every frame between the two nodes, and nothing else: the API still reaches both.
pub(crate) fn partition(one: Node, other: Node) -> String {
    format!(
        "add table bridge loco\nadd chain bridge loco partition {{ type filter hook forward priority 0; }}\n\
         add rule bridge loco partition iifname \"{one}\" oifname \"{other}\" drop\n\
         add rule bridge loco partition iifname \"{other}\" oifname \"{one}\" drop\n"
    )
}

/// The hard limit of open files, from the text of `/proc/self/limits`.
pub(crate) fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // `unlimited` is more than the kernel takes; this is its own default ceiling.
    line.split_whitespace().nth(1).map(|word| word.parse().unwrap_or(1 << 20))
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    fn machine() -> Machine {
        Machine { snapshotter: "overlayfs", cni_bin: "/usr/lib/cni", open_files: 20_000 }
    }

    #[test]
    fn every_file_and_command_line_is_as_recorded() {
        let node: Node = "n1".parse().unwrap();
        let bin = Path::new("/bin");
        let mut all = format!("{}\n{}\n{}\n", containerd(&machine()), kubelet(node, &machine()), cni(node));
        for words in [Part::Etcd, Part::Api, Part::Manager, Part::Scheduler].map(|part| part.command(bin)) {
            all.push_str(&(words.join("\n  ") + "\n\n"));
        }
        for service in [Service::Containerd, Service::Kubelet, Service::Proxy] {
            all.push_str(&(service.command(node, bin).join("\n  ") + "\n\n"));
        }
        expect_file!["golden.txt"].assert_eq(&all);
    }

    #[test]
    fn a_partition_drops_both_ways_between_two_and_leaves_the_third_alone() {
        let rules = partition("n1".parse().unwrap(), "n3".parse().unwrap());
        assert!(
            rules.contains("iifname \"n1\" oifname \"n3\" drop")
                && rules.contains("iifname \"n3\" oifname \"n1\" drop")
        );
        assert!(!rules.contains("n2"));
    }

    #[test]
    fn reads_the_limit_of_open_files() {
        let limits = |hard: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 {hard}                files\n"
            )
        };
        assert_eq!(open_files(&limits("20000")), Some(20_000));
        assert_eq!(open_files(&limits("unlimited")), Some(1 << 20));
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn the_class_of_storage_is_json() {
        let class: serde_json::Value = serde_json::from_str(STORAGE_CLASS).unwrap();
        assert_eq!(class["provisioner"], "kubernetes.io/host-path");
    }
}
