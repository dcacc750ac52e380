//! WireGuard keys between agents: each tells its public key, and reads those of the nodes with which it shares a LAN.
//!
//! ```text
//!  agent A ── GET /underlay/key?nonce=N ──> agent B         N: 32 random octets, new each time
//!          <── B's name, key, port, proof ──                proof: HMAC-SHA256 by the agents' token over all of it and N
//! ```
//! **Invariants.** The token never crosses the wire here: the underlay is what is not trusted. A key without a right proof is nobody's.
//! A node that does not answer keeps the key that is known of it, as nodes keep what the directory said, and is no problem of this one.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
    time::Duration,
};

use api::agent::UnderlayKey;
use directory::Directory;
use fabric::wireguard::{KeyPair, Keys, Known, PeerKey, PublicKey, WireguardConfig};
use futures_util::future::join_all;
use model::{NetworkMode, NodeName, Snapshot};
use ring::hmac;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::config::{Config, Token, wireguard_key};

/// Every node is asked so often: a node whose key changed is taken up within this and a handshake.
const EVERY: Duration = Duration::from_secs(1);
/// The same for nodes of which nothing is known yet.
const EVERY_NEW: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_secs(1);
/// A name, a key, a port and a proof.
const ANSWER_BYTES_MAX: usize = 4096;
/// Sets these proofs apart from whatever else the token may come to prove.
const PURPOSE: &[u8] = b"loco underlay key 1";

/// What a question carries, in octets; twice as many characters.
const NONCE_LEN: usize = 32;

/// How the underlay is to be encrypted, with this node's key, which is made at the first time.
pub(crate) fn encryption(config: &Config, known: watch::Receiver<Keys>) -> anyhow::Result<Option<WireguardConfig>> {
    let Some(port) = config.wireguard_port else { return Ok(None) };
    let keys = KeyPair::load_or_make(&wireguard_key(&config.run_dir))?;
    Ok(Some(WireguardConfig { keys, port, known }))
}

/// What one agent says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) node: NodeName,
    /// `None`: this agent does not encrypt.
    pub(crate) key: Option<PeerKey>,
}

impl Own {
    pub(crate) fn of(node: &NodeName, encryption: Option<&WireguardConfig>) -> Self {
        let key = encryption.map(|wanted| PeerKey { key: wanted.keys.public(), port: wanted.port });
        Self { node: node.clone(), key }
    }

    /// The answer to a question; `None`: `nonce` is no number used once.
    pub(crate) fn answer(&self, token: &Token, nonce: &str) -> Option<UnderlayKey> {
        let nonce = octets(nonce).filter(|nonce| nonce.len() == NONCE_LEN)?;
        let proof = hmac::sign(&by(token), &self.statement(&nonce));
        Some(UnderlayKey {
            node: self.node.to_string(),
            public_key: self.key.map(|known| known.key.to_string()),
            port: self.key.map(|known| known.port),
            proof: hex(proof.as_ref()),
        })
    }

    /// What is proven. Every part has a length of its own, so that no two statements are the same octets.
    fn statement(&self, nonce: &[u8]) -> Vec<u8> {
        let key = self.key.map(|known| known.key.to_string()).unwrap_or_default();
        let port = self.key.map_or(0, |known| known.port).to_be_bytes();
        let parts: [&[u8]; 5] = [PURPOSE, nonce, self.node.as_str().as_bytes(), key.as_bytes(), &port];
        let with_length = |part: &[u8]| [&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes(), part].concat();
        parts.into_iter().flat_map(with_length).collect()
    }
}

fn by(token: &Token) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{octet:02x}");
        text
    })
}

fn octets(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// Another node's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Neighbour {
    node: NodeName,
    url: String,
}

/// The nodes with which this one shares a LAN of mode `vxlan`.
fn neighbours(snapshot: &Snapshot, own: &NodeName) -> BTreeMap<Ipv4Addr, Neighbour> {
    let ours: BTreeSet<_> = snapshot.on_node(own).map(|placed| &placed.lan).collect();
    let is_kernels = |name| snapshot.lan(name).is_some_and(|lan| lan.mode() == NetworkMode::Vxlan);
    let others = snapshot.instances().filter(|placed| placed.node != *own && ours.contains(&placed.lan));
    let homes = others.filter(|placed| is_kernels(&placed.lan)).filter_map(|placed| snapshot.node(&placed.node));
    homes.map(|peer| (peer.underlay_ip, Neighbour { node: peer.name.clone(), url: peer.agent_url.clone() })).collect()
}

/// What came back from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Key(PeerKey),
    /// It says, proven, that it does not encrypt.
    Plain,
    /// It answers, but not so that it could be believed; why, in words.
    Doubtful(String),
    /// It does not answer.
    Nothing,
}

