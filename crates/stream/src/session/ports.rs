//! Media ports: one per session, from a range, given back when the session ends.
use std::{
    collections::BTreeSet,
    io,
    net::UdpSocket,
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{OfferError, StreamConfig};

/// The ports of this node's range that our sessions hold.
#[derive(Debug)]
pub(crate) struct PortPool {
    config: StreamConfig,
    used: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: BTreeSet<u16>,
    /// Where the last search ended. Going round keeps packets to a closed session away from the next one.
    next: u16,
}

/// A port; back in the pool when dropped.
#[derive(Debug)]
pub(crate) struct PortLease {
    pool: Arc<PortPool>,
    port: u16,
}

impl PortPool {
    pub(crate) fn range(&self) -> RangeInclusive<u16> {
        self.config.ports.clone()
    }

    pub(crate) fn new(config: StreamConfig) -> Arc<Self> {
        Arc::new(Self { config, used: Mutex::default() })
    }

    /// A port that is free in the kernel, too: another process may sit in our range.
    pub(crate) fn lease(self: &Arc<Self>) -> Result<PortLease, OfferError> {
        let mut state = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (ip, ports) = (self.config.media_ip, self.config.ports.clone());
        let from = state.next.max(*ports.start());
        for port in (from..=*ports.end()).chain(*ports.start()..from) {
            if state.used.contains(&port) {
                continue;
            }
            match UdpSocket::bind((ip, port)) {
                Ok(_) => {
                    state.used.insert(port);
                    state.next = port.wrapping_add(1);
                    return Ok(PortLease { pool: Arc::clone(self), port });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(source) => return Err(OfferError::MediaIp { ip, source }),
            }
        }
        Err(OfferError::NoPort { ip, ports })
    }
}

impl PortLease {
    pub(crate) fn address(&self) -> String {
        std::net::SocketAddr::new(self.pool.config.media_ip, self.port).to_string()
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.pool.used.lock().unwrap_or_else(PoisonError::into_inner).used.remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn ports_go_round_skip_strangers_and_run_out_in_words() {
        // Three neighbouring ports of which the middle one is a stranger's.
        let (first, stranger) = (20_000..60_000)
            .step_by(7)
            .find_map(|first| {
                let bind = |port| UdpSocket::bind((HERE, port)).ok();
                let (_a, b, _c) = (bind(first)?, bind(first + 1)?, bind(first + 2)?);
                Some((first, b))
            })
            .unwrap();
        let pool = PortPool::new(StreamConfig { media_ip: HERE, ports: first..=first + 2 });
        let one = pool.lease().unwrap();
        let two = pool.lease().unwrap();
        assert_eq!((one.port, two.port), (first, first + 2));
        let error = pool.lease().unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{first}-{}", first + 2)), "{error}");
        drop(stranger);
        assert_eq!(pool.lease().unwrap().port, first + 1);
        drop(one);
        assert_eq!(pool.lease().unwrap().port, first);
    }

    #[test]
    fn a_foreign_address_is_named() {
        let media_ip = "192.0.2.1".parse().unwrap();
        let error = PortPool::new(StreamConfig { media_ip, ports: 1024..=1025 }).lease().unwrap_err();
        assert_eq!(
            error.to_string(),
            "media address 192.0.2.1 cannot be bound; is --media-ip an address of this node?"
        );
    }
}
