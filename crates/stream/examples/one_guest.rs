//! One guest in one process, for looking at it in a browser and for measuring: `one_guest KERNEL-ELF PORT [PAGE]`.
//!
//! `GET /` the page, `POST /whep?tier=full` an offer, `DELETE /whep/ID`, `GET /metrics`, `GET /pids`, `GET /shot.png`.
#[path = "../tests/support/mod.rs"]
mod support;

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use stream::{InstanceStream, Role, StreamConfig, Streams, Tier};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

type Problem = Box<dyn std::error::Error + Send + Sync>;

struct Site {
    instance: Arc<InstanceStream>,
    registry: prometheus::Registry,
    page: Option<PathBuf>,
    qemu: u32,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Problem> {
    let mut arguments = std::env::args().skip(1);
    let kernel = arguments.next().ok_or("usage: one_guest KERNEL-ELF PORT [PAGE]")?;
    let port: u16 = arguments.next().unwrap_or_default().parse()?;
    let page = arguments.next().map(PathBuf::from);
    let dir = std::env::temp_dir().join(format!("loco-one-guest-{}", std::process::id()));
    let kernel = (kernel != "none").then(|| PathBuf::from(kernel));
    let qemu = support::Qemu::start(&dir, kernel.as_deref()).await?;
    let registry = prometheus::Registry::new();
    let config = StreamConfig { media_ip: Ipv4Addr::LOCALHOST.into(), ports: port + 1..=port + 60 };
    let (injections, inbox) = mpsc::channel(256);
    qemu.play(inbox).await?;
    let streams = Streams::new(config, &registry)?;
    let instance = streams.instance("instance-0".parse()?, qemu.screen.clone(), qemu.tap.clone(), injections);
    instance.set_state(model::InstanceState::Live);
    let site = Arc::new(Site { instance, registry, page, qemu: qemu.pid() });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    eprintln!("http://127.0.0.1:{port}/");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let site = Arc::clone(&site);
                tokio::spawn(async move { serve(accepted?.0, &site).await });
            }
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    site.instance.close_all().await;
    qemu.kill().await;
    Ok(())
}

async fn serve(mut socket: TcpStream, site: &Site) -> Result<(), Problem> {
    let (head, body) = tokio::time::timeout(Duration::from_secs(5), read(&mut socket)).await??;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, kind, answer, location) = match (method, path) {
        ("GET", "/") => {
            let page = site.page.as_ref().ok_or("no page was given")?;
            (200, "text/html", std::fs::read(page)?, String::new())
        }
        ("GET", "/metrics") => (
            200,
            "text/plain",
            prometheus::TextEncoder::new().encode_to_string(&site.registry.gather())?.into(),
            String::new(),
        ),
        ("GET", "/pids") => {
            let pids = format!(r#"{{"us":{},"qemu":{}}}"#, std::process::id(), site.qemu);
            (200, "application/json", pids.into(), String::new())
        }
        ("GET", "/shot.png") => {
            (200, "image/png", site.instance.screen().screenshot_png().await.unwrap_or_default(), String::new())
        }
        ("POST", path) if path.starts_with("/whep") => {
            let tier = path.split_once("tier=").map_or(Ok(Tier::Full), |(_, word)| word.parse())?;
            match site.instance.offer(&String::from_utf8_lossy(&body), tier, Role::Play).await {
                Ok(answer) => {
                    (201, "application/sdp", answer.sdp.into(), format!("Location: /whep/{}\r\n", answer.session))
                }
                Err(error) => (400, "text/plain", format!("{}: {error}", error.code()).into(), String::new()),
            }
        }
        ("DELETE", path) => {
            let closed = site.instance.close(&path.trim_start_matches("/whep/").parse()?).await;
            (if closed { 204 } else { 404 }, "text/plain", Vec::new(), String::new())
        }
        _ => (404, "text/plain", b"no such page".to_vec(), String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} .\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{location}Connection: close\r\n\r\n",
        answer.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(&answer).await?;
    Ok(())
}

/// Request line with headers, and the body.
async fn read(socket: &mut TcpStream) -> Result<(String, Vec<u8>), Problem> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return Ok((head, bytes.split_off(end + 4)));
            }
        }
        if socket.read_buf(&mut bytes).await? == 0 || bytes.len() > 1 << 20 {
            return Err("incomplete request".into());
        }
    }
}
