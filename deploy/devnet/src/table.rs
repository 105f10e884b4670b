//! How to try each verb, and the live view of a market: a line for each node, drawn over itself.

use std::io::{Write, stdout};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::market::Market;
use crate::purchase::msat;
use crate::screen::Screen;

/// How often the table is drawn.
const DRAW: Duration = Duration::from_secs(2);

/// What stands for something of the market in [`VERBS`]: its folder, its server, the digits that tell its chain apart.
const DIR: &str = "{dir}";
const SERVER: &str = "{electrum}";
const CHAIN: &str = "{chain}";

/// Every verb of a node, with the node to try it on; words in capitals are for the reader to fill in.
const VERBS: [(&str, &[&str]); 4] = [
    (
        "seller-1",
        &[
            "status",
            "doctor",
            "peers",
            "config show --origin",
            "publish FILE --price 7777sat/GiB",
            "published",
            "unpublish LINK",
            "sell chunks --price 9sat/GiB",
            "sell chunks --stop",
            "account block PEER",
            "account unblock PEER",
            "completions bash",
        ],
    ),
    (
        "buyer",
        &[
            "market",
            "get LINK -o FILE --dry-run",
            "get LINK -o FILE --prepay 5000sat --yes",
            "account list",
            "account show PEER",
            "account pay PEER 5000sat --yes",
            "account export PEER FILE",
            "verify FILE",
            "wallet balance",
            "wallet receive --amount 5000sat",
            "wallet send ADDRESS 5000sat --yes",
            "wallet bump TXID --yes",
            "wallet history",
            "wallet trust {electrum} FINGERPRINT",
            "backup create FILE",
            "down",
            "up --passphrase-file {dir}/buyer.passphrase",
        ],
    ),
    (
        "another",
        &["init --network regtest --network-id {chain} --electrum {electrum} \
             --words-file {dir}/another.words --passphrase-file {dir}/buyer.passphrase"],
    ),
    ("restored", &["backup restore FILE --words-file {dir}/buyer.words --passphrase-file {dir}/buyer.passphrase"]),
];

/// Says how to try each verb, and how to steer the chain where it is ours.
pub(crate) fn hints(market: &Market, screen: Screen) {
    let program = std::env::current_exe().unwrap_or_else(|_| "pedlar-devnet".into());
    let dir = market.plan.dir.display().to_string();
    let chain = market.network.rsplit('-').next().unwrap_or_default();
    screen.say(format_args!(
        "\nThe market stays up. In another terminal, with `{} --dir {dir}` in front:",
        program.display()
    ));
    for (node, verbs) in VERBS {
        for verb in verbs {
            let verb = verb.replace(DIR, &dir).replace(SERVER, &market.electrum).replace(CHAIN, chain);
            screen.say(format_args!("  on {node} {verb}"));
        }
    }
    match &market.chain {
        Some(_) => screen.say("  mine 6 | fund ADDRESS SATS | reorg 2"),
        None => screen.say(format_args!("The chain is that of {}.", market.electrum)),
    }
    screen.say(format_args!("Homes: {dir}/{{{}}}. Ctrl-C ends it.\n", names(market)));
}

/// Draws the table until it is dropped; where nobody looks, only waits.
pub(crate) async fn watch(market: &Market, screen: Screen) -> Result<()> {
    if !screen.is_watched() {
        return std::future::pending().await;
    }
    let mut tick = interval(DRAW);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drawn = 0;
    loop {
        tick.tick().await;
        let rows = rows(market).await;
        let mut out = stdout().lock();
        if drawn > 0 {
            // Up to the first line of the last table, and clear from there.
            write!(out, "\x1b[{drawn}A\x1b[J")?;
        }
        rows.iter().try_for_each(|row| writeln!(out, "{row}"))?;
        out.flush()?;
        drawn = rows.len();
    }
}

async fn rows(market: &Market) -> Vec<String> {
    let mut tip = market.chain.as_ref().map(|chain| chain.height());
    let mut rows = vec![row(&["node", "peers", "offers", "tabs", "earned", "spent", "coins"].map(str::to_owned))];
    for node in &market.nodes {
        let status = node.home.one(&["status"], "status").await.unwrap_or_default();
        let balance = node.home.one(&["wallet", "balance"], "balance").await.unwrap_or_default();
        let accounts = node.home.ask(&["account", "list"]).await.unwrap_or_default();
        let tabs = accounts.iter().filter(|line| line["type"] == "account").count();
        let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        tip = tip.or_else(|| status["tip"].as_u64().and_then(|tip| u32::try_from(tip).ok()));
        rows.push(row(&[
            node.home.name.clone(),
            number(&status["peers"]),
            number(&status["offers"]),
            tabs.to_string(),
            msat(&status["earned_msat"]).to_string(),
            msat(&status["spent_msat"]).to_string(),
            format!("{} sat", number(&balance["confirmed_sat"])),
        ]));
    }
    rows.insert(0, format!("block {}", tip.unwrap_or_default()));
    rows
}

fn row(cells: &[String; 7]) -> String {
    let [name, counts @ .., earned, spent, coins] = cells;
    let counts: String = counts.iter().map(|cell| format!("{cell:>8}")).collect();
    format!("{name:<10}{counts}{earned:>18}{spent:>18}{coins:>18}")
}

fn names(market: &Market) -> String {
    market.nodes.iter().map(|node| node.home.name.as_str()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a reader may fill in.
    const EXAMPLES: [(&str, &str); 9] = [
        ("FILE", "film.mkv"),
        ("LINK", "pedlar:bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("PEER", "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"),
        ("ADDRESS", "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"),
        ("TXID", "4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f"),
        ("FINGERPRINT", "4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f"),
        (DIR, "/tmp/market"),
        (SERVER, "tcp://127.0.0.1:50001"),
        (CHAIN, "0f9188f1"),
    ];

    /// The verbs that have no verbs under them, `wallet send` as one.
    fn all(command: &clap::Command, before: &str) -> BTreeSet<String> {
        let verbs = command.get_subcommands().map(|verb| (verb, format!("{before}{}", verb.get_name())));
        let each = verbs.map(|(verb, name)| match verb.has_subcommands() {
            true => all(verb, &format!("{name} ")),
            false => BTreeSet::from([name]),
        });
        each.flatten().collect()
    }

    #[test]
    fn every_verb_of_a_node_can_be_tried_as_it_is_hinted() {
        let mut hinted = BTreeSet::new();
        for hint in VERBS.iter().flat_map(|(_, verbs)| verbs.iter()) {
            let typed = EXAMPLES.iter().fold((*hint).to_owned(), |hint, (word, example)| hint.replace(word, example));
            let words = std::iter::once("pedlar").chain(typed.split_whitespace());
            let parsed = pedlar_node::command().try_get_matches_from(words);
            let mut verb = parsed.unwrap_or_else(|error| panic!("`{typed}` can't be typed: {error}"));
            let mut names = Vec::new();
            while let Some((name, under)) = verb.remove_subcommand() {
                names.push(name);
                verb = under;
            }
            hinted.insert(names.join(" "));
        }
        assert_eq!(hinted, all(&pedlar_node::command(), ""));
    }
}
