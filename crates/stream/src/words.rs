//! The small types that the rest of the crate speaks in.
use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

/// Where this node's media goes out.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// Address that browsers reach, the only ICE candidate. It must be one of this network namespace.
    pub media_ip: IpAddr,
    /// UDP ports for viewers, one each: the crate `webrtc` cannot share a socket among peer connections.
    pub ports: RangeInclusive<u16>,
}

/// A word that is none of the expected ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a {kind}; use one of {expected}")]
pub struct UnknownWord {
    kind: &'static str,
    word: String,
    expected: &'static str,
}

impl UnknownWord {
    fn new(kind: &'static str, word: &str, expected: &'static str) -> Self {
        Self { kind, word: word.chars().take(40).collect(), expected }
    }
}

/// Which encode of an instance a viewer watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// At least 320x240, at most 10 frames a second.
    Thumb,
    /// The guest's own size, at most 60 frames a second.
    Full,
}

impl Tier {
    pub const ALL: [Self; 2] = [Self::Thumb, Self::Full];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Thumb => "thumb",
            Self::Full => "full",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl FromStr for Tier {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|t| t.as_str() == word).ok_or_else(|| UnknownWord::new("tier", word, "thumb, full"))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the token of a viewer allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May watch.
    View,
    /// May take the controls.
    Play,
    /// May do everything.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::View, Self::Play, Self::Admin];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Play => "play",
            Self::Admin => "admin",
        }
    }

    /// Whether it may hold the controls lease.
    pub const fn may_play(self) -> bool {
        matches!(self, Self::Play | Self::Admin)
    }
}

impl FromStr for Role {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|r| r.as_str() == word)
            .ok_or_else(|| UnknownWord::new("role", word, "view, play, admin"))
    }
}

/// One WebRTC session: the last segment of its WHEP URL. Unguessable, because whoever knows it can end the session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

impl SessionId {
    pub(crate) fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let ok = word.len() == 32 && word.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if ok { Ok(Self(word.to_owned())) } else { Err(UnknownWord::new("session id", word, "32 hexadecimal digits")) }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_parse_back_and_others_are_named() {
        for tier in Tier::ALL {
            assert_eq!(tier.as_str().parse::<Tier>().unwrap(), tier);
        }
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        let error = "huge".parse::<Tier>().unwrap_err().to_string();
        assert_eq!(error, "`huge` is not a tier; use one of thumb, full");
        let id = SessionId::random();
        assert_eq!(id.as_str().parse::<SessionId>().unwrap(), id);
        for bad in ["", "../x", &"g".repeat(32), &"A".repeat(32), &"a".repeat(33)] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
