use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, duplex};

use super::*;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian"}, "capabilities": ["oob"]}}"#;

/// QEMU's side: answers each command by what `answer` makes of its id and name; `None` says nothing.
async fn qemu(stream: DuplexStream, answer: impl Fn(u64, &str) -> Option<String>) {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    write.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
    while let Ok(Some(line)) = lines.next_line().await {
        let command: Value = serde_json::from_str(&line).unwrap();
        let (id, name) = (command["id"].as_u64().unwrap(), command["execute"].as_str().unwrap());
        let text = if name == "qmp_capabilities" { Some(ok(id)) } else { answer(id, name) };
        if let Some(text) = text
            && write.write_all(text.as_bytes()).await.is_err()
        {
            return;
        }
    }
}

fn ok(id: u64) -> String {
    format!("{{\"return\": {{}}, \"id\": {id}}}\r\n")
}

async fn session(answer: impl Fn(u64, &str) -> Option<String> + Send + 'static) -> Qmp<DuplexStream> {
    let (ours, theirs) = duplex(1 << 16);
    tokio::spawn(qemu(theirs, answer));
    Qmp::connect(ours).await.unwrap()
}

fn event(name: &str, n: usize) -> String {
    format!(r#"{{"timestamp": {{"seconds": 1, "microseconds": 2}}, "event": "{name}", "data": {{"n": {n}}}}}"#) + "\r\n"
}

#[tokio::test]
async fn answers_and_events_are_kept_apart() {
    let mut qmp = session(|id, _| {
        Some(
            event("RESET", 1)
                + &format!(r#"{{"return": {{"running": true, "status": "running"}}, "id": {id}}}"#)
                + "\r\n",
        )
    })
    .await;
    assert_eq!(qmp.version().qemu.major, 10);
    assert!(qmp.execute(qmp::query_status {}).await.unwrap().running);
    let event = qmp.event().await.unwrap();
    assert_eq!((event.name.as_str(), &event.data["n"]), ("RESET", &Value::from(1)));
    // Known by name, but not of its form: still an event, never the end of the session.
    assert!(event.typed::<qmp::RESET>().is_none());
}

#[tokio::test]
async fn an_unknown_event_harms_nobody() {
    let mut qmp = session(|id, _| Some(event("FROM_THE_FUTURE", 1) + &ok(id))).await;
    qmp.execute(qmp::cont {}).await.unwrap();
    assert_eq!(qmp.event().await.unwrap().name, "FROM_THE_FUTURE");
}

#[tokio::test]
async fn a_refusal_says_command_and_reason() {
    let mut qmp = session(|id, _| {
        Some(format!(r#"{{"id": {id}, "error": {{"class": "GenericError", "desc": "no such thing"}}}}"#) + "\r\n")
    })
    .await;
    let error = qmp.execute(qmp::quit {}).await.unwrap_err();
    assert_eq!(error.to_string(), "QEMU refused `quit`: no such thing");
    // What the poke asks for is the refusal.
    qmp.refresh_poke().await.unwrap();
}

#[tokio::test]
async fn a_mute_guest_times_out_and_its_late_answer_is_not_mistaken() {
    let mut qmp = session(|id, name| (name != "quit").then(|| ok(id - 1) + &ok(id))).await;
    let limit = Duration::from_millis(20);
    let error = qmp.execute_within(qmp::quit {}, limit).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "QEMU did not answer `quit` within 20ms; its main loop stands still or the machine is starved"
    );
    // Now come the answer to `quit` and the one to `cont`.
    qmp.execute(qmp::cont {}).await.unwrap();
}

#[tokio::test]
async fn no_greeting_is_a_timeout() {
    let (ours, _theirs) = duplex(64);
    let error = Qmp::connect_within(ours, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, QmpError::Timeout { during: "greeting", .. }), "{error}");
}

#[tokio::test]
async fn events_are_bounded_oldest_first() {
    let flood = |id| (0..EVENTS_MAX + 3).map(|n| event("STOP", n)).collect::<String>() + &ok(id);
    let mut qmp = session(move |id, _| Some(flood(id))).await;
    qmp.execute(qmp::cont {}).await.unwrap();
    assert_eq!(qmp.events_dropped_total(), 3);
    assert_eq!(qmp.event().await.unwrap().data["n"], 3);
}

#[tokio::test]
async fn rubbish_endless_lines_and_the_end_are_errors() {
    let mut qmp = session(|_, _| Some("rubbish\n".into())).await;
    assert!(matches!(qmp.execute(qmp::cont {}).await, Err(QmpError::Malformed { during: "cont", .. })));
    let mut qmp = session(|_, _| Some("x".repeat(LINE_BYTES_MAX + 2))).await;
    assert!(matches!(qmp.execute(qmp::cont {}).await, Err(QmpError::LineTooLong)));
    let (ours, theirs) = duplex(1 << 16);
    let server = tokio::spawn(qemu(theirs, |_, _| None));
    let mut qmp = Qmp::connect(ours).await.unwrap();
    server.abort();
    assert!(matches!(qmp.event().await, Err(QmpError::Closed { during: "event" } | QmpError::Io { .. })));
}

#[tokio::test]
async fn a_command_cut_while_being_written_makes_the_session_unusable() {
    // Room for the capabilities, not for the command: its writing cannot end.
    let (ours, mut theirs) = duplex(100);
    let peer = tokio::spawn(async move {
        theirs.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
        let mut seen = vec![0; 200];
        let count = theirs.read(&mut seen).await.unwrap();
        assert!(count > 0);
        theirs.write_all(ok(1).as_bytes()).await.unwrap();
        theirs
    });
    let mut qmp = Qmp::connect(ours).await.unwrap();
    let _theirs = peer.await.unwrap();
    let long = qmp::getfd { fdname: "x".repeat(500) };
    let limit = Duration::from_millis(20);
    assert!(matches!(qmp.execute_within(long, limit).await, Err(QmpError::Timeout { .. })));
    assert!(matches!(qmp.execute(qmp::cont {}).await, Err(QmpError::Torn)));
}
