//! `loco` as people run it: exit codes and words; and whole walls of real processes, privileged: here how they live and die,
//! in [`faults`] what the doctor says of them, in [`alerts`] what a Prometheus says, in [`modes`] each way to join guests, in [`churn`]
//! whatever can happen, by dice.
//!
//! A wall takes names of the whole machine (`/run/loco`, `loco-host`), so each privileged test runs itself again in
//! network, mount and process namespaces of its own: neither a wall of the developer's nor another test is touched.
#![expect(clippy::unwrap_used, reason = "the helpers of a test end at the first surprise, as the test does")]

mod alerts;
mod churn;
mod faults;
mod modes;

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use api::{
    agent::State,
    status::{Status, StatusInstance},
};
use futures_util::TryStreamExt as _;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const LIMIT: Duration = Duration::from_mins(1);

fn loco(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loco")).args(args).output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, want: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(want), "{told}");
}

#[test]
fn wrong_usage_is_exit_code_2_and_names_the_flag() {
    says(&loco(&["up", "--guests", "0"]), 2, "--guests");
    says(&loco(&["up", "--disk", "/nonexistent/a.img"]), 2, "--disk /nonexistent/a.img: No such file");
    says(&loco(&["up", "--disk", "a", "--kernel", "b"]), 2, "--kernel");
    says(&loco(&["up", "--mode", "pigeon"]), 2, "the modes are vxlan, macvlan, socket and user");
    says(&loco(&["down", "--nonsense"]), 2, "--nonsense");
    says(&loco(&["status", "-o", "xml"]), 2, "table, json");
}

/// In namespaces of its own, where `/run` is empty and loopback is up.
fn alone(test: &str, body: impl FnOnce()) {
    const INSIDE: &str = "LOCO_TEST_INSIDE";
    if env::var_os(INSIDE).is_some() {
        // `/var/lib` too: overlays of a wall of this machine are not this test's to remove.
        for dir in ["/run", "/var/lib"] {
            forget_mounts_below(dir);
            mount(Some("none"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        }
        bring_up_loopback();
        body();
        return;
    }
    let own = env::current_exe().unwrap();
    let flags = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let mut inner = Command::new("unshare");
    inner.args(flags).arg(own).args(["--ignored", "--exact", test, "--nocapture"]).env(INSIDE, "1");
    // Kept back, so that its closing line is not taken for one of this run's.
    let output = inner.output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{}\n{}", output.status, told[0], told[1]);
}

/// Those of a wall of this machine came with the namespace; hidden below another mount they would still be listed, and never end. The
/// machine keeps its own.
fn forget_mounts_below(dir: &str) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points: Vec<&str> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    // A mount is listed after that which it is on.
    for point in points.iter().rev().filter(|point| point.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))) {
        umount2(point.replace("\\040", " ").as_str(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn bring_up_loopback() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        let speaking = tokio::spawn(connection);
        let lo = handle.link().get().match_name("lo").execute().try_next().await.unwrap().unwrap().header.index;
        handle.link().set(rtnetlink::LinkUnspec::new_with_index(lo).up().build()).execute().await.unwrap();
        speaking.abort();
    });
}

