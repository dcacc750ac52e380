//! What this agent knows of games, on the disk for the agent after it: who has joined a game does not say so again.
//!
//! **Invariants.** Nothing of an earlier boot is recalled, nor of an agent that has been away for longer than [`KNOWN_FOR`]: who played then
//! may play something else now. A file that cannot be read or written costs the recollection and nothing else.
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use observe::Memory;
use serde::{Deserialize, Serialize};

/// For how long after an agent's last word its games are believed.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// The file is written this often although nothing changed: its age says until when the agent lived.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// A file that is longer is not written, and not read: a LAN's games are some kB.
const BYTES_MAX: usize = 8 << 20;

type ByLan = BTreeMap<String, Memory>;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    /// The kernel's, which is another after each boot.
    boot: String,
    lans: ByLan,
}

#[derive(Debug)]
pub(super) struct Memories {
    path: PathBuf,
    boot: String,
    /// Of the agent before: what no LAN has taken yet, and when it was read. `None` until then.
    before: Option<(Instant, ByLan)>,
    written: Option<(Instant, ByLan)>,
    refused: bool,
}

impl Memories {
    /// Nothing is read yet: an agent that stands by does not know what the one that runs will have seen.
    pub(super) fn at(path: PathBuf) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { path, boot: boot.trim().to_owned(), before: None, written: None, refused: false }
    }

    /// What the agent before knew of this LAN; once.
    pub(super) fn of(&mut self, lan: &str) -> Option<Memory> {
        let (path, boot) = (&self.path, &self.boot);
        let (read, before) = self.before.get_or_insert_with(|| {
            let known = recalled(path, boot).unwrap_or_else(|why| {
                tracing::info!(path = %path.display(), why, "games that began before this agent are not known");
                ByLan::new()
            });
            (Instant::now(), known)
        });
        before.remove(lan).filter(|_| read.elapsed() < KNOWN_FOR)
    }

    /// Writes what is known now, if it changed.
    pub(super) fn keep(&mut self, mut lans: ByLan) {
        // Until the first LAN has asked, the agent before may know more.
        let Some((read, before)) = &self.before else { return };
        if read.elapsed() < KNOWN_FOR {
            lans.extend(before.iter().map(|(lan, memory)| (lan.clone(), memory.clone())));
        }
        lans.retain(|_, memory| !memory.is_empty());
        let stands = |(at, old): &(Instant, ByLan)| *old == lans && at.elapsed() < AGAIN_AFTER;
        if self.written.as_ref().is_some_and(stands) {
            return;
        }
        let file = File { boot: self.boot.clone(), lans };
        if let Err(error) = replace(&self.path, &file)
            && !self.refused
        {
            self.refused = true;
            tracing::warn!(path = %self.path.display(), %error, "the next agent will not know the games that are open now");
        }
        self.written = Some((Instant::now(), file.lans));
    }
}

/// `Err`: why there is nothing, in words.
fn recalled(path: &Path, boot: &str) -> Result<ByLan, String> {
    let read = || -> io::Result<(Duration, Vec<u8>)> {
        let age = fs::metadata(path)?.modified()?.elapsed().unwrap_or_default();
        Ok((age, fs::read(path)?))
    };
    let too_long = || fs::metadata(path).is_ok_and(|file| file.len() > BYTES_MAX as u64);
    if too_long() {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    let (age, text) = read().map_err(|error| error.to_string())?;
    let file: File = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if file.boot != boot {
        return Err("it is of another boot".to_owned());
    }
    if age > KNOWN_FOR {
        return Err(format!("the last agent wrote it {} s ago", age.as_secs()));
    }
    Ok(file.lans)
}

fn replace(path: &Path, file: &File) -> io::Result<()> {
    let new = path.with_extension("new");
    let text = serde_json::to_vec(file)?;
    if text.len() > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {BYTES_MAX} bytes")));
    }
    fs::write(&new, text)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;

    /// A file of its own, gone with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("loco-games-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("games.json")
        }

        fn memories(&self) -> Memories {
            Memories::at(self.file())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn game(name: &str) -> Memory {
        let address = json!({"station": {"Ip": "10.98.0.1"}, "port": 2300});
        let session = json!({"guid": null, "application": null, "name": name, "max_players": null, "current_players": null, "flags": null,
            "dialect": null, "key": null, "transport": "Tcp", "host": address, "host_mac": null, "host_system": 7, "former_hosts": [],
            "fact": {"at": {"secs": 1, "nanos": 0}, "what": "ENUMSESSIONSREPLY"}, "systems": [], "players": [], "groups": []});
        serde_json::from_value(json!({"sessions": [session], "programs": []})).unwrap()
    }

    #[test]
    fn the_next_agent_recalls_what_this_one_knew_and_keeps_what_no_lan_has_taken() {
        let place = Place::new("next");
        let mut first = place.memories();
        first.keep([("party".to_owned(), game("early"))].into());
        assert!(!place.file().exists(), "nothing is written over what was not read");
        assert_eq!(first.of("party"), None);
        first.keep(
            [("party".to_owned(), game("a")), ("other".to_owned(), game("b")), ("empty".to_owned(), Memory::default())]
                .into(),
        );

        let mut second = place.memories();
        assert_eq!(second.of("party"), Some(game("a")));
        assert_eq!(second.of("party"), None, "once");
        second.keep([("party".to_owned(), game("c"))].into());
        let mut third = place.memories();
        assert_eq!((third.of("party"), third.of("other"), third.of("empty")), (Some(game("c")), Some(game("b")), None));
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "nothing beside the file stays");
    }

    #[test]
    fn another_boot_a_long_absence_and_a_damaged_file_are_told_and_cost_nothing_else() {
        let place = Place::new("old");
        let mut agent = place.memories();
        agent.of("party");
        agent.keep([("party".to_owned(), game("a"))].into());
        assert!(recalled(&place.file(), &agent.boot).is_ok());
        assert_eq!(recalled(&place.file(), "another").unwrap_err(), "it is of another boot");
        let long_ago = SystemTime::now() - KNOWN_FOR - Duration::from_mins(1);
        fs::File::options().write(true).open(place.file()).unwrap().set_modified(long_ago).unwrap();
        assert!(recalled(&place.file(), &agent.boot).unwrap_err().contains("660 s ago"));
        fs::write(place.file(), "{").unwrap();
        assert_eq!(place.memories().of("party"), None);
        fs::remove_dir_all(&place.0).unwrap();
        agent.keep(ByLan::new());
        assert!(agent.refused);
        fs::create_dir_all(&place.0).unwrap();
    }
}
