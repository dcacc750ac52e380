//! Test runners' own closing lines, read and summed.
use std::{fmt, iter::Sum};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            passed: a.passed + b.passed,
            failed: a.failed + b.failed,
            skipped: a.skipped + b.skipped,
        })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

/// Sums the closing lines in a transcript of cargo test, vitest, node's runner, or our own browser checks.
///
/// cargo's "ignored" are not counted as skipped: they are another tier's tests and run there.
pub(crate) fn count(transcript: &str) -> Count {
    transcript.lines().filter_map(|line| line_count(&plain(line))).sum()
}

fn line_count(line: &str) -> Option<Count> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("test result: ") {
        let (_, counts) = rest.split_once(". ")?;
        return Some(Count { passed: number(counts, "passed")?, failed: number(counts, "failed")?, skipped: 0 });
    }
    // vitest: `Tests  3 failed | 12 passed | 1 skipped (16)`
    if let Some(rest) = line.strip_prefix("Tests  ") {
        let (counts, _) = rest.split_once('(')?;
        let number = |word| counts.split('|').find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
        return Some(Count {
            passed: number("passed").unwrap_or(0),
            failed: number("failed").unwrap_or(0),
            skipped: number("skipped").unwrap_or(0),
        });
    }
    // Our own: `12 passed, 0 failed`
    let (passed, failed) = line.split_once(" passed, ")?;
    Some(Count { passed: passed.parse().ok()?, failed: failed.strip_suffix(" failed")?.parse().ok()?, skipped: 0 })
}

/// The number before `word` in `3 passed; 0 failed; …`.
fn number(counts: &str, word: &str) -> Option<u32> {
    counts.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
}

/// Without terminal colours.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // A colour is ESC [ digits m.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(transcript: &str, passed: u32, failed: u32, skipped: u32) {
        assert_eq!(count(transcript), Count { passed, failed, skipped }, "{transcript}");
    }

    #[test]
    fn sums_cargos_lines() {
        check(
            "running 2 tests\ntest a ... ok\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
             test result: FAILED. 3 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n",
            5,
            4,
            0,
        );
    }

    #[test]
    fn sums_vitests_and_our_own_lines_in_colour_too() {
        check(" Test Files  2 passed (2)\n      Tests  12 passed (12)\n", 12, 0, 0);
        check(
            "\u{1b}[2m      Tests \u{1b}[22m \u{1b}[31m3 failed\u{1b}[39m | \u{1b}[32m9 passed\u{1b}[39m | 1 skipped (13)",
            9,
            3,
            1,
        );
        check("ok      tile\n7 passed, 2 failed\n", 7, 2, 0);
    }

    #[test]
    fn prose_counts_nothing() {
        check("the test result: none\nTests  of things\nhe passed, she failed\n", 0, 0, 0);
        assert_eq!(Count { passed: 3, failed: 0, skipped: 0 }.to_string(), "3 passed, 0 failed");
        assert_eq!(Count { passed: 3, failed: 1, skipped: 2 }.to_string(), "3 passed, 1 failed, 2 skipped");
    }
}
