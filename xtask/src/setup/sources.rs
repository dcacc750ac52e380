//! apt's sources: is bookworm-backports among them, and if not, what would it be here. Pure: texts in, text out.
//!
//! Archive and key come from the machine's own source of bookworm, as it may use a mirror.

pub(super) const BACKPORTS: &str = "bookworm-backports";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Backports {
    Present,
    /// Text of a file for sources.list.d.
    Add(String),
    /// No source of bookworm to derive it from.
    NoArchive,
}

#[derive(Debug, Default)]
struct Source {
    uri: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

/// `texts`: the files of sources.list and sources.list.d, in either format.
pub(super) fn backports(texts: &[String]) -> Backports {
    let sources: Vec<Source> =
        texts.iter().flat_map(|text| deb822(text).chain(one_line(text)).collect::<Vec<_>>()).collect();
    let has = |source: &&Source, suite: &str| source.suites.iter().any(|found| found == suite);
    if sources.iter().any(|source| has(&source, BACKPORTS)) {
        return Backports::Present;
    }
    let Some(bookworm) = sources.iter().find(|source| has(source, "bookworm")) else { return Backports::NoArchive };
    let signed_by = bookworm.signed_by.as_ref().map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
    Backports::Add(format!("Types: deb\nURIs: {}\nSuites: {BACKPORTS}\nComponents: main\n{signed_by}", bookworm.uri))
}

/// Where Debian itself comes from on this machine: any mirror of bookworm has all its releases.
pub(super) fn archive(texts: &[String]) -> Option<String> {
    let sources = texts.iter().flat_map(|text| deb822(text).chain(one_line(text)).collect::<Vec<_>>());
    sources.into_iter().find(|source| source.suites.iter().any(|suite| suite == "bookworm")).map(|source| source.uri)
}

/// Stanzas of `Key: value` lines (sources.list(5)); a key that is written out in the file is not carried over.
fn deb822(text: &str) -> impl Iterator<Item = Source> {
    text.split("\n\n").filter_map(|stanza| {
        let value = |key: &str| {
            stanza.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
        };
        if value("Enabled").is_some_and(|enabled| enabled == "no") || !value("Types")?.split(' ').any(|t| t == "deb") {
            return None;
        }
        Some(Source {
            uri: value("URIs")?.split(' ').next()?.to_owned(),
            suites: value("Suites")?.split_whitespace().map(str::to_owned).collect(),
            signed_by: value("Signed-By").filter(|key| key.starts_with('/')),
        })
    })
}

/// `deb [options] URI SUITE COMPONENT…`
fn one_line(text: &str) -> impl Iterator<Item = Source> {
    text.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(bracket) => bracket.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        Some(Source {
            uri: words.next()?.to_owned(),
            suites: vec![words.next()?.to_owned()],
            signed_by: options
                .split_whitespace()
                .find_map(|option| option.strip_prefix("signed-by="))
                .map(str::to_owned),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: &[&str], want: &Backports) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(backports(&texts), *want, "{texts:?}");
    }

    fn add(text: &str) -> Backports {
        Backports::Add(text.to_owned())
    }

    #[test]
    fn derives_it_from_the_machines_own_source() {
        let modern = "Types: deb\n# a mirror\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\nURIs: http://mirror.example/sec\n\
                      Suites: bookworm-security\n";
        let want = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n\
                    Signed-By: /usr/share/keyrings/k.gpg\n";
        check(&["deb http://other.example bookworm-security main\n", modern], &add(want));
        let old = "# old\ndeb [arch=amd64 signed-by=/k.gpg] http://m.example/d bookworm main contrib\n";
        check(
            &[old],
            &add(
                "Types: deb\nURIs: http://m.example/d\nSuites: bookworm-backports\nComponents: main\nSigned-By: /k.gpg\n",
            ),
        );
        check(
            &["deb http://m.example/d bookworm main\n"],
            &add("Types: deb\nURIs: http://m.example/d\nSuites: bookworm-backports\nComponents: main\n"),
        );
    }

    #[test]
    fn sees_that_it_is_there_or_that_there_is_nothing_to_derive_it_from() {
        check(&["Types: deb\nURIs: u\nSuites: bookworm-backports\n"], &Backports::Present);
        check(&["deb u bookworm main\ndeb u bookworm-backports main\n"], &Backports::Present);
        check(&["Enabled: no\nTypes: deb\nURIs: u\nSuites: bookworm-backports\n"], &Backports::NoArchive);
        check(
            &["# deb u bookworm main\ndeb-src u bookworm main\n", "Types: deb-src\nURIs: u\nSuites: bookworm\n"],
            &Backports::NoArchive,
        );
        check(&[], &Backports::NoArchive);
    }

    #[test]
    fn the_archive_is_the_one_of_bookworm_itself() {
        let texts = ["deb http://m.example/sec bookworm-security main\n", "deb http://m.example/d bookworm main\n"];
        assert_eq!(archive(&texts.map(str::to_owned)).as_deref(), Some("http://m.example/d"));
        assert_eq!(archive(&["deb http://m.example/d trixie main\n".to_owned()]), None);
    }
}
