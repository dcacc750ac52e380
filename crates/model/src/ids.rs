//! Names of things. All are DNS labels (RFC 1123 section 2.1), because each one ends up in a pod name, a host name or a path.
use std::{fmt, str::FromStr};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}; use 1 to 63 characters a-z, 0-9 and `-`, neither first nor last a `-`")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
}

fn check(kind: &'static str, text: &str) -> Result<(), InvalidName> {
    let ok = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok { Ok(()) } else { Err(InvalidName { kind, text: text.chars().take(80).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($kind, text).map(|()| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// One managed guest, such as `instance-3`; its number is the ordinal of its pod.
    InstanceId,
    "instance id"
);
name!(
    /// A node of the cluster, or a namespace that stands for one under `loco up`.
    NodeName,
    "node name"
);
name!(
    /// One broadcast domain.
    LanName,
    "LAN name"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_dns_labels_only() {
        for good in ["instance-0", "a", "node-a", &"x".repeat(63)] {
            assert_eq!(good.parse::<InstanceId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "Instance-0", "a/b", "../x", "a b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }
}