fn status() -> Status {
    let output = loco(&["status", "-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_live(status: &Status) -> bool {
    status.instances.iter().all(|instance| instance.state == State::Live)
}

#[track_caller]
fn eventually<T>(probe: impl FnMut() -> Option<T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(testkit::eventually(LIMIT, probe)).unwrap()
}

fn pid(pid: Option<u32>) -> Pid {
    Pid::from_raw(i32::try_from(pid.expect("it runs")).unwrap())
}

/// Everything that is ours in these namespaces but this test itself; a zombie has nothing left.
fn left() -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let dir = entry.path();
        let is_us =
            entry.file_name().to_str().is_some_and(|name| name == "self" || name == "thread-self" || name == "1");
        let comm = fs::read_to_string(dir.join("comm")).unwrap_or_default();
        let zombie = fs::read_to_string(dir.join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        let numeric = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if numeric && !is_us && !zombie && !comm.is_empty() {
            left.push(format!("process {}", comm.trim()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(" /run/loco/")).map(|line| format!("mount {line}")));
    let links = fs::read_dir("/sys/class/net").unwrap().flatten().map(|entry| entry.file_name());
    left.extend(links.filter(|name| *name != "lo").map(|name| format!("link {}", name.display())));
    left.extend(fs::read_dir("/run").unwrap().flatten().map(|entry| format!("file {}", entry.path().display())));
    left
}

#[track_caller]
fn nothing_is_left() {
    assert_eq!(left(), Vec::<String>::new());
}

/// `/sys` shows the links of the namespace in which it was mounted.
fn mount_sys() {
    mount(Some("none"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn what_dies_comes_back_and_killing_everything_leaves_nothing() {
    alone("what_dies_comes_back_and_killing_everything_leaves_nothing", || {
        mount_sys();
        let up = loco(&["up", "--detach", "--nodes", "2", "--guests", "2"]);
        says(&up, 0, "all 2 pictures are live");
        let printed = String::from_utf8(up.stdout).unwrap();
        let first = status();
        assert_eq!(printed.lines().last(), Some(first.url.as_str()));
        assert!(first.url.starts_with("http://127.0.0.1:8080/#token=") && first.url.ends_with(&first.token));
        assert!(is_live(&first), "{first:?}");
        says(&loco(&["up", "--port", "8081"]), 1, "one wall per machine: `loco down` first");

        // An agent dies: the others and the guests do not notice, and it comes back.
        kill(pid(first.nodes[0].agent_pid), Signal::SIGKILL).unwrap();
        let second = eventually(|| {
            let now = status();
            let back = now.nodes[0].agent_pid.is_some_and(|pid| Some(pid) != first.nodes[0].agent_pid);
            (back && is_live(&now)).then_some(now)
        });
        assert_eq!(second.nodes[1], first.nodes[1]);
        let processes = |status: &Status| {
            status.instances.iter().map(|i| (i.qemu_pid.unwrap(), i.runner_pid.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(processes(&second), processes(&first));

        // A runner dies, and its guest with it: a new one starts.
        kill(pid(first.instances[1].runner_pid), Signal::SIGKILL).unwrap();
        eventually(|| {
            let now = status();
            let new = now.instances[1].qemu_pid.is_some_and(|pid| Some(pid) != first.instances[1].qemu_pid);
            (new && is_live(&now) && now.instances[0] == first.instances[0]).then_some(())
        });

        // So it is when somebody ends QEMU or the runner by a plain `kill`, which is not the guest switching itself off.
        for victim in [|i: &StatusInstance| i.qemu_pid, |i: &StatusInstance| i.runner_pid] {
            let before = status();
            kill(pid(victim(&before.instances[1])), Signal::SIGTERM).unwrap();
            eventually(|| {
                let now = status();
                let new = now.instances[1].qemu_pid.is_some_and(|pid| Some(pid) != before.instances[1].qemu_pid);
                (new && is_live(&now)).then_some(())
            });
        }

        // A gateway that does not answer: status says so, and still knows the rest.
        let gateway = find("gateway");
        kill(gateway, Signal::SIGSTOP).unwrap();
        let silent = loco(&["status", "-o", "json"]);
        says(&silent, 0, "states are the supervisor's only");
        let blind: Status = serde_json::from_slice(&silent.stdout).unwrap();
        assert!(blind.instances.iter().all(|i| i.state == State::Starting && i.qemu_pid.is_some()), "{blind:?}");
        kill(gateway, Signal::SIGCONT).unwrap();

        // The supervisor dies: the wall goes on, and says what it lacks.
        kill(find("loco"), Signal::SIGKILL).unwrap();
        eventually(|| find_any("loco").is_none().then_some(()));
        says(&loco(&["status"]), 0, "the supervisor is gone");
        says(&loco(&["up", "--port", "8081"]), 1, "`loco down` first");

        // All of it is killed.
        for name in ["gateway", "node-agent", "guest-runner", "loco-instance-0", "loco-instance-1"] {
            while let Some(process) = find_any(name) {
                kill(process, Signal::SIGKILL).unwrap();
                eventually(|| (find_any(name) != Some(process)).then_some(()));
            }
        }
        assert!(!left().is_empty());
        says(&loco(&["status"]), 3, "nothing runs");
        says(&loco(&["down", "-v"]), 0, "removed link loco-host");
        nothing_is_left();
        says(&loco(&["down"]), 0, "nothing runs");
    });
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn an_up_that_fails_says_why_and_leaves_nothing() {
    alone("an_up_that_fails_says_why_and_leaves_nothing", || {
        mount_sys();
        let held = TcpListener::bind("127.0.0.1:8080").unwrap();
        says(&loco(&["up", "--detach"]), 1, "port 8080 of 127.0.0.1 is in use");
        nothing_is_left();
        drop(held);

        // A kernel that no machine boots: its runner ends again and again, or no picture ever comes.
        let rubbish = env::temp_dir().join(format!("loco-rubbish-{}", std::process::id()));
        fs::write(&rubbish, b"this is no kernel").unwrap();
        let up = loco(&["up", "--detach", "--guests", "1", "--timeout", "20", "--kernel", rubbish.to_str().unwrap()]);
        fs::remove_file(&rubbish).unwrap();
        says(&up, 1, "last words of guest-runner-instance-0");
        nothing_is_left();

        let bare = Command::new(env!("CARGO_BIN_EXE_loco")).arg("up").env("PATH", "/nonexistent").output().unwrap();
        says(&bare, 1, "cannot run qemu-system-x86_64");
        nothing_is_left();

        // No room.
        mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), Some("size=1M")).unwrap();
        says(&loco(&["up", "--detach"]), 1, "MiB free and 16 MiB are needed");
        nothing_is_left();
        mount(Some("none"), "/run", Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>).unwrap();
        says(&loco(&["up", "--detach"]), 1, "cannot make /run/loco");
    });
}

#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn in_the_foreground_it_says_the_url_and_an_interrupt_ends_it() {
    alone("in_the_foreground_it_says_the_url_and_an_interrupt_ends_it", || {
        mount_sys();
        let mut up = Command::new(env!("CARGO_BIN_EXE_loco"));
        up.args(["up", "--nodes", "1", "--guests", "1"]).stdout(Stdio::piped());
        let mut up = up.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), status().url);
        kill(Pid::from_raw(i32::try_from(up.id()).unwrap()), Signal::SIGINT).unwrap();
        assert!(up.wait().unwrap().success());
        nothing_is_left();
    });
}

/// Something that nobody here wrote runs on it: Debian's memtest86+ as a kernel, GRUB's rescue image as a disk.
#[test]
#[ignore = "privileged: run by `cargo xtask test --privileged`"]
fn foreign_guests_give_a_live_picture_and_a_disk_is_never_written() {
    alone("foreign_guests_give_a_live_picture_and_a_disk_is_never_written", || {
        mount_sys();
        let image = Path::new("/usr/lib/grub-rescue/grub-rescue-cdrom.iso");
        let before = fs::read(image).unwrap();
        for (flag, file) in [("--kernel", "/boot/memtest86+x64.bin"), ("--disk", image.to_str().unwrap())] {
            let up = loco(&["up", "--detach", "--nodes", "1", "--guests", "1", flag, file]);
            says(&up, 0, "all 1 pictures are live");
            let status = status();
            // A picture with much drawn in it: a black or uniform screen of this size is below 2 kB as PNG.
            eventually(|| (screenshot(&status).len() > 2500).then_some(()));
            says(&loco(&["down"]), 0, "the wall is down");
            nothing_is_left();
        }
        assert!(fs::read(image).unwrap() == before, "the base disk was written");
    });
}

/// PNG of the first instance, from the gateway.
fn screenshot(status: &Status) -> Vec<u8> {
    get(8080, &format!("/api/instances/{}/screenshot.png", status.instances[0].id), &status.token)
}

/// What a server of this machine answers.
#[track_caller]
fn get(port: u16, path: &str, token: &str) -> Vec<u8> {
    try_get(port, path, token).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The body of a good answer, or the head of another.
fn try_get(port: u16, path: &str, token: &str) -> Result<Vec<u8>, String> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    write!(server, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let good = answer.get(8..12) == Some(b" 200");
    if good { Ok(answer.split_off(head)) } else { Err(answer[..head].escape_ascii().to_string()) }
}

#[track_caller]
fn find(name: &str) -> Pid {
    find_any(name).unwrap_or_else(|| panic!("no {name} runs"))
}

/// A living process of that name; the kernel keeps 15 bytes of it.
fn find_any(name: &str) -> Option<Pid> {
    let own = std::process::id().to_string();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let file_name = entry.file_name();
        let pid = file_name.to_str().filter(|pid| *pid != own)?.parse().ok()?;
        let stat = fs::read_to_string(Path::new("/proc").join(&file_name).join("stat")).ok()?;
        let (_, rest) = stat.split_once('(')?;
        let (comm, state) = rest.rsplit_once(") ")?;
        (comm == &name[..name.len().min(15)] && !state.starts_with('Z')).then_some(Pid::from_raw(pid))
    })
}
