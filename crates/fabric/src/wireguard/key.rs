//! This node's key pair, kept in a file of its own, and the public keys of others.
//!
//! **Invariant.** The private half leaves this module for the tunnel only: it is never shown, logged or sent.
use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    str::FromStr,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use gotatun::x25519::{self, StaticSecret};

/// Length of either half of a key pair, in octets (X25519, RFC 7748).
pub(super) const KEY_LEN: usize = 32;
/// A key in Base64 and an end of line: what `wg genkey` writes.
const FILE_BYTES_MAX: u64 = 45;

/// A public key. Its text is the Base64 that WireGuard's tools show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub(super) [u8; KEY_LEN]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The text is not 32 octets in Base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a WireGuard key has 44 characters of Base64")]
pub struct NotAKey;

fn octets(text: &str) -> Result<[u8; KEY_LEN], NotAKey> {
    BASE64_STANDARD.decode(text).ok().and_then(|octets| octets.try_into().ok()).ok_or(NotAKey)
}

impl FromStr for PublicKey {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        octets(text).map(Self)
    }
}

/// A key pair. Its text shows the public half only.
#[derive(Clone)]
pub struct KeyPair(StaticSecret);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, …)", self.public())
    }
}

impl KeyPair {
    /// A new one, from the system's random numbers.
    pub fn make() -> Self {
        Self(StaticSecret::from(rand::random::<[u8; KEY_LEN]>()))
    }

    /// The one in `path`, which is made at the first time, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be read or written, others may read it, or it holds no key; in words with the remedy.
    pub fn load_or_make(path: &Path) -> io::Result<Self> {
        let failed = |error: io::Error, remedy: &str| {
            io::Error::new(error.kind(), format!("the WireGuard key {}: {error}; {remedy}", path.display()))
        };
        match fs::File::open(path) {
            Ok(file) => Self::read(file).map_err(|error| failed(error, "remove the file, and a new key is made")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = Self::make();
                pair.keep(path).map_err(|error| failed(error, "make its directory writable for the agent"))?;
                Ok(pair)
            }
            Err(error) => Err(failed(error, "make it readable for the agent")),
        }
    }

    fn read(file: fs::File) -> io::Result<Self> {
        if file.metadata()?.mode() & 0o077 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others than its owner may read or write it"));
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        let octets = octets(text.trim_end()).map_err(io::Error::other)?;
        Ok(Self(StaticSecret::from(octets)))
    }

    /// Written beside and renamed: a file that is there is whole.
    fn keep(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("key.new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        writeln!(file, "{}", BASE64_STANDARD.encode(self.0.as_bytes()))?;
        file.sync_all()?;
        fs::rename(beside, path)
    }

    /// The half for others.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.0).to_bytes())
    }

    pub(super) const fn secret(&self) -> &StaticSecret {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn place(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("loco-key-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir.join("wireguard.key")
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let path = place("once");
        let made = KeyPair::load_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyPair::load_or_make(&path).unwrap().public(), made.public());
        assert_ne!(KeyPair::make().public(), made.public());
        let secret = fs::read_to_string(&path).unwrap();
        assert!(!format!("{made:?}").contains(secret.trim()), "the private half is never shown");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused_in_words() {
        let path = place("bad");
        KeyPair::load_or_make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyPair::load_or_make(&path).unwrap_err().to_string();
        assert!(error.contains("others than its owner") && error.contains("remove the file"), "{error}");
        for bad in ["", "x\n", &"A".repeat(4000)] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(KeyPair::load_or_make(&path).unwrap_err().to_string().contains("44 characters"), "{bad:.9}");
        }
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_public_key_is_what_the_tools_show() {
        // RFC 7748, 6.1: Bob's pair.
        let octets: [u8; 32] = std::array::from_fn(|at| {
            let hex = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
            u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()
        });
        let public = KeyPair(StaticSecret::from(octets)).public();
        assert_eq!(public.to_string(), "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=");
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!("hSDw".parse::<PublicKey>(), Err(NotAKey));
    }
}
