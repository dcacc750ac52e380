//! `loco observe FILE`: a capture read by the model that follows running segments (crates/observe).
//!
//! **Invariant.** A file that is a capture is reported, however damaged it is: what could not be read is an anomaly.
use std::{
    fmt::{Display, Write as _},
    fs::File,
    io::BufReader,
    path::Path,
};

use ::observe::{Frame, Limits, Observer, Point};
use anyhow::{Context as _, Result};
use api::observe::{Certainty, Observed};
use capture::{ReadError, Reader};

pub(crate) fn observe(path: &Path) -> Result<Observed> {
    let unreadable =
        || format!("cannot read the capture {}; give a pcap or pcapng file that you may read", path.display());
    let file = File::open(path).with_context(unreadable)?;
    let mut observer = Observer::new(Limits::default());
    let reader = match Reader::new(BufReader::new(file)) {
        Ok(reader) => reader,
        Err(error @ (ReadError::Empty | ReadError::NotACapture(_) | ReadError::Io { .. })) => {
            return Err(error).with_context(unreadable);
        }
        Err(error) => {
            observer.damaged(&error.to_string());
            return Ok(observer.observed());
        }
    };
    for record in reader {
        match record {
            Ok(record) => match record.ethernet() {
                Some(view) => observer.frame(&Frame {
                    at: record.at,
                    point: Point::Wire,
                    bytes: &view.bytes,
                    wire_len: view.wire_len,
                }),
                None => observer.unreadable(
                    record.at,
                    &format!("frames of link type {} are not read; capture on an Ethernet card", record.link_type.0),
                ),
            },
            Err(error @ ReadError::Io { .. }) => return Err(error).with_context(unreadable),
            Err(error) => observer.damaged(&error.to_string()),
        }
    }
    observer.finish();
    Ok(observer.observed())
}

/// For people.
pub(crate) fn text(observed: &Observed) -> String {
    let mut page = Page::default();
    let classes: Vec<_> = observed.classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
    page.line(format_args!("{} frames: {}", observed.frames, classes.join(", ")));
    page.section("Sessions", &observed.sessions, |session| {
        let host = session.host_ip.as_deref().or(session.host_ipx.as_deref()).unwrap_or("an unknown host");
        let limit = session.max_players.filter(|max| *max != 0).map_or(String::new(), |max| format!(" of {max}"));
        let players = session.current_players.map_or(String::new(), |now| format!(", {now}{limit} players"));
        let password = if session.password_required == Some(true) { ", with password" } else { "" };
        let name = session.name.as_deref().unwrap_or("(no name seen)");
        format!("{name}, hosted by {host} over {}{players}{password}{}", session.transport, gone(session.certainty))
    });
    page.section("Players", &observed.players, |player| {
        let name = player.name.as_deref().unwrap_or("(no name seen)");
        let at = player.ip.as_deref().map_or(String::new(), |ip| format!(" at {ip}"));
        let host = if player.host { ", host" } else { "" };
        let session = player.session.as_deref().map_or(String::new(), |session| format!(" in {session}"));
        format!("{name} ({}){at}{session}{host}{}", player.id, gone(player.certainty))
    });
    page.section("Looked for sessions", &observed.enumerations, |asker| {
        let answers = if asker.answered_by.is_empty() { "no answer".to_owned() } else { asker.answered_by.join(", ") };
        format!("{} asked {}: {answers}", asker.ip, times(asker.count))
    });
    page.section("Refused", &observed.refused, |refused| {
        let session = refused.session.as_deref().unwrap_or("a session");
        format!("{} by {session}: {}", refused.ip, refused.player_request_result)
    });
    page.section("Left", &observed.leave_order, |left| format!("{}: {}", left.name, left.evidence));
    page.section("Game messages", &observed.user_messages, |pair| {
        format!("{} to {}: {} over UDP, {} over TCP", pair.src, pair.dst, pair.udp, pair.tcp)
    });
    page.section("Chat", &observed.chat, |line| format!("{}: {}", line.from, line.text));
    page.section("DirectPlay 8 sessions", &observed.dplay8.sessions, |session| {
        let name = session.name.as_deref().unwrap_or("(no name)");
        format!("{name}, {} of {} players", session.current_players, session.max_players)
    });
    if let Some(tunnel) = &observed.ipxnet {
        page.line(format_args!(
            "\nIPX tunnel of {}",
            tunnel.server.as_deref().unwrap_or("a server that did not answer")
        ));
        page.section("Clients of the tunnel", &tunnel.clients, |client| {
            format!("{}:{} is node {}", client.ip, client.port, client.node)
        });
    }
    page.section("IPX servers", &observed.ipx.sap, |server| {
        format!("{}, type {}, socket {}", server.name, server.kind, server.socket)
    });
    page.section("NetBIOS names", &observed.netbios.hosts, |host| {
        let at = host.ip.as_deref().or(host.node.as_deref()).unwrap_or("an unknown place");
        let group = host.workgroup.as_deref().map_or(String::new(), |group| format!(" in {group}"));
        format!("{}{group} at {at}{}", host.name, if host.left { ", gone" } else { "" })
    });
    page.section("Round trips", &observed.lags, |lag| {
        let error = lag.error_ms.map_or(String::new(), |error| format!(" (± {error:.2})"));
        let rtt = lag.rtt_ms.map_or_else(|| "not measured".to_owned(), |rtt| format!("{rtt:.2} ms{error}"));
        format!("{} to {}: {rtt}, {}", lag.from, lag.to, times(lag.samples))
    });
    page.section("Machines", &observed.machines, |machine| {
        let name = machine.name.as_deref().map_or(String::new(), |name| format!(" {name}"));
        format!("{}{name} {}: {} frames", machine.mac, machine.ips.join(", "), machine.frames)
    });
    page.section("What is wrong", &observed.anomalies, |anomaly| {
        format!("frame {}: {} ({}, {})", anomaly.frame, anomaly.what, anomaly.kind, times(anomaly.count))
    });
    page.0
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

const fn gone(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Announced => "",
        Certainty::Inferred => ", by its traffic only",
        Certainty::GoneByMessage => ", left",
        Certainty::GoneByFin => ", gone (TCP FIN)",
        Certainty::GoneByReset => ", gone (TCP RST)",
        Certainty::GoneByIcmp => ", gone (ICMP)",
        Certainty::GoneBySilence => ", silent",
    }
}

