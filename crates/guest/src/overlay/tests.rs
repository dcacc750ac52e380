//! qemu-img is part of every installation of QEMU, needs no privilege and takes milliseconds: these run it for real.
use super::*;

/// A directory of one test, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-overlay-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn boot_sector() -> Vec<u8> {
    let mut disk = vec![0x90; 4096];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[test]
fn recognises_disks_by_what_they_are() {
    let place = Place::new("formats");
    let format = |bytes: &[u8]| Base::open(&place.file("image", bytes)).map(|base| base.format);
    let mut vdi = vec![1; 1024];
    vdi[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
    let mut vpc = vec![1; 1024];
    vpc[512..520].copy_from_slice(b"conectix");
    assert_eq!(format(&boot_sector()).unwrap(), DiskFormat::Raw);
    assert_eq!(format(&[0; 1024]).unwrap(), DiskFormat::Raw);
    assert_eq!(format(b"QFI\xfb\0\0\0\x03").unwrap(), DiskFormat::Qcow2);
    assert_eq!(format(b"KDMV\x01").unwrap(), DiskFormat::Vmdk);
    assert_eq!(format(b"vhdxfile").unwrap(), DiskFormat::Vhdx);
    assert_eq!(format(&vdi).unwrap(), DiskFormat::Vdi);
    assert_eq!(format(&vpc).unwrap(), DiskFormat::Vpc);
    for other in [&b""[..], b"hello", &[1; 1024], &boot_sector()[..513]] {
        let message = format(other).unwrap_err().to_string();
        assert!(message.contains("not a disk image that is known here"), "{message}");
    }
}

#[test]
fn names_what_is_missing() {
    let message = Base::open(Path::new("/nowhere/win98.qcow2")).unwrap_err().to_string();
    assert_eq!(message, "there is no disk image `/nowhere/win98.qcow2`; check --disk");
    let message = Base::open(&std::env::temp_dir()).unwrap_err().to_string();
    assert!(message.contains("could not read disk image"), "{message}");
}

#[tokio::test]
async fn an_overlay_is_made_of_its_base_and_leaves_it_alone() {
    let place = Place::new("life");
    let disk = place.file("base,1.img", &boot_sector());
    let overlay = place.0.join("overlay.qcow2");
    let mut base = Base::open(&disk).unwrap();
    assert!(base.lockable, "a local file system has locks");
    create(&mut base, &overlay).await.unwrap();
    let made = info(&overlay, overlay.as_os_str(), DiskFormat::Qcow2, &[]).await.unwrap();
    assert_eq!(made.virtual_size, 4096);
    assert_eq!(base_of(&overlay).await.unwrap(), base.path().to_str().unwrap());
    assert_eq!(std::fs::read(&disk).unwrap(), boot_sector());
    assert!(!overlay.with_extension("new").exists());
}

#[tokio::test]
async fn the_size_of_every_format_is_read() {
    let place = Place::new("sizes");
    for format in [DiskFormat::Qcow2, DiskFormat::Vmdk, DiskFormat::Vdi, DiskFormat::Vpc, DiskFormat::Vhdx] {
        let path = place.0.join(format!("disk.{format}"));
        // A size that all of them can say: vpc rounds to its geometry.
        let args = ["create", "-q", "-f", format.as_str(), path.to_str().unwrap(), "64M"].map(OsString::from);
        run(&args, &[], "create", &path).await.unwrap();
        let mut base = Base::open(&path).unwrap();
        assert_eq!(base.format, format);
        let bytes = base.virtual_bytes().await.unwrap();
        assert!((64 << 20..65 << 20).contains(&bytes), "{format}: {bytes}");
    }
}

#[tokio::test]
async fn a_broken_overlay_is_reported_and_left() {
    let place = Place::new("broken");
    let overlay = place.file("overlay.qcow2", b"rubbish");
    let error = base_of(&overlay).await.unwrap_err();
    assert!(error.to_string().starts_with("qemu-img could not read"), "{error}");
    assert_eq!(std::fs::read(&overlay).unwrap(), b"rubbish");
}

#[test]
fn a_full_disk_has_a_message_of_its_own() {
    let said = "qemu-img: /x/overlay.new: Could not resize file: No space left on device";
    let message = refusal("create", Path::new("/x/overlay.qcow2"), said).to_string();
    assert!(message.contains("is full; free some space"), "{message}");
}
