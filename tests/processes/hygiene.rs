//! What OWASP asks of session management, of the program as it is started.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use cluster_tests::{Browser, Signal, eventually, in_both_modes};

use crate::processes;

in_both_modes! {
    no_log_line_and_no_statistics_tell_a_session_or_a_secret
    an_id_that_nobody_issued_is_never_adopted
    a_session_ends_on_the_server_unused_and_used
    the_cookie_is_for_the_browser_alone
}

struct LogFile(PathBuf);

impl Drop for LogFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// How an id might be written: as in the cookie, in hex, as bytes, as numbers.
fn spellings(id: &str) -> Vec<String> {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(id).unwrap();
    assert_eq!(bytes.len(), 16);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let number = u128::from_be_bytes(bytes.clone().try_into().unwrap());
    let swapped = i128::from_le_bytes(bytes.clone().try_into().unwrap());
    let signed = i128::from_be_bytes(bytes.clone().try_into().unwrap());
    let listed = format!("{bytes:?}");
    vec![
        id.into(),
        hex.to_uppercase(),
        hex,
        number.to_string(),
        signed.to_string(),
        swapped.to_string(),
        listed.trim_matches(['[', ']']).into(),
    ]
}

async fn no_log_line_and_no_statistics_tell_a_session_or_a_secret(mode: &str) {
    let path = std::env::temp_dir().join(format!("sessionmesh-trace-{mode}-{}", std::process::id()));
    std::fs::write(&path, "").unwrap();
    let log = LogFile(path);
    let cluster = processes(mode).with("--idle=3s").logging_to(log.0.to_str().unwrap());
    let mut cluster = cluster.start(3).await;
    let (mut browsers, mut ids) = (Vec::new(), Vec::new());
    for number in 0..6 {
        let mut browser = Browser::new();
        let node = |at: usize| &cluster.nodes[(number + at) % 3];
        browser.put(node(0), "k", "v").await;
        ids.extend(browser.id());
        browser.post(node(1), &format!("/login?user=u{number}")).await;
        ids.extend(browser.id());
        browser.put(node(2), "k", "w").await;
        browser.put(node(0), "k", "x").await;
        browsers.push(browser);
    }
    // Ended by request, ended elsewhere under a slow request, unknown, forged, and cut off.
    browsers[0].post(&cluster.nodes[2], "/logout").await;
    let mut late = browsers[1].clone();
    browsers[1].post(&cluster.nodes[0], "/logout").await;
    late.post(&cluster.nodes[1], "/put?k=late&v=1").await;
    let forged = "AAAAAAAAAAAAAAAAAAAAAA";
    for cookie in [forged.to_string(), format!("{forged}~AAAA.n1"), format!("{forged}~!!.n9")] {
        let mut liar = Browser::new();
        liar.cookie = Some(cookie);
        let _ = liar.get(&cluster.nodes[1], "/get?k=k").await;
    }
    cluster.nodes[2].signal(Signal::KILL);
    browsers[2].put(&cluster.nodes[0], "k", "after").await;
    cluster.restart(2).await;
    for browser in &mut browsers[2..] {
        browser.put(&cluster.nodes[2], "k", "after").await;
    }
    eventually("sessions that nobody uses have ended", || async {
        (cluster.nodes[0].counter("expired").await + cluster.nodes[1].counter("expired").await > 0)
            .then_some(())
    })
    .await;

    let mut said = std::fs::read_to_string(&log.0).unwrap();
    for node in &cluster.nodes {
        for path in ["/stats", "/members", "/count"] {
            said.push_str(&Browser::new().get(node, path).await.body);
        }
    }
    assert!(said.len() > 50_000 && said.contains("session#"), "{} bytes were said", said.len());
    assert_eq!(ids.len(), 12);
    for id in &ids {
        for spelling in spellings(id) {
            if let Some(line) = said.lines().find(|line| line.contains(&spelling)) {
                panic!("a session's id as {spelling}: {line}");
            }
        }
    }
    for secret in ["a secret that is long enough", "612073656372657420746861742069"] {
        assert!(!said.contains(secret), "the secret");
    }
}

async fn an_id_that_nobody_issued_is_never_adopted(mode: &str) {
    let cluster = processes(mode).start(2).await;
    let mut fixed = Browser::new();
    fixed.cookie = Some("c2Vzc2lvbi1maXhhdGlvbg".into());
    fixed.post(&cluster.nodes[0], "/put?k=k&v=mine").await;
    let issued = fixed.id().unwrap();
    assert_ne!(issued, "c2Vzc2lvbi1maXhhdGlvbg");
    let mut attacker = Browser::new();
    attacker.cookie = Some("c2Vzc2lvbi1maXhhdGlvbg".into());
    for node in &cluster.nodes {
        assert_ne!(attacker.clone().get(node, "/get?k=k").await.status, 200);
    }
    // One that was issued is worth nothing once its user has logged in.
    let mut planted = Browser::new();
    planted.cookie = Some(issued);
    fixed.post(&cluster.nodes[1], "/login?user=ada").await;
    for node in &cluster.nodes {
        assert_ne!(planted.clone().get(node, "/get?k=k").await.status, 200);
        assert_eq!(fixed.value(node, "k").await.as_deref(), Some("mine"));
    }
}

async fn a_session_ends_on_the_server_unused_and_used(mode: &str) {
    let cluster = processes(mode).with("--idle=1s").with("--set=absolute=4s").start(2).await;
    let (mut used, mut unused) = (Browser::new(), Browser::new());
    let begun = tokio::time::Instant::now();
    used.put(&cluster.nodes[0], "k", "v").await;
    unused.put(&cluster.nodes[0], "k", "v").await;
    let (mut ended, mut at, mut looked) = (None, 0, false);
    while ended.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(8), "a session that is used lasts for ever");
        at += 1;
        let answer = used.get(&cluster.nodes[at % 2], "/get?k=k").await;
        if answer.status != 200 {
            ended = Some(begun.elapsed());
        } else if begun.elapsed() > Duration::from_millis(3_200) && !looked {
            // The one that is used lives.
            looked = true;
            for node in &cluster.nodes {
                assert_ne!(unused.get(node, "/get?k=k").await.status, 200);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ended = ended.unwrap_or_default();
    assert!(ended > Duration::from_millis(3_500), "used all the time, it ended after {ended:?}");
    assert!(looked, "the unused one ended first");
    // Its client still has the cookie; that helps nobody.
    for node in &cluster.nodes {
        assert_ne!(unused.get(node, "/get?k=k").await.status, 200);
        assert_ne!(used.get(node, "/get?k=k").await.status, 200);
    }
}

async fn the_cookie_is_for_the_browser_alone(mode: &str) {
    for (flag, secure) in [("--cookie-secure=true", true), ("--cookie-secure=false", false)] {
        let cluster = processes(mode).with(flag).start(1).await;
        let answer = Browser::new().post(&cluster.nodes[0], "/put?k=k&v=v").await;
        let set = answer.headers.get("set-cookie").unwrap().to_str().unwrap().to_owned();
        assert!(set.starts_with("id=") && set.contains("HttpOnly") && set.contains("Path=/"), "{set}");
        assert!(set.contains("SameSite=Lax") || set.contains("SameSite=Strict"), "{set}");
        assert_eq!(set.contains("; Secure"), secure, "{set}");
        assert!(!set.contains("Domain="), "{set}");
    }
}