#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: impl Display) {
        // A String takes everything.
        writeln!(self.0, "{text}").ok();
    }

    fn section<T>(&mut self, title: &str, items: &[T], line: impl Fn(&T) -> String) {
        if items.is_empty() {
            return;
        }
        self.line(format_args!("\n{title}"));
        for item in items {
            self.line(format_args!("  {}", line(item)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{observe, text};

    fn capture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates/wire/tests/captures").join(name)
    }

    #[test]
    fn a_capture_is_told_in_words() {
        let page = text(&observe(&capture("dplay4-3peer.pcap")).unwrap());
        for words in [
            "133 frames",
            "Loco Town, hosted by 192.168.99.11 over tcp, 2 of 8 players",
            "Bob (5e4526e3) at 192.168.99.12 in Loco Town, gone (TCP FIN)",
            "192.168.99.12 asked once: Loco Town",
        ] {
            assert!(page.contains(words), "{words:?} is not in\n{page}");
        }
    }

    #[test]
    fn what_is_no_capture_is_an_error_with_a_remedy() {
        for path in [PathBuf::from("/nonexistent/x.pcap"), capture("dplay4-3peer.json"), PathBuf::from("/dev/null")] {
            let error = format!("{:#}", observe(&path).unwrap_err());
            assert!(error.contains("give a pcap or pcapng file"), "{error}");
        }
    }

    #[test]
    fn a_torn_capture_is_reported_as_far_as_it_goes() {
        let whole = std::fs::read(capture("dplay4-3peer.pcap")).unwrap();
        let path = std::env::temp_dir().join(format!("loco-torn-{}.pcap", std::process::id()));
        for len in [10, 24, 40, 5000, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            let observed = observe(&path).unwrap();
            let damage = observed.anomalies.iter().any(|anomaly| anomaly.kind == "capture");
            assert!(damage || len == 24, "{len} bytes: {:?}", observed.anomalies);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
