//! `loco pcap`: what a guest's port carries, for Wireshark.
//!
//! **Invariant.** Only whole blocks are written, so the file is sound whenever and however it ends.
use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use api::{ErrorBody, capture::parse_span};
use capture::{read::BLOCK_BYTES_MAX, write::whole_blocks};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{paths::Paths, plan::Wall, secrets, state, tell};

#[derive(Debug, clap::Args)]
pub(crate) struct PcapFlags {
    /// The instance, as `loco status` names it
    #[arg(value_name = "ID")]
    instance: model::InstanceId,
    /// Only the last of what is kept, such as 60s or 2m; the agents keep a minute
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    last: Option<Duration>,
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
}

impl PcapFlags {
    /// Standard output, when it is meant, must be something that takes bytes.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            !self.is_to_stdout() || !io::stdout().is_terminal(),
            "a capture is not for a terminal; write it with `-w FILE`, or pipe it: `loco pcap {0} --follow | wireshark -k -i -`",
            self.instance
        );
        Ok(())
    }

    fn is_to_stdout(&self) -> bool {
        self.write.as_deref().is_none_or(|file| file == Path::new("-"))
    }

    fn path(&self) -> String {
        let last = self.last.map(|last| format!("&last={}ms", last.as_millis())).unwrap_or_default();
        format!("/api/instances/{}/pcap?follow={}{last}", self.instance, u8::from(self.follow))
    }
}

/// `false`: nothing runs.
pub(crate) async fn run(flags: &PcapFlags, paths: &Paths) -> Result<bool> {
    if !paths.wall().try_exists().with_context(|| format!("cannot look at {}", paths.wall().display()))? {
        return Ok(false);
    }
    let wall: Wall = state::read_json(&paths.wall())?;
    let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(3)).no_proxy().build()?;
    let url = format!("{}{}", wall.base_url(), flags.path());
    let answer = client.get(&url).bearer_auth(secrets::read(paths)?).send().await;
    let answer = answer.context("the gateway does not answer; `loco status` tells what runs")?;
    let answer = sound(answer).await?;
    // Only now: a file that was asked for in vain is not made, nor an older one emptied.
    let mut to: Box<dyn AsyncWrite + Unpin> = match flags.write.as_deref().filter(|_| !flags.is_to_stdout()) {
        Some(file) => {
            let made = tokio::fs::File::create(file).await;
            Box::new(made.with_context(|| format!("cannot write {}; choose another file", file.display()))?)
        }
        None => Box::new(tokio::io::stdout()),
    };
    let stop = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tell(&format!("loco: cannot listen for Ctrl-C, which will end this at once: {error}"));
            std::future::pending::<()>().await;
        }
    };
    let written = copy(answer, &mut to, stop).await?;
    if let (Some(bytes), Some(file)) = (written, flags.write.as_deref().filter(|_| !flags.is_to_stdout())) {
        tell(&format!("loco: {bytes} bytes in {}", file.display()));
    }
    Ok(true)
}

/// The answer, or what the gateway says is wrong.
pub(crate) async fn sound(answer: reqwest::Response) -> Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    match answer.json::<ErrorBody>().await {
        Ok(body) => bail!("{}; {}", body.error.message, body.error.remedy),
        Err(_) => bail!("the gateway answered {status}; see its log"),
    }
}

/// Copies whole blocks until the answer or `stop` ends. Returns how many bytes; `None` when nobody reads any more.
async fn copy(
    mut answer: reqwest::Response,
    to: &mut (impl AsyncWrite + Unpin),
    stop: impl Future<Output = ()>,
) -> Result<Option<u64>> {
    let (mut blocks, mut written) = (Blocks::default(), 0);
    tokio::pin!(stop);
    loop {
        // Not around the writing: a block is not left half.
        let bytes = tokio::select! {
            bytes = answer.chunk() => bytes.context("the capture broke off; what was written is whole")?,
            () = &mut stop => None,
        };
        let Some(bytes) = bytes else { return Ok(Some(written)) };
        let whole = blocks.take(&bytes)?;
        let outcome = async {
            to.write_all(&whole).await?;
            // Whoever follows wants to see it now.
            to.flush().await
        };
        match outcome.await {
            Ok(()) => written += whole.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            Err(error) => return Err(error).context("cannot write the capture; make room, or choose another file"),
        }
    }
}

/// Bytes that are not yet a whole block.
#[derive(Debug, Default)]
struct Blocks {
    rest: Vec<u8>,
}

impl Blocks {
    /// The whole blocks of what came so far and was not taken yet.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let whole = whole_blocks(&self.rest).context("the gateway sent something that is no capture; see its log")?;
        let rest = self.rest.split_off(whole);
        ensure!(rest.len() <= BLOCK_BYTES_MAX as usize, "the gateway sent a block without an end; see its log");
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn flags(text: &str) -> Result<PcapFlags, clap::Error> {
        #[derive(Debug, clap::Parser)]
        struct Only {
            #[command(flatten)]
            flags: PcapFlags,
        }
        <Only as clap::Parser>::try_parse_from(std::iter::once("pcap").chain(text.split_whitespace()))
            .map(|only| only.flags)
    }

