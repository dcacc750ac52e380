//! Rules on single files: length, size, module documentation, machine paths, registries.
use super::Tracked;

/// Lines of a Rust or TypeScript file; a longer one wants a seam.
const LINES_MAX: usize = 600;
/// Bytes of a file; a larger one belongs into a release or a cache.
const BYTES_MAX: u64 = 500_000;

/// Hosts of package registries: which one a machine uses is that machine's business. Split, as this file is checked too.
const REGISTRIES: [&str; 9] = [
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("registry.", "npmjs.org"),
    concat!("deb.", "debian.org"),
    concat!("proxy.", "golang.org"),
    concat!("pypi.", "org"),
    concat!("files.", "pythonhosted.org"),
    concat!("repo1.", "maven.org"),
    concat!("repo.", "maven.apache.org"),
];
const HOMES: [&str; 2] = [concat!("/", "root/"), concat!("/", "home/")];

/// `checkouts`: where checkouts of this machine lie, with a slash at the end.
pub(super) fn complaints(files: &[Tracked], checkouts: &str) -> Vec<String> {
    files.iter().flat_map(|file| of_one(file, checkouts)).collect()
}

fn of_one(file: &Tracked, checkouts: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let path = &file.path;
    if file.bytes > BYTES_MAX {
        complaints.push(format!("{path} has {} bytes; {BYTES_MAX} is the most that may be committed", file.bytes));
    }
    let Some(text) = &file.text else { return complaints };
    let code = has_extension(path, &["rs", "ts", "tsx"]) && !path.contains(".gen.");
    let lines = text.lines().count();
    if code && lines > LINES_MAX {
        complaints.push(format!("{path} has {lines} lines; split it, {LINES_MAX} is the most"));
    }
    // What a module's tests are about is said in the module.
    let module = has_extension(path, &["rs"]) && path.contains("src/") && !path.ends_with("/tests.rs");
    if module && !begins_with_documentation(text) {
        complaints.push(format!("{path} does not begin with `//!`; say what the module owns"));
    }
    // "/" would be in every file, and says nothing of this machine.
    let machine = HOMES.into_iter().chain((checkouts != "/").then_some(checkouts));
    for (number, line) in text.lines().enumerate() {
        for found in machine.clone().filter(|place| says_place(line, place)) {
            complaints.push(format!("{path}:{}: `{found}` is a path of one machine", number + 1));
        }
        for host in REGISTRIES.into_iter().filter(|host| line.contains(host)) {
            complaints
                .push(format!("{path}:{}: names the package registry {host}; leave that to the machine", number + 1));
        }
    }
    complaints
}

/// As an absolute path: `/x/` counts in `"/x/y"`, not in `a/x/y`.
fn says_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '-' | '_' | '}' | ')' | '~' | '/' | '$'))
    })
}

pub(super) fn has_extension(path: &str, extensions: &[&str]) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension))
}

fn begins_with_documentation(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, want: &[&str]) {
        let bytes = u64::try_from(text.len()).unwrap();
        let file = Tracked { path: path.to_owned(), bytes, text: Some(text.to_owned()) };
        let found = complaints(&[file], "/builds/");
        assert_eq!(found.len(), want.len(), "{found:?}");
        for (found, want) in found.iter().zip(want) {
            assert!(found.contains(want), "{found} / {want}");
        }
    }

    #[test]
    fn code_has_a_length_and_the_rest_has_not() {
        let text = |lines: usize| "//! Doc.\n".to_owned() + &"x\n".repeat(lines - 1);
        check("a/src/b.rs", &text(600), &[]);
        check("a/src/b.rs", &text(601), &["a/src/b.rs has 601 lines"]);
        check("ui/a.tsx", &text(601), &["has 601 lines"]);
        check("ui/types.gen.ts", &text(601), &[]);
        check("doc.md", &text(601), &[]);
    }

    #[test]
    fn a_file_has_a_size() {
        let file = |bytes| Tracked { path: "a.bin".into(), bytes, text: None };
        assert!(complaints(&[file(500_000)], "/builds/").is_empty());
        assert!(complaints(&[file(500_001)], "/builds/")[0].contains("a.bin has 500001 bytes"));
    }

    #[test]
    fn modules_say_what_they_own() {
        check("a/src/b.rs", "#![no_std]\n\n//! Doc.\nuse x;\n", &[]);
        check("a/src/b.rs", "use x;\n//! Doc.\n", &["does not begin with `//!`"]);
        check("a/src/b.rs", "", &["does not begin with `//!`"]);
        check("a/tests/b.rs", "use x;\n", &[]);
        check("a/src/b/tests.rs", "use x;\n", &[]);
    }

    #[test]
    fn places_of_one_machine_are_found_and_relative_paths_are_not() {
        check("a.md", "see /builds/loco/a\n", &["a.md:1: `/builds/` is a path"]);
        check("a.sh", &format!("ok\ncd \"{}me\"\n", HOMES[1]), &["a.sh:2"]);
        check("a.md", &format!("{}.cache\n", HOMES[0]), &["a.md:1"]);
        check("a.md", &format!("run/builds/x ./builds/ $HOME{}x ~{}\n", HOMES[1], HOMES[0]), &[]);
    }

    #[test]
    fn registries_are_found() {
        for host in REGISTRIES {
            check("lock.json", &format!("\"https://{host}/x\"\n"), &[host]);
        }
    }
}
