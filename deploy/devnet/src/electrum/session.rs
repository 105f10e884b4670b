//! What one client subscribed to, and what it was told last.

use std::collections::HashMap;

use bitcoin::BlockHash;
use bitcoin::hashes::sha256;
use bytes::BytesMut;
use serde_json::{Value, json};

use super::methods;
use super::rpc::{self, Params, RpcError};
use crate::chain::{Chain, ScriptHash, State};

/// Scripts of one client: a wallet restored with a gap of 1,000 and years of addresses stays below.
const MAX_SUBSCRIPTIONS: usize = 50_000;

/// One client's side of the conversation, as data in and data out.
pub struct Session {
    chain: Chain,
    /// The tip it was told of, once it asked.
    tip: Option<BlockHash>,
    /// The status it was told of each script that it asked for.
    scripts: HashMap<ScriptHash, Option<sha256::Hash>>,
    /// Revision of the chain up to which it was told everything.
    told: u64,
}

impl Session {
    /// A client that has said nothing yet.
    pub fn new(chain: Chain) -> Self {
        let told = chain.read(State::revision);
        Self { chain, tip: None, scripts: HashMap::new(), told }
    }

    /// Answers one line of the client's.
    pub fn handle_line(&mut self, line: &[u8], out: &mut BytesMut) {
        rpc::handle_line(line, out, |method, params| self.answer(method, params));
    }

    /// Answers a line that was too long to be read.
    pub(super) fn refuse_line(&self, out: &mut BytesMut) {
        rpc::write_error(out, RpcError::invalid_request("request line too long"));
    }

    /// Tells the client what has changed among its subscriptions since it was last told.
    pub fn handle_change(&mut self, out: &mut BytesMut) {
        let Self { chain, tip, scripts, told } = self;
        chain.read(|state| {
            let block = state.ledger.tip();
            if tip.is_some_and(|known| known != block.hash) {
                *tip = Some(block.hash);
                rpc::notify(out, "blockchain.headers.subscribe", json!([methods::tip(state)]));
            }
            for script in state.scripts.touched_since(*told) {
                let Some(known) = scripts.get_mut(&script) else { continue };
                let status = state.status(&script);
                if *known != status {
                    *known = status;
                    rpc::notify(out, "blockchain.scripthash.subscribe", json!([script.to_string(), text(status)]));
                }
            }
            *told = state.revision();
        });
    }

    fn answer(&mut self, method: &str, params: &Params) -> Result<Value, RpcError> {
        match method {
            "blockchain.headers.subscribe" => Ok(self.subscribe_headers()),
            "blockchain.scripthash.subscribe" => self.subscribe_script(params.parse(0)?),
            "blockchain.scripthash.unsubscribe" => {
                Ok(json!(self.scripts.remove(&params.parse::<ScriptHash>(0)?).is_some()))
            }
            _ => methods::answer(&self.chain, method, params),
        }
    }

    fn subscribe_headers(&mut self) -> Value {
        let (hash, tip) = self.chain.read(|state| (state.ledger.tip().hash, methods::tip(state)));
        self.tip = Some(hash);
        tip
    }

    fn subscribe_script(&mut self, script: ScriptHash) -> Result<Value, RpcError> {
        if self.scripts.len() >= MAX_SUBSCRIPTIONS && !self.scripts.contains_key(&script) {
            return Err(RpcError::refused(format!("more than {MAX_SUBSCRIPTIONS} subscriptions")));
        }
        let status = self.chain.read(|state| state.status(&script));
        self.scripts.insert(script, status);
        Ok(text(status))
    }
}

fn text(status: Option<sha256::Hash>) -> Value {
    json!(status.map(|hash| hash.to_string()))
}
