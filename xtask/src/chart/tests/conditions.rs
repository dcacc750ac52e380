//! One test for each condition in the templates: what it adds, and that it is not there without.
use serde_json::{Value, json};

use super::helm::{Rendered, arguments, environment, mount, render, volume};

fn agent(rendered: &Rendered) -> (&Value, &Value) {
    let pod = rendered.pod("DaemonSet", "loco-node-agent");
    (pod, &pod["containers"][0])
}

fn guest<'a>(rendered: &'a Rendered, name: &str) -> (&'a Value, &'a Value) {
    let pod = rendered.pod("StatefulSet", name);
    (pod, &pod["containers"][0])
}

/// The file of LANs that agents and gateway follow.
fn lans(rendered: &Rendered) -> Value {
    let text = rendered.object("ConfigMap", "loco-lans")["data"]["lans.json"].as_str().unwrap();
    serde_json::from_str(text).unwrap()
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_agent_is_privileged_or_split() {
    let rendered = render(&[]);
    let (pod, container) = agent(&rendered);
    assert_eq!(container["securityContext"], json!({"privileged": true, "readOnlyRootFilesystem": true}));
    assert_eq!(mount(container, "run").unwrap()["mountPropagation"], "Bidirectional");
    assert!(pod["initContainers"].is_null() && volume(pod, "tun").is_none());
    assert!(arguments(container).iter().any(|flag| flag.starts_with("--kvm-probe=")));

    let rendered = render(&["agent.privileged=false"]);
    let (pod, container) = agent(&rendered);
    let security = &container["securityContext"];
    let want = json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "BPF", "PERFMON"]});
    assert_eq!((&security["capabilities"], &security["privileged"]), (&want, &Value::Null));
    assert_eq!(security["allowPrivilegeEscalation"], false);
    // It could not open /dev/kvm.
    assert!(!arguments(container).iter().any(|flag| flag.starts_with("--kvm-probe")));
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    // The API refuses Bidirectional to containers that are not privileged.
    assert_eq!(mount(container, "run").unwrap()["mountPropagation"], "HostToContainer");
    let prepare = &pod["initContainers"][0];
    assert_eq!((&prepare["name"], &prepare["securityContext"]["privileged"]), (&json!("prepare"), &json!(true)));
    assert_eq!(arguments(prepare), ["prepare", "--run-dir", "/run/loco"]);
    assert_eq!(mount(prepare, "run").unwrap()["mountPropagation"], "Bidirectional");
    assert_eq!(volume(pod, "tun").unwrap()["hostPath"], json!({"path": "/dev/net/tun", "type": "CharDevice"}));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn an_agent_without_kernel_devices_has_no_right_at_all() {
    let rendered = render(&["unprivileged-values.yaml", "agent.cleanup.nodes={a}"]);
    let (pod, container) = agent(&rendered);
    let nothing =
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(container["securityContext"], nothing);
    assert!(pod["initContainers"].is_null() && volume(pod, "tun").is_none() && mount(container, "tun").is_none());
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(mount(container, "run").unwrap()["mountPropagation"], "None");
    assert!(!arguments(container).iter().any(|flag| flag.starts_with("--kvm-probe")));
    let cleanup = &rendered.pod("Job", "loco-cleanup")["containers"][0];
    let nothing = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(cleanup["securityContext"], nothing);
    assert!(mount(cleanup, "run").unwrap()["mountPropagation"].is_null());
    // The peers of `helm test` know taps only.
    assert!(rendered.find("Job", "loco-test-lan").is_none());
    assert_eq!(lans(&rendered)["lans"].as_array().unwrap().len(), 2);
    // One LAN of the kernel's, and the rights are there.
    for lan in ["lans[1].mode=vxlan", "networkMode=vxlan"] {
        let rendered = render(&["unprivileged-values.yaml", lan]);
        let (pod, container) = agent(&rendered);
        assert_eq!(pod["initContainers"][0]["name"], "prepare", "{lan}");
        assert_eq!(container["securityContext"]["capabilities"]["add"][0], "NET_ADMIN", "{lan}");
    }
    let of_modes = ["unprivileged-values.yaml", "lans[0].mode=user", "lans[1].mode=socket"];
    assert_eq!(agent(&render(&of_modes)).1["securityContext"]["capabilities"]["add"], Value::Null);
    // Not because of the modes alone: KVM is handed on by a privileged agent.
    let asked_for = render(&["unprivileged-values.yaml", "agent.privileged=true"]);
    assert_eq!(agent(&asked_for).1["securityContext"]["privileged"], true);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_next_agent_starts_beside_the_one_that_serves() {
    let rendered = render(&["agent.port=15000"]);
    let rolling = &rendered.object("DaemonSet", "loco-node-agent")["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(rolling, &json!({"maxSurge": 1, "maxUnavailable": 0}));
    let (pod, container) = agent(&rendered);
    assert!(arguments(container).contains(&"--stand-by".to_owned()));
    // A port of a container on the node's network is a host port, of which there is one: the second agent would never be placed.
    assert_eq!((&pod["hostNetwork"], &container["ports"]), (&json!(true), &Value::Null));
    let service = &rendered.object("Service", "loco-node-agent")["spec"]["ports"][0];
    assert_eq!(service, &json!({"name": "http", "port": 15000, "targetPort": 15000}));
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/healthz", "port": 15000}));
    // The node's port cannot tell one from the other.
    assert_eq!(container["startupProbe"]["exec"]["command"], json!(["/usr/bin/node-agent", "probe"]));
    assert_eq!(container["readinessProbe"]["exec"]["command"], json!(["/usr/bin/node-agent", "probe", "--ready"]));
    let socket = environment(container)["LOCO_PROBE_SOCKET"].clone();
    let folder = std::path::Path::new(&socket).parent().unwrap().to_str().unwrap().to_owned();
    let mounts = container["volumeMounts"].as_array().unwrap();
    let its = mounts.iter().find(|mount| mount["mountPath"] == folder.as_str()).expect("a place of the pod's own");
    assert!(volume(pod, its["name"].as_str().unwrap()).unwrap()["emptyDir"].is_object());
    for (value, want) in [("agent.maxSurge=3", json!(3)), ("agent.maxSurge=50%", json!("50%"))] {
        let rendered = render(&[value]);
        let rolling = &rendered.object("DaemonSet", "loco-node-agent")["spec"]["updateStrategy"]["rollingUpdate"];
        assert_eq!(rolling["maxSurge"], want);
    }
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_agents_flags_follow_the_values() {
    let has = |values: &[&str], flag: &str| arguments(agent(&render(values)).1).iter().any(|found| found == flag);
    assert!(
        has(&[], "--media-ports=14900-14999") && has(&["agent.mediaPorts=20000-20009"], "--media-ports=20000-20009")
    );
    assert!(has(&["agent.slots=20"], "--slots=20") && has(&["agent.vxlanPort=5000"], "--vxlan-port=5000"));
    assert!(has(&[], "--switch-port=14790") && has(&["agent.switchPort=5001"], "--switch-port=5001"));
    assert!(has(&["networkMode=macvlan", "agent.macvlanParent=lan0"], "--macvlan-parent=lan0"));
    assert!(!arguments(agent(&render(&["networkMode=macvlan"])).1).iter().any(|flag| flag.contains("macvlan")));
    assert!(has(&["agent.port=15000"], "--listen=$(HOST_IP):15000"));
    assert!(has(&["agent.captureBytes=1073741824"], "--capture-bytes=1073741824"), "not in powers of ten");
    let other = render(&["agent.kubeletDir=/k", "agent.runDir=/run/x"]);
    let (pod, container) = agent(&other);
    assert_eq!(volume(pod, "pod-resources").unwrap()["hostPath"]["path"], "/k/pod-resources");
    assert_eq!(mount(container, "device-plugins").unwrap()["mountPath"], "/k/device-plugins");
    assert_eq!(volume(pod, "run").unwrap()["hostPath"], json!({"path": "/run/x", "type": "DirectoryOrCreate"}));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_ipx_relay_is_off_unless_asked_for() {
    let flags = |values: &[&str]| -> Vec<String> {
        arguments(agent(&render(values)).1).into_iter().filter(|flag| flag.starts_with("--ipx-relay")).collect()
    };
    assert!(flags(&[]).is_empty());
    let first = ["--ipx-relay=$(HOST_IP):213", "--ipx-relay-lan=party", "--ipx-relay-framing=auto"];
    assert_eq!(flags(&["agent.ipxRelay.enabled=true"]), first);
    let split = flags(&["split-values.yaml"]);
    assert_eq!(split[1..], ["--ipx-relay-lan=attic", "--ipx-relay-framing=raw_802_3", "--ipx-relay-netbios"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_underlay_is_encrypted_only_if_asked_for() {
    let flags = |values: &[&str]| -> Vec<String> {
        let is_its = |flag: &String| flag.starts_with("--encryption") || flag.starts_with("--wireguard");
        arguments(agent(&render(values)).1).into_iter().filter(is_its).collect()
    };
    assert!(flags(&[]).is_empty());
    assert_eq!(flags(&["encryption=wireguard"]), ["--encryption=wireguard", "--wireguard-port=51820"]);
    let split = flags(&["split-values.yaml", "encryption=wireguard", "agent.wireguardPort=51999"]);
    assert_eq!(split[1], "--wireguard-port=51999");
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn placement_and_environment_are_passed_on() {
    for (group, kind, name) in [
        ("agent", "DaemonSet", "loco-node-agent"),
        ("gateway", "Deployment", "loco-gateway"),
        ("guest", "StatefulSet", "instance"),
    ] {
        let set = |text: &str| format!("{group}.{text}");
        let (a, b, c) = (set("nodeSelector.zone=a"), set("tolerations[0].operator=Exists"), set("affinity.x.y=z"));
        let (d, e) = (set("podAnnotations.note=n"), set("extraEnv[0].name=X"));
        let (f, g) = (set("image=r/i@sha256:1"), set("logLevel=debug"));
        let rendered = render(&[&a, &b, &c, &d, &e, &f, &g, "image.pullSecrets[0].name=reg"]);
        let pod = rendered.pod(kind, name);
        assert_eq!(pod["nodeSelector"], json!({"zone": "a"}), "{group}");
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]), "{group}");
        assert_eq!(pod["affinity"], json!({"x": {"y": "z"}}), "{group}");
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "reg"}]), "{group}");
        let container = &pod["containers"][0];
        assert_eq!(container["image"], "r/i@sha256:1", "{group}");
        assert_eq!(environment(container)["LOCO_LOG"], "debug", "{group}");
        assert!(container["env"].as_array().unwrap().contains(&json!({"name": "X"})), "{group}");
        let annotations = &rendered.object(kind, name)["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(annotations["note"], "n", "{group}");

        let plain = render(&[]);
        let pod = plain.pod(kind, name);
        for key in ["nodeSelector", "tolerations", "affinity", "imagePullSecrets"] {
            assert!(pod[key].is_null(), "{group}: {key}");
        }
    }
    let plain = render(&["guest.priorityClassName=low"]);
    assert_eq!(guest(&plain, "instance").0["priorityClassName"], "low");
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn guests_are_spread_strictly_unless_their_disks_pin_them() {
    let spread = |values: &[&str]| {
        let rendered = render(values);
        guest(&rendered, "instance").0["topologySpreadConstraints"][0]["whenUnsatisfiable"].clone()
    };
    assert_eq!(spread(&[]), "DoNotSchedule");
    assert_eq!(spread(&["guest.spread=ScheduleAnyway"]), "ScheduleAnyway");
    assert_eq!(spread(&["hostpath-values.yaml"]), "ScheduleAnyway");
    assert_eq!(spread(&["hostpath-values.yaml", "storage.hostPath.shared=true"]), "DoNotSchedule");
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn a_lans_change_rolls_nothing() {
    let template = |rendered: &Rendered, kind: &str, name: &str| {
        let mut template = rendered.object(kind, name)["spec"]["template"].clone();
        if let Some(token) = template.pointer_mut("/metadata/annotations/loco.dev~1tokens") {
            *token = Value::Null;
        }
        template
    };
    let before = render(&["split-values.yaml", "tests.enabled=false"]);
    let change = [
        "lans[0].vni=7",
        "lans[0].subnet=10.9.0.0/24",
        "lans[1].seats=5",
        "lans[1].replicas=1",
        "lans[1].guard.noServers=false",
    ];
    let after = render(&[&["split-values.yaml"], &change[..]].concat());
    for (kind, name) in [
        ("DaemonSet", "loco-node-agent"),
        ("Deployment", "loco-gateway"),
        ("StatefulSet", "instance"),
        ("StatefulSet", "instance-attic"),
    ] {
        assert_eq!(template(&before, kind, name), template(&after, kind, name), "{name}");
    }
    let want = json!({"version": 1, "lans": [
        {"name": "party", "vni": 4200, "mode": "vxlan", "subnet": "10.98.0.0/24", "seats": 9},
        {"name": "attic", "vni": 4201, "mode": "vxlan", "subnet": "10.98.1.0/28", "seats": 4},
    ]});
    assert_eq!(lans(&before), want);
    assert_eq!(lans(&after)["lans"][0]["vni"], 7);
    assert_eq!(lans(&after)["lans"][2]["name"], "helm-test");
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn a_lans_guard_is_told_to_its_ports() {
    let guard = |values: &[&str], lan: usize| lans(&render(values))["lans"][lan]["guard"].clone();
    let usual = json!({"own_source": true, "no_servers": true, "broadcasts_per_second": 2000});
    assert_eq!(guard(&[], 0), usual);
    // What is left out is left to the agents, whose defaults these are.
    assert_eq!(guard(&["unprivileged-values.yaml"], 0), Value::Null);
    assert_eq!(guard(&["unprivileged-values.yaml"], 1), json!({"no_servers": false, "broadcasts_per_second": null}));
    assert_eq!(guard(&["small-values.yaml", "lans[0].guard.ownSource=false"], 0), json!({"own_source": false}));
    let much = ["small-values.yaml", "lans[0].guard.broadcastsPerSecond=1000000"];
    assert_eq!(guard(&much, 0), json!({"broadcasts_per_second": 1_000_000}));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn each_lan_has_its_guests() {
    let rendered = render(&["split-values.yaml"]);
    for (set, lan) in [("instance", "party"), ("instance-attic", "attic")] {
        let object = rendered.object("StatefulSet", set);
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        assert_eq!(
            (&labels["loco.dev/lan"], &labels["app.kubernetes.io/component"]),
            (&json!(lan), &json!("instance"))
        );
        // So that the API refuses a change of the order, which would put guests into another LAN.
        assert_eq!(object["spec"]["selector"]["matchLabels"]["loco.dev/lan"], lan);
        assert_eq!(object["spec"]["podManagementPolicy"], "Parallel");
        let (_, container) = guest(&rendered, set);
        assert_eq!(container["resources"]["limits"]["loco.dev/seat"], 1);
        let budget = rendered.object("PodDisruptionBudget", set);
        assert_eq!(budget["spec"]["selector"]["matchLabels"]["loco.dev/lan"], lan);
    }
    let own = render(&["guest.resources.limits.memory=2Gi"]);
    assert_eq!(guest(&own, "instance").1["resources"]["limits"], json!({"memory": "2Gi", "loco.dev/seat": 1}));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn a_guest_is_told_what_it_is() {
    let of = |values: &[&str]| environment(guest(&render(values), "instance").1);
    let demo = of(&[]);
    assert_eq!(demo["LOCO_KERNEL"], "/base/demo-guest.elf");
    assert_eq!((demo["LOCO_LIFETIME"].as_str(), demo["LOCO_RUN_DIR"].as_str()), ("ephemeral", "/run/loco-work"));
    assert_eq!(demo["LOCO_APPEND"], "autoplay=1");
    for absent in ["LOCO_DISK", "LOCO_CDROM", "LOCO_MEMORY", "LOCO_VNC"] {
        assert!(!demo.contains_key(absent), "{absent}");
    }
    let shown = of(&["guest.append=autoplay=0", "guest.memory=32", "guest.vnc=true", "guest.nic=ne2k_pci"]);
    assert_eq!((shown["LOCO_APPEND"].as_str(), shown["LOCO_MEMORY"].as_str()), ("autoplay=0", "32"));
    assert_eq!((shown["LOCO_VNC"].as_str(), shown["LOCO_NIC"].as_str()), ("true", "ne2k_pci"));
    let disk = of(&["nfs-values.yaml"]);
    assert_eq!((disk["LOCO_DISK"].as_str(), disk["LOCO_CDROM"].as_str()), ("/base/win98.qcow2", "/base/game.iso"));
    assert_eq!((disk.get("LOCO_KERNEL"), disk["LOCO_VIDEO"].as_str()), (None, "vmware"));
    // The words are the demo's, and the chart's default: a disk must not need them taken away.
    assert_eq!(disk.get("LOCO_APPEND"), None);
    let cd_only = of(&["guest.kind=disk", "guest.cdrom=a.iso", "storage.base.source=hostPath"]);
    assert_eq!((cd_only.get("LOCO_DISK"), cd_only["LOCO_CDROM"].as_str()), (None, "/base/a.iso"));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn a_guest_has_time_to_start_and_to_end() {
    let rendered = render(&["guest.grace=40", "guest.startupSeconds=90", "guest.partition=8"]);
    let (pod, container) = guest(&rendered, "instance");
    assert_eq!(pod["terminationGracePeriodSeconds"], 60);
    assert_eq!(environment(container)["LOCO_GRACE"], "40");
    let startup = &container["startupProbe"];
    assert_eq!((&startup["periodSeconds"], &startup["failureThreshold"]), (&json!(1), &json!(90)));
    let plain = render(&[]);
    assert_eq!(guest(&plain, "instance").1["startupProbe"]["failureThreshold"], 30);
    let partition = |r: &Rendered| {
        r.object("StatefulSet", "instance")["spec"]["updateStrategy"]["rollingUpdate"]["partition"].clone()
    };
    assert_eq!((partition(&rendered), partition(&plain)), (json!(8), json!(0)));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_base_image_comes_from_where_it_is_said() {
    let base = |values: &[&str]| {
        let rendered = render(values);
        let (pod, container) = guest(&rendered, "instance");
        assert_eq!(mount(container, "base").unwrap()["readOnly"], true);
        (volume(pod, "base").unwrap().clone(), pod["initContainers"].clone(), rendered)
    };
    let (volume, copies, _) = base(&["image.registry=r", "image.tag=t"]);
    assert_eq!(volume["emptyDir"], json!({}));
    assert_eq!(copies[0]["image"], "r/loco/demo-guest:t");
    assert_eq!(copies[0]["command"], json!(["/copy", "/demo-guest.elf", "/base/demo-guest.elf"]));

    let own =
        ["guest.kind=disk", "storage.base.file=a.qcow2", "storage.base.source=copy", "storage.base.image=r/w98:1"];
    let (_, copies, _) = base(&[&own[..], &["guest.cdrom=b.iso", "storage.base.subPath=disks"]].concat());
    assert_eq!(copies[0]["command"], json!(["/copy", "/disks/a.qcow2", "/base/a.qcow2"]));
    assert_eq!(copies[1]["command"], json!(["/copy", "/disks/b.iso", "/base/b.iso"]));
    assert_eq!(copies[1]["image"], "r/w98:1");

    let (volume, copies, _) = base(&["image-volume-values.yaml", "image.tag=t"]);
    assert_eq!(volume["image"]["reference"], "localhost/loco/demo-guest:t");
    assert!(copies.is_null());

    let (volume, _, rendered) = base(&["persistent-values.yaml"]);
    assert_eq!(volume["persistentVolumeClaim"], json!({"claimName": "win98", "readOnly": true}));
    assert!(rendered.find("PersistentVolumeClaim", "loco-base").is_none());

    for (file, source, want) in [
        ("hostpath-values.yaml", "hostPath", json!({"path": "/srv/loco/base", "type": "Directory"})),
        ("nfs-values.yaml", "nfs", json!({"server": "nfs.example.org", "path": "/export/loco/base", "readOnly": true})),
        ("hybrid-values.yaml", "hostPath", json!({"path": "/srv/loco/base", "type": "Directory"})),
    ] {
        let (volume, _, rendered) = base(&[file]);
        assert_eq!(volume["persistentVolumeClaim"]["claimName"], "loco-base", "{file}");
        let volume = rendered.object("PersistentVolume", "loco-play-base");
        assert_eq!(volume["spec"][source], want, "{file}");
        assert_eq!(volume["spec"]["claimRef"], json!({"namespace": "play", "name": "loco-base"}), "{file}");
        let claim = rendered.object("PersistentVolumeClaim", "loco-base");
        assert_eq!(claim["spec"]["volumeName"], "loco-play-base", "{file}");
    }
    let below = render(&["nfs-values.yaml", "storage.base.subPath=x"]);
    assert_eq!(mount(guest(&below, "instance").1, "base").unwrap()["subPath"], "x");
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn overlays_are_kept_where_it_is_said() {
    let plain = render(&["storage.overlay.size=2Gi"]);
    let (pod, container) = guest(&plain, "instance");
    assert_eq!(volume(pod, "disk").unwrap()["emptyDir"], json!({"sizeLimit": "2Gi"}));
    assert!(mount(container, "disk").unwrap()["subPathExpr"].is_null());
    assert!(plain.object("StatefulSet", "instance")["spec"]["volumeClaimTemplates"].is_null());

    let claim = |rendered: &Rendered| {
        let (pod, _) = guest(rendered, "instance");
        assert!(volume(pod, "disk").is_none(), "the claim's");
        rendered.object("StatefulSet", "instance")["spec"]["volumeClaimTemplates"][0]["spec"].clone()
    };
    let spec = claim(&render(&["persistent-values.yaml"]));
    assert!(spec["storageClassName"].is_null());
    assert_eq!(spec["resources"]["requests"]["storage"], "1Gi");
    let classed = claim(&render(&["persistent-values.yaml", "storage.overlay.storageClass=fast"]));
    assert_eq!(classed["storageClassName"], "fast");

    let volumes = |rendered: &Rendered| -> Vec<Value> {
        let disks = rendered.0.iter().filter(|object| {
            object["kind"] == "PersistentVolume" && object["metadata"]["name"].as_str().unwrap().contains("-disk-")
        });
        disks.cloned().collect()
    };
    let rendered = render(&["hostpath-values.yaml"]);
    assert_eq!(claim(&rendered)["storageClassName"], "");
    assert_eq!(mount(guest(&rendered, "instance").1, "disk").unwrap()["subPathExpr"], "$(LOCO_INSTANCE)");
    let disks = volumes(&rendered);
    assert_eq!(disks.len(), 3);
    for (seat, node) in ["n1", "n2", "n1"].into_iter().enumerate() {
        let spec = &disks[seat]["spec"];
        assert_eq!(spec["claimRef"]["name"], format!("disk-instance-{seat}"));
        assert_eq!(spec["hostPath"]["path"], "/srv/loco/disks");
        let terms = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchExpressions"][0]["values"], json!([node]));
        assert_eq!(disks[seat]["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
    let shared = render(&["hostpath-values.yaml", "storage.hostPath.shared=true"]);
    assert!(volumes(&shared).iter().all(|volume| volume["spec"]["nodeAffinity"].is_null()));

    let nfs = render(&["nfs-values.yaml"]);
    let disks = volumes(&nfs);
    assert_eq!(disks.len(), 9);
    assert_eq!(disks[8]["spec"]["nfs"], json!({"server": "nfs.example.org", "path": "/export/loco/disks"}));
    assert_eq!(disks[8]["spec"]["mountOptions"], json!(["hard", "nfsvers=4.2"]));
    assert_eq!(claim(&nfs)["accessModes"], json!(["ReadWriteMany"]));
    assert!(volumes(&render(&["nfs-values.yaml", "storage.lifetime=ephemeral"])).is_empty());

    let hybrid = render(&["hybrid-values.yaml", "storage.overlay.storageClass=fast"]);
    // No type: the kubelet must not insist on a share that is away.
    assert_eq!(volumes(&hybrid)[0]["spec"]["hostPath"], json!({"path": "/srv/loco/disks"}));
    let (_, container) = guest(&hybrid, "instance");
    let told = environment(container);
    assert_eq!(told["LOCO_WORK_DIR"], "/var/lib/loco/$(LOCO_INSTANCE)");
    assert_eq!(told["LOCO_FALLBACK_DIR"], mount(container, "fallback").unwrap()["mountPath"]);
    assert!(mount(container, "disk").unwrap()["subPathExpr"].is_null());
    let claims = &hybrid.object("StatefulSet", "instance")["spec"]["volumeClaimTemplates"];
    assert_eq!(
        (&claims[1]["metadata"]["name"], &claims[1]["spec"]["storageClassName"]),
        (&json!("fallback"), &json!("fast"))
    );
    assert!(!environment(guest(&nfs, "instance").1).contains_key("LOCO_FALLBACK_DIR"));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_gateway_is_reached_as_asked() {
    let service = |values: &[&str]| render(values).object("Service", "loco-gateway").clone();
    assert_eq!(service(&[])["spec"]["type"], "ClusterIP");
    let port = |values: &[&str]| service(values)["spec"]["ports"][0].clone();
    assert!(port(&["gateway.service.nodePort=30080"])["nodePort"].is_null(), "a ClusterIP has none");
    assert_eq!(port(&["gateway.service.type=NodePort", "gateway.service.nodePort=30080"])["nodePort"], 30080);
    assert_eq!(port(&["gateway.service.port=80"])["port"], 80);
    assert_eq!(service(&["gateway.service.annotations.a=b"])["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(render(&["gateway.replicas=3"]).object("Deployment", "loco-gateway")["spec"]["replicas"], 3);

    let drained = render(&["gateway.drain=9"]);
    let pod = drained.pod("Deployment", "loco-gateway");
    assert!(arguments(&pod["containers"][0]).contains(&"--drain=9".to_owned()));
    assert_eq!(pod["terminationGracePeriodSeconds"], 24);

    let plain = render(&[]);
    assert!(plain.find("Ingress", "loco-gateway").is_none() && plain.find("HTTPRoute", "loco-gateway").is_none());
    let bare = render(&["gateway.ingress.enabled=true"]);
    let spec = &bare.object("Ingress", "loco-gateway")["spec"];
    assert!(spec["tls"].is_null() && spec["ingressClassName"].is_null() && spec["rules"][0]["host"].is_null());
    let public = render(&["public-values.yaml"]);
    let spec = &public.object("Ingress", "loco-gateway")["spec"];
    assert_eq!(spec["tls"], json!([{"secretName": "loco-example-org", "hosts": ["loco.example.org"]}]));
    assert_eq!((&spec["ingressClassName"], &spec["rules"][0]["host"]), (&json!("nginx"), &json!("loco.example.org")));
    let route = &public.object("HTTPRoute", "loco-gateway")["spec"];
    assert_eq!((&route["hostnames"], &route["parentRefs"][0]["name"]), (&json!(["loco.example.org"]), &json!("web")));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn tokens_are_made_or_yours() {
    let rendered = render(&[]);
    let data = &rendered.object("Secret", "loco-tokens")["data"];
    for key in ["agent", "users", "scrape"] {
        assert!(data[key].as_str().is_some_and(|value| value.len() > 40), "{key}");
    }
    let checksum = |rendered: &Rendered, kind: &str, name: &str| {
        rendered.object(kind, name)["spec"]["template"]["metadata"]["annotations"]["loco.dev/tokens"].clone()
    };
    let agents = checksum(&rendered, "DaemonSet", "loco-node-agent");
    assert_eq!(agents, checksum(&rendered, "Deployment", "loco-gateway"), "made once in a rendering");
    assert_ne!(agents, checksum(&render(&[]), "DaemonSet", "loco-node-agent"), "random");

    let own = render(&["tokens.existingSecret=mine"]);
    assert!(own.find("Secret", "loco-tokens").is_none());
    assert_eq!(volume(agent(&own).0, "tokens").unwrap()["secret"]["secretName"], "mine");
    assert_eq!(volume(own.pod("Deployment", "loco-gateway"), "tokens").unwrap()["secret"]["secretName"], "mine");
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn nobody_may_more_than_read_where_things_are() {
    let rendered = render(&[]);
    let rules = &rendered.object("Role", "loco-discovery")["rules"];
    let want = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    assert_eq!(*rules, want);
    assert!(!rendered.names().iter().any(|name| name.starts_with("Cluster")), "{:?}", rendered.names());
    assert_eq!(rendered.object("ServiceAccount", "loco-instance")["automountServiceAccountToken"], false);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn policies_and_budgets_can_be_left_out() {
    let count = |values: &[&str], kind: &str| render(values).0.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!(count(&[], "PodDisruptionBudget"), 2);
    assert_eq!(count(&["podDisruptionBudget.enabled=false"], "PodDisruptionBudget"), 0);
    assert_eq!(count(&["networkPolicy.enabled=false"], "NetworkPolicy"), 0);
    let rendered = render(&["agent.port=15000", "networkPolicy.apiServerPorts={16443}"]);
    let guests = &rendered.object("NetworkPolicy", "loco-instance")["spec"];
    // Nothing is let out: of the kind, and no rule.
    assert_eq!((guests.get("egress"), &guests["policyTypes"]), (None, &json!(["Ingress", "Egress"])));
    let ports = &rendered.object("NetworkPolicy", "loco-gateway")["spec"]["egress"][0]["ports"];
    assert_eq!((&ports[0], &ports[1]), (&json!({"port": 15000}), &json!({"port": 16443})));
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn monitoring_is_there_when_asked_for() {
    let plain = render(&["trustCRDs=true"]);
    assert!(
        !plain
            .names()
            .iter()
            .any(|name| name.contains("Monitor") || name.contains("Rule/") || name.contains("dashboards"))
    );
    let rendered = render(&["public-values.yaml"]);
    for name in ["loco-gateway", "loco-node-agent"] {
        let monitor = rendered.object("ServiceMonitor", name);
        assert_eq!(monitor["metadata"]["labels"]["release"], "kube-prometheus-stack");
        assert_eq!(monitor["spec"]["endpoints"][0]["honorLabels"], true);
    }
    let gateway = &rendered.object("ServiceMonitor", "loco-gateway")["spec"]["endpoints"][0];
    assert_eq!(gateway["authorization"]["credentials"], json!({"name": "loco-own-tokens", "key": "scrape"}));
    rendered.object("PodMonitor", "loco-instance");
    let rules = &rendered.object("PrometheusRule", "loco")["spec"]["groups"];
    let alerts = rules.as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let summaries: Vec<&Value> = alerts.map(|alert| &alert["annotations"]["summary"]).collect();
    assert!(summaries.len() > 5 && summaries.iter().any(|text| text.as_str().unwrap().contains("{{ $labels")));
    let dashboards = rendered.object("ConfigMap", "loco-dashboards");
    assert_eq!(dashboards["metadata"]["labels"]["grafana_dashboard"], "1");
    for text in dashboards["data"].as_object().unwrap().values() {
        let dashboard: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert!(dashboard["uid"].is_string());
    }
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn hooks_test_and_clean_up() {
    let rendered = render(&["tests.frames=50", "tests.deadline=60", "tests.image=x"]);
    let job = rendered.object("Job", "loco-test-lan");
    assert_eq!(job["metadata"]["annotations"]["helm.sh/hook"], "test");
    assert_eq!((&job["spec"]["completionMode"], &job["spec"]["completions"]), (&json!("Indexed"), &json!(2)));
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 60);
    let peer = &rendered.pod("Job", "loco-test-lan")["containers"][0];
    assert_eq!((&peer["image"], environment(peer)["PEER_EXCHANGE"].as_str()), (&json!("x"), "50"));
    assert_eq!(environment(peer)["PEER_DEADLINE"], "55");
    assert_eq!(peer["resources"]["limits"]["loco.dev/seat"], 1);
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["loco.dev/lan"], "helm-test");
    assert!(render(&["tests.enabled=false"]).find("Job", "loco-test-lan").is_none());

    assert!(rendered.find("Job", "loco-cleanup").is_none(), "no cluster was asked, so no node is known");
    let rendered = render(&["agent.cleanup.nodes={a,b,c}"]);
    let cleanup = rendered.object("Job", "loco-cleanup");
    assert_eq!(cleanup["metadata"]["annotations"]["helm.sh/hook"], "post-delete");
    assert_eq!((&cleanup["spec"]["completions"], &cleanup["spec"]["parallelism"]), (&json!(3), &json!(3)));
    let pod = rendered.pod("Job", "loco-cleanup");
    assert_eq!(arguments(&pod["containers"][0])[0], "uninstall");
    let nodes = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/0/values";
    assert_eq!(pod.pointer(nodes), Some(&json!(["a", "b", "c"])));
    assert!(render(&["agent.cleanup.enabled=false", "agent.cleanup.nodes={a}"]).find("Job", "loco-cleanup").is_none());
}
