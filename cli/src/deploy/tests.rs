//! Plans against golden files, and the judgement of what real tools print.
use std::path::Path;

use clap::Parser;
use expect_test::expect_file;
use proptest::prelude::*;
use serde_json::json;

use super::{
    plan::{Act, Image},
    *,
};

#[derive(Debug, Parser)]
struct Deploy {
    #[command(flatten)]
    flags: DeployFlags,
}

#[derive(Debug, Parser)]
struct Bootstrap {
    #[command(flatten)]
    flags: crate::bootstrap::BootstrapFlags,
}

fn options(line: &str) -> Result<Options> {
    Deploy::try_parse_from(line.split_whitespace())?.flags.options()
}

fn image(name: &str) -> Image {
    Image {
        name: name.to_owned(),
        reference: format!("localhost/loco/{name}:0.1.0-abc-12345678"),
        id: format!("sha256:{name}"),
        tar: format!("/images/{name}.tar").into(),
        digest: None,
    }
}

/// `UPDATE_EXPECT=1 cargo test -p loco deploy` writes them anew; read the difference.
#[test]
fn plans_are_as_written() {
    for (name, line) in [
        ("kind", "deploy --to kind"),
        ("minikube", "deploy --to minikube --cluster party --no-test --set lans[0].replicas=3"),
        ("containerd", "deploy --to containerd --node-exec ssh:{node} --namespace games --release wall"),
        ("registry", "deploy --to registry --registry registry.example.org/games --context prod"),
    ] {
        let text = dry(&options(line).unwrap(), &[]);
        expect_file![Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/deploy/plans/deploy-{name}.txt"))]
            .assert_eq(&text);
    }
    for (name, line) in [
        ("kind", "bootstrap kind"),
        ("minikube", "bootstrap minikube --workers 2"),
        ("talos", "bootstrap talos --registry registry.example.org"),
        ("here", "bootstrap here --no-test"),
    ] {
        let flags = Bootstrap::try_parse_from(line.split_whitespace()).unwrap().flags;
        let (options, first) = flags.plan().unwrap();
        // Where the files for kind and Talos are written depends on who runs this.
        let home = env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{}/.cache", env::var("HOME").unwrap()));
        let text = dry(&options, &first).replace(&home, "<cache>");
        expect_file![Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/deploy/plans/bootstrap-{name}.txt"))]
            .assert_eq(&text);
    }
}

#[test]
fn wrong_usage_is_found_before_anything_is_done() {
    for (line, want) in [
        ("deploy --to registry", "needs --registry"),
        ("deploy --to kind --set image.tag=old", "set by the deployment itself"),
        ("deploy --to kind --set nothing", "write KEY=VALUE"),
        ("deploy --to kind --namespace Loco", "--namespace Loco"),
        ("deploy --to kind --timeout 0", "--timeout 0"),
        ("deploy --to kind --values /nowhere.yaml", "/nowhere.yaml: there is no such file"),
    ] {
        let error = format!("{:#}", options(line).unwrap_err());
        assert!(error.contains(want), "{line}: {error}");
    }
    let talos = Bootstrap::try_parse_from(["bootstrap", "talos"]).unwrap().flags.plan();
    assert!(talos.unwrap_err().to_string().contains("--registry"));
}

/// The heart of it: no node is passed over, and each is asked after it was given the image.
#[test]
fn every_image_is_proven_on_every_node() {
    let options = options("deploy --to kind").unwrap();
    let nodes = ["a", "b", "c"].map(str::to_owned);
    let images: Vec<Image> = options.image_names().into_iter().map(image).collect();
    let steps = plan::after(&options, &nodes, &images);
    for image in &images {
        for node in &nodes {
            let says = format!("{} is on {node}", image.name);
            let step = steps.iter().find(|step| step.says == says).unwrap_or_else(|| panic!("{says}"));
            let want = Expect::CrictlHas { id: image.id.clone() };
            assert!(step.check.as_ref().is_some_and(|check| check.expect == want && check.cmd.words.contains(node)));
        }
    }
    let helm = steps.iter().position(|step| step.says == "release loco").unwrap();
    assert!(steps[..helm].iter().filter(|step| step.says.contains(" is on ")).count() == nodes.len() * images.len());
    let Act::Run(cmd) = &steps[helm].act else { panic!() };
    assert!(cmd.words.contains(&"image.tag=0.1.0-abc-12345678".to_owned()), "{cmd:?}");
}

proptest! {
    /// A user's own values come before the deployment's, so none of them chooses an image.
    #[test]
    fn the_images_are_the_last_word(keys in prop::collection::vec("[a-h]{1,6}=[0-9]{1,3}", 0..5)) {
        let line = keys.iter().flat_map(|key| ["--set", key.as_str()]).fold("deploy --to kind".to_owned(), |line, word| format!("{line} {word}"));
        let options = options(&line).unwrap();
        let steps = plan::after(&options, &["n".to_owned()], &[image("gateway")]);
        let helm = steps.iter().find_map(|step| match &step.act {
            Act::Run(cmd) if cmd.words.contains(&"upgrade".to_owned()) => Some(cmd.words.clone()),
            _ => None,
        }).unwrap();
        let at = |word: &str| helm.iter().position(|is| is == word);
        let tag = at("image.tag=0.1.0-abc-12345678").unwrap();
        prop_assert!(keys.iter().all(|key| at(key).is_some_and(|key| key < tag)));
    }

    /// What is shown can be typed: a shell takes it apart into the same words.
    #[test]
    fn a_shown_command_is_the_command(words in prop::collection::vec("[ -~]{0,8}", 1..6)) {
        let line = Cmd::new([&["printf", "%s\\0"], words.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat()).line();
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        prop_assert_eq!(text.split_terminator('\0').map(str::to_owned).collect::<Vec<_>>(), words);
    }
}

#[test]
fn nodes_must_be_ready_and_able() {
    let node = |name: &str, ready: &str, architecture: &str| {
        json!({ "metadata": { "name": name }, "status": {
            "conditions": [{ "type": "MemoryPressure", "status": "False" }, { "type": "Ready", "status": ready }],
            "nodeInfo": { "operatingSystem": "linux", "architecture": architecture } } })
    };
    let nodes = |nodes: &[serde_json::Value]| judge::nodes(&json!({ "items": nodes }).to_string(), "amd64");
    assert_eq!(nodes(&[node("a", "True", "amd64"), node("b", "True", "amd64")]).unwrap(), ["a", "b"]);
    assert_eq!(nodes(&[node("a", "True", "amd64"), node("b", "False", "amd64")]).unwrap_err(), "node b is not ready");
    assert_eq!(nodes(&[node("a", "Unknown", "amd64")]).unwrap_err(), "node a is not ready");
    assert!(nodes(&[node("pi", "True", "arm64")]).unwrap_err().contains("node pi is linux/arm64"));
    assert!(nodes(&[]).unwrap_err().contains("no nodes"));
    assert!(judge::nodes("error: no server", "amd64").is_err());
}

/// As containerd 1.6 and 1.7 print it.
#[test]
fn ctr_must_have_the_same_content_under_both_names() {
    let image = image("gateway");
    let row = |name: &str, digest: &str| {
        format!(
            "{name} application/vnd.docker.distribution.manifest.v2+json {digest} 33.0 MiB linux/amd64 io.cri-containerd.image=managed \n"
        )
    };
    let table = |rows: &[String]| format!("REF TYPE DIGEST SIZE PLATFORMS LABELS \n{}", rows.concat());
    let expect = Expect::CtrHas { reference: image.reference.clone(), id: image.id.clone() };
    let judged = |rows: &[String]| judge::judge(&expect, &table(rows));
    let (name, id) = (image.reference.as_str(), image.id.as_str());
    assert!(judged(&[row(name, "sha256:m"), row(id, "sha256:m")]).is_ok());
    assert!(judged(&[row(id, "sha256:m")]).unwrap_err().contains("does not have"));
    assert!(judged(&[row(name, "sha256:old")]).unwrap_err().contains("another image of that name"));
    assert!(judged(&[row(name, "sha256:old"), row(id, "sha256:m")]).unwrap_err().contains("another image's"));
}

#[test]
fn crictl_must_have_the_id() {
    let expect = Expect::CrictlHas { id: "sha256:a".to_owned() };
    assert!(judge::judge(&expect, r#"{"status":{"id":"sha256:a","repoTags":["x"]}}"#).is_ok());
    let stale = judge::judge(&expect, r#"{"status":{"id":"sha256:b"}}"#).unwrap_err();
    assert!(stale.contains("sha256:b") && stale.contains("sha256:a was built"), "{stale}");
}

fn pod(name: &str, image: &str, image_id: &str, ready: bool) -> serde_json::Value {
    json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": image }] }, "status": {
        "phase": "Running", "containerStatuses": [{ "name": "c", "ready": ready, "imageID": image_id }] } })
}

#[test]
fn a_stale_pod_is_found_whatever_it_hides_behind() {
    let images = vec![
        image("node-agent"),
        image("gateway"),
        Image { digest: Some("sha256:pushed".to_owned()), ..image("guest-runner") },
    ];
    let expect = Expect::Running { images };
    let reference = |name: &str| image(name).reference;
    let agent = pod("agent", &reference("node-agent"), "sha256:node-agent", true);
    let gateway = pod("gateway", &reference("gateway"), "docker.io/library/import-2026@sha256:of-its-own", true);
    let judged = |more: &[serde_json::Value]| {
        let pods: Vec<_> = [&agent, &gateway].into_iter().chain(more).collect();
        judge::judge(&expect, &json!({ "items": pods }).to_string())
    };
    assert_eq!(judged(&[]).unwrap(), "1 × gateway, 1 × node-agent");
    let runner = reference("guest-runner");
    assert!(judged(&[pod("i", &runner, "r.example/loco/guest-runner@sha256:pushed", true)]).is_ok());
    for (stale, why) in [
        (pod("i", &runner.replace("abc", "old"), "sha256:guest-runner", true), "which was not built now"),
        (pod("i", &runner, "sha256:old", true), "sha256:old there"),
        (pod("i", &runner, "r.example/loco/guest-runner@sha256:old", true), "sha256:old there"),
        (pod("i", &runner, "sha256:guest-runner", false), "pod i is not ready"),
    ] {
        let error = judged(&[stale]).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    let mut leaving = pod("old", "localhost/loco/gateway:old", "sha256:old", true);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(judged(&[leaving, pod("mesh", "mesh/proxy:1", "sha256:mesh", true)]).is_ok());
    let none = judge::judge(&expect, &json!({ "items": [agent] }).to_string()).unwrap_err();
    assert_eq!(none, "no pod of gateway is there");
}

#[test]
fn pods_that_can_never_start_are_found() {
    let waiting = |name: &str, reason: &str| json!({ "metadata": { "name": name }, "status": { "containerStatuses": [{ "state": { "waiting": { "reason": reason } } }] } });
    let pods = json!({ "items": [waiting("a", "ErrImageNeverPull"), waiting("b", "ContainerCreating"), waiting("c", "ImagePullBackOff")] });
    assert_eq!(judge::stuck(&pods.to_string()).unwrap(), ["a", "c"]);
}

#[test]
fn the_images_must_be_all_and_of_one_tag() {
    let line = |name: &str, tag: &str| {
        format!(
            "{{\"name\":\"{name}\",\"ref\":\"localhost/loco/{name}:{tag}\",\"id\":\"sha256:1\",\"tar\":\"/t\",\"bytes\":1}}\n"
        )
    };
    let names = ["gateway", "node-agent"];
    let good = format!("talk\n{}{}", line("gateway", "1-a"), line("node-agent", "1-a"));
    assert_eq!(judge::built(&good, &names).unwrap().len(), 2);
    assert!(judge::built(&line("gateway", "1-a"), &names).unwrap_err().contains("node-agent was not built"));
    for bad in [["1-a", "1-b"], ["latest", "latest"]] {
        let text = format!("{}{}", line("gateway", bad[0]), line("node-agent", bad[1]));
        assert!(judge::built(&text, &names).unwrap_err().contains("one tag of their own"));
    }
}
