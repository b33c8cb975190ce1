//! Every wrong value gets an error that names it and what would do.

use std::time::Duration;

use super::*;

fn secure() -> Config {
    let mut config = Config::new();
    config.secret("0123456789abcdef").unwrap();
    config
}

#[test]
fn file_environment_and_code_set_the_same_options_and_the_last_wins() {
    let mut config = secure();
    config
        .load_toml(
            "name = \"n1\"\nfrequency = \"100ms\"\nseeds = [\"a:1\", \"b:2\"]\ncopies = 3\nmulticast = true",
        )
        .unwrap();
    let said = config.validate().unwrap_err().to_string();
    assert!(said.contains("copies = 3") && said.contains("backup-only"), "{said}");
    config.set("mode", "backup-only").unwrap();
    let vars = [("SESSIONMESH_FREQUENCY", "200ms"), ("HOME", "/root")];
    config.load_vars(vars.into_iter().map(|(key, value)| (key.into(), value.into()))).unwrap();
    assert_eq!(config.membership.frequency, Duration::from_millis(200));
    assert_eq!(config.seeds, ["a:1", "b:2"]);
    assert_eq!((config.copies, config.multicast), (3, Some(true)));
    config.validate().unwrap();
}

/// Found by fuzzing: sums of such durations overflowed.
#[test]
fn a_duration_of_ages_is_refused() {
    let said = secure().set("drop_time", "200000000d").map(drop).unwrap_err().to_string();
    assert!(said.contains("drop_time") && said.contains("ten years"), "{said}");
}

#[test]
fn more_members_than_one_heartbeat_names_take_a_longer_drop_time() {
    let mut config = secure();
    config.set("max_members", "200").unwrap();
    config.validate().unwrap();
    config.set("drop_time", "2s").unwrap();
    let said = config.validate().unwrap_err().to_string();
    assert!(
        said.contains("max_members = 200") && said.contains("drop_time = 2s") && said.contains("3s"),
        "{said}"
    );
}

#[test]
fn defaults_written_out_give_the_defaults() {
    let mut config = secure();
    let before = format!("{config:?}");
    for option in OPTIONS {
        let spoken =
            option.default.contains(['<', ',']) || option.default.contains(" ") || option.default.is_empty();
        if !spoken {
            config.set(option.key, option.default).unwrap_or_else(|error| panic!("{}: {error}", option.key));
        }
    }
    assert_eq!(format!("{config:?}"), before);
    assert_eq!(config.limits, SessionLimits::default());
    assert_eq!((config.outbox_bytes, config.frame_bytes), (32 << 20, 16 << 20));
}

