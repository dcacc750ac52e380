//! `/copy FROM TO`: the one program of a data-only image, so that an init container can put its file into a volume on
//! clusters that cannot mount images (docs/images.md). Built without a dynamic loader, as the image has none.
//!
//! **Invariant.** At TO there is the whole file or what was there before, never a part: it is written beside it under
//! another name, flushed, and renamed.
#![forbid(unsafe_code)]

use std::{
    env,
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let [from, to] = args.as_slice() else {
        tell("usage: copy FROM TO   copies the file FROM to TO, or into TO if that is a directory");
        return ExitCode::from(2);
    };
    match copy(Path::new(from), Path::new(to)) {
        Ok((to, bytes)) => {
            tell(&format!("copied {} to {}, {bytes} bytes", from.display(), to.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Where the copy is and how long it is. It may be read by everybody and written by nobody: guests start from it.
fn copy(from: &Path, to: &Path) -> Result<(PathBuf, u64), String> {
    let cannot = |what: &str, path: &Path, error: &io::Error| format!("cannot {what} {}: {error}", path.display());
    let to = if to.is_dir() {
        to.join(from.file_name().ok_or_else(|| format!("{} names no file", from.display()))?)
    } else {
        to.to_owned()
    };
    let mut part = to.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut source = File::open(from).map_err(|error| cannot("read", from, &error))?;
    // One that an earlier try left may not be writable.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot("replace", &part, &error)),
        _ => {}
    }
    let mut write = || {
        let mut target = File::create_new(&part)?;
        let bytes = io::copy(&mut source, &mut target)?;
        // By size and time a guest's overlay knows whether it is the base that it began with.
        target.set_modified(source.metadata()?.modified()?)?;
        target.set_permissions(Permissions::from_mode(0o444))?;
        target.sync_all()?;
        fs::rename(&part, &to)?;
        Ok(bytes)
    };
    let bytes = write().map_err(|error| cannot("write", &to, &error))?;
    Ok((to, bytes))
}

fn tell(text: &str) {
    // Nobody is left to be told if standard error is closed.
    writeln!(io::stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let dir = env::temp_dir().join(format!("loco-copy-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_file_arrives_whole_and_read_only_also_over_an_older_one() {
        let dir = place("whole");
        let from = dir.join("base.img");
        fs::write(&from, b"new").unwrap();
        let volume = dir.join("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("base.img.part"), b"what a killed copy left").unwrap();
        fs::set_permissions(volume.join("base.img.part"), Permissions::from_mode(0o400)).unwrap();
        for to in [volume.clone(), volume.join("base.img"), volume.join("other")] {
            let (at, bytes) = copy(&from, &to).unwrap();
            assert_eq!((fs::read(&at).unwrap(), bytes), (b"new".to_vec(), 3));
            let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
            assert_eq!(time(&at), time(&from));
            assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o444);
        }
        let mut names: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["base.img", "other"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_cannot_be_read_or_written_is_named() {
        let dir = place("refused");
        let error = copy(&dir.join("missing"), &dir).unwrap_err();
        assert!(error.contains("cannot read") && error.contains("missing"), "{error}");
        fs::write(dir.join("a"), b"a").unwrap();
        let error = copy(&dir.join("a"), &dir.join("no/where")).unwrap_err();
        assert!(error.contains("cannot write") && error.contains("no/where"), "{error}");
        fs::remove_dir_all(dir).unwrap();
    }
}
