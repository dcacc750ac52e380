//! Waiting for a value, with a deadline: never for a time.
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// How often the value is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Calls `probe` until it gives a value, at most `within`.
pub async fn eventually<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if start.elapsed() >= within {
            bail!("did not happen within {within:?}");
        }
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_value_or_says_how_long_it_waited() {
        let mut left = 3;
        let countdown = || {
            left -= 1;
            (left == 0).then_some("there")
        };
        assert_eq!(eventually(Duration::from_secs(1), countdown).await.unwrap(), "there");
        let error = eventually(Duration::from_millis(30), || None::<()>).await.unwrap_err();
        assert!(error.to_string().contains("30ms"), "{error}");
    }
}
