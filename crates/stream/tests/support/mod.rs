//! A real QEMU with our listeners on it, and an agent's part of the input path. Shared by the tests and the example.
#![allow(dead_code, reason = "each user takes its part")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use guest::{Qmp, handshake};
use stream::{
    AudioTap, Injection, InputEvent, Screen,
    audio::{self, AudioConnection},
    display::{self, DisplayConnection},
};
use tokio::{net::UnixStream, sync::mpsc, time::Instant};

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// After an input the picture is asked for at once and again when a slow guest has drawn.
const POKES: [Duration; 2] = [Duration::from_millis(3), Duration::from_millis(13)];

pub(crate) struct Qemu {
    child: tokio::process::Child,
    dir: PathBuf,
    pub(crate) screen: Arc<Screen>,
    pub(crate) tap: Arc<AudioTap>,
    pub(crate) display: DisplayConnection,
    pub(crate) audio: AudioConnection,
    bus: handshake::Bus,
}

impl Qemu {
    /// `dir` is made, and removed at the end.
    pub(crate) async fn start(dir: &Path, kernel: Option<&Path>) -> Result<Self, Problem> {
        std::fs::create_dir_all(dir)?;
        let mut command = tokio::process::Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-no-user-config", "-accel", "tcg,tb-size=32", "-m", "32", "-vga", "std"]);
        command.args(["-display", "dbus,p2p=on,audiodev=snd0"]);
        command.args(["-audiodev", "dbus,id=snd0,out.frequency=48000,timer-period=5000"]);
        command.args(["-machine", "pc,pcspk-audiodev=snd0", "-device", "sb16,audiodev=snd0"]);
        for name in ["runner", "input", "poke"] {
            command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket(dir, name).display()));
        }
        if let Some(kernel) = kernel {
            command.arg("-kernel").arg(kernel);
        }
        let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let mut runner = monitor(dir, "runner").await?;
        let mut bus = handshake::Bus::open(&mut runner).await?;
        let (screen, tap) = (Screen::new(), AudioTap::new());
        let fds = bus.display().await?;
        let display =
            display::attach(fds.bus, &fds.bus_guid, fds.listener, &fds.listener_guid, Arc::clone(&screen)).await?;
        let listener = bus.audio().await?;
        let audio = audio::attach(listener.fd, &listener.guid, Arc::clone(&tap)).await?;
        Ok(Self { child, dir: dir.to_owned(), screen, tap, display, audio, bus })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Gives injections to QEMU as an agent does.
    pub(crate) async fn play(&self, mut injections: mpsc::Receiver<Injection>) -> Result<(), Problem> {
        let (mut input, mut poke) = (monitor(&self.dir, "input").await?, monitor(&self.dir, "poke").await?);
        let (pokes, mut wanted) = mpsc::channel::<Instant>(1);
        tokio::spawn(async move {
            while let Some(at) = wanted.recv().await {
                for after in POKES {
                    tokio::time::sleep_until(at + after).await;
                    if poke.refresh_poke().await.is_err() {
                        return;
                    }
                }
            }
        });
        tokio::spawn(async move {
            while let Some(injection) = injections.recv().await {
                let events: Vec<_> = injection.events.iter().flat_map(qmp_events).collect();
                if input.send_input(&events).await.is_err() {
                    return;
                }
                injection.injected();
                // One that waits is enough: it will see this input's effect, too.
                pokes.try_send(Instant::now()).ok();
            }
        });
        Ok(())
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.ok();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Also when a test fails; the process is killed by its own drop.
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

async fn monitor(dir: &Path, name: &str) -> Result<Qmp<UnixStream>, Problem> {
    let path = socket(dir, name);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Qmp::open(&path).await {
            Ok(qmp) => return Ok(qmp),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

fn qmp_events(event: &InputEvent) -> Vec<guest::input::InputEvent> {
    match event {
        InputEvent::Key { code, down } => {
            guest::qcode(code).and_then(|q| guest::input::key(q, *down)).into_iter().collect()
        }
        InputEvent::Button { button, down } => guest::input::button(*button as u8, *down).into_iter().collect(),
        InputEvent::Move { dx, dy } => guest::input::rel(*dx, *dy),
        InputEvent::Wheel { dy } => guest::input::wheel(*dy),
    }
}
