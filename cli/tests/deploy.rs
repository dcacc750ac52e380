//! `loco deploy` and `loco bootstrap` as programs, against tools that only write down how they were called and answer as the
//! real ones do. This proves the order of calls, what is passed over, and where it stops; it proves nothing of kind, minikube
//! or Helm themselves. The path for containerd is tried on a real cluster (docs/deploy.md).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

/// What all the tools are: `$0` says which. State is files: an image is on a node once it was given to it.
const TOOL: &str = r#"#!/bin/sh
tool=$(basename "$0")
echo "$tool $*" >> "$FAKE/calls"
if [ -e "$FAKE/fail" ] && echo "$tool $*" | grep -q -f "$FAKE/fail"; then echo "no such luck" >&2; exit 7; fi
case "$tool $*" in
  "kind get clusters") [ -e "$FAKE/cluster" ] && echo party || echo "No kind clusters found." >&2 ;;
  "kind create cluster"*) touch "$FAKE/cluster" ;;
  "kind load image-archive "*) name=$(basename "$3" .tar); [ -e "$FAKE/stale" ] || touch "$FAKE/on-$7-$name" ;;
  "docker info"*) echo 28 ;;
  "docker exec "*)
    name=$(echo "$7" | sed 's,.*/,,; s,:.*,,')
    [ -e "$FAKE/on-$2-$name" ] || { [ -e "$FAKE/stale" ] && echo '{"status":{"id":"sha256:old"}}' && exit 0; exit 1; }
    echo "{\"status\":{\"id\":\"sha256:$name\"}}" ;;
  "cargo xtask image "*)
    for name in node-agent gateway guest-runner demo-guest test-peer; do
      echo "{\"name\":\"$name\",\"ref\":\"localhost/loco/$name:1-abc\",\"id\":\"sha256:$name\",\"tar\":\"/images/$name.tar\",\"bytes\":1}"
    done ;;
  *"get nodes"*)
    node() { echo "{\"metadata\":{\"name\":\"$1\"},\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}],\"nodeInfo\":{\"operatingSystem\":\"linux\",\"architecture\":\"ARCH\"}}}"; }
    echo "{\"items\":[$(node party-control-plane),$(node party-worker)]}" ;;
  *"get pods"*)
    pod() { echo "{\"metadata\":{\"name\":\"$1-0\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"localhost/loco/$1:1-abc\"}]},\"status\":{\"phase\":\"Running\",\"containerStatuses\":[{\"name\":\"c\",\"ready\":true,\"imageID\":\"sha256:$1\"}]}}"; }
    echo "{\"items\":[$(pod node-agent),$(pod gateway),$(pod guest-runner)]}" ;;
  *"get secrets --selector owner=helm"*) [ ! -e "$FAKE/killed" ] || echo secret/sh.helm.release.v1.loco.v2 ;;
  *"delete secrets --selector owner=helm"*) rm "$FAKE/killed" ;;
  *"get secret"*) echo "admin s3cret" ;;
  *"get statefulsets"*) echo 1 ;;
  *"port-forward"*) echo "Forwarding from 127.0.0.1:$FAKE_PORT -> 8080"; exec sleep 60 ;;
esac
"#;

