//! DirectPlay 8's enumeration (protocols.md 3).
use std::net::SocketAddrV4;

use api::observe::{Dplay8 as Report, Dplay8Session};
use wire::{
    dplay::Guid,
    dplay8::{Enumeration, GAME_PORTS, PORT, Response},
};

use crate::{
    Limits,
    stamp::{Station, clean, hex},
    table::Table,
};

#[derive(Debug, Clone)]
struct Session {
    name: Option<String>,
    max_players: u32,
    current_players: u32,
    flags: u32,
    host: Station,
    application: Guid,
}

#[derive(Debug, Clone)]
pub(crate) struct Dplay8 {
    queries: u64,
    responses: u64,
    sessions: Table<Guid, Session>,
    /// Who asked: answers come from any port.
    askers: Table<SocketAddrV4, ()>,
    text_max: usize,
}

impl Dplay8 {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            queries: 0,
            responses: 0,
            sessions: Table::new(limits.sessions),
            askers: Table::new(limits.lines),
            text_max: limits.text,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len() + self.askers.len()
    }

    /// Whether the datagram was one of the enumeration. `other`: it is DirectPlay 4's by its ports.
    pub(crate) fn datagram(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8], other: bool) -> bool {
        let helper = from.port() == PORT || to.port() == PORT;
        let asked = self.askers.contains(&to);
        let game = !other && (GAME_PORTS.contains(&from.port()) || GAME_PORTS.contains(&to.port()));
        if !helper && !asked && !game {
            return false;
        }
        match Enumeration::parse(payload) {
            Some(Enumeration::Query(_)) => {
                self.queries += 1;
                self.askers.insert(from, ());
            }
            Some(Enumeration::Response(response)) => self.answered(from, &response),
            None => return false,
        }
        true
    }

    fn answered(&mut self, from: SocketAddrV4, response: &Response<'_>) {
        self.responses += 1;
        let name = response.name.map(|name| clean(name.chars(), self.text_max));
        let session = Session {
            name,
            max_players: response.max_players,
            current_players: response.current_players,
            flags: response.flags.0,
            host: Station::Ip(*from.ip()),
            application: response.application,
        };
        match self.sessions.get_mut(&response.instance) {
            Some(known) => *known = session,
            None => self.sessions.insert(response.instance, session),
        }
    }

    pub(crate) fn report(&self) -> Report {
        let session = |(instance, session): (&Guid, &Session)| Dplay8Session {
            name: session.name.clone(),
            max_players: session.max_players,
            current_players: session.current_players,
            flags: format!("{:#010x}", session.flags),
            host_ip: session.host.ip().map(|ip| ip.to_string()),
            app_guid_wire: Some(hex(&session.application.0)),
            instance_guid_wire: Some(hex(&instance.0)),
        };
        let sessions = self.sessions.by_birth().into_iter().map(session).collect();
        Report { queries: self.queries, responses: self.responses, sessions }
    }
}
