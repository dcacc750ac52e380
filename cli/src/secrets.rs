//! Bearer tokens: made by `up` from the system's randomness, kept in files that only root reads.
use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use rand::{TryRngCore as _, rngs::OsRng};

use crate::{paths::Paths, state::write_private};

/// Bits are what counts: 160 cannot be guessed; hexadecimal needs no escaping anywhere.
const BYTES: usize = 20;

/// The role that the printed URL carries: whoever starts the wall may do everything with it.
const OWNER: &str = "admin";

/// Writes a token for each role and one between gateway and agents.
pub(crate) fn make(paths: &Paths) -> Result<()> {
    let mut lines = String::new();
    for role in ["view", "play", OWNER] {
        writeln!(lines, "{role} {}", token()?)?;
    }
    write_private(&paths.tokens(), lines.as_bytes())?;
    write_private(&paths.agent_token(), format!("{}\n", token()?).as_bytes())
}

/// The owner's token.
pub(crate) fn read(paths: &Paths) -> Result<String> {
    let path = paths.tokens();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}; root is needed", path.display()))?;
    let token = text.lines().find_map(|line| line.strip_prefix(OWNER)?.strip_prefix(' '));
    Ok(token
        .with_context(|| format!("{} has no {OWNER} token; run `loco down`, then `up`", path.display()))?
        .to_owned())
}

fn token() -> Result<String> {
    let mut bytes = [0; BYTES];
    OsRng.try_fill_bytes(&mut bytes).context("the system gives no random bytes")?;
    let mut text = String::with_capacity(2 * BYTES);
    for byte in bytes {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn tokens_are_private_and_all_different() {
        let dir = std::env::temp_dir().join(format!("loco-secrets-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let paths = Paths::new(&dir, "/nonexistent");
        make(&paths).unwrap();
        let text = fs::read_to_string(paths.tokens()).unwrap() + &fs::read_to_string(paths.agent_token()).unwrap();
        let tokens: std::collections::BTreeSet<_> = text.split_whitespace().filter(|word| word.len() == 40).collect();
        assert_eq!(tokens.len(), 4, "{text}");
        assert!(text.contains(&format!("admin {}\n", read(&paths).unwrap())));
        for path in [paths.tokens(), paths.agent_token()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