#[test]
fn errors_name_the_option_the_value_and_what_would_do() {
    let cases = [
        ("drop_tme", "3s", "unknown option \"drop_tme\": did you mean \"drop_time\"?"),
        ("frequency", "fast", "frequency = \"fast\" is not usable: use a number with a unit, like 500ms"),
        ("frequency", "0s", "frequency = \"0s\" is not usable: it must be longer than zero"),
        ("copies", "8", "copies = \"8\" is not usable: use a whole number from 1 to 7"),
        ("mode", "backup", "mode = \"backup\" is not usable: use all-peers or backup-only"),
        ("name", "a.b", "name = \"a.b\" is not usable: a node name is 1 to 64"),
        ("seeds", "host", "seeds = \"host\" is not usable: use HOST:PORT"),
        ("advertise", "0.0.0.0", "advertise = \"0.0.0.0\" is not usable: use ADDRESS"),
        ("secret", "short", "the secret has 5 bytes, at least 16 are needed: make one with"),
        ("bind", "4000", "bind = \"4000\" is not usable: use ADDRESS:PORT"),
        ("outbox_bytes", "32MB", "outbox_bytes = \"32MB\" is not usable: use a number of bytes"),
    ];
    for (key, value, expected) in cases {
        let error = Config::new().set(key, value).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn impossible_combinations_are_refused_at_their_limit() {
    let with = |options: &[(&str, &str)]| {
        let mut config = secure();
        for (key, value) in options {
            config.set(key, value).unwrap();
        }
        config.validate().map_err(|error| error.to_string())
    };
    assert_eq!(with(&[("frequency", "1s"), ("drop_time", "3s")]), Ok(()));
    let error = with(&[("frequency", "1001ms"), ("drop_time", "3s")]).unwrap_err();
    assert!(
        error.contains("drop_time = 3s is less than 3 x frequency") && error.contains("3.003s"),
        "{error}"
    );
    assert!(with(&[("address", "10.0.0.1")]).unwrap_err().contains("no multicast address"));
    assert!(with(&[("multicast", "false")]).unwrap_err().contains("name some seeds"));
    assert_eq!(with(&[("session_bytes", "8MiB")]), Ok(()));
    assert!(with(&[("session_bytes", "9MiB")]).unwrap_err().contains("frame_bytes"));
    let small = [("session_bytes", "8KiB"), ("frame_bytes", "256KiB"), ("outbox_bytes", "256KiB")];
    assert_eq!(with(&small), Ok(()));
    let small = [("session_bytes", "8KiB"), ("frame_bytes", "262143"), ("outbox_bytes", "256KiB")];
    assert!(with(&small).unwrap_err().contains("comparing sessions"));
    assert!(with(&[("insecure", "true")]).unwrap_err().contains("drop one of them"));
}

#[test]
fn without_a_secret_a_node_starts_only_if_told_so_and_only_on_loopback() {
    let mut config = Config::new();
    assert_eq!(config.validate(), Err(ConfigError::NoSecret));
    assert!(ConfigError::NoSecret.to_string().contains("openssl rand -hex 32"));
    config.insecure(true);
    assert!(matches!(config.validate(), Err(ConfigError::InsecureBeyondLoopback { .. })));
    config.set("bind", "127.0.0.1:4000").unwrap();
    assert_eq!(config.validate(), Ok(()));
    for (option, far, near) in [
        ("advertise", "10.0.0.1", "127.0.0.2"),
        ("seeds", "127.0.0.1:4000, 10.0.0.1:4000", "127.0.0.1:4000, [::1]:4000, localhost:4000"),
        ("interface", "10.0.0.1", "127.0.0.1"),
    ] {
        config.set(option, far).unwrap();
        let said = config.validate().unwrap_err().to_string();
        assert!(said.contains(&format!("with {option} = \"10.0.0.1")), "{said}");
        config.set(option, near).unwrap();
        assert_eq!(config.validate(), Ok(()));
    }
}

#[test]
fn a_broken_file_does_not_show_the_secret() {
    for text in [
        "name = \"n1\"\nsecret = \"0123456789abcdef",
        "secret = \"0123456789abcdef\"\nsecret = \"0123456789abcdef\"",
    ] {
        let said = Config::new().load_toml(text).unwrap_err().to_string();
        assert!(said.contains("line 2") && !said.contains("0123456789"), "{said}");
    }
}

#[test]
fn a_second_line_is_another_secret_that_is_accepted_too() {
    let (one, other) = ("0123456789abcdef", "fedcba9876543210");
    let mut config = Config::new();
    config.set("secret", &format!(" {one} \n\n{other}\n")).unwrap();
    assert_eq!(config.secret.as_deref(), Some(one.as_bytes()));
    assert_eq!(config.other_secret.as_deref(), Some(other.as_bytes()));
    config.set("secret", other).unwrap();
    assert_eq!((config.secret.as_deref(), config.other_secret.as_deref()), (Some(other.as_bytes()), None));
    let said = config.set("secret", &format!("{one}\n{other}\n{one}")).unwrap_err().to_string();
    assert!(said.contains("more than two lines") && !said.contains(one), "{said}");
    let said = config.set("secret", &format!("{one}\nshort")).unwrap_err().to_string();
    assert!(said.contains("5 bytes") && said.contains("openssl rand"), "{said}");
    for (set, missing) in [
        ("certificate_file", "key_file and authority_file missing"),
        ("authority_file", "certificate_file and key_file missing"),
    ] {
        let mut config = secure();
        config.set(set, "x.pem").unwrap();
        let said = config.validate().unwrap_err().to_string();
        assert!(said.contains(missing), "{said}");
    }
}

#[test]
fn the_secret_never_shows() {
    let config = secure();
    assert!(!format!("{config:?}").contains("0123456789"));
}
