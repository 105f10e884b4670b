//! One node of the market: a process of its own, with a home of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Set for a process that is a node, not the market.
pub const NODE_MARK: &str = "PEDLAR_DEVNET_NODE";

/// The passphrase of every node: these wallets hold coins of a chain that ends with the market.
const PASSPHRASE: &str = "devnet";

/// How long a node may take to start, and to end.
const DEADLINE: Duration = Duration::from_secs(60);

/// How to call a node's program on a home.
#[derive(Debug, Clone)]
pub struct Home {
    /// `seller-1` …, `buyer`.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
}

impl Home {
    /// The home of this name in the market's folder.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), dir: dir.join(name) }
    }

    /// The node's program with a verb, its output not yet directed.
    ///
    /// # Errors
    /// When this program can't find itself.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, verb: &[S]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command.env(NODE_MARK, "1").arg("--home").arg(&self.dir).args(verb);
        Ok(command)
    }

    /// Runs a verb and returns the lines it answers, the last of them its summary.
    ///
    /// # Errors
    /// What the verb says on failing.
    pub async fn ask(&self, verb: &[&str]) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        self.follow(verb, |line| lines.push(line)).await?;
        Ok(lines)
    }

    /// Runs a verb and hands on each line as it comes.
    ///
    /// # Errors
    /// What the verb says on failing.
    pub async fn follow(&self, verb: &[&str], mut hear: impl FnMut(Value)) -> Result<()> {
        let mut command = self.command(verb)?;
        command.arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting a verb")?;
        let stdout = child.stdout.take().context("a verb without output")?;
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            hear(serde_json::from_str(&line).with_context(|| format!("a line that is no JSON: {line}"))?);
        }
        let ended = child.wait_with_output().await?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            bail!("`{}` on {} failed: {}", verb.join(" "), self.name, said.trim());
        }
        Ok(())
    }

    /// The first answer of this type.
    ///
    /// # Errors
    /// When the verb fails or does not answer so.
    pub async fn one(&self, verb: &[&str], kind: &str) -> Result<Value> {
        let lines = self.ask(verb).await?;
        let found = lines.into_iter().find(|line| line["type"] == kind);
        found.with_context(|| format!("`{}` on {} answers no `{kind}`", verb.join(" "), self.name))
    }
}

/// A node that is up.
pub struct Node {
    /// How to call it.
    pub home: Home,
    /// Its id.
    pub peer_id: String,
    /// Where it listens.
    pub listen: Vec<String>,
    child: Child,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Makes the home, if there is none yet, and brings the node up.
    ///
    /// # Errors
    /// When it does not come up in time; its log is in its home.
    pub async fn start(home: Home, electrum: &str, network_id: Option<&str>, bootstrap: &[String]) -> Result<Self> {
        let passphrase = home.dir.with_extension("passphrase");
        if !home.dir.exists() {
            write_private(&passphrase, PASSPHRASE)?;
            init(&home, &passphrase, electrum, network_id).await?;
        }
        let passphrase = passphrase.to_string_lossy().into_owned();
        let mut verb = vec!["up", "--json", "--passphrase-file", &passphrase];
        for addr in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
            verb.extend(["--listen", addr]);
        }
        bootstrap.iter().for_each(|addr| verb.extend(["--bootstrap", addr]));
        let log = std::fs::File::create(home.dir.join("log")).context("making a node's log")?;
        let mut command = home.command(&verb)?;
        // In a group of its own, so that Ctrl-C reaches the market alone, which ends its nodes in order.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().context("a node without output")?;
        let mut output = BufReader::new(stdout).lines();
        let line = timeout(DEADLINE, output.next_line()).await.context("a node takes too long to start")??;
        let log = home.dir.join("log");
        let line = line.with_context(|| format!("{} did not start: see {}", home.name, log.display()))?;
        let ready: Value = serde_json::from_str(&line)?;
        ensure!(ready["type"] == "ready", "{} says {line} instead of being ready", home.name);
        let peer_id = ready["peer_id"].as_str().context("no peer id")?.to_owned();
        let listen = ready["listen"].as_array().context("no addresses")?;
        let listen = listen.iter().filter_map(|addr| Some(addr.as_str()?.to_owned())).collect();
        Ok(Self { home, peer_id, listen, child, _output: output })
    }

    /// Where others find it.
    #[must_use]
    pub fn addrs(&self) -> Vec<String> {
        let suffix = format!("/p2p/{}", self.peer_id);
        let whole = |addr: &String| if addr.ends_with(&suffix) { addr.clone() } else { format!("{addr}{suffix}") };
        self.listen.iter().map(whole).collect()
    }

    /// Takes the node down in order.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(mut self) -> Result<()> {
        let asked = self.home.ask(&["down"]).await;
        let ended = timeout(DEADLINE, self.child.wait()).await;
        asked?;
        let status = ended.with_context(|| format!("{} does not go down", self.home.name))??;
        ensure!(status.success(), "{} went down with {status}", self.home.name);
        Ok(())
    }
}

async fn init(home: &Home, passphrase: &Path, electrum: &str, network_id: Option<&str>) -> Result<()> {
    let words = home.dir.with_extension("words");
    let (words, passphrase) = (words.to_string_lossy(), passphrase.to_string_lossy());
    let mut verb = vec!["init", "--network", "regtest", "--electrum", electrum];
    verb.extend(["--words-file", &*words, "--passphrase-file", &*passphrase]);
    if let Some(id) = network_id {
        verb.extend(["--network-id", id]);
    }
    home.ask(&verb).await.map(drop)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
