//! tshark, asked for the fields of each packet on its own.
use std::path::Path;
use std::process::Command;

/// Stands between values of one field; no packet's text has it.
const BETWEEN: char = '\u{1f}';

/// For each frame the values of each field, as tshark writes them. Nothing is put together over packets.
pub(crate) fn fields(capture: &Path, fields: &[&str]) -> Vec<Vec<Vec<String>>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(capture).args(["-T", "fields", "-E", "occurrence=a", "-E", "separator=/t"]);
    tshark.arg("-E").arg(format!("aggregator={BETWEEN}"));
    for preference in ["ip.defragment", "tcp.desegment_tcp_streams", "tcp.analyze_sequence_numbers"] {
        tshark.arg("-o").arg(format!("{preference}:FALSE"));
    }
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("tshark is installed by `cargo xtask setup --for test`");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let values = |(cell, field): (&str, &&str)| match cell {
        "" => Vec::new(),
        cell => cell.split(BETWEEN).map(|value| in_bytes(field, value)).collect(),
    };
    text.lines().map(|line| line.split('\t').zip(fields).map(values).collect()).collect()
}

/// Wireshark before 4.2 shows offsets of fragments as they stand in the packet, in units of 8 bytes. Told by no
/// multiple of 8: no frame here has an offset of 64 bytes or a multiple of them.
fn in_bytes(field: &str, value: &str) -> String {
    match value.parse::<u32>() {
        Ok(units) if field == "ip.frag_offset" && units % 8 != 0 => (units * 8).to_string(),
        _ => value.to_owned(),
    }
}