/// What an answer is worth.
fn judge(answer: &UnderlayKey, asked: &NodeName, token: &Token, nonce: &[u8]) -> Heard {
    let doubt = || {
        Heard::Doubtful(format!(
            "node `{asked}` gives a WireGuard key that is not proven: give all agents the same token"
        ))
    };
    let Ok(node) = answer.node.parse::<NodeName>() else { return doubt() };
    let key = match (&answer.public_key, answer.port) {
        (Some(key), Some(port)) => match key.parse::<PublicKey>() {
            Ok(key) if port != 0 => Some(PeerKey { key, port }),
            _ => return doubt(),
        },
        (None, None) => None,
        _ => return doubt(),
    };
    let said = Own { node, key };
    let proof = octets(&answer.proof).unwrap_or_default();
    if hmac::verify(&by(token), &said.statement(nonce), &proof).is_err() {
        return doubt();
    }
    if said.node != *asked {
        return Heard::Doubtful(format!(
            "at the address of node `{asked}` the agent of node `{}` answers: correct the directory",
            said.node
        ));
    }
    key.map_or(Heard::Plain, Heard::Key)
}

/// What is known after that.
fn learn(known: Option<&Known>, heard: Heard, node: &NodeName) -> Known {
    match (heard, known) {
        (Heard::Key(key), _) => Known::Key { key, answers: true },
        (Heard::Plain, _) => Known::Wrong(format!(
            "node `{node}` does not encrypt and this node does, so no frame passes between them: start all agents with the same --encryption"
        )),
        (Heard::Doubtful(_) | Heard::Nothing, Some(Known::Key { key, .. })) => Known::Key { key: *key, answers: false },
        (Heard::Doubtful(why), _) => Known::Wrong(why),
        (Heard::Nothing, Some(Known::Wrong(why))) => Known::Wrong(why.clone()),
        (Heard::Nothing, _) => Known::Nothing,
    }
}

