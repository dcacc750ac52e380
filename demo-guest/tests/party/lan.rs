//! A bridge with taps in a network namespace of its own, and guests in QEMU on it.
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Waits for a value, not for a time.
#[track_caller]
pub(crate) fn eventually(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < limit, "not within {seconds} s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "`{command}`: {status}");
}

/// A namespace with a bridge; gone when dropped.
pub(crate) struct Lan {
    name: String,
    dir: PathBuf,
}

impl Lan {
    pub(crate) fn new(taps: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("loco-t-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir).unwrap();
        run(&format!("ip netns add {name}"));
        let lan = Self { name, dir };
        let name = &lan.name;
        run(&format!("ip -n {name} link add br0 type bridge"));
        run(&format!("ip -n {name} link set br0 up"));
        for tap in 0..taps {
            run(&format!("ip -n {name} tuntap add t{tap} mode tap"));
            run(&format!("ip -n {name} link set t{tap} master br0 up"));
        }
        lan
    }

    /// Starts the guest of a seat; `words` are added to its command line.
    pub(crate) fn guest(&self, seat: usize, nic: &str, words: &str) -> Guest {
        let socket = self.dir.join(format!("qmp-{seat}"));
        let (name, number) = (&self.name, seat + 1);
        let child = Command::new("ip")
            .args(["netns", "exec", name, "qemu-system-x86_64", "-nodefaults", "-machine", "pc", "-accel", "tcg"])
            .args(["-m", "24", "-vga", "std", "-display", "none", "-serial", "stdio"])
            .args(["-kernel", env!("CARGO_BIN_EXE_demo-guest")])
            .args(["-append", &format!("seat={seat} ip=10.98.0.{number}/24 {words}")])
            .args(["-netdev", &format!("tap,id=n,ifname=t{seat},script=no,downscript=no")])
            .args(["-device", &format!("{nic},netdev=n,mac=02:4c:00:10:68:{number:02x}")])
            .args(["-audiodev", "none,id=a", "-device", "sb16,audiodev=a"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Guest::new(child, socket, self.dir.join(format!("screen-{seat}.ppm")))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.name));
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// QEMU with a guest; ended when dropped.
pub(crate) struct Guest {
    child: Child,
    socket: PathBuf,
    screen: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A picture as 640x480 RGB.
pub(crate) struct Picture(Vec<u8>);

impl Picture {
    pub(crate) fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * 640 + x) * 3;
        [self.0[at], self.0[at + 1], self.0[at + 2]]
    }

    /// Is every pixel of the measuring square this grey?
    pub(crate) fn square_is(&self, grey: u8) -> bool {
        (0..64).all(|y| (0..64).all(|x| self.pixel(x, y) == [grey; 3]))
    }

    /// The frame counter beside the square.
    pub(crate) fn frames(&self) -> u16 {
        (0..16).fold(0, |n, bit| n << 1 | u16::from(self.pixel(64 + bit * 16 + 8, 8)[0] & 1))
    }

    pub(crate) fn same_as(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Guest {
    fn new(mut child: Child, socket: PathBuf, screen: PathBuf) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, sink) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        Self { child, socket, screen, lines }
    }

    /// Lines said so far: a place to wait from.
    pub(crate) fn said(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    pub(crate) fn has_said(&self, since: usize, wanted: &str) -> bool {
        self.lines.lock().unwrap().iter().skip(since).any(|l| l.contains(wanted))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// One QMP command on a connection of its own; its answer.
    pub(crate) fn qmp(&self, command: &str) -> String {
        eventually("QMP socket", 10, || self.socket.exists());
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        for line in [r#"{"execute":"qmp_capabilities"}"#, command] {
            writeln!(stream, "{line}").unwrap();
            answer.clear();
            while !answer.contains("\"return\"") && !answer.contains("\"error\"") {
                answer.clear();
                assert_ne!(reader.read_line(&mut answer).unwrap(), 0, "QEMU hung up at {line}");
            }
        }
        assert!(answer.contains("\"return\""), "{command}: {answer}");
        answer
    }

    fn event(&self, kind: &str, data: &str) {
        self.qmp(&format!(
            r#"{{"execute":"input-send-event","arguments":{{"events":[{{"type":"{kind}","data":{data}}}]}}}}"#
        ));
    }

    /// Presses and releases a key, by its QMP name.
    pub(crate) fn key(&self, code: &str) {
        for down in [true, false] {
            self.event("key", &format!(r#"{{"down":{down},"key":{{"type":"qcode","data":"{code}"}}}}"#));
        }
    }

    pub(crate) fn button(&self, down: bool) {
        self.event("btn", &format!(r#"{{"down":{down},"button":"left"}}"#));
    }

    pub(crate) fn picture(&self) -> Picture {
        let path = self.screen.display();
        self.qmp(&format!(r#"{{"execute":"screendump","arguments":{{"filename":"{path}","format":"ppm"}}}}"#));
        let bytes = fs::read(&self.screen).unwrap();
        assert!(bytes.starts_with(b"P6\n640 480\n255\n"));
        Picture(bytes[15..].to_vec())
    }

    /// Waits for QEMU to end by itself; its status.
    pub(crate) fn end(&mut self) -> Option<i32> {
        eventually("QEMU ends", 10, || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Ended already, in the tests that wait for it.
        if let Ok(None) = self.child.try_wait() {
            self.kill();
        }
    }
}
