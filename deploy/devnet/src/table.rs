//! The live view of a market: a line for each node, drawn over itself.

use std::io::{IsTerminal, Write, stdout};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::market::Market;

/// How often the table is drawn.
const DRAW: Duration = Duration::from_secs(2);

/// Every verb, on a node that has something to show for it.
const VERBS: [(&str, &[&str]); 2] = [
    (
        "seller-1",
        &[
            "status",
            "peers",
            "published",
            "publish FILE --price 7777sat/GiB",
            "unpublish LINK",
            "sell chunks --price 9sat/GiB",
        ],
    ),
    (
        "buyer",
        &[
            "market",
            "get LINK -o FILE --prepay 5000sat --yes",
            "account list",
            "account show PEER",
            "account pay PEER 5000sat --yes",
            "wallet balance",
            "wallet receive --amount 5000sat",
            "wallet history",
            "wallet send ADDRESS 5000sat --yes",
        ],
    ),
];

/// Says how to try each verb.
pub(crate) fn hints(market: &Market, dir: &Path) {
    let program = std::env::current_exe().unwrap_or_else(|_| "pedlar-devnet".into());
    let steer = format!("{} --dir {}", program.display(), dir.display());
    println!("\nThe market stays up. In another terminal, with `{steer}` in front:");
    for (node, verbs) in VERBS {
        verbs.iter().for_each(|verb| println!("  on {node} {verb}"));
    }
    println!("  mine 6 | fund ADDRESS SATS | reorg 2");
    println!("Homes: {}/{{{}}}. Ctrl-C ends it.\n", dir.display(), names(market));
}

/// Draws the table until it is dropped; where nobody looks, only waits.
pub(crate) async fn watch(market: &Market, show: bool) -> Result<()> {
    if !show || !stdout().is_terminal() {
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
    let height = market.chain.as_ref().map(|chain| chain.height()).unwrap_or_default();
    let head = ["node", "peers", "offers", "tabs", "earned msat", "spent msat", "coins sat"];
    let mut rows = vec![format!("block {height}"), row(&head.map(str::to_owned))];
    for node in &market.nodes {
        let status = node.home.one(&["status"], "status").await.unwrap_or_default();
        let balance = node.home.one(&["wallet", "balance"], "balance").await.unwrap_or_default();
        let accounts = node.home.ask(&["account", "list"]).await.unwrap_or_default();
        let tabs = accounts.iter().filter(|line| line["type"] == "account").count();
        let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        rows.push(row(&[
            node.home.name.clone(),
            number(&status["peers"]),
            number(&status["offers"]),
            tabs.to_string(),
            number(&status["earned_msat"]),
            number(&status["spent_msat"]),
            number(&balance["confirmed_sat"]),
        ]));
    }
    rows
}

fn row(cells: &[String; 7]) -> String {
    let [name, rest @ ..] = cells;
    let rest: String = rest.iter().map(|cell| format!("{cell:>13}")).collect();
    format!("{name:<10}{rest}")
}

fn names(market: &Market) -> String {
    market.nodes.iter().map(|node| node.home.name.as_str()).collect::<Vec<_>>().join(",")
}
