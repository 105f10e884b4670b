//! `pedlar account pay`: leaves an advance with a seller.

use std::io;

use pedlar_net::{Multiaddr, PeerId};
use pedlar_protocol::money::{Msat, Price};
use serde::{Deserialize, Serialize};

use crate::api::Out;
use crate::cli::screen::Screen;
use crate::cmd::get::payment_failure;
use crate::cmd::wallet::fee_limit;
use crate::cmd::{Remote, Text, Verb};
use crate::config::sat;
use crate::driver::now;
use crate::failure::Failure;
use crate::node::Node;
use crate::purchase::{PaymentNews, TopUpOrder, top_up};

const EXAMPLES: &str = "\
Examples:
  pedlar account pay 12D3Koo… 5000sat
  pedlar account pay 12D3Koo… 5000sat --max 5300sat --yes";

/// Pay a seller in advance; the money is spent on what is bought there, and can't be asked back.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(after_help = EXAMPLES)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The seller.
    peer: Text<PeerId>,
    /// How much, in whole sat.
    #[arg(value_name = "AMOUNT", value_parser = sat)]
    amount_sat: u64,
    /// All that may be spent, the fee included.
    #[arg(long = "max", value_name = "AMOUNT", value_parser = sat)]
    max_sat: Option<u64>,
    /// Pay no fee above this; by default twice the estimate.
    #[arg(long = "max-fee", value_name = "AMOUNT", value_parser = sat)]
    max_fee_sat: Option<u64>,
    /// Show what it would cost, and pay nothing.
    #[arg(long)]
    #[serde(default)]
    dry_run: bool,
    /// Don't ask.
    #[arg(long)]
    #[serde(skip)]
    yes: bool,
}

/// What `account pay` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What it would cost.
    Quote {
        /// The seller.
        peer: String,
        /// How much it gets.
        amount_sat: u64,
        /// The fee as of now.
        fee_sat: u64,
        /// The fee that would be paid at most.
        max_fee_sat: u64,
    },
    /// Signed and stored: it is sent until it is in a block.
    Payment {
        /// The transaction.
        txid: String,
        /// How much the seller gets.
        amount_sat: u64,
        /// The fee.
        fee_sat: u64,
        /// The seller's address.
        address: String,
    },
    /// Another wallet pays it already.
    Awaited {
        /// How much the seller gets.
        amount_sat: u64,
    },
    /// It is deep enough for both sides.
    Credited {
        /// All that counts as paid to this seller.
        paid_msat: u64,
    },
}

/// What was paid.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    paid_msat: u64,
    fees_sat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<String>,
}

impl Verb for Args {
    type Line = Line;
    type Summary = Summary;

    fn show(line: Line, screen: &mut Screen) -> io::Result<()> {
        match line {
            Line::Quote { peer, amount_sat, fee_sat, max_fee_sat } => screen.text(format_args!(
                "{amount_sat} sat in advance to {peer}, for a fee of about {fee_sat} sat and at most {max_fee_sat} sat"
            )),
            Line::Payment { txid, amount_sat, fee_sat, .. } => screen
                .text(format_args!("Paid {amount_sat} sat for a fee of {fee_sat} sat: {txid}; waiting for a block …")),
            Line::Awaited { amount_sat } => {
                screen.text(format_args!("{amount_sat} sat are paid to it already; waiting for a block …"))
            }
            Line::Credited { paid_msat } => {
                screen.text(format_args!("It counts: {} were paid there in all.", Msat::new(paid_msat)))
            }
        }
    }

    fn sum_up(_: Summary, _: &mut Screen) -> io::Result<()> {
        Ok(())
    }
}

impl Remote for Args {
    async fn run(self, node: &Node, out: Out<Line>) -> Result<Summary, Failure> {
        let (Text(seller), amount_sat) = (self.peer, self.amount_sat);
        let estimate_sat = node.driver.wallet().estimate_fee(amount_sat).await.map_err(Failure::system)?;
        let max_fee_sat = fee_limit(self.max_fee_sat, self.max_sat, amount_sat, estimate_sat)?;
        if self.dry_run {
            let peer = seller.to_string();
            out.line(Line::Quote { peer, amount_sat, fee_sat: estimate_sat, max_fee_sat }).await?;
            return Ok(Summary { paid_msat: 0, fees_sat: 0, txid: None });
        }
        let addrs = addresses(node, seller).await;
        let order = TopUpOrder {
            seller,
            addrs,
            amount_sat,
            max_fee_sat,
            ask_others: false,
            unasked: false,
            needed: Msat::ZERO,
            price: Price::FREE,
        };
        let tell = |news| {
            if let Some(line) = line(news) {
                out.now(line);
            }
        };
        let paid =
            top_up(&node.driver, &node.net, order, &node.stopping, &tell).await.map_err(|e| payment_failure(&e))?;
        let paid_msat = Msat::from_sat(amount_sat).unwrap_or(Msat::MAX).msat();
        Ok(Summary { paid_msat, fees_sat: paid.fee_sat, txid: paid.txid })
    }

    /// Fees may rise while somebody decides.
    fn agree(&mut self, shown: &Line) {
        if let Line::Quote { max_fee_sat, .. } = shown {
            self.max_fee_sat = Some(*max_fee_sat);
        }
    }
}

impl Args {
    /// The dry run to be agreed to, where nobody has agreed yet.
    pub(in crate::cmd) fn rehearsal(&self) -> Option<Self> {
        (!self.yes && !self.dry_run).then(|| Self { dry_run: true, ..self.clone() })
    }

    /// What was agreed to.
    pub(in crate::cmd) fn in_earnest(self) -> Self {
        Self { dry_run: false, ..self }
    }
}

impl Args {
    /// What to do where the node was gone before it had answered.
    pub(in crate::cmd) fn unanswered(&self, failure: Failure) -> Failure {
        if !failure.is_unanswered() {
            return failure;
        }
        let Text(peer) = &self.peer;
        failure.hint(format!(
            "start it and look at `pedlar account show {peer}`: until a payment counts, the same command pays no other one"
        ))
    }
}

/// Where the seller may be: as it says in its offer, and as it was met.
async fn addresses(node: &Node, seller: PeerId) -> Vec<Multiaddr> {
    let offered = node.driver.read(|market| {
        let offer = market.book().offer(now(), &seller);
        offer.map(|signed| signed.offer().addresses.clone()).unwrap_or_default()
    });
    offered.into_iter().chain(node.net.addrs_of(seller).await).collect()
}

/// The news as a line; a link for other wallets is never made here.
fn line(news: PaymentNews) -> Option<Line> {
    match news {
        PaymentNews::Paid { txid, amount_sat, fee_sat, address } => {
            Some(Line::Payment { txid, amount_sat, fee_sat, address })
        }
        PaymentNews::Credited { paid } => Some(Line::Credited { paid_msat: paid.msat() }),
        PaymentNews::Awaited { amount_sat } => Some(Line::Awaited { amount_sat }),
        PaymentNews::PayThis { .. } => None,
    }
}