    #[test]
    fn flags_become_a_question_to_the_gateway() {
        assert_eq!(flags("instance-3").unwrap().path(), "/api/instances/instance-3/pcap?follow=0");
        let all = flags("instance-3 --last 2m --follow -w x.pcapng").unwrap();
        assert_eq!(all.path(), "/api/instances/instance-3/pcap?follow=1&last=120000ms");
        assert!(!all.is_to_stdout() && flags("instance-3 -w -").unwrap().is_to_stdout());
        for wrong in ["", "../secret", "instance-3 --last soon", "instance-3 --keep"] {
            assert_eq!(flags(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[tokio::test]
    async fn nothing_runs_where_nothing_is() {
        let paths = Paths::new("/nonexistent/loco", "/nonexistent");
        assert!(!run(&flags("instance-0").unwrap(), &paths).await.unwrap());
    }

    /// A wall's files in a folder of the test, and a gateway that gives `answer` to one question, which it returns.
    async fn ask(name: &str, text: &str, answer: Vec<u8>) -> (Result<bool>, Option<Vec<u8>>, String) {
        let dir = std::env::temp_dir().join(format!("loco-pcap-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let paths = Paths::new(&dir, "/nonexistent");
        let gateway = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wall = crate::plan::tests::wall(&format!("--port {}", gateway.local_addr().unwrap().port()));
        state::write_json(&paths.wall(), &wall).unwrap();
        secrets::make(&paths).unwrap();
        let gateway = tokio::spawn(async move {
            let (mut client, _) = gateway.accept().await.unwrap();
            let mut question = vec![0; 4096];
            let len = tokio::io::AsyncReadExt::read(&mut client, &mut question).await.unwrap();
            client.write_all(&answer).await.unwrap();
            String::from_utf8_lossy(&question[..len]).into_owned()
        });
        let file = dir.join("out.pcapng");
        let outcome = run(&flags(&format!("{text} -w {}", file.display())).unwrap(), &paths).await;
        let (written, question) = (std::fs::read(&file).ok(), gateway.await.unwrap());
        std::fs::remove_dir_all(dir).unwrap();
        (outcome, written, question)
    }

    fn http(status: &str, len: usize, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    fn blocks() -> Vec<u8> {
        let mut out = Vec::new();
        capture::write::section(&mut out, &capture::write::Section::default());
        capture::write::statistics(&mut out, &capture::write::Statistics::default());
        out
    }

    #[tokio::test]
    async fn the_file_is_what_the_gateway_sends() {
        let answer = http("200 OK", blocks().len(), &blocks());
        let (outcome, file, question) = ask("whole", "instance-3 --last 5", answer).await;
        assert!(outcome.unwrap());
        assert_eq!(file.unwrap(), blocks());
        assert!(question.starts_with("GET /api/instances/instance-3/pcap?follow=0&last=5000ms HTTP/1.1"), "{question}");
        assert!(question.to_lowercase().contains("authorization: bearer "), "{question}");
    }

    #[tokio::test]
    async fn a_capture_that_breaks_off_leaves_whole_blocks_and_is_a_failure() {
        let torn = &blocks()[..blocks().len() - 5];
        let (outcome, file, _) = ask("torn", "instance-3", http("200 OK", blocks().len(), torn)).await;
        assert!(format!("{:#}", outcome.unwrap_err()).contains("broke off"));
        let file = file.unwrap();
        assert_eq!(whole_blocks(torn), Some(file.len()));
        assert_eq!(file, blocks()[..file.len()]);
    }

    #[tokio::test]
    async fn what_the_gateway_refuses_is_said_and_makes_no_file() {
        let body = r#"{"error":{"code":"no-capture","message":"this node captures nothing","remedy":"see its log"}}"#;
        let answer = http("503 Service Unavailable", body.len(), body.as_bytes());
        let (outcome, file, _) = ask("refused", "instance-3", answer).await;
        assert_eq!(outcome.unwrap_err().to_string(), "this node captures nothing; see its log");
        assert_eq!(file, None);
    }

    #[test]
    fn what_is_no_capture_is_not_written() {
        assert!(Blocks::default().take(b"not found at all").is_err());
        let mut endless = Blocks::default();
        endless.take(&[0, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff]).unwrap();
        assert!(endless.take(&vec![0; BLOCK_BYTES_MAX as usize]).is_err());
    }

    proptest! {
        #[test]
        fn blocks_are_written_whole_however_they_come(sizes in vec(0..50_usize, 0..20), cuts in vec(1..60_usize, 0..60)) {
            let mut stream = Vec::new();
            let mut ends = vec![0];
            for size in sizes {
                let len = u32::try_from(12 + 4 * size).unwrap().to_le_bytes();
                stream.extend([&[6, 0, 0, 0][..], &len, &vec![7; 4 * size], &len].concat());
                ends.push(stream.len());
            }
            let (mut blocks, mut written, mut at) = (Blocks::default(), Vec::new(), 0);
            for len in cuts.into_iter().chain([usize::MAX]) {
                let end = at + len.min(stream.len() - at);
                written.extend(blocks.take(&stream[at..end]).unwrap());
                prop_assert!(ends.contains(&written.len()) && written.len() + 4096 > end);
                at = end;
            }
            prop_assert_eq!(written, stream);
        }
    }
}
