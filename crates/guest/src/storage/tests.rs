//! Real files, real qemu-img; milliseconds each.
use std::os::unix::fs::PermissionsExt as _;

use super::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("loco-storage-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn base(&self, contents: u8) -> Base {
        let mut disk = vec![contents; 1 << 16];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(self.0.join("base.img"), disk).unwrap();
        self.open()
    }

    fn open(&self) -> Base {
        Base::open(&self.0.join("base.img")).unwrap()
    }

    fn wanted(&self) -> Wanted {
        let primary = self.0.join("primary");
        Wanted { primary, fallback: None, lifetime: Lifetime::Persistent, pod: Some("pod-a".into()) }
    }

    fn hybrid(&self) -> Wanted {
        Wanted { fallback: Some(self.0.join("fallback")), ..self.wanted() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// As a guest would: the contents of an overlay are what it saved. A byte in the middle of a cluster table nobody reads here.
fn save(disk: &Disk, mark: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::File::options().write(true).open(&disk.overlay).unwrap();
    file.write_all_at(mark, 0x50000).unwrap();
}

fn saved(overlay: &Path, mark: &[u8]) -> bool {
    let bytes = fs::read(overlay).unwrap();
    bytes.get(0x50000..0x50000 + mark.len()) == Some(mark)
}

async fn settled(base: &mut Base, wanted: &Wanted) -> Disk {
    let disk = prepare(base, wanted, false).await.unwrap();
    if let Some(work) = disk.note_digest(base) {
        work.await.unwrap();
    }
    disk
}

#[tokio::test]
async fn a_disk_is_kept_over_pods_and_belongs_to_one_runner() {
    let place = Place::new("kept");
    let (mut base, wanted) = (place.base(1), place.wanted());
    let disk = settled(&mut base, &wanted).await;
    assert!(disk.fresh && disk.notice.is_none() && disk.place == Where::Primary);
    save(&disk, b"game");
    let error = prepare(&mut base, &wanted, false).await.unwrap_err();
    assert!(matches!(error, StorageError::InUse { .. }), "{error}");
    // The fallback is no way around a disk that somebody uses.
    let error = prepare(&mut base, &place.hybrid(), false).await.unwrap_err();
    assert!(matches!(error, StorageError::InUse { .. }), "{error}");
    let overlay = disk.overlay.clone();
    drop(disk);
    let disk = settled(&mut base, &Wanted { pod: Some("pod-b".into()), ..wanted }).await;
    assert!(!disk.fresh && saved(&overlay, b"game"));
}

#[tokio::test]
async fn an_ephemeral_disk_lives_as_long_as_its_pod() {
    let place = Place::new("ephemeral");
    let mut base = place.base(1);
    let wanted = Wanted { lifetime: Lifetime::Ephemeral, ..place.wanted() };
    let disk = settled(&mut base, &wanted).await;
    save(&disk, b"game");
    drop(disk);
    // The container was restarted.
    let disk = settled(&mut base, &wanted).await;
    assert!(!disk.fresh && saved(&disk.overlay, b"game"));
    drop(disk);
    let disk = settled(&mut base, &Wanted { pod: Some("pod-b".into()), ..wanted.clone() }).await;
    assert!(disk.fresh && !saved(&disk.overlay, b"game"));
    drop(disk);
    // Without a pod, each runner begins anew; an order to restart does not come by here.
    let alone = Wanted { pod: None, ..wanted };
    assert!(settled(&mut base, &alone).await.fresh);
    assert!(settled(&mut base, &alone).await.fresh);
}

#[tokio::test]
async fn an_overlay_is_used_over_its_own_base_only() {
    let place = Place::new("base");
    let (mut base, wanted) = (place.base(1), place.wanted());
    let disk = settled(&mut base, &wanted).await;
    save(&disk, b"game");
    let overlay = disk.overlay.clone();
    drop(disk);

    // Copied anew, as an init container does: other times, same contents.
    let mut base = place.base(1);
    let disk = settled(&mut base, &wanted).await;
    assert!(!disk.fresh && saved(&overlay, b"game"));
    drop(disk);

    // Moved: the overlay's header names the old place, which nobody follows.
    fs::rename(place.0.join("base.img"), place.0.join("moved.img")).unwrap();
    let mut moved = Base::open(&place.0.join("moved.img")).unwrap();
    assert!(!settled(&mut moved, &wanted).await.fresh);

    for (mut other, why) in [(place.base(2), "contents have changed"), (moved, "")] {
        if why.is_empty() {
            assert!(!settled(&mut other, &wanted).await.fresh, "the old base is taken again");
            continue;
        }
        let words = prepare(&mut other, &wanted, false).await.unwrap_err().to_string();
        assert!(words.contains(why) && words.contains("reset the instance"), "{words}");
        assert!(saved(&overlay, b"game"), "it was left alone");
    }
    fs::write(place.0.join("base.img"), vec![0; 4096]).unwrap();
    let words = prepare(&mut place.open(), &wanted, false).await.unwrap_err().to_string();
    assert!(words.contains("65536 bytes then, 4096 now"), "{words}");

    // The remedy works, and what was saved is still there.
    let disk = prepare(&mut place.open(), &wanted, true).await.unwrap();
    assert!(disk.fresh && saved(&overlay.with_file_name(PREVIOUS), b"game"));
}

#[tokio::test]
async fn a_base_that_was_written_before_it_was_noted_is_refused() {
    let place = Place::new("unproven");
    let (mut base, wanted) = (place.base(1), place.wanted());
    drop(prepare(&mut base, &wanted, false).await.unwrap());
    let words = prepare(&mut place.base(1), &wanted, false).await.unwrap_err().to_string();
    assert!(words.contains("before its contents could be noted"), "{words}");
}

#[tokio::test]
async fn overlays_of_before_there_were_records_go_by_their_header() {
    let place = Place::new("old");
    let (mut base, wanted) = (place.base(1), place.wanted());
    drop(settled(&mut base, &wanted).await);
    let record = wanted.primary.join(RECORD);
    fs::remove_file(&record).unwrap();
    assert!(!settled(&mut base, &wanted).await.fresh);
    assert!(record.exists());
    fs::remove_file(&record).unwrap();
    fs::rename(place.0.join("base.img"), place.0.join("moved.img")).unwrap();
    let mut moved = Base::open(&place.0.join("moved.img")).unwrap();
    let words = prepare(&mut moved, &wanted, false).await.unwrap_err().to_string();
    assert!(words.contains("it says `"), "{words}");
    // A record that cannot be read is not guessed at either.
    fs::write(&record, "{}").unwrap();
    let words = prepare(&mut moved, &wanted, false).await.unwrap_err().to_string();
    assert!(words.contains("could not read") && words.contains("overlay.json"), "{words}");
}

#[tokio::test]
async fn the_fallback_is_used_in_words_and_state_is_never_split() {
    let place = Place::new("hybrid");
    let (mut base, wanted) = (place.base(1), place.hybrid());
    // A file where the directory should be: missing for root too.
    fs::write(&wanted.primary, "").unwrap();
    let disk = settled(&mut base, &wanted).await;
    assert_eq!(disk.place, Where::Fallback);
    let words = disk.notice.clone().unwrap();
    assert!(words.contains("is on the fallback") && words.contains("put that right"), "{words}");
    save(&disk, b"away");
    drop(disk);

    // The primary is back and empty: the state stays where it is.
    fs::remove_file(&wanted.primary).unwrap();
    let disk = settled(&mut base, &wanted).await;
    assert!(disk.place == Where::Fallback && saved(&disk.overlay, b"away"));
    assert!(disk.notice.as_deref().unwrap().contains("reset the instance"));
    drop(disk);
    let disk = prepare(&mut base, &wanted, true).await.unwrap();
    assert!(disk.place == Where::Primary && disk.fresh && disk.notice.is_none());
    assert!(saved(&wanted.fallback.as_ref().unwrap().join(PREVIOUS), b"away"));
    save(&disk, b"home");
    drop(disk);

    // Both have one: the primary's is the guest's own; the other is kept.
    fs::rename(wanted.fallback.as_ref().unwrap().join(PREVIOUS), wanted.fallback.as_ref().unwrap().join(OVERLAY))
        .unwrap();
    let disk = settled(&mut base, &wanted).await;
    assert!(disk.place == Where::Primary && saved(&disk.overlay, b"home"));
    assert!(disk.notice.as_deref().unwrap().contains("is kept there as"));
    assert!(saved(&wanted.fallback.as_ref().unwrap().join(PREVIOUS), b"away"));
}

#[tokio::test]
async fn a_damaged_overlay_and_a_chained_base_are_named() {
    let place = Place::new("damaged");
    let (mut base, wanted) = (place.base(1), place.wanted());
    let disk = settled(&mut base, &wanted).await;
    let overlay = disk.overlay.clone();
    drop(disk);
    // docs/interop/qcow2.rst: incompatible feature bit 1, "corrupt".
    let mut bytes = fs::read(&overlay).unwrap();
    bytes[79] |= 2;
    fs::write(&overlay, &bytes).unwrap();
    let words = prepare(&mut base, &wanted, false).await.unwrap_err().to_string();
    assert!(words.contains("is damaged and was left alone"), "{words}");
    let words = Base::open(&overlay).unwrap_err().to_string();
    assert!(words.contains("is itself an overlay over another file"), "{words}");
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_named() {
    let place = Place::new("place");
    let mut base = place.base(1);
    fs::write(place.0.join("primary"), "").unwrap();
    let words = prepare(&mut base, &place.wanted(), false).await.unwrap_err().to_string();
    assert!(words.contains("no place for the guest's disk") && words.contains("check --work-dir"), "{words}");
    fs::remove_file(place.0.join("primary")).unwrap();
    fs::create_dir(place.0.join("primary")).unwrap();
    fs::set_permissions(place.0.join("primary"), fs::Permissions::from_mode(0o500)).unwrap();
    let outcome = prepare(&mut base, &place.wanted(), false).await;
    // Root may write everywhere.
    assert_eq!(outcome.is_ok(), nix::unistd::geteuid().is_root());
}
