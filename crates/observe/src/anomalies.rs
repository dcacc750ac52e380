//! What no healthy program sends: one line for each kind and sender, with its first frame and a count.
use std::{fmt::Display, time::Duration};

use api::observe::Anomaly;

use crate::{
    stamp::{Stamp, Station, seconds},
    table::Table,
};
use wire::MacAddr;

/// Kinds of anomalies; a closed list, documented in docs/observer.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Truncated,
    Malformed,
    IpChecksum,
    Fragments,
    DuplicateIp,
    DuplicateMac,
    DplayMalformed,
    DplayLost,
    DplayPieces,
    Resync,
    UnknownCommand,
    ForgedId,
    NatMismatch,
    TwoHostsOneGuid,
    TwoClaimHost,
    IpxFramingMismatch,
    IpxChecksum,
    IpxnetForged,
    Full,
    Capture,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::IpChecksum => "ip-checksum",
            Self::Fragments => "ip-fragments",
            Self::DuplicateIp => "duplicate-ip",
            Self::DuplicateMac => "duplicate-mac",
            Self::DplayMalformed => "dplay-malformed",
            Self::DplayLost => "dplay-lost",
            Self::DplayPieces => "dplay-pieces",
            Self::Resync => "resync",
            Self::UnknownCommand => "unknown-command",
            Self::ForgedId => "forged-id",
            Self::NatMismatch => "nat-mismatch",
            Self::TwoHostsOneGuid => "two-hosts-one-guid",
            Self::TwoClaimHost => "two-claim-host",
            Self::IpxFramingMismatch => "ipx-framing-mismatch",
            Self::IpxChecksum => "ipx-checksum",
            Self::IpxnetForged => "ipxnet-forged",
            Self::Full => "full",
            Self::Capture => "capture",
        }
    }
}

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Who {
    Nobody,
    Mac(MacAddr),
    Station(Station),
}

#[derive(Debug, Clone)]
struct Line {
    first: Stamp,
    last_at: Duration,
    what: String,
    count: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Anomalies {
    lines: Table<(Kind, Who), Line>,
}

impl Anomalies {
    pub(crate) fn new(limit: usize) -> Self {
        Self { lines: Table::new(limit) }
    }

    /// `what` is made only for the first of its kind from this sender.
    pub(crate) fn note<T: Display>(&mut self, kind: Kind, who: Who, stamp: Stamp, what: impl FnOnce() -> T) {
        let line = self.lines.entry((kind, who), || Line {
            first: stamp,
            last_at: stamp.at,
            what: what().to_string(),
            count: 0,
        });
        line.last_at = line.last_at.max(stamp.at);
        line.count = line.count.saturating_add(1);
    }

    pub(crate) fn station<T: Display>(&mut self, kind: Kind, from: Station, stamp: Stamp, what: impl FnOnce() -> T) {
        self.note(kind, Who::Station(from), stamp, what);
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn report(&self) -> Vec<Anomaly> {
        let mut lines: Vec<_> = self
            .lines
            .iter()
            .map(|((kind, _), line)| Anomaly {
                frame: line.first.frame,
                at: seconds(line.first.at),
                last_at: seconds(line.last_at),
                kind: kind.name().to_owned(),
                what: line.what.clone(),
                count: line.count,
            })
            .collect();
        lines.sort_by(|a, b| (a.frame, &a.kind, &a.what).cmp(&(b.frame, &b.kind, &b.what)));
        lines
    }
}
