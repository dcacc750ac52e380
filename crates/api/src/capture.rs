//! Captures of an instance's port over HTTP: `GET …/instances/{id}/pcap?last=60s&follow=1`, at the agent and at the gateway.
use std::time::Duration;

/// What a capture is sent as.
pub const PCAPNG: &str = "application/x-pcapng";

/// Reads a span of time such as `60s`, `2m`, `500ms`; a number alone is seconds.
///
/// # Errors
/// Says how to write it.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let span = number.parse::<u32>().ok().and_then(|number| match unit {
        "ms" => Some(Duration::from_millis(number.into())),
        "s" | "" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_secs(u64::from(number) * 60)),
        _ => None,
    });
    let shown: String = text.chars().take(20).collect();
    span.ok_or_else(|| format!("`{shown}` is no span of time; write it like 60s, 2m or 500ms"))
}

/// Reads `last` and `follow` of a query: how far back, where that is said, and whether to go on with what comes.
///
/// # Errors
/// Says what is wrong with which.
pub fn parse_query(last: Option<&str>, follow: Option<&str>) -> Result<(Option<Duration>, bool), String> {
    let follows = match follow {
        None | Some("0" | "false") => false,
        Some("1" | "true" | "") => true,
        Some(_) => return Err("follow is neither 1 nor 0".to_owned()),
    };
    Ok((last.map(parse_span).transpose()?, follows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, want) in [("60s", 60_000), ("60", 60_000), ("2m", 120_000), ("500ms", 500), ("0s", 0)] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for (text, want) in [(None, false), (Some("0"), false), (Some("1"), true), (Some(""), true)] {
            assert_eq!(parse_query(Some("2s"), text), Ok((Some(Duration::from_secs(2)), want)));
        }
        assert!(parse_query(None, Some("2")).is_err() && parse_query(Some("x"), None).is_err());
        for text in ["", "s", "-1s", "1h", "1.5s", "99999999999s", "1 s"] {
            assert!(parse_span(text).unwrap_err().contains("60s"), "{text}");
        }
    }
}