/// Asks for ever. Ends only when the directory has ended.
pub(crate) async fn follow(
    own: NodeName,
    token: Token,
    mut directory: watch::Receiver<Directory>,
    known: watch::Sender<Keys>,
) -> anyhow::Error {
    let client = match reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build() {
        Ok(client) => client,
        Err(error) => return anyhow::Error::new(error).context("no HTTP client for the other agents' keys"),
    };
    let (mut tick, mut turn) = (interval(EVERY_NEW), 0_u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let turns = u32::try_from(EVERY.as_millis() / EVERY_NEW.as_millis()).unwrap_or(1);
    loop {
        tick.tick().await;
        if directory.has_changed().is_err() {
            return anyhow::anyhow!("what follows the directory has ended");
        }
        let all = neighbours(&directory.borrow_and_update().snapshot, &own);
        let old = known.borrow().clone();
        let due =
            |address: &Ipv4Addr| turn.is_multiple_of(turns) || !matches!(old.get(address), Some(Known::Key { .. }));
        let asked = all.iter().filter(|(address, _)| due(address));
        let answers = join_all(
            asked.map(async |(address, neighbour)| (*address, &neighbour.node, ask(&client, neighbour, &token).await)),
        );
        let mut new: Keys =
            old.iter().filter(|(address, _)| all.contains_key(address)).map(|(a, k)| (*a, k.clone())).collect();
        for (address, node, heard) in answers.await {
            new.insert(address, learn(old.get(&address), heard, node));
        }
        known.send_if_modified(|now| {
            let differs = *now != new;
            *now = new;
            differs
        });
        turn = turn.wrapping_add(1);
    }
}

async fn ask(client: &reqwest::Client, neighbour: &Neighbour, token: &Token) -> Heard {
    let nonce: [u8; NONCE_LEN] = rand::random();
    let node = &neighbour.node;
    let answer = async {
        let request = client.get(format!("{}/underlay/key", neighbour.url)).query(&[("nonce", hex(&nonce))]);
        let mut answer = request.send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await? {
            body.extend(part);
            if body.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok::<_, reqwest::Error>(body)
    };
    match answer.await {
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(answer) => judge(&answer, node, token, &nonce),
            Err(_) => Heard::Doubtful(format!(
                "node `{node}` answers something else when it is asked for its WireGuard key: run one release of the agent on all nodes"
            )),
        },
        Err(error) if error.status().is_some() => Heard::Doubtful(format!(
            "the agent of node `{node}` knows nothing of WireGuard keys: run one release of the agent on all nodes"
        )),
        Err(_) => Heard::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: [u8; NONCE_LEN] = [7; NONCE_LEN];

    fn own() -> Own {
        // 32 zeros.
        let key: PublicKey = format!("{}=", "A".repeat(43)).parse().unwrap();
        Own { node: "node-b".parse().unwrap(), key: Some(PeerKey { key, port: 51820 }) }
    }

    fn heard(answer: &UnderlayKey) -> Heard {
        judge(answer, &"node-b".parse().unwrap(), &Token::new("s3cret"), &NONCE)
    }

    #[test]
    fn a_proven_key_is_taken_and_nothing_else() {
        let (own, token) = (own(), Token::new("s3cret"));
        let answer = own.answer(&token, &hex(&NONCE)).unwrap();
        assert_eq!(heard(&answer), Heard::Key(own.key.unwrap()));
        let text = serde_json::to_string(&answer).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let plain = Own { key: None, ..own.clone() }.answer(&token, &hex(&NONCE)).unwrap();
        assert_eq!(heard(&plain), Heard::Plain);
        let doubted = [
            own.answer(&Token::new("another"), &hex(&NONCE)).unwrap(),
            own.answer(&token, &hex(&[8; NONCE_LEN])).unwrap(),
            UnderlayKey { port: Some(51821), ..answer.clone() },
            UnderlayKey { port: Some(0), ..answer.clone() },
            UnderlayKey { port: None, ..answer.clone() },
            UnderlayKey { public_key: None, port: None, ..answer.clone() },
            UnderlayKey { public_key: Some(format!("B{}=", "A".repeat(42))), ..answer.clone() },
            UnderlayKey { node: "node-c".into(), ..answer.clone() },
            UnderlayKey { node: "Not a name".into(), ..answer.clone() },
            UnderlayKey { proof: String::new(), ..answer.clone() },
            UnderlayKey { proof: answer.proof[..62].to_owned(), ..answer.clone() },
        ];
        for forged in doubted {
            assert!(matches!(heard(&forged), Heard::Doubtful(why) if why.contains("not proven")), "{forged:?}");
        }
        // The question was led to another node that has the token, too.
        let other = Own { node: "node-c".parse().unwrap(), ..own }.answer(&token, &hex(&NONCE)).unwrap();
        assert!(matches!(heard(&other), Heard::Doubtful(why) if why.contains("correct the directory")));
    }

    #[test]
    fn only_a_number_of_32_octets_is_answered() {
        let token = Token::new("s3cret");
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(own().answer(&token, bad), None, "{bad}");
        }
    }

    #[test]
    fn silence_changes_nothing_and_a_plain_word_does() {
        let node = "node-b".parse().unwrap();
        let (old, new) = (own().key.unwrap(), PeerKey { port: 9, ..own().key.unwrap() });
        let answers = |key| Known::Key { key, answers: true };
        let kept = Known::Key { key: old, answers: false };
        assert_eq!(learn(Some(&answers(old)), Heard::Nothing, &node), kept);
        assert_eq!(learn(Some(&answers(old)), Heard::Doubtful("why".to_owned()), &node), kept);
        assert_eq!(learn(None, Heard::Nothing, &node), Known::Nothing);
        assert_eq!(learn(None, Heard::Doubtful("why".to_owned()), &node), Known::Wrong("why".to_owned()));
        assert_eq!(learn(Some(&kept), Heard::Key(new), &node), answers(new));
        let Known::Wrong(why) = learn(Some(&kept), Heard::Plain, &node) else { panic!("a proven word counts") };
        assert!(why.contains("the same --encryption"), "{why}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_panic_or_is_believed(node in ".{0,20}", key in prop::option::of(".{0,50}"), port: Option<u16>, proof in ".{0,80}") {
            let heard = heard(&UnderlayKey { node, public_key: key, port, proof });
            prop_assert!(matches!(heard, Heard::Doubtful(_)));
        }

        #[test]
        fn hex_is_read_back(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(octets(&hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn neighbours_share_a_lan_of_the_kernels() {
        let text = r#"{"version":1,
            "lans":[{"name":"party","vni":4200,"mode":"vxlan","subnet":"10.98.0.0/24","seats":9},
                    {"name":"quiet","vni":7,"mode":"socket","subnet":"10.97.0.0/24","seats":9}],
            "nodes":[{"name":"a","underlay_ip":"10.99.0.11","agent_url":"http://a"},{"name":"b","underlay_ip":"10.99.0.12","agent_url":"http://b"},
                     {"name":"c","underlay_ip":"10.99.0.13","agent_url":"http://c"}],
            "instances":[{"id":"i-0","lan":"party","seat":0,"node":"a"},{"id":"i-1","lan":"party","seat":1,"node":"b"},
                         {"id":"i-2","lan":"quiet","seat":0,"node":"a"},{"id":"i-3","lan":"quiet","seat":1,"node":"c"}]}"#;
        let snapshot = api::snapshot::parse(text).unwrap();
        let of =
            |node: &str| neighbours(&snapshot, &node.parse().unwrap()).into_values().map(|n| n.url).collect::<Vec<_>>();
        assert_eq!((of("a"), of("b"), of("c")), (vec!["http://b".to_owned()], vec!["http://a".to_owned()], vec![]));
    }
}
