//! Wireshark's tools read what we write, and we read what they write.
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use capture::{LinkType, Reader, Record, Snapshot, file::PortFile, write::Direction};

use super::{
    build::{PASSWORD, add_forward_request, enum_sessions, ipx, tcp, udp},
    file::{about, frame, whole},
};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loco-capture-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// What `tool` printed, once it has ended without a word of complaint.
#[track_caller]
fn run(tool: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool)
        .args(arguments)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}; install the packages tshark and wireshark-common"));
    let errors = String::from_utf8_lossy(&output.stderr);
    let complaints: Vec<_> = errors.lines().filter(|line| !line.contains("Running as user \"root\"")).collect();
    assert!(output.status.success() && complaints.is_empty(), "{tool} {arguments:?}: {complaints:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: &Path) -> Vec<Record> {
    Reader::new(fs::read(path).unwrap().as_slice()).unwrap().collect::<Result<_, _>>().unwrap()
}

fn snapshot() -> Snapshot {
    let at = |n: u64| Duration::new(1_795_383_600 + n, 123_456_789);
    let mut query = udp(47624, &enum_sessions(PASSWORD));
    capture::mask::Masker::default().mask(&mut query);
    let mut query = frame(at(1), Direction::Outbound, &query);
    query.is_masked = true;
    Snapshot {
        frames: vec![
            query,
            frame(at(2), Direction::Inbound, &tcp(1, &add_forward_request(""))),
            frame(at(3), Direction::Outbound, &ipx(&enum_sessions("")[20..])),
        ],
        from: at(0),
        until: at(60),
        received: 5,
        dropped_by_system: 1,
        ..Snapshot::default()
    }
}

#[test]
fn tshark_shows_what_a_file_holds() {
    let folder = Folder::new("tshark");
    let path = folder.0.join("port.pcapng");
    fs::write(&path, whole(&snapshot(), &[0, 2])).unwrap();
    let path = path.to_str().unwrap();
    let fields = [
        "frame.time_epoch",
        "frame.len",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.drop_count",
        "frame.comment",
    ];
    let mut arguments = vec!["-r", path, "-n", "-T", "fields", "-E", "separator=|"];
    for field in &fields {
        arguments.extend(["-e", field]);
    }
    let rows: Vec<String> = run("tshark", &arguments).lines().map(str::to_owned).collect();
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.split('|').collect()).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(rows[0][0], "1795383601.123456789");
    assert!(rows.iter().all(|row| row[2] == "instance-3"), "{rows:?}");
    // Versions print the number with different widths.
    let directions = rows.iter().map(|row| u32::from_str_radix(row[3].trim_start_matches("0x"), 16).unwrap());
    assert_eq!(directions.collect::<Vec<_>>(), [2, 1, 2], "outbound, inbound, outbound");
    assert_eq!(rows[1][4], "2");
    assert_eq!(rows[0][5], "DirectPlay ENUMSESSIONS,A password in this frame was made zero.");
    assert!(rows[1][5].starts_with("DirectPlay ADDFORWARDREQUEST,2 frames before"), "{rows:?}");
    assert_eq!(rows[2][5], "DirectPlay ENUMSESSIONS");
    // The frames are sound to its dissectors, the masked one's checksum too.
    let checks = ["-o", "udp.check_checksum:TRUE", "-Y", "udp.checksum.status == \"Good\" && dplay"];
    let found = run("tshark", &[&["-r", path, "-n"][..], &checks].concat());
    assert_eq!(found.lines().count(), 1, "{found}");
    let text = fs::read(path).unwrap();
    assert!(!text.windows(10).any(|window| window == &super::build::utf16(PASSWORD)[..10]));
}

#[test]
fn capinfos_finds_the_interface_and_the_comment() {
    let folder = Folder::new("capinfos");
    let path = folder.0.join("port.pcapng");
    fs::write(&path, whole(&snapshot(), &[])).unwrap();
    let text = run("capinfos", &[path.to_str().unwrap()]);
    for want in [
        "Number of packets:   3",
        "Name = instance-3",
        "Description = LAN party, seat 3, tap locot001068-3 on node-a; outbound is from the guest",
        "Time precision = nanoseconds (9)",
        "Frames of instance-3 from 2026-11-22 21:40:00.123 to 2026-11-22 21:41:00.123 UTC (60.000 s).",
        "Capture application: Loco 0.1.0",
    ] {
        assert!(text.contains(want), "`{want}` is not in:\n{text}");
    }
}

