//! What `status` and `doctor` make of the world outside, and what they say is to be done: one judgement for both.

use pedlar_net::{Multiaddr, of_stranger};
use pedlar_wallet::{Network, ServerFault, ServerUrl};
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// Whether other nodes can reach this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reachable {
    /// Somebody has.
    Yes,
    /// There is no address by which they could.
    No,
    /// They are told an address, and nobody has come.
    Unknown,
}

/// What is known of who can reach this node.
pub(super) struct Reach {
    pub(super) is: Reachable,
    /// In a sentence.
    pub(super) found: String,
    /// What to do, where something can be done.
    pub(super) hint: Option<&'static str>,
}

/// What to do where nobody can come.
const FORWARD: &str = "give it a fixed port, forward that, and say so in config.toml: \
     listen = [\"/ip4/0.0.0.0/tcp/4001\"] and external = [\"/ip4/YOUR-ADDRESS/tcp/4001\"]";

/// What to do where nobody has come yet.
const TRY_IT: &str = "look from another machine whether its port is open there: nc -vz ADDRESS PORT";

/// Judges by where the node listens, what its settings say of the outside, and the connected peers that dialled it.
pub(super) fn reach(listen: &[Multiaddr], config: &Config, inbound: usize) -> Reach {
    // All nodes of a regtest chain are near, where no address is public.
    let near = config.network == Network::Regtest;
    let known = of_stranger(listen.iter().chain(&config.external).cloned(), near);
    let (is, mut found, hint) = match (inbound, known.first()) {
        (1.., _) => (Reachable::Yes, "others have reached this node".to_owned(), None),
        (0, Some(addr)) => {
            let found = format!("others are told to come to {addr}; none is connected that did");
            (Reachable::Unknown, found, Some(TRY_IT))
        }
        (0, None) => {
            let found = "no address of this node is known that others can reach, and nobody has";
            (Reachable::No, found.to_owned(), Some(FORWARD))
        }
    };
    if !near && config.external.is_empty() {
        found.push_str("; while `external` is not set, it answers no look-ups and is a mere client of Kademlia");
    }
    Reach { is, found, hint }
}

/// What to do about an Electrum server that is not used.
pub(super) fn server(url: &ServerUrl, fault: &ServerFault) -> String {
    match fault {
        ServerFault::Certificate { offered, .. } => {
            format!("ask its operator whether it is theirs; if so: pedlar wallet trust {url} {offered}")
        }
        ServerFault::OtherChain { .. } => "name one of this node's network: `electrum` in config.toml".to_owned(),
        ServerFault::Tls => format!("is it tcp instead? {}", url.to_string().replace("ssl://", "tcp://")),
        ServerFault::EmptyChain => "mine a block".to_owned(),
        ServerFault::UnknownHost
        | ServerFault::Unreachable(_)
        | ServerFault::Timeout
        | ServerFault::Closed
        | ServerFault::Behind { .. }
        | ServerFault::Omits
        | ServerFault::Refused
        | ServerFault::Misbehaved => {
            "is it up? Try again later, or name another one: `electrum` in config.toml".to_owned()
        }
    }
}

impl Reachable {
    /// The same word as in JSON.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Flags;

    fn judged(flags: &[(&'static str, &str)], listen: &str, inbound: usize) -> Reach {
        let flags: Flags = flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect();
        let (config, _) = Config::load(Path::new("/nowhere"), flags, |_| None).unwrap();
        reach(&[listen.parse().unwrap()], &config, inbound)
    }

    #[test]
    fn who_can_come_is_judged_by_addresses_and_by_who_came() {
        let (private, public) = ("/ip4/192.168.1.7/tcp/4001", "/ip4/9.9.9.9/tcp/4001");
        let external = [("external", public)];
        let shut = judged(&[], private, 0);
        assert_eq!((shut.is, shut.hint), (Reachable::No, Some(FORWARD)));
        assert!(shut.found.contains("mere client of Kademlia"), "{}", shut.found);
        let told = judged(&external, private, 0);
        assert_eq!((told.is, told.hint), (Reachable::Unknown, Some(TRY_IT)));
        assert!(told.found.contains(public) && !told.found.contains("Kademlia"), "{}", told.found);
        assert_eq!(judged(&[], public, 0).is, Reachable::Unknown);
        let open = judged(&external, private, 1);
        assert_eq!((open.is, open.hint), (Reachable::Yes, None));
        let devnet = judged(&[("network", "regtest")], "/ip4/127.0.0.1/tcp/1", 0);
        assert!(devnet.is == Reachable::Unknown && !devnet.found.contains("Kademlia"), "{}", devnet.found);
    }
}
