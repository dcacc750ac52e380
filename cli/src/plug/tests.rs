use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use wire::framed::Prefix;

use super::{local::Machine, *};

fn flags(text: &str) -> Result<PlugFlags, clap::Error> {
    #[derive(Debug, clap::Parser)]
    struct Only {
        #[command(flatten)]
        flags: PlugFlags,
    }
    <Only as clap::Parser>::try_parse_from(std::iter::once("plug").chain(text.split_whitespace()))
        .map(|only| only.flags)
}

#[test]
fn what_cannot_be_meant_is_said_before_anything_is_touched() {
    for wrong in [
        "",
        "--lan party --gateway http://a --agent http://b",
        "--lan ../x",
        "--lan party --vde /x --listen 127.0.0.1:1",
    ] {
        assert_eq!(flags(wrong).unwrap_err().exit_code(), 2, "{wrong}");
    }
    let open = flags("--lan party --listen 0.0.0.0:14798").unwrap().check().unwrap_err().to_string();
    assert!(open.contains("127.0.0.1"), "{open}");
    let bare = flags("--lan party --gateway https://loco.example.org").unwrap().check().unwrap_err().to_string();
    assert!(bare.contains("--token FILE") && bare.contains("loco.example.org"), "{bare}");
    flags("--lan party --gateway https://loco.example.org --token t --listen [::1]:0").unwrap().check().unwrap();
}

#[tokio::test]
async fn nothing_runs_where_nothing_is() {
    assert!(!run(&flags("--lan party").unwrap(), &Paths::new("/nonexistent/loco", "/nonexistent")).await.unwrap());
}

#[test]
fn a_url_is_that_of_http_with_or_without_tls() {
    let uri = |base: &str| Server::new(base, "api", "party", "pc00000001", "t").map(|server| server.uri());
    assert_eq!(uri("http://10.0.0.5:8080/").unwrap(), "ws://10.0.0.5:8080/api/lans/party/plug?machine=pc00000001");
    assert_eq!(uri("https://a.b/loco").unwrap(), "wss://a.b/loco/api/lans/party/plug?machine=pc00000001");
    for wrong in ["10.0.0.5:8080", "ftp://a", "http://", "https://a b"] {
        assert!(uri(wrong).is_err(), "{wrong}");
    }
    assert!(Server::new("http://a", "v1", "party", "m", "two\nlines").is_err());
}

#[test]
fn qemu_is_told_where_to_connect_and_gets_a_card_of_its_own() {
    let line = qemu("127.0.0.1:14798".parse().unwrap(), [1, 2, 0xff, 4, 5, 6, 7, 8]);
    assert_eq!(
        line,
        "-netdev stream,id=loco,server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=14798 \
         -device pcnet,netdev=loco,mac=52:54:00:01:02:ff"
    );
}

/// A machine, and the other end of its stream.
fn machine() -> (Machine, tokio::io::DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(200_000);
    let (from, to) = tokio::io::split(ours);
    (Machine::new(Prefix::Qemu, Box::new(from), Box::new(to)), theirs)
}

#[tokio::test]
async fn frames_are_whole_however_they_come_and_empty_ones_are_none() {
    let (mut machine, mut qemu) = machine();
    let long = vec![7; 69_000];
    let stream = [&[0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3][..], &69_000_u32.to_be_bytes(), &long, &[0, 0, 0, 1, 9]].concat();
    let writing = tokio::spawn(async move {
        for part in stream.chunks(1000) {
            qemu.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        qemu
    });
    for want in [&[1, 2, 3][..], &long, &[9]] {
        assert_eq!(machine.frames.next().await.unwrap(), want);
    }
    drop(writing.await.unwrap());
    assert!(machine.frames.next().await.unwrap_err().contains("gone"));
}

#[tokio::test]
async fn what_is_no_stream_of_frames_is_told() {
    let (mut machine, mut browser) = machine();
    browser.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let why = machine.frames.next().await.unwrap_err();
    assert!(why.contains("-netdev stream") && why.contains("1195725856"), "{why}");
}

#[tokio::test]
async fn what_comes_from_the_cluster_has_its_length_in_front() {
    let (mut machine, mut qemu) = machine();
    machine.sink.send(&[5; 60]).await.unwrap();
    let mut got = [0; 64];
    qemu.read_exact(&mut got).await.unwrap();
    assert_eq!((got[..4].to_vec(), got[4..].to_vec()), (vec![0, 0, 0, 60], vec![5; 60]));
}

/// It may connect before anybody has read that it had gone.
#[tokio::test]
async fn a_machine_that_comes_back_at_once_is_not_sent_away_as_another_one() {
    let mut local = Local::listen("127.0.0.1:0".parse().unwrap(), Duration::from_mins(5)).await.unwrap();
    let address = local.address().unwrap();
    let first = TcpStream::connect(address).await.unwrap();
    let mut there = local.next().await.unwrap();
    drop(first);
    let mut back = TcpStream::connect(address).await.unwrap();
    // As while the first one's last frames are still under way.
    timeout(Duration::from_millis(100), local.refuse_others()).await.unwrap_err();
    there.frames.next().await.unwrap_err();
    back.write_all(&[0, 0, 0, 1, 9]).await.unwrap();
    assert_eq!(local.next().await.unwrap().frames.next().await.unwrap(), [9]);
}

#[tokio::test]
async fn a_second_machine_is_sent_away_and_the_first_one_stays() {
    let mut local = Local::listen("127.0.0.1:0".parse().unwrap(), Duration::ZERO).await.unwrap();
    let address = local.address().unwrap();
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut there = local.next().await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut nothing = [0];
    tokio::select! {
        never = local.refuse_others() => match never {},
        end = second.read(&mut nothing) => assert_eq!(end.unwrap(), 0),
    }
    first.write_all(&[0, 0, 0, 1, 9]).await.unwrap();
    assert_eq!(there.frames.next().await.unwrap(), [9]);
}
