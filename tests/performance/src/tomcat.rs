//! Tomcat 10 from Debian's packages, with the cluster of its own how-to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;
use crate::systems::{Running, free_port, server, wait};

/// Which manager, and how it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// One node without a cluster.
    Alone,
    /// Three, DeltaManager, channelSendOptions 8.
    DeltaAsync,
    /// Three, BackupManager, 6: each change is acknowledged.
    Backup,
}

impl Manager {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alone => "Tomcat, 1 node, no cluster",
            Self::DeltaAsync => "Tomcat DeltaManager async (8), 3 nodes",
            Self::Backup => "Tomcat BackupManager (6), 3 nodes",
        }
    }

    fn nodes(self) -> usize {
        if self == Self::Alone { 1 } else { 3 }
    }
}

/// An installation.
pub(crate) struct Tomcat {
    classes: PathBuf,
    path: String,
}

impl Tomcat {
    /// `None` if there is no Tomcat 10 or no JDK.
    pub(crate) fn find(dir: &Path) -> Option<Self> {
        let mut jars = Vec::new();
        for entry in std::fs::read_dir("/usr/share/java").ok()? {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_string_lossy().into_owned();
            // Those without a version in their names are links to the others.
            let right = name.starts_with("tomcat10-") && name.ends_with(".jar") && !name.contains("-10.");
            if right && !name.contains("i18n") && !name.contains("ant") {
                jars.push(path.to_string_lossy().into_owned());
            }
        }
        let classes = dir.join("classes");
        std::fs::create_dir_all(&classes).ok()?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tomcat/Node.java");
        let mut javac = Command::new("javac");
        javac.args(["-nowarn", "-d"]).arg(&classes).args(["-cp", &jars.join(":")]).arg(source);
        let compiled = javac.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?.success();
        (compiled && !jars.is_empty())
            .then(|| Self { path: format!("{}:{}", classes.display(), jars.join(":")), classes })
    }

    /// One node after the other: those that start at once wait for each other's state for a minute.
    pub(crate) async fn start(&self, manager: Manager) -> Result<Running, Error> {
        let mut running = Running { http: Vec::new(), servers: Vec::new() };
        let group = free_port()?;
        for _ in 0..manager.nodes() {
            self.join(&mut running, manager, group).await?;
        }
        for node in &running.http {
            let others = (manager.nodes() - 1).to_string();
            wait(*node, "/members", |said| said == others).await?;
        }
        Ok(running)
    }

    /// Starts one more node, and waits until it answers. `group`: the multicast port; all nodes on it are one cluster.
    pub(crate) async fn join(
        &self,
        running: &mut Running,
        manager: Manager,
        group: u16,
    ) -> Result<(), Error> {
        let (http, link) = (free_port()?, free_port()?);
        let mut command = Command::new("java");
        command.args(["-Xms512m", "-Xmx2g", "-Djava.net.preferIPv4Stack=true"]);
        command
            .arg(format!("-Dmanager={manager:?}"))
            .arg(format!("-Dhttp={http}"))
            .arg(format!("-Dlink={link}"));
        command.arg(format!("-Dgroup={group}"));
        command.arg(format!("-Dbase={}/{http}", self.classes.display()));
        command.args(["-cp", &self.path, "Node"]).stdout(Stdio::null()).stderr(Stdio::null());
        running.servers.push(server(command)?);
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], http));
        running.http.push(at);
        wait(at, "/count", |_| true).await
    }
}
