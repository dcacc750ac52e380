//! Flags as people give them, and files as they leave them.
use super::*;

/// A folder with a good token and a good snapshot.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("loco-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("snapshot.json"), "{}").unwrap();
        let place = Self(folder);
        place.token("s3cret\n", 0o600);
        place
    }

    fn token(&self, text: &str, mode: u32) {
        let path = self.0.join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// All flags, with `change` laid over them: a flag and its value, or `None` to leave it out.
    fn args(&self, change: &[(&str, Option<&str>)]) -> Result<Config, (u8, String)> {
        let path = |name: &str| self.0.join(name).display().to_string();
        let mut flags = vec![
            ("--node", "node-a".to_owned()),
            ("--snapshot", path("snapshot.json")),
            ("--run-dir", "/run/loco-test".to_owned()),
            ("--listen", "127.0.0.1:14780".to_owned()),
            ("--media-ip", "127.0.0.1".to_owned()),
            ("--token-file", path("token")),
        ];
        for (flag, value) in change {
            flags.retain(|(name, _)| name != flag);
            if let Some(value) = value {
                flags.push((flag, (*value).to_owned()));
            }
        }
        let words = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        let args = Args::try_parse_from(std::iter::once("node-agent".to_owned()).chain(words))
            .map_err(|error| (u8::try_from(error.exit_code()).unwrap(), error.to_string()))?;
        Config::load(args).map_err(|error| (error.exit_code(), error.to_string()))
    }

    #[track_caller]
    fn refuses(&self, change: &[(&str, Option<&str>)], code: u8, words: &[&str]) {
        let (got, text) = self.args(change).unwrap_err();
        assert_eq!(got, code, "{text}");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn good_flags_make_a_config() {
    let config = Place::new("good").args(&[("--media-ports", Some("20000-20003"))]).unwrap();
    assert_eq!(config.token, Token::new("s3cret"));
    assert_eq!(config.media_ports, 20000..=20003);
    assert_eq!(config.vxlan_port, 14789);
    assert_eq!(config.capture_bytes, 16 << 20);
    assert!(!format!("{config:?}").contains("s3cret"), "the token must not reach a log");
}

#[test]
fn wrong_usage_is_named_by_flag_with_exit_code_2() {
    let place = Place::new("usage");
    for flag in ["--node", "--snapshot", "--run-dir", "--listen", "--media-ip", "--token-file"] {
        place.refuses(&[(flag, None)], 2, &[flag]);
    }
    place.refuses(&[("--node", Some("Node A"))], 2, &["--node", "a-z, 0-9"]);
    place.refuses(&[("--listen", Some("14780"))], 2, &["--listen"]);
    place.refuses(&[("--media-ip", Some("0.0.0.0"))], 2, &["--media-ip", "this node's own"]);
    place.refuses(&[("--run-dir", Some("run/loco"))], 2, &["--run-dir", "absolute"]);
    place.refuses(&[("--vxlan-port", Some("0"))], 2, &["--vxlan-port"]);
    for ports in ["14900", "14999-14900", "80-90", "1-x", "65000-65536"] {
        place.refuses(&[("--media-ports", Some(ports))], 2, &["--media-ports", "FIRST-LAST"]);
    }
    place.refuses(&[("--no-such-flag", Some("x"))], 2, &["--no-such-flag"]);
}

#[test]
fn the_ipx_relay_is_off_unless_address_and_lan_are_given() {
    let place = Place::new("ipx");
    assert_eq!(place.args(&[]).unwrap().ipx_relay, None);
    let on = [("--ipx-relay", Some("10.0.0.1:213")), ("--ipx-relay-lan", Some("party"))];
    let relay = IpxRelay {
        address: "10.0.0.1:213".parse().unwrap(),
        lan: "party".parse().unwrap(),
        framing: ipxnet::Framing::Auto,
        netbios: false,
    };
    assert_eq!(place.args(&on).unwrap().ipx_relay, Some(relay));
    for alone in on {
        place.refuses(&[alone], 2, &["--ipx-relay"]);
    }
    place.refuses(&[on[0], on[1], ("--ipx-relay-framing", Some("802.3"))], 2, &["--ipx-relay-framing", "raw_802_3"]);
    place.refuses(&[("--ipx-relay", Some("[::1]:213")), on[1]], 2, &["--ipx-relay"]);
}

#[test]
fn a_missing_or_unsafe_file_is_a_failed_start_with_its_remedy() {
    let place = Place::new("files");
    place.refuses(&[("--snapshot", Some("/nowhere/snapshot.json"))], 1, &["/nowhere/snapshot.json", "`loco up`"]);
    place.refuses(&[("--kvm-probe", Some("/nowhere/kernel"))], 1, &["--kvm-probe", "without KVM"]);
    place.refuses(&[("--token-file", Some("/nowhere/token"))], 1, &["/nowhere/token", "openssl"]);
    place.refuses(&[("--token-file", Some("/"))], 1, &["is not a token"]);
    place.token("s3cret", 0o644);
    place.refuses(&[], 1, &["mode 0644", "chmod 600"]);
    place.token(" \n", 0o600);
    place.refuses(&[], 1, &["is empty"]);
    place.token("a b", 0o600);
    place.refuses(&[], 1, &["blanks"]);
}

#[test]
fn uninstall_needs_only_the_run_directory() {
    let args = Args::try_parse_from(["node-agent", "uninstall", "--run-dir", "/run/x"]).unwrap();
    assert!(matches!(args.command, Some(Command::Uninstall { run_dir }) if run_dir == Path::new("/run/x")));
    assert!(checked_run_dir("/".into()).is_err());
}

#[test]
fn the_cluster_is_a_source_and_offers_seats_unless_told_otherwise() {
    let place = Place::new("cluster");
    std::fs::write(place.0.join("lans.json"), "{}").unwrap();
    let lans = place.0.join("lans.json").display().to_string();
    let args = |more: &[&str]| {
        let mut words =
            vec!["node-agent", "--node", "a", "--run-dir", "/run/loco", "--listen", "127.0.0.1:1", "--media-ip"];
        let token = place.0.join("token").display().to_string();
        words.extend(["127.0.0.1", "--token-file", &token]);
        words.extend(more);
        Config::load(Args::try_parse_from(words).map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    };
    let config = args(&["--kubernetes", "--lans", &lans, "--namespace", "party"]).unwrap();
    assert!(matches!(&config.source, Source::Kubernetes(args) if args.namespace.as_deref() == Some("party")));
    let want = SeatsOffered { slots: 9, kubelet_dir: "/var/lib/kubelet".into(), namespace: Some("party".into()) };
    assert_eq!(config.seats, Some(want));
    assert_eq!(args(&["--kubernetes", "--lans", &lans, "--slots", "0"]).unwrap().seats, None);
    for (flags, word) in [
        (vec!["--kubernetes", "--lans", "/nowhere/lans.json"], "loco-lans"),
        (vec!["--kubernetes", "--lans", &lans, "--slots", "9999"], "--slots"),
        (vec!["--kubernetes", "--lans", &lans, "--kubelet-dir", "kubelet"], "--kubelet-dir"),
    ] {
        let error = args(&flags).unwrap_err();
        assert!(error.contains(word), "{flags:?}: {error}");
    }

    // A snapshot file beside a kubelet: the static way in a cluster.
    assert_eq!(place.args(&[]).unwrap().seats, None);
    place.refuses(&[("--slots", Some("3"))], 2, &["--namespace"]);
    let config = place.args(&[("--slots", Some("3")), ("--namespace", Some("party"))]).unwrap();
    assert_eq!(config.seats.map(|seats| seats.slots), Some(3));
}