#[test]
fn every_format_that_editcap_writes_is_read_alike() {
    let folder = Folder::new("editcap");
    for name in ["dplay4-3peer", "syn-dplay4", "syn-ipx-eth", "dosbox-ipxnet"] {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../wire/tests/captures/{name}.pcap"));
        let records = read(&original);
        let printed = run(
            "tshark",
            &["-r", original.to_str().unwrap(), "-n", "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len"],
        );
        assert_eq!(printed.lines().count(), records.len());
        for (line, record) in printed.lines().zip(&records) {
            let nanoseconds = format!("{}.{:09}\t{}", record.at.as_secs(), record.at.subsec_nanos(), record.wire_len);
            assert_eq!(line, nanoseconds);
        }
        for format in ["pcapng", "nsecpcap", "modpcap", "pcap"] {
            let path = folder.0.join(format!("{name}.{format}"));
            run("editcap", &["-F", format, original.to_str().unwrap(), path.to_str().unwrap()]);
            assert_eq!(read(&path), records, "{name} as {format}");
        }
        // Cut to 40 octets a frame.
        let path = folder.0.join(format!("{name}.cut"));
        run("editcap", &["-s", "40", original.to_str().unwrap(), path.to_str().unwrap()]);
        let cut = read(&path);
        assert!(cut.iter().zip(&records).all(|(cut, whole)| {
            cut.wire_len == whole.wire_len && cut.bytes[..] == whole.bytes[..whole.bytes.len().min(40)]
        }));
        // As another link type, whose frames then hold what they held.
        let path = folder.0.join(format!("{name}.sll"));
        run("editcap", &["-T", "linux-sll", original.to_str().unwrap(), path.to_str().unwrap()]);
        assert!(read(&path).iter().all(|record| record.link_type == LinkType::LINUX_SLL));
    }
}

#[test]
fn tshark_reads_a_cooked_frame_as_we_make_it() {
    // The same UDP packet with each head; tshark names the addresses in both.
    let packet = udp(47624, b"x").split_off(14);
    let mut sll2 = vec![8, 0, 0, 0, 0, 0, 0, 3, 0, 1, 1, 6, 2, 0x4c, 0, 0x10, 0x68, 2, 0, 0];
    sll2.extend(&packet);
    let folder = Folder::new("cooked");
    let wire_len = u32::try_from(sll2.len()).unwrap();
    let path = folder.0.join("sll2.pcap");
    fs::write(&path, super::build::pcap(super::build::Order::Little, 0xa1b2_c3d4, 276, &[(0, 0, wire_len, sll2)]))
        .unwrap();
    let mac =
        run("tshark", &["-r", path.to_str().unwrap(), "-n", "-T", "fields", "-e", "sll.src.eth", "-e", "udp.dstport"]);
    assert_eq!(mac.trim(), "02:4c:00:10:68:02\t47624");
    let view = read(&path)[0].ethernet().unwrap().bytes.into_owned();
    assert_eq!(view, [&[0xff; 6][..], &[2, 0x4c, 0, 0x10, 0x68, 2, 8, 0], &packet].concat());
}

#[test]
fn tshark_shows_frames_of_a_pipe_as_they_come() {
    let mut tshark = Command::new("tshark")
        .args(["-r", "-", "-n", "-l", "-T", "fields", "-e", "frame.number", "-e", "frame.comment"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tshark.stdout.take().unwrap()).lines();
    let (sender, shown) = mpsc::channel();
    let reader = thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut pipe = tshark.stdin.take().unwrap();
    let (mut file, mut out) = PortFile::begin(&about(), &Snapshot::default(), true);
    for (number, frame) in (1..).zip(snapshot().frames) {
        file.frame(&mut out, &frame, 0);
        pipe.write_all(&std::mem::take(&mut out)).unwrap();
        // The pipe stays open: the next frame is written only when this one was shown.
        let line = shown.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(line.starts_with(&format!("{number}\tDirectPlay ")), "{line}");
    }
    // Cut off between two blocks, as by Ctrl-C.
    drop(pipe);
    assert!(tshark.wait().unwrap().success());
    reader.join().unwrap().unwrap();
}
