//! Values that cannot work are refused where they are set, with the key and the remedy.
use super::helm::{refuses, render};

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_schema_refuses_what_it_does_not_know() {
    refuses(&["agnet.slots=3"], &["agnet"]);
    refuses(&["agent.slot=3"], &["slot"]);
    refuses(&["agent.ipxRelay.enable=true"], &["enable"]);
    refuses(&["networkMode=pigeon"], &["networkMode"]);
    refuses(&["agent.macvlanParent=a/b"], &["macvlanParent"]);
    refuses(&["encryption=rot13"], &["encryption"]);
    refuses(&["agent.slots=0"], &["slots"]);
    refuses(&["agent.maxSurge=0"], &["maxSurge"]);
    refuses(&["agent.maxSurge=0%"], &["maxSurge"]);
    refuses(&["guest.nic=e1000"], &["nic"]);
    refuses(&["lans[0].name=Party"], &["name"]);
    // A list is given whole: an item without its keys is not filled from the default.
    refuses(&["lans[0].replicas=3"], &["name"]);
    refuses(&["small-values.yaml", "lans[0].colour=red"], &["colour"]);
    refuses(&["small-values.yaml", "lans[0].guard.noServer=true"], &["noServer"]);
    refuses(&["small-values.yaml", "lans[0].guard.broadcastsPerSecond=1000001"], &["broadcastsPerSecond"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn what_cannot_be_encrypted_is_refused_and_ports_are_apart() {
    refuses(&["encryption=wireguard", "networkMode=socket"], &["LAN `party`", "cannot be encrypted"]);
    refuses(
        &["encryption=wireguard", "agent.wireguardPort=14789"],
        &["agent.wireguardPort and agent.vxlanPort", "14789"],
    );
    refuses(&["encryption=wireguard", "agent.wireguardPort=14950"], &["agent.wireguardPort 14950", "agent.mediaPorts"]);
    render(&["encryption=wireguard", "networkMode=user"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn images_have_a_version() {
    refuses(&["image.tag=latest"], &["image.tag", "give a version"]);
    render(&["image.tag=0.1.0-abc"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn lans_do_not_contradict_each_other() {
    let two = |change: &str| vec!["split-values.yaml".to_owned(), change.to_owned()];
    let check = |change: &str, words: &[&str]| {
        let values = two(change);
        refuses(&values.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    check("lans[1].mode=macvlan", &["lans[1] has the mode `macvlan`", "agent.privileged"]);
    check("lans[1].name=party", &["lans[1].name", "`party`", "lans[0]"]);
    check("lans[1].vni=4200", &["lans[1].vni", "4200", "lans[0]"]);
    check("lans[1].vni=4299", &["lans[1].vni", "tests.vni"]);
    check("lans[1].replicas=5", &["lans[1].replicas is 5", "lans[1].seats is 4"]);
    check("lans[1].seats=14", &["lans[1].seats is 14", "holds 13", "larger subnet"]);
    render(&["split-values.yaml", "lans[1].seats=13"]);
    render(&["split-values.yaml", "lans[1].vni=4299", "tests.enabled=false"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_agents_ports_make_sense() {
    refuses(&["agent.mediaPorts=20000-19999"], &["agent.mediaPorts", "FIRST <= LAST"]);
    refuses(&["agent.mediaPorts=14700-14780"], &["agent.port 14780", "agent.mediaPorts"]);
    refuses(&["agent.vxlanPort=14950"], &["agent.vxlanPort 14950", "agent.mediaPorts 14900-14999"]);
    refuses(&["agent.switchPort=14901"], &["agent.switchPort 14901", "agent.mediaPorts 14900-14999"]);
    refuses(&["agent.switchPort=14789"], &["agent.vxlanPort and agent.switchPort", "14789"]);
    let relayed = ["agent.ipxRelay.enabled=true", "networkMode=socket"];
    refuses(&relayed, &["LAN `party`", "`socket` carries no relay", "agent.ipxRelay.lan"]);
    refuses(&["agent.ipxRelay.enabled=true", "agent.ipxRelay.lan=nowhere"], &["agent.ipxRelay.lan", "`nowhere`"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn a_guest_has_what_it_starts_from() {
    refuses(&["guest.kind=disk"], &["storage.base.file", "guest.cdrom"]);
    refuses(&["guest.cdrom=game.iso"], &["guest.kind is `demo`"]);
    refuses(&["guest.kind=disk", "storage.base.file=a"], &["storage.base.claimName"]);
    refuses(
        &["guest.kind=disk", "storage.base.file=a", "storage.base.source=copy"],
        &["storage.base.image", "holds a"],
    );
    refuses(&["guest.kind=disk", "storage.base.file=a", "storage.mode=nfs"], &["storage.nfs.server"]);
    refuses(&["guest.kind=disk", "storage.base.file=../a"], &["file"]);
    let persistent = ["storage.lifetime=persistent", "storage.mode=hostPath"];
    refuses(&persistent, &["storage.hostPath.nodes", "storage.hostPath.shared"]);
    render(&[persistent[0], persistent[1], "storage.hostPath.shared=true"]);
    render(&[persistent[1]]);
    refuses(&["hybrid-values.yaml", "storage.hostPath.shared=false"], &["storage.hostPath.nodes"]);
    refuses(&["storage.mode=hybrid", persistent[0], "storage.hostPath.shared=true"], &["storage.mode is `hybrid`"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn the_way_in_is_whole() {
    refuses(&["gateway.ingress.enabled=true", "gateway.ingress.tls.enabled=true"], &["gateway.ingress.tls.secretName"]);
    refuses(&["gateway.httpRoute.enabled=true", "trustCRDs=true"], &["gateway.httpRoute.parentRefs"]);
}

#[test]
#[ignore = "cluster: run by `cargo xtask test --cluster`, or alone by `cargo xtask chart --test`"]
fn kinds_of_other_projects_are_asked_for() {
    for (key, kind) in [
        ("monitoring.serviceMonitor.enabled", "ServiceMonitor"),
        ("monitoring.prometheusRule.enabled", "PrometheusRule"),
    ] {
        refuses(&[&format!("{key}=true")], &[key, kind, "Prometheus operator", "trustCRDs"]);
        render(&[&format!("{key}=true"), "trustCRDs=true"]);
    }
    let route = ["gateway.httpRoute.enabled=true", "gateway.httpRoute.parentRefs[0].name=web"];
    refuses(&route, &["gateway.httpRoute.enabled", "HTTPRoute", "Gateway API"]);
}
