//! The seat: taken from the agent, and again whenever an agent comes, without letting go of the tap.
use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use dhcproto::v4::Message;
use k8s_tests::peer::Port;
use model::MacAddr;
use seat::{FromAgent, FromRunner, Hello, PROTOCOL_VERSION, SeatSocket, Welcome};
use testkit::Tap;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    dhcp,
    frames::{self, Card},
    peer::{Peer, Plug},
};

/// Pause before the agent is asked again.
const RETRY: Duration = Duration::from_millis(200);
/// DHCP messages that may wait for the client. Full = dropped: it asks again.
const REPLIES_MAX: usize = 16;

/// Takes the seat and keeps it, for ever.
pub(crate) async fn keep(peer: Arc<Peer>, path: PathBuf, wants_lease: bool) {
    loop {
        let Err(error) = attend(&peer, &path, wants_lease).await;
        peer.detached(format!("{error:#}"));
        sleep(RETRY).await;
    }
}

/// One connection to an agent, until it ends.
async fn attend(
    peer: &Arc<Peer>,
    path: &std::path::Path,
    wants_lease: bool,
) -> anyhow::Result<std::convert::Infallible> {
    let socket = SeatSocket::connect(path).with_context(|| format!("no agent at {}", path.display()))?;
    let hello = Hello {
        version: PROTOCOL_VERSION,
        instance: peer.instance.clone(),
        runner_pid: std::process::id(),
        has_port: peer.plug().is_some(),
        health_url: None,
        ports: Vec::new(),
    };
    socket.say(&FromRunner::Hello(hello)).await?;
    loop {
        match socket.receive().await? {
            (FromAgent::Welcome(welcome), fds) => {
                if peer.plug().is_none() {
                    let tap = fds.into_iter().next().context("a welcome without a tap")?;
                    let plug = peer.plug_in(plug(&welcome, Tap::from_fd(tap)?)?);
                    tokio::spawn(listen(Arc::clone(peer), plug, wants_lease));
                }
                peer.attached();
            }
            (FromAgent::Refused { reason, remedy }, _) => bail!("refused: {reason}; {remedy}"),
            // There is no QEMU whose display or sound could be handed over.
            _ => {}
        }
    }
}

fn plug(welcome: &Welcome, tap: Tap) -> anyhow::Result<Plug> {
    let mac = MacAddr::parse(&welcome.mac).with_context(|| format!("`{}` is not a MAC", welcome.mac))?;
    let port = Port {
        lan: welcome.lan.clone(),
        seat: welcome.seat,
        mac: welcome.mac.clone(),
        ip: welcome.ip,
        host_name: welcome.host_name.clone(),
    };
    Ok(Plug { tap, card: Card { seat: welcome.seat, mac, ip: welcome.ip }, port })
}

/// Reads the tap for ever.
async fn listen(peer: Arc<Peer>, plug: Arc<Plug>, wants_lease: bool) {
    let (replies, mut client) = mpsc::channel::<Message>(REPLIES_MAX);
    if wants_lease {
        let (peer, plug) = (Arc::clone(&peer), Arc::clone(&plug));
        tokio::spawn(async move {
            let send = |frame: Vec<u8>| {
                let plug = Arc::clone(&plug);
                // Refused or lost, the question is asked again.
                async move { drop(plug.tap.send(&frame).await) }
            };
            let lease = dhcp::lease(plug.card.mac, send, &mut client).await;
            peer.leased(lease);
        });
    }
    loop {
        let frame = match plug.tap.receive().await {
            Ok(frame) => frame,
            Err(error) => {
                // EBADFD: somebody removed the tap; there is no way back but a new start (docs of the seat protocol).
                peer.detached(format!("the tap cannot be read: {error}"));
                return;
            }
        };
        peer.count(&frame, plug.card);
        let mine = peer.lease().map(|lease| Card { ip: lease.ip, ..plug.card });
        if let Some(answer) = mine.and_then(|mine| frames::arp_answer(&frame, mine)) {
            // Whoever asked asks again.
            plug.tap.send(&answer).await.ok();
        } else if mine.is_none()
            && let Some(reply) = dhcp::reply(&frame)
        {
            replies.try_send(reply).ok();
        }
    }
}
