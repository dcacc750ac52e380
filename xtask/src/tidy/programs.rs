//! Programs that tests call: each is of a package that set-up installs for tests. One that a machine has by chance would be missing on
//! the next.
use super::{Tracked, files::has_extension};
use crate::setup;

/// Every Debian has them (Essential: coreutils, dash, mount, util-linux).
const EVERYWHERE: [&str; 6] = ["nsenter", "setpriv", "sh", "sleep", "umount", "unshare"];
/// Tiers with a set-up of their own.
const OTHER_TIERS: [&str; 3] = ["gateway/tests/kubernetes/", "k8s-tests/", "node-agent/tests/genuine/"];
const CALL: &str = concat!("Command::", "new(\"");

pub(super) fn complaints(files: &[Tracked]) -> Vec<String> {
    let tests = files.iter().filter(|file| {
        file.path.contains("/tests/")
            && has_extension(&file.path, &["rs"])
            && !OTHER_TIERS.iter().any(|other| file.path.starts_with(other))
    });
    tests.flat_map(of_one).collect()
}

fn of_one(file: &Tracked) -> Vec<String> {
    let calls = file.text.iter().flat_map(|text| text.split(CALL).skip(1)).filter_map(|rest| rest.split('"').next());
    let unknown = calls.filter(|program| {
        // By its path it is the test's own business.
        !program.contains('/') && !EVERYWHERE.contains(program) && !setup::installs_for_tests(program)
    });
    let say = |program: &str| {
        format!("{} calls `{program}`, which no package of xtask/src/setup/packages.rs brings for tests", file.path)
    };
    unknown.map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, program: &str) -> Tracked {
        let text = format!("let mut command = {CALL}{program}\");\n");
        Tracked { path: path.to_owned(), bytes: 0, text: Some(text) }
    }

    #[test]
    fn a_program_that_set_up_does_not_install_for_tests_is_a_complaint() {
        let found = complaints(&[
            file("crates/x/tests/privileged/a.rs", "vde_switch"),
            file("crates/x/tests/privileged/b.rs", "vde_plug"),
            file("crates/x/tests/privileged/c.rs", "unshare"),
            file("crates/x/tests/privileged/d.rs", "websockify"),
            file("k8s-tests/tests/cluster/e.rs", "buildah"),
            file("crates/x/src/f.rs", "nobody-has-it"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/x/tests/privileged/d.rs calls `websockify`"), "{found:?}");
    }
}
