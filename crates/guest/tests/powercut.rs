//! A power cut, as the disk sees it: everything that was flushed is there, of the rest any part, in any order.
//!
//! QEMU's own driver `blklogwrites` notes each write and flush of the overlay's file while a real guest writes numbered
//! sectors. The log is then replayed up to a flush, with a random half of what came after it, as a disk may have it.
#![expect(clippy::unwrap_used, reason = "helpers of tests; a rig that cannot be built ends its test")]
use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::AsFd as _,
    os::unix::{fs::FileExt as _, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use guest::{
    MachineSpec,
    argv::{Accelerator, Boot, FD_DISK, FD_NET, HardDisk, Mebibytes, Netdev, NicModel, VideoCard},
    overlay, process, version,
};
use testkit::{WRITER_STEP_BYTES, writer_boot_sector};
use tokio::{io::AsyncReadExt as _, time::timeout};

/// Writes that are waited for.
const WRITES: usize = 40;
const SOON: Duration = Duration::from_mins(1);

struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// One entry of dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst).
struct Entry {
    at: u64,
    data: Vec<u8>,
    flush: bool,
}

/// Those that the log holds. Its superblock counts what was logged when it was last written, which QEMU does at a flush.
fn entries(log: &Path) -> Vec<Entry> {
    let mut log = File::open(log).unwrap();
    let mut sector = [0; 512];
    log.read_exact(&mut sector).unwrap();
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (count, sector_bytes) = (word(&sector, 16), u64::from(u32::from_le_bytes(sector[24..28].try_into().unwrap())));
    assert_eq!(sector_bytes, 512);
    (0..count)
        .map(|_| {
            log.read_exact(&mut sector).unwrap();
            let (at, sectors, flags) = (word(&sector, 0), word(&sector, 8), word(&sector, 16));
            // A discard (4) carries no data.
            let mut data = vec![0; if flags & 4 == 0 { usize::try_from(sectors).unwrap() * 512 } else { 0 }];
            log.read_exact(&mut data).unwrap();
            Entry { at: at * 512, data, flush: flags & 1 != 0 }
        })
        .collect()
}

/// Runs the guest until it knows of [`WRITES`] writes, and cuts QEMU off. Gives how many it knew of.
async fn run(place: &Place, write_through: bool) -> usize {
    let (disk, overlay) = (place.0.join("base.img"), place.0.join("overlay.qcow2"));
    fs::write(&disk, writer_boot_sector()).unwrap();
    File::options().write(true).open(&disk).unwrap().set_len(1 << 30).unwrap();
    let mut base = overlay::Base::open(&disk).unwrap();
    overlay::create(&mut base, &overlay).await.unwrap();
    fs::copy(&overlay, place.0.join("before.qcow2")).unwrap();
    File::create(place.0.join("log")).unwrap();
    let hard_disk = HardDisk { format: base.format, lock_base: true, overlay, write_through };
    let spec = MachineSpec {
        instance: "instance-0".parse().unwrap(),
        work_dir: place.0.clone(),
        memory: Mebibytes::new(24).unwrap(),
        boot: Boot::Disks { disk: Some(hard_disk), cdrom: false },
        nic: NicModel::Pcnet,
        mac: model::MacAddr([2, 0x4c, 0, 0, 1, 1]),
        netdev: Netdev::Tap,
        video: VideoCard::Std,
        accelerator: Accelerator::Tcg,
        vnc: false,
    };
    let dir = place.0.display();
    let (nic, _) = StdUnixStream::pair().unwrap();
    let mut logged = 0;
    let argv: Vec<_> = spec
        .argv()
        .into_iter()
        .map(|arg| match arg.to_str().unwrap() {
            "tap,id=net0,fd=3" => "socket,id=net0,fd=3".into(),
            text if text.starts_with("driver=file,node-name=overlay-file,") => {
                logged += 1;
                let file = format!("file.driver=file,file.cache.no-flush=off,file.filename={dir}/overlay.qcow2");
                format!("driver=blklogwrites,node-name=overlay-file,{file},log.driver=file,log.filename={dir}/log")
                    .into()
            }
            _ => arg,
        })
        .collect();
    assert_eq!(logged, 1);
    let (program, _) = version::qemu().await.unwrap();
    let fds = [(nic.as_fd(), FD_NET), (base.file.as_fd(), FD_DISK)];
    let mut child = process::spawn(&program, &argv, &fds, false).unwrap();
    let mut serial = child.stdout.take().unwrap();
    let mut known = 0;
    let count = async {
        let mut bytes = [0; 4096];
        while known < WRITES {
            let count = serial.read(&mut bytes).await.unwrap();
            assert!(count > 0 && bytes[..count].iter().all(|byte| *byte == b'.'), "{:?}", &bytes[..count]);
            known += count;
        }
    };
    timeout(SOON, count).await.expect("the guest writes");
    child.kill().await.unwrap();
    known
}

/// The overlay as a disk has it that lost power after `durable` entries of the log, with those of `lucky` that had arrived.
fn cut(place: &Place, log: &[Entry], durable: usize, lucky: impl Fn(usize) -> bool) {
    let after = place.0.join("overlay.qcow2");
    fs::copy(place.0.join("before.qcow2"), &after).unwrap();
    let file = File::options().write(true).open(&after).unwrap();
    for (index, entry) in log.iter().enumerate() {
        if index < durable || lucky(index) {
            file.write_all_at(&entry.data, entry.at).unwrap();
        }
    }
}

/// How many of the writes are there, without a gap.
fn intact(place: &Place) -> usize {
    let (overlay, flat) = (place.0.join("overlay.qcow2"), place.0.join("flat.img"));
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(&overlay).arg(&flat);
    assert!(convert.status().unwrap().success());
    let file = File::open(&flat).unwrap();
    let there = |n: u32| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, u64::from(n) * WRITER_STEP_BYTES).is_ok() && bytes == n.to_le_bytes()
    };
    (1..10_000).take_while(|n| there(*n)).count()
}