struct Place {
    dir: PathBuf,
    port: u16,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-deploy-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("bin")).unwrap();
        let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        for tool in ["kind", "docker", "cargo", "kubectl", "helm"] {
            let path = dir.join("bin").join(tool);
            fs::write(&path, TOOL.replace("ARCH", architecture)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = gateway.local_addr().unwrap().port();
        // Ends with the test's process.
        thread::spawn(move || gateway.incoming().for_each(|stream| answer(&mut stream.unwrap())));
        Self { dir, port }
    }

    fn loco(&self, words: &str) -> Output {
        let path = format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        Command::new(env!("CARGO_BIN_EXE_loco"))
            .args(words.split_whitespace())
            .current_dir(root)
            .env("PATH", path)
            .env("FAKE", &self.dir)
            .env("FAKE_PORT", self.port.to_string())
            .env("XDG_CACHE_HOME", self.dir.join("cache"))
            .env_remove("LOCO_HELM")
            .env_remove("LOCO_KUBECTL")
            .output()
            .unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        fs::remove_file(self.dir.join("calls")).ok();
        calls.lines().map(str::to_owned).collect()
    }

    fn set(&self, file: &str, text: &str) {
        fs::write(self.dir.join(file), text).unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The gateway, as far as it is asked: a page, and one guest that is live.
fn answer(stream: &mut std::net::TcpStream) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
    let live = r#"{"mode":"kubernetes","stats":{"total":1,"ready":1,"degraded":0,"notReady":0},"instances":[{"id":"instance-0","name":"Seat 1","lan":"party","seat":0,"node":"party-worker","mac":"02:00:00:00:00:01","ip":"10.98.0.1","state":"live"}]}"#;
    let (status, body) = match request.split(' ').nth(1) {
        Some("/api/instances/live") if request.contains("authorization: bearer s3cret") => ("200 OK", live),
        Some("/") => ("200 OK", "<script src=a.js></script>"),
        _ => ("401 Unauthorized", "{}"),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).ok();
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn index(calls: &[String], beginning: &str) -> usize {
    calls
        .iter()
        .position(|call| call.starts_with(beginning))
        .unwrap_or_else(|| panic!("no `{beginning}` in {calls:#?}"))
}

#[test]
fn from_nothing_to_a_wall_and_again_without_doing_anything_twice() {
    let place = Place::new("kind");
    let output = place.loco("bootstrap kind --cluster party --timeout 20");
    assert!(output.status.success(), "{}", text(&output));
    let calls = place.calls();
    let order = [
        "kind create cluster",
        "cargo xtask image --unique",
        "kind load image-archive /images/node-agent.tar --name party --nodes party-control-plane",
        "kubectl --context kind-party label namespace loco",
        "helm --kube-context kind-party upgrade --install loco charts/loco",
        "kubectl --context kind-party --namespace loco rollout status daemonset/loco-node-agent",
        "kubectl --context kind-party --namespace loco rollout status statefulset",
        "kubectl --context kind-party --namespace loco port-forward",
        "helm --kube-context kind-party test loco",
    ];
    let at: Vec<usize> = order.iter().map(|call| index(&calls, call)).collect();
    assert!(at.is_sorted(), "{at:?} {calls:#?}");
    assert_eq!(calls.iter().filter(|call| call.starts_with("kind load")).count(), 10);
    let said = text(&output);
    assert!(said.contains("1 live") && said.contains("localhost/loco/gateway:1-abc"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");

    let output = place.loco("bootstrap kind --cluster party --timeout 20");
    assert!(output.status.success(), "{}", text(&output));
    let calls = place.calls();
    let twice = calls.iter().filter(|call| call.starts_with("kind create") || call.starts_with("kind load"));
    assert_eq!(twice.count(), 0, "{calls:#?}");
}

/// The one thing that must never happen: a node keeps another image under the name, and the deployment goes on.
#[test]
fn a_node_with_a_stale_image_stops_it_before_helm() {
    let place = Place::new("stale");
    place.set("cluster", "");
    place.set("stale", "");
    // Looks again for 30 s, as a node may be slow to tell: the price of this test.
    let output = place.loco("deploy --to kind --cluster party --timeout 5");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.contains("node-agent is on party-control-plane: the node has another image of that name: sha256:old"),
        "{said}"
    );
    assert!(said.contains("remedy: is Docker out of space?") && said.contains("run the same command again"), "{said}");
    assert!(place.calls().iter().all(|call| !call.contains("upgrade")));
}

#[test]
fn each_failure_ends_it_there_and_the_next_run_goes_on() {
    let place = Place::new("resume");
    place.set("cluster", "");
    for (fails, says, last) in [
        ("cargo xtask image", "images cannot be built", "cargo xtask image"),
        ("gateway.tar .*worker", "gateway is on party-worker", "kind load image-archive /images/gateway.tar"),
        ("upgrade --install", "release loco", "helm"),
        ("rollout status deployment", "gateway runs", "kubectl"),
    ] {
        place.set("fail", fails);
        let output = place.loco("deploy --to kind --cluster party --timeout 5");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(says), "{}", text(&output));
        let calls = place.calls();
        assert!(calls.last().unwrap().starts_with(last), "{calls:#?}");
    }
    fs::remove_file(place.dir.join("fail")).unwrap();
    let output = place.loco("deploy --to kind --cluster party --timeout 20");
    assert!(output.status.success(), "{}", text(&output));
    // Those before `gateway` were given to their nodes by the runs that failed.
    assert!(!place.calls().iter().any(|call| call.contains("load image-archive /images/node-agent.tar")));
}

#[test]
fn what_a_killed_helm_left_is_waited_for_and_taken_away() {
    let place = Place::new("killed");
    place.set("cluster", "");
    place.set("killed", "");
    let output = place.loco("deploy --to kind --cluster party --timeout 5");
    assert!(output.status.success(), "{}", text(&output));
    let calls = place.calls();
    let at = |words: &str| calls.iter().position(|call| call.contains(words)).unwrap();
    assert!(at("delete secrets --selector owner=helm") < at("upgrade --install"), "{calls:#?}");
    assert!(text(&output).contains("holds the release: done"), "{}", text(&output));
}

#[test]
fn a_dry_run_calls_nothing_and_wrong_usage_is_code_2() {
    let place = Place::new("dry");
    let output = place.loco("deploy --to kind --dry-run");
    assert!(
        output.status.success() && text(&output).contains("helm --kube-context kind-loco upgrade"),
        "{}",
        text(&output)
    );
    for wrong in
        ["deploy --to registry", "bootstrap talos", "deploy --to kind --checkout /", "deploy", "bootstrap nowhere"]
    {
        assert_eq!(place.loco(wrong).status.code(), Some(2), "{wrong}");
    }
    assert_eq!(place.calls(), Vec::<String>::new());
}
