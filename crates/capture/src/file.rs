//! One port's capture as a pcapng file, block by block.
//!
//! The file says of itself what it holds: the time that it covers and why not more, gaps, drops, and that passwords are
//! zero. Each DirectPlay message is a comment at its frame.
use std::time::Duration;

use time::OffsetDateTime;

use crate::{
    describe,
    ring::{Frame, Snapshot},
    tap::SNAP_LEN,
    write::{self, Interface, Packet, Section, Statistics},
};

/// Whose capture it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// With its version.
    pub application: String,
    /// The instance's id: the name of the file's interface.
    pub instance: String,
    /// Where it is: LAN, seat, node, tap.
    pub description: String,
    pub mac: Option<[u8; 6]>,
}

/// A file that is being written. Each method returns whole blocks to append.
#[derive(Debug)]
pub struct PortFile {
    start: Duration,
    written: u64,
}

impl PortFile {
    /// The file's head: section and interface.
    pub fn begin(about: &About, snapshot: &Snapshot, follows: bool) -> (Self, Vec<u8>) {
        let span = snapshot.until.saturating_sub(snapshot.from);
        let mut comments = vec![format!(
            "Frames of {} from {} to {} UTC ({:.3} s){}.",
            about.instance,
            utc(snapshot.from),
            utc(snapshot.until),
            span.as_secs_f64(),
            if follows { ", and those that came while it was written" } else { "" }
        )];
        if snapshot.is_cut {
            comments
                .push("Older frames had to go: the node's memory for captures was full (--capture-bytes).".to_owned());
        }
        for (from, until) in &snapshot.gaps {
            comments.push(format!("Not captured from {} to {} UTC: there was no tap.", utc(*from), utc(*until)));
        }
        if snapshot.dropped_by_system > 0 {
            comments.push(format!(
                "{} of {} frames since this port is captured were not seen: the node was too busy.",
                snapshot.dropped_by_system, snapshot.received
            ));
        }
        comments.push("Passwords of DirectPlay sessions are zero; other protocols' are as they were sent.".to_owned());
        let mut out = Vec::new();
        write::section(&mut out, &Section { application: &about.application, comments: &comments });
        let interface = Interface {
            name: &about.instance,
            description: &about.description,
            mac: about.mac,
            snap_len: u32::try_from(SNAP_LEN).unwrap_or(u32::MAX),
        };
        write::interface(&mut out, &interface);
        let file = Self { start: snapshot.from, written: 0 };
        (file, out)
    }

    /// `dropped`: frames that were lost right before this one.
    pub fn frame(&mut self, out: &mut Vec<u8>, frame: &Frame, dropped: u64) {
        let mut comments = describe::comments(&frame.bytes);
        if frame.is_masked {
            comments.push("A password in this frame was made zero.".to_owned());
        }
        self.written += 1;
        if dropped > 0 {
            comments
                .push(format!("{dropped} frames before this one are missing: the reader of this file was too slow."));
        }
        let packet = Packet {
            interface: 0,
            at: frame.at,
            direction: frame.direction,
            wire_len: frame.wire_len,
            bytes: &frame.bytes,
            dropped,
            comments: &comments,
        };
        write::packet(out, &packet);
    }

    /// The file's last block. `end`: of the port when the file ends, for its counts; `dropped`: frames in all that a follower lost.
    pub fn end(self, end: &Snapshot, dropped: u64) -> Vec<u8> {
        let mut comments = Vec::new();
        if dropped > 0 {
            comments.push(format!("{dropped} frames are missing: the reader of this file was too slow."));
        }
        let statistics = Statistics {
            interface: 0,
            at: end.until,
            start: self.start,
            end: end.until,
            received: end.received,
            dropped_by_system: end.dropped_by_system,
            delivered: self.written,
            comments: &comments,
        };
        let mut out = Vec::new();
        write::statistics(&mut out, &statistics);
        out
    }
}

/// `2026-11-22 21:40:15.123`: as Wireshark shows it, for comparison by eye.
fn utc(at: Duration) -> String {
    let time = time::Duration::try_from(at).ok().and_then(|at| OffsetDateTime::UNIX_EPOCH.checked_add(at));
    let Some(time) = time else { return "a time beyond the calendar".to_owned() };
    let ((year, month, day), (hour, minute, second, millisecond)) = (time.to_calendar_date(), time.to_hms_milli());
    format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millisecond:03}", u8::from(month))
}
