//! A server between a wallet and an honest one, that can be told to lie.
//!
//! It reads requests and replies line by line, passes them on, and while it lies changes what its [`Lie`] says. It
//! counts the lies that it told, so that a story can show that there were any.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Transaction;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Between two bytes of a server that drips: far less than a call's time, so that only the whole is late.
const DRIP: Duration = Duration::from_millis(250);
/// More than any line that is read.
const HUGE: usize = 9 << 20;

/// What is wrong with what the wallet is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lie {
    /// Nothing.
    None,
    /// Replies never come.
    Stall,
    /// Replies come byte by byte.
    Drip,
    /// Replies are no JSON.
    Garbage,
    /// Replies have no end.
    Huge,
    /// The server stays where it was when it began to lie.
    Frozen,
    /// Transactions are taken and go nowhere.
    Swallow,
    /// The fee that is asked for, in BTC per 1,000 vB.
    Fee(f64),
    /// Headers come from nowhere.
    Headers,
    /// Every request is refused, in the words of [`LyingElectrum::say`].
    Words,
    /// The newest block names a time that is so many seconds later.
    Later(u32),
}

/// The server in between.
pub struct LyingElectrum {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    lie: Mutex<Lie>,
    told: AtomicU64,
    words: Mutex<Vec<u8>>,
    /// The last honest reply to each request: what a frozen server says.
    replies: Mutex<HashMap<String, Value>>,
}

impl LyingElectrum {
    /// Stands before the server at `honest`.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn before(honest: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (lie, words) = (Mutex::new(Lie::None), Mutex::default());
        let shared = Arc::new(Shared { lie, told: AtomicU64::new(0), words, replies: Mutex::default() });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(client, honest, shared.clone()));
                }
            }
        });
        Self { addr, shared, task }
    }

    /// What a wallet's configuration calls it.
    pub fn url(&self) -> String {
        format!("tcp://{}", self.addr)
    }

    /// Lies like this from now on.
    pub fn lie(&self, lie: Lie) {
        *self.shared.lie.lock().expect("no panic") = lie;
    }

    /// Refuses every request from now on, with these bytes as the JSON string of its error's text.
    pub fn say(&self, words: &[u8]) {
        *self.shared.words.lock().expect("no panic") = words.to_owned();
        self.lie(Lie::Words);
    }

    /// How many lies it told.
    pub fn told(&self) -> u64 {
        self.shared.told.load(Ordering::Relaxed)
    }
}

impl Drop for LyingElectrum {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request that was passed on.
struct Asked {
    method: String,
    /// Method and parameters.
    what: String,
}

async fn serve(client: TcpStream, honest: SocketAddr, shared: Arc<Shared>) -> Option<()> {
    let server = TcpStream::connect(honest).await.ok()?;
    let (from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (asked, to_client) = (Arc::new(Mutex::default()), Arc::new(tokio::sync::Mutex::new(to_client)));
    let replies = tokio::spawn(answer(BufReader::new(from_server), to_client.clone(), asked.clone(), shared.clone()));
    let mut requests = BufReader::new(from_client).lines();
    while let Ok(Some(line)) = requests.next_line().await {
        let request: Value = serde_json::from_str(&line).ok()?;
        let method = request["method"].as_str()?.to_owned();
        if shared.is(Lie::Swallow) && method.ends_with("transaction.broadcast") {
            let tx: Transaction = deserialize_hex(request["params"][0].as_str()?).ok()?;
            let reply = json!({ "jsonrpc": "2.0", "id": request["id"], "result": tx.compute_txid() });
            shared.count();
            to_client.lock().await.write_all(format!("{reply}\n").as_bytes()).await.ok()?;
            continue;
        }
        let what = format!("{method} {}", request["params"]);
        remember(&asked, request["id"].as_u64()?, Asked { method, what });
        to_server.write_all(format!("{line}\n").as_bytes()).await.ok()?;
    }
    replies.abort();
    Some(())
}

fn remember(asked: &Mutex<HashMap<u64, Asked>>, id: u64, request: Asked) {
    asked.lock().expect("no panic").insert(id, request);
}

async fn answer(
    from_server: impl tokio::io::AsyncBufRead + Unpin,
    to_client: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    asked: Arc<Mutex<HashMap<u64, Asked>>>,
    shared: Arc<Shared>,
) -> Option<()> {
    let mut lines = from_server.lines();
    // Ends with the server, and the client's side of it then ends too.
    while let Ok(Some(line)) = lines.next_line().await {
        let reply: Value = serde_json::from_str(&line).ok()?;
        let request = reply["id"].as_u64().and_then(|id| asked.lock().expect("no panic").remove(&id));
        let lie = *shared.lie.lock().expect("no panic");
        let mut to_client = to_client.lock().await;
        match lie {
            Lie::Stall => shared.count(),
            Lie::Drip => {
                shared.count();
                for byte in line.bytes() {
                    to_client.write_all(&[byte]).await.ok()?;
                    tokio::time::sleep(DRIP).await;
                }
            }
            Lie::Garbage => {
                shared.count();
                to_client.write_all(b"{\x1b[31m<script>\n").await.ok()?;
            }
            Lie::Huge => {
                shared.count();
                to_client.write_all(&vec![b'{'; HUGE]).await.ok()?;
            }
            Lie::Words => {
                shared.count();
                let words = shared.words.lock().expect("no panic").clone();
                let begin = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{{\"code\":1,\"message\":", reply["id"]);
                to_client.write_all(&[begin.as_bytes(), &words, b"}}\n"].concat()).await.ok()?;
            }
            Lie::None | Lie::Frozen | Lie::Swallow | Lie::Fee(_) | Lie::Headers | Lie::Later(_) => {
                let Some(changed) = shared.changed(lie, request, reply) else { continue };
                to_client.write_all(format!("{changed}\n").as_bytes()).await.ok()?;
            }
        }
    }
    to_client.lock().await.shutdown().await.ok()
}

impl Shared {
    fn is(&self, lie: Lie) -> bool {
        *self.lie.lock().expect("no panic") == lie
    }

    fn count(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// The reply that the wallet gets; `None` where it gets none.
    fn changed(&self, lie: Lie, request: Option<Asked>, mut reply: Value) -> Option<Value> {
        let Some(Asked { method, what }) = request else {
            // News of a block.
            return (lie != Lie::Frozen).then_some(reply);
        };
        match lie {
            Lie::Frozen => {
                if let Some(before) = self.replies.lock().expect("no panic").get(&what) {
                    if reply["result"] != *before {
                        self.count();
                    }
                    reply["result"] = before.clone();
                }
            }
            Lie::Fee(btc) if method.ends_with("estimatefee") => {
                self.count();
                reply["result"] = json!(btc);
            }
            Lie::Headers if method.ends_with("block.headers") || method.ends_with("headers.subscribe") => {
                self.count();
                let hex = reply["result"]["hex"].as_str().unwrap_or_default();
                reply["result"]["hex"] = json!("11".repeat(hex.len() / 2));
                if let Some(height) = reply["result"]["height"].as_u64() {
                    reply["result"]["height"] = json!(height + 50);
                }
            }
            Lie::Later(seconds) if method.ends_with("headers.subscribe") => {
                self.count();
                let hex = reply["result"]["hex"].as_str().unwrap_or_default();
                let mut header: Header = deserialize_hex(hex).ok()?;
                header.time = header.time.checked_add(seconds)?;
                reply["result"]["hex"] = json!(serialize_hex(&header));
            }
            _ => drop(self.replies.lock().expect("no panic").insert(what, reply["result"].clone())),
        }
        Some(reply)
    }
}
