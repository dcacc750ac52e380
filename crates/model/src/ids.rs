//! Names of things: DNS labels (RFC 1123 section 2.1), because each one ends up in a pod name, a host name or a path. A node is
//! named by its cluster, often by its full host name: a node's name is a DNS subdomain, labels joined by dots.
use std::{fmt, str::FromStr};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}; use {rule}")]
pub struct InvalidName {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

type Check = fn(&str) -> bool;

/// One label of letters, digits and hyphens, of any length.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

const LABEL: (Check, &str) =
    (|text| text.len() <= 63 && is_label(text), "1 to 63 characters a-z, 0-9 and `-`, neither first nor last a `-`");

/// What Kubernetes takes for a node: it bounds the whole name and not its labels.
const SUBDOMAIN: (Check, &str) = (
    |text| text.len() <= 253 && text.split('.').all(is_label),
    "1 to 253 characters a-z, 0-9, `-` and `.`, each part between dots neither beginning nor ending with a `-`",
);

fn check(kind: &'static str, (ok, rule): (Check, &'static str), text: &str) -> Result<(), InvalidName> {
    if ok(text) { Ok(()) } else { Err(InvalidName { kind, rule, text: text.chars().take(80).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $form:expr) => {
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
                check($kind, $form, text).map(|()| Self(text.to_owned()))
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
    "instance id",
    LABEL
);
name!(
    /// A node of the cluster, or a namespace that stands for one under `loco up`.
    NodeName,
    "node name",
    SUBDOMAIN
);
name!(
    /// One broadcast domain.
    LanName,
    "LAN name",
    LABEL
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

    #[test]
    fn a_node_may_have_its_full_host_name() {
        let long = format!("{}.{}", "x".repeat(200), "y".repeat(52));
        for good in ["node-a", "ip-10-0-0-7.eu-west-1.compute.internal", "n.1", &long] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
        // Two dots in a row or alone would be another place in a path.
        for bad in ["", ".", "..", "a..b", ".a", "a.", "a.-b", "a-.b", "Node", "a/b", "../x", &format!("{long}z")] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}
