//! The cluster's end: a WebSocket to an agent, straight or through the gateway.
use std::{pin::pin, sync::Once};

use anyhow::{Context as _, Result, anyhow, bail};
use api::{
    ErrorBody,
    plug::{CLOSE_FINAL, MESSAGE_BYTES_MAX, Plugged, SILENCE_MAX},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        handshake::client::Request,
        http::{HeaderValue, StatusCode, Uri, header},
        protocol::WebSocketConfig,
    },
};

use super::local::Machine;

/// Where to plug in.
#[derive(Debug)]
pub(super) struct Server {
    request: Request,
    base: String,
}

/// A port of the LAN.
pub(super) struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(super) plugged: Plugged,
}

/// Why frames are no longer carried.
#[derive(Debug)]
pub(super) enum End {
    /// The machine has gone, or is none.
    Machine(String),
    /// It may be tried again.
    Again(String),
    /// It would be the same again.
    Final(String),
}

/// The cluster said no, and would say it again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

pub(super) fn is_final(error: &anyhow::Error) -> bool {
    error.is::<Refused>()
}

impl Server {
    /// `base`: a URL of HTTP; `api`: where the API is below it.
    pub(super) fn new(base: &str, api: &str, lan: &str, machine: &str, token: &str) -> Result<Self> {
        let base = base.trim_end_matches('/');
        let url = match base.split_once("://") {
            Some(("http", rest)) => format!("ws://{rest}"),
            Some(("https", rest)) => format!("wss://{rest}"),
            _ => bail!("`{base}` is no URL that can be used; write http://HOST:PORT or https://HOST"),
        };
        let uri: Uri = format!("{url}/{api}/lans/{lan}/plug?machine={machine}")
            .parse()
            .with_context(|| format!("`{base}` is no URL; write http://HOST:PORT or https://HOST"))?;
        let mut request = uri.into_client_request()?;
        let value = HeaderValue::from_str(&format!("Bearer {token}")).context("the token's file holds no token")?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
        Ok(Self { request, base: base.to_owned() })
    }

    #[cfg(test)]
    pub(super) fn uri(&self) -> String {
        self.request.uri().to_string()
    }

    /// Takes a port of the LAN.
    ///
    /// # Errors
    /// In words; [`is_final`] tells whether it would be the same again.
    pub(super) async fn connect(&self) -> Result<Link> {
        install_tls();
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        // Frames must not wait for the next one, so Nagle is off.
        let connecting = connect_async_with_config(self.request.clone(), Some(config), true);
        let connected = timeout(SILENCE_MAX, connecting).await.map_err(|_| anyhow!("{} does not answer", self.base))?;
        let (mut socket, _) = connected.map_err(|error| self.refused(error))?;
        let hello = timeout(SILENCE_MAX, socket.next()).await;
        let Ok(Some(Ok(Message::Text(hello)))) = hello else {
            bail!("{} closed the connection at once", self.base);
        };
        let plugged = serde_json::from_str(&hello).with_context(|| {
            format!("{} said something else than an agent does; is it of another version?", self.base)
        })?;
        Ok(Link { socket, plugged })
    }

    fn refused(&self, error: tungstenite::Error) -> anyhow::Error {
        let tungstenite::Error::Http(answer) = error else {
            // Its words have those of its source in them.
            return anyhow!("{} cannot be reached: {error}", self.base);
        };
        let status = answer.status();
        let body = answer.body().as_deref().and_then(|body| serde_json::from_slice::<ErrorBody>(body).ok());
        let words = body.map_or_else(
            || format!("{} answered {status}; is it a gateway, or with --agent an agent?", self.base),
            |body| format!("{}; {}", body.error.message, body.error.remedy),
        );
        // Anything else is about the cluster at this moment: full, busy, not yet told of its LANs.
        let ours =
            [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::UPGRADE_REQUIRED];
        if ours.contains(&status) { Refused(words).into() } else { anyhow!(words) }
    }
}

/// The way of TLS is the process's, and is chosen once.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that one is chosen already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
}

impl Link {
    /// Carries frames until something ends.
    pub(super) async fn carry(self, machine: &mut Machine) -> End {
        let (mut out, mut incoming) = self.socket.split();
        let Machine { frames, sink } = machine;
        let inward = async {
            loop {
                // The agent asks whether this side is there each 10 s.
                let Ok(message) = timeout(SILENCE_MAX, incoming.next()).await else {
                    return End::Again("the cluster fell silent".to_owned());
                };
                match message {
                    Some(Ok(Message::Binary(frame))) => {
                        if let Err(error) = sink.send(&frame).await {
                            return End::Machine(format!("the machine has gone: {error}"));
                        }
                    }
                    Some(Ok(Message::Close(Some(close)))) => {
                        let why = close.reason.to_string();
                        return if u16::from(close.code) == CLOSE_FINAL { End::Final(why) } else { End::Again(why) };
                    }
                    Some(Ok(Message::Close(None))) | None => return End::Again("the cluster has closed".to_owned()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return End::Again(format!("the cluster has gone: {error}")),
                }
            }
        };
        let outward = async {
            loop {
                let frame = match frames.next().await {
                    Ok(frame) => frame,
                    Err(why) => return Some(End::Machine(why)),
                };
                if frame.len() <= MESSAGE_BYTES_MAX && out.send(Message::Binary(frame.into())).await.is_err() {
                    // Who reads will be told why.
                    return None;
                }
            }
        };
        let end = {
            let mut inward = pin!(inward);
            tokio::select! {
                end = &mut inward => end,
                end = outward => match end {
                    Some(end) => end,
                    None => inward.await,
                },
            }
        };
        // So that the port is free at once; who does not hear it will see that nobody is there.
        let goodbye = out.send(Message::Close(None));
        drop(timeout(std::time::Duration::from_secs(1), goodbye).await);
        end
    }
}
