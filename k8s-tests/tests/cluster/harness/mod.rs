//! What the scenarios share: the release, the wall as its gateway tells it, the test peers, faults, evidence.
pub(crate) mod commands;
mod evidence;
pub(crate) mod faults;
pub(crate) mod peers;
pub(crate) mod prometheus;
mod seeds;
mod wall;
pub(crate) mod watcher;

use std::{panic::AssertUnwindSafe, time::Duration};

use anyhow::{Result, bail};
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};

pub(crate) use wall::{LANS_SEATS, Wall};

/// For what takes a moment: generous, because the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// For what starts pods or waits for Kubernetes' own clocks.
pub(crate) const LONG: Duration = Duration::from_mins(3);
const POLL: Duration = Duration::from_millis(100);

/// Asks until the answer is `Ok`; the last `Err` says what was missing at the deadline.
pub(crate) async fn until<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let (start, limit) = (Instant::now(), seeds::patience(limit, what));
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= limit => bail!("{what}: not within {limit:?}: {error:#}"),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Runs a scenario on a wall that plays, and keeps the evidence if it fails.
pub(crate) async fn scenario(name: &str, body: impl AsyncFnOnce(&Wall) -> Result<()>) {
    scenario_undone(name, body, async |_| Ok(())).await;
}

/// As [`scenario`], for one that leaves what the next could not begin with: `undo` follows it in any case, after the evidence.
pub(crate) async fn scenario_undone(
    name: &str,
    body: impl AsyncFnOnce(&Wall) -> Result<()>,
    undo: impl AsyncFnOnce(&Wall) -> Result<()>,
) {
    let seed = seeds::sown(name).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let wall = match Wall::ready().await {
        Ok(wall) => wall,
        Err(error) => {
            let kept = evidence::collect(name, None).await;
            panic!("{name}: no wall to begin with: {error:#}\nevidence: {kept}");
        }
    };
    if let Some(seed) = seed {
        return seeded(name, seed, &wall, body, undo).await;
    }
    // A panic of an assertion leaves evidence as well.
    let outcome = AssertUnwindSafe(body(&wall)).catch_unwind().await;
    let kept = match outcome {
        Ok(Ok(())) => String::new(),
        _ => evidence::collect(name, Some(&wall)).await,
    };
    let undone = undo(&wall).await;
    match outcome {
        Ok(Ok(())) => undone.unwrap_or_else(|error| panic!("{name}: what it left is not undone: {error:#}")),
        Ok(Err(error)) => panic!("{name}: {error:#}\nevidence: {kept}"),
        Err(panic) => {
            eprintln!("{name}: evidence: {kept}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A scenario on a wall that its seed spoils: it has to go red by that.
async fn seeded(
    name: &str,
    seed: &seeds::Seed,
    wall: &Wall,
    body: impl AsyncFnOnce(&Wall) -> Result<()>,
    undo: impl AsyncFnOnce(&Wall) -> Result<()>,
) {
    let standing = seed.laid(wall).await.unwrap_or_else(|error| panic!("{name}: the seed is not laid: {error:#}"));
    let outcome = body(wall).await;
    let judged = seed.judge(&outcome);
    if judged.is_err() {
        eprintln!("{name}: evidence: {}", evidence::collect(name, Some(wall)).await);
    }
    let uprooted = seed.uprooted(wall, standing).await;
    let undone = undo(wall).await;
    judged.and(uprooted).and(undone).unwrap_or_else(|error| panic!("{name}, seeded: {error:#}"));
}

/// A text that was never used before, for what has to be new each time.
pub(crate) fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("t{}", now.as_millis())
}

/// What a scenario measured, one JSON object a line, for docs/benchmarks: to standard error, and to `LOCO_TEST_MEASURED`.
pub(crate) fn measured(scenario: &str, what: &str, value: impl Into<serde_json::Value>, unit: &str) {
    use std::io::Write as _;
    let row = serde_json::json!({"scenario": scenario, "what": what, "value": value.into(), "unit": unit});
    eprintln!("measured: {row}");
    if let Some(path) = std::env::var_os("LOCO_TEST_MEASURED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{row}")).expect("LOCO_TEST_MEASURED names a file that can be written");
    }
}