/// The overlay's tables are sound, or become so by what `repair` says.
fn sound(place: &Place, repair: &[&str]) {
    let mut check = Command::new("qemu-img");
    let check = check.args(["check", "-q", "-f", "qcow2"]).args(repair).arg(place.0.join("overlay.qcow2"));
    let output = check.output().unwrap();
    // 3: space that nobody uses, which costs room and nothing else.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
}

fn place(name: &str) -> Place {
    let place = Place(std::env::temp_dir().join(format!("loco-guest-{}-{name}", std::process::id())));
    fs::create_dir_all(&place.0).unwrap();
    place
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn what_the_guest_knows_to_be_written_survives_a_power_cut() {
    let place = place("cut");
    let known = run(&place, true).await;
    let log = entries(&place.0.join("log"));
    let flushes: Vec<usize> =
        log.iter().enumerate().filter(|(_, entry)| entry.flush).map(|(index, _)| index + 1).collect();
    println!("{known} writes known, {} entries in the log, {} flushes", log.len(), flushes.len());
    // At the end: all that was told to the guest was flushed before.
    cut(&place, &log, *flushes.last().unwrap(), |_| false);
    sound(&place, &[]);
    assert!(intact(&place) >= known, "{} of {known}", intact(&place));
    // In between, with a random half of what was under way: sound, and nothing that was there is gone again.
    let seed = std::process::id();
    println!("seed {seed}");
    let mut least = 0;
    for ends in flushes.windows(2).step_by(flushes.len().div_ceil(12)) {
        let (at, next) = (ends[0], ends[1]);
        cut(&place, &log, at, |_| false);
        sound(&place, &[]);
        let durable = intact(&place);
        assert!(durable >= least, "{durable} after {at}, {least} before");
        least = durable;
        let coin = |index: usize| {
            let hash = (index as u64 ^ u64::from(seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            // What came after the next flush had, before it, all that came before that one.
            index < next && hash >> 63 == 1
        };
        cut(&place, &log, at, coin);
        assert!(intact(&place) >= durable, "{} of {durable} after {at}", intact(&place));
        // The write that was under way may have left a table that names a place beyond the file's end: read as zeros, and put
        // right without touching the others.
        sound(&place, &["-r", "all"]);
        assert!(intact(&place) >= durable, "{} of {durable} after {at}, repaired", intact(&place));
    }
}

#[tokio::test]
#[ignore = "needs QEMU 10: run by `cargo xtask test --privileged`"]
async fn without_write_through_a_guest_that_never_flushes_may_lose_what_it_knows() {
    let place = place("lossy");
    let known = run(&place, false).await;
    let log = entries(&place.0.join("log"));
    let durable = log.iter().rposition(|entry| entry.flush).map_or(0, |index| index + 1);
    cut(&place, &log, durable, |_| false);
    let there = intact(&place);
    println!("{there} of {known} writes are there");
    assert!(there < known, "then the flag is not needed: find out why");
}
