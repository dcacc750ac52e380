//! Log lines: one per event, to standard error.
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, in the syntax of `tracing_subscriber::EnvFilter` (`debug`, `info,stream=debug`).
const FILTER_VARIABLE: &str = "LOCO_LOG";

/// Starts logging for this process; `component` (such as `node-agent`) is said once, in the first line. The level is
/// `info` unless `LOCO_LOG` says otherwise. A second call changes nothing, so that a test may build several parts.
pub fn init(component: &'static str) {
    let (filter, problem) = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (default_filter(), Some(error.to_string())),
        },
        Err(_) => (default_filter(), None),
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .is_ok();
    if !started {
        return;
    }
    tracing::info!(component, pid = std::process::id(), "logging started");
    if let Some(problem) = problem {
        tracing::warn!(
            variable = FILTER_VARIABLE,
            problem,
            "log filter is not usable; info is used, write for example `info,stream=debug`"
        );
    }
}

/// `webrtc` and its parts log each lost packet as an error; one level of calm keeps the log readable.
fn default_filter() -> EnvFilter {
    EnvFilter::new("info,webrtc=warn,rtc=warn,zbus=warn")
}

/// An error with its causes, on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
