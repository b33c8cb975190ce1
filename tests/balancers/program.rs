//! A balancer's own program, run with a file of `deploy/` in which nothing but addresses is replaced.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use cluster_tests::{Processes, Signal, eventually, has};
use rustix::process::{Pid, kill_process};
use tokio::process::{Child, Command};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    HaProxy,
    Apache,
    Envoy,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Apache => "apache2",
            Self::Envoy => "envoy",
        }
    }

    /// Why it can't be run here, if so.
    pub(crate) fn missing(self) -> Option<String> {
        let program = self.program();
        (!has(program)).then(|| format!("{program} is not installed"))
    }

    /// How its file says where it listens, and where a node is.
    fn listens(self, port: u16) -> (&'static str, String) {
        match self {
            Self::Nginx => ("listen 8080;", format!("listen 127.0.0.1:{port};")),
            Self::HaProxy => ("bind :8080", format!("bind 127.0.0.1:{port}")),
            Self::Apache => ("Listen 8080", format!("Listen 127.0.0.1:{port}")),
            Self::Envoy => {
                ("address: 0.0.0.0, port_value: 8080", format!("address: 127.0.0.1, port_value: {port}"))
            }
        }
    }
}

/// It runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    child: Child,
    kind: Kind,
    dir: PathBuf,
    pub(crate) url: String,
}

impl Balancer {
    /// Starts it before the first three nodes of a cluster, with a file of `deploy/`.
    pub(crate) async fn start(kind: Kind, file: &str, cluster: &Processes) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("sessionmesh-balancer-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        // None of them says which port it got: it takes one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
        let mut config = fs::read_to_string(deployed).unwrap();
        let mut replace = |from: &str, to: &str| {
            assert!(config.contains(from), "{file} has no {from}");
            config = config.replace(from, to);
        };
        let (from, to) = kind.listens(port);
        replace(from, &to);
        for (index, node) in cluster.nodes.iter().take(3).enumerate() {
            let number = 11 + index;
            let (ip, port) = node.http().split_once(':').unwrap();
            if kind == Kind::Envoy {
                replace(
                    &format!("address: 10.77.0.{number}, port_value: 8080"),
                    &format!("address: {ip}, port_value: {port}"),
                );
            } else {
                replace(&format!("10.77.0.{number}:8080"), node.http());
            }
        }
        if kind == Kind::Nginx {
            replace("pid /run/nginx.pid", &format!("pid {}/nginx.pid", dir.display()));
        }
        let path = dir.join(Path::new(file).file_name().unwrap());
        fs::write(&path, config).unwrap();
        let mut command = command(kind, &dir, &path);
        if std::env::var_os("TEST_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let balancer = Self { child, kind, dir, url: format!("http://127.0.0.1:{port}") };
        eventually(&format!("{kind:?} serves"), || async {
            let answer = reqwest::get(format!("{}/readyz", balancer.url)).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        balancer
    }
}

fn command(kind: Kind, dir: &Path, config: &Path) -> Command {
    let mut command = Command::new(kind.program());
    match kind {
        Kind::Nginx => {
            command.arg("-c").arg(config).arg("-p").arg(dir).args(["-g", "daemon off;"]);
        }
        Kind::HaProxy => {
            command.arg("-db").arg("-f").arg(config);
        }
        Kind::Apache => {
            // What Debian's own configuration does before it includes a site's.
            let mut whole = format!(
                "ServerRoot {dir}\nServerName localhost\nPidFile {dir}/pid\nErrorLog /dev/stderr\nLogLevel error\n\
                 DefaultRuntimeDir {dir}\nMutex file:{dir}\n",
                dir = dir.display()
            );
            for module in [
                "mpm_event",
                "authz_core",
                "headers",
                "slotmem_shm",
                "proxy",
                "proxy_http",
                "proxy_balancer",
                "proxy_hcheck",
                "lbmethod_byrequests",
            ] {
                let file = format!("/usr/lib/apache2/modules/mod_{module}.so");
                whole.push_str(&format!("LoadModule {module}_module {file}\n"));
            }
            if rustix::process::geteuid().is_root() {
                whole.push_str("User www-data\nGroup www-data\n");
            }
            whole.push_str(&format!("Include {}\n", config.display()));
            let file = dir.join("httpd.conf");
            fs::write(&file, whole).unwrap();
            command.args(["-D", "FOREGROUND", "-f"]).arg(file);
        }
        Kind::Envoy => {
            command.arg("-c").arg(config).args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "error",
            ]);
        }
    }
    command
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Asked, not killed: its workers go with it.
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let signal = if self.kind == Kind::HaProxy { Signal::USR1 } else { Signal::TERM };
            let _ = kill_process(pid, signal);
            for _ in 0..200 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
