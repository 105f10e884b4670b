//! One node of the market: a process of its own, with a home of its own.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Set for a process that is a node, not the market.
pub const NODE_MARK: &str = "PEDLAR_DEVNET_NODE";

/// The passphrase of every node: these wallets hold coins of a chain that ends with the market.
const PASSPHRASE: &str = "devnet";

/// Files beside and in a home are for their owner alone.
const PRIVATE: u32 = 0o600;

/// How long a node may take to start, and to end.
const DEADLINE: Duration = Duration::from_secs(60);

/// How to call a node's program on a home.
#[derive(Debug, Clone)]
pub struct Home {
    /// `seller-1` …, `buyer`.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    program: PathBuf,
}

impl Home {
    /// The home of this name in the market's folder, for a program that runs [`pedlar_node::main`] under [`NODE_MARK`].
    #[must_use]
    pub fn new(program: &Path, dir: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), dir: dir.join(name), program: program.to_owned() }
    }

    /// The node's program with a verb, its output not yet directed.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, verb: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.env(NODE_MARK, "1").arg("--home").arg(&self.dir).args(verb);
        command
    }

    /// Makes the home, with new words and a passphrase that is in a file beside it.
    ///
    /// # Errors
    /// What the verb says on failing.
    pub async fn init(&self, electrum: &str, network_id: Option<&str>) -> Result<()> {
        let passphrase = self.passphrase_file();
        write_private(&passphrase, PASSPHRASE)?;
        let words = self.dir.with_extension("words");
        let (words, passphrase) = (words.to_string_lossy(), passphrase.to_string_lossy());
        let mut verb = vec!["init", "--network", "regtest", "--electrum", electrum];
        verb.extend(["--words-file", &*words, "--passphrase-file", &*passphrase]);
        if let Some(id) = network_id {
            verb.extend(["--network-id", id]);
        }
        self.ask(&verb).await.map(drop)
    }

    /// Starts a verb; it is killed when it is dropped.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn begin<S: AsRef<OsStr>>(&self, verb: &[S]) -> Result<Running> {
        let mut command = self.command(verb);
        command.arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting a verb")?;
        let stdout = child.stdout.take().context("a verb without output")?;
        Ok(Running { child, lines: BufReader::new(stdout).lines() })
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
        let mut running = self.begin(verb)?;
        while let Some(line) = running.next().await? {
            hear(line);
        }
        let ended = running.end().await?;
        if !ended.status.success() {
            bail!("`{}` on {} failed: {}", verb.join(" "), self.name, ended.stderr.trim());
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

    /// The passphrase of the home that [`Home::init`] made.
    #[must_use]
    pub fn passphrase_file(&self) -> PathBuf {
        self.dir.with_extension("passphrase")
    }

    /// What the node logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// A verb under way.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// The next line of its answer; nothing when it has ended.
    ///
    /// # Errors
    /// When what it says is no JSON.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        let Some(line) = self.lines.next_line().await? else {
            return Ok(None);
        };
        serde_json::from_str(&line).map(Some).with_context(|| format!("a line that is no JSON: {line}"))
    }

    /// Interrupts it, as Ctrl-C does.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn interrupt(&self) -> Result<()> {
        signal(&self.child, Signal::INT)
    }

    /// Waits for its end, whatever lines are left.
    ///
    /// # Errors
    /// When its output can't be read.
    pub async fn end(mut self) -> Result<Ended> {
        while self.next().await?.is_some() {}
        let output = self.child.wait_with_output().await?;
        Ok(Ended { status: output.status, stderr: String::from_utf8_lossy(&output.stderr).into_owned() })
    }
}

/// How a verb ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or the signal that killed it.
    pub status: ExitStatus,
    /// The error, as a line of JSON, where it failed.
    pub stderr: String,
}

/// A node that is up.
pub struct Node {
    /// How to call it.
    pub home: Home,
    /// Its id.
    pub peer_id: String,
    /// Where it listens, each address ready to be bootstrapped from.
    pub listen: Vec<String>,
    child: Child,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Brings a node up in a home that was made, with a TCP and a QUIC listener on this port of loopback, 0 for any.
    ///
    /// # Errors
    /// When it does not come up in time; its log is in its home.
    pub async fn start(home: Home, port: u16, bootstrap: &[String]) -> Result<Self> {
        let passphrase = home.passphrase_file().to_string_lossy().into_owned();
        let mut verb = vec!["up", "--json", "--passphrase-file", &passphrase];
        let listen = [format!("/ip4/127.0.0.1/tcp/{port}"), format!("/ip4/127.0.0.1/udp/{port}/quic-v1")];
        listen.iter().for_each(|addr| verb.extend(["--listen", addr]));
        bootstrap.iter().for_each(|addr| verb.extend(["--bootstrap", addr]));
        let log = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(home.log());
        let mut command = home.command(&verb);
        // In a group of its own, so that Ctrl-C reaches the market alone, which ends its nodes in order.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(log.context("making a node's log")?).spawn()?;
        let stdout = child.stdout.take().context("a node without output")?;
        let mut output = BufReader::new(stdout).lines();
        let line = timeout(DEADLINE, output.next_line()).await.context("a node takes too long to start")??;
        let line = line.with_context(|| format!("{} did not start: see {}", home.name, home.log().display()))?;
        let ready: Value = serde_json::from_str(&line)?;
        ensure!(ready["type"] == "ready", "{} says {line} instead of being ready", home.name);
        let peer_id = ready["peer_id"].as_str().context("no peer id")?.to_owned();
        let listen = ready["listen"].as_array().context("no addresses")?;
        let listen = listen.iter().filter_map(|addr| Some(addr.as_str()?.to_owned())).collect();
        Ok(Self { home, peer_id, listen, child, _output: output })
    }

    /// Takes the node down in order.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn stop(mut self) -> Result<()> {
        // A person may have taken it down before, and brought it up again elsewhere.
        let is_down = self.child.try_wait()?.is_some();
        let asked = self.home.ask(&["down"]).await;
        let ended = timeout(DEADLINE, self.child.wait()).await;
        if !is_down {
            asked?;
        }
        let status = ended.with_context(|| format!("{} does not go down", self.home.name))??;
        ensure!(status.success(), "{} went down with {status}", self.home.name);
        Ok(())
    }

    /// Ends it as the system does when it shuts down: by SIGTERM.
    ///
    /// # Errors
    /// When it does not end, or not in order.
    pub async fn terminate(mut self) -> Result<()> {
        signal(&self.child, Signal::TERM).with_context(|| format!("{} can't be told to end", self.home.name))?;
        let ended = timeout(DEADLINE, self.child.wait()).await;
        let status = ended.with_context(|| format!("{} does not end", self.home.name))??;
        ensure!(status.success(), "{} ended with {status}", self.home.name);
        Ok(())
    }

    /// Kills it as a power cut would: nothing that it still wanted to write or say gets out.
    ///
    /// # Errors
    /// When it had ended before.
    pub async fn kill(mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "{} had ended before it was killed", self.home.name);
        Ok(self.child.kill().await?)
    }

    /// Waits until it has ended, whoever ended it.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ended(mut self) -> Result<ExitStatus> {
        let ended = timeout(DEADLINE, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} goes on", self.home.name))??)
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).context("it had ended before")?;
    Ok(kill_process(pid, signal)?)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(path)?;
    file.write_all(text.as_bytes())
}
