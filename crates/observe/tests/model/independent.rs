//! Captures of a program that shares nothing with this workspace: `tests/made/README.md`.
use serde_json::Value;

use crate::support::{frames_of, made, observed};

/// What of `want` is not in `got`: objects by their keys, rows of an array by any row that has them.
fn lacks(got: &Value, want: &Value, path: &str) -> Vec<String> {
    match want {
        Value::Object(want) => {
            want.iter().flat_map(|(key, value)| lacks(&got[key], value, &format!("{path}.{key}"))).collect()
        }
        Value::Array(rows) if rows.first().is_some_and(Value::is_object) => {
            let have = got.as_array().map_or(&[][..], Vec::as_slice);
            let found = |row: &Value| have.iter().any(|have| lacks(have, row, path).is_empty());
            rows.iter().filter(|row| !found(row)).map(|row| format!("{path}: nothing like {row}")).collect()
        }
        _ if got == want => Vec::new(),
        _ => vec![format!("{path}: {got} instead of {want}")],
    }
}

#[track_caller]
fn check(capture: &str, facts: &str) {
    let got = serde_json::to_value(observed(&frames_of(&made(&format!("{capture}.pcap"))))).unwrap();
    let mut want: Value = serde_json::from_slice(&std::fs::read(made(&format!("{facts}.json"))).unwrap()).unwrap();
    let facts = want.as_object_mut().unwrap();
    for (count, of) in [("n_sessions", "sessions"), ("n_players", "players")] {
        if let Some(count) = facts.remove(count) {
            assert_eq!(got[of].as_array().unwrap().len(), usize::try_from(count.as_u64().unwrap()).unwrap(), "{of}");
        }
    }
    if let Some(order) = facts.remove("leave_order") {
        let names: Vec<&Value> = got["leave_order"].as_array().unwrap().iter().map(|left| &left["name"]).collect();
        assert_eq!(names, order.as_array().unwrap().iter().collect::<Vec<_>>());
    }
    for secret in facts.remove("absent").iter().flat_map(|secrets| secrets.as_array().unwrap()) {
        assert!(!got.to_string().contains(secret.as_str().unwrap()), "{secret} is in the output");
    }
    let lacking = lacks(&got, &want, capture);
    assert!(lacking.is_empty(), "{lacking:#?}");
}

#[test]
fn several_hosts_over_every_link_type() {
    for capture in ["hosts-eth", "hosts-sll", "hosts-sll2"] {
        check(capture, "hosts");
    }
}

#[test]
fn a_foreign_tunnel_server_and_four_framings() {
    check("ipx-mixed", "ipx-mixed");
}

#[test]
fn genuine_wine_in_the_demo_game() {
    check("wine-demo", "wine-demo");
}

#[test]
fn directplay_4_over_ipx() {
    check("dplay4-ipx", "dplay4-ipx");
}

#[test]
fn an_address_from_dhcp_and_groups_that_are_nobody() {
    check("dhcp-groups", "dhcp-groups");
}

#[test]
fn directplay_8() {
    check("dplay8", "dplay8");
}
