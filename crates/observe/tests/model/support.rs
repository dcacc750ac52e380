//! Captures as frames, and frames through the model.
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    time::Duration,
};

use api::observe::Observed;
use capture::Reader;
use observe::{Frame, Limits, Observer, Point};

#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) at: Duration,
    pub(crate) bytes: Vec<u8>,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../wire/tests/captures").join(name)
}

pub(crate) fn facts(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path(&format!("{name}.json"))).unwrap()).unwrap()
}

/// A file of the captures that were made for this crate.
pub(crate) fn made(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/made").join(name)
}

pub(crate) fn frames(name: &str) -> Vec<Taken> {
    frames_of(&path(&format!("{name}.pcap")))
}

pub(crate) fn frames_of(path: &Path) -> Vec<Taken> {
    let reader = Reader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    reader
        .map(|record| {
            let record = record.unwrap();
            Taken { at: record.at, bytes: record.ethernet().unwrap().bytes.into_owned() }
        })
        .collect()
}

pub(crate) fn feed(observer: &mut Observer, frames: &[Taken]) {
    for frame in frames {
        let wire_len = u32::try_from(frame.bytes.len()).unwrap();
        observer.frame(&Frame { at: frame.at, point: Point::Wire, bytes: &frame.bytes, wire_len });
    }
}

pub(crate) fn observed(frames: &[Taken]) -> Observed {
    let mut observer = Observer::new(Limits::default());
    feed(&mut observer, frames);
    observer.finish();
    observer.observed()
}
