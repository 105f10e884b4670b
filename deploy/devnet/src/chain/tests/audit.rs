//! Random operations against a slow and obvious model: after each, the indexes must say what a full scan says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::*;

/// Operations of one run; enough for every kind to meet every other.
const STEPS: u32 = 120;
/// Below it a coin is left alone: fees would soon make dust of it.
const MIN_SPENT: Amount = Amount::from_sat(5_000);

#[test]
fn indexes_agree_with_a_full_scan() {
    for seed in 1..=3 {
        println!("seed {seed}");
        run(seed);
    }
}

fn run(seed: u64) {
    let (chain, payers) = (Chain::new(&seed.to_be_bytes()), [Payer::new(1), Payer::new(2)]);
    let mut random = Random(seed);
    let (mut paid, mut reorged, mut refused) = (0, 0, 0);
    for _ in 0..STEPS {
        let payer = &payers[random.below(2)];
        match random.below(8) {
            0 | 1 => drop(chain.fund(&payer.wpkh(), Amount::from_sat(50_000)).unwrap()),
            2 => drop(chain.mine(1 + random.below(2) as u32, &payer.wpkh().script_pubkey())),
            3 => {
                chain.reorg(random.below(4) as u32).unwrap();
                reorged += 1;
            }
            4 => {
                // Past whatever waits: one coin, spent by a block of its own.
                let spend = coins_of(&chain, payer).first().map(|coin| payer.spend(from_ref(coin), 0));
                refused += spend.map_or(0, |tx| u32::from(chain.reorg_with(2, &[tx]).is_err()));
            }
            _ => {
                let coins = coins_of(&chain, payer);
                if !coins.is_empty() {
                    let coin = &coins[random.below(coins.len())];
                    let fee = 200 + 100 * random.below(20) as u64;
                    let tx = payer.spend_with(from_ref(coin), fee, |tx| {
                        tx.output[0].script_pubkey = payers[random.below(2)].wpkh().script_pubkey();
                    });
                    paid += u32::from(chain.submit(&tx).is_ok());
                }
            }
        }
        chain.read(audit);
    }
    println!("faults fired: {}", reorged + refused);
    assert!(paid > 10 && reorged > 3, "{paid} payments, {reorged} reorgs");
}

/// Coins of a payer, spent by something waiting or not (those are for replacements), but no immature ones.
fn coins_of(chain: &Chain, payer: &Payer) -> Vec<Owned> {
    let script = payer.wpkh().script_pubkey();
    let all = chain.mempool().into_iter().map(|txid| chain.tx(&txid).unwrap().tx);
    let confirmed = (1..=chain.height()).flat_map(|height| chain.block(height).unwrap().txdata.into_iter().skip(1));
    let coins: Vec<_> = all.chain(confirmed).flat_map(|tx| owned(&tx)).collect();
    chain.read(|state| {
        let usable = |coin: &Owned| state.ledger.coin(&coin.0).is_some() || state.mempool.get(&coin.0.txid).is_some();
        coins
            .into_iter()
            .filter(|coin| coin.1.script_pubkey == script && coin.1.value > MIN_SPENT)
            .filter(usable)
            .collect()
    })
}

/// Rebuilds coins and histories from the blocks and the mempool, and compares.
fn audit(state: &State) {
    let mut coins: HashMap<OutPoint, TxOut> = HashMap::new();
    let mut histories: BTreeMap<ScriptBuf, Vec<(i64, Txid)>> = BTreeMap::new();
    let mut apply = |tx: &Transaction, height: i64, coins: &mut HashMap<OutPoint, TxOut>| {
        let txid = tx.compute_txid();
        let inputs = tx.input.iter().filter(|input| !input.previous_output.is_null());
        let spent = inputs.map(|input| coins.remove(&input.previous_output).expect("each input spends a coin"));
        let mut scripts: BTreeSet<_> = spent.map(|output| output.script_pubkey).collect();
        for (outpoint, output) in owned(tx) {
            if !output.script_pubkey.is_op_return() {
                scripts.insert(output.script_pubkey.clone());
                coins.insert(outpoint, output);
            }
        }
        for script in scripts {
            histories.entry(script).or_default().push((height, txid));
        }
    };
    for height in 1..=state.ledger.height() {
        for tx in &state.ledger.block(height).unwrap().txs {
            apply(tx, i64::from(height), &mut coins);
        }
    }
    for (outpoint, output) in &coins {
        assert_eq!(&state.ledger.coin(outpoint).unwrap().output, output);
    }
    let waiting = state.mempool.in_order();
    for txid in &waiting {
        let tx = &state.mempool.get(txid).unwrap().tx;
        let chained = tx.input.iter().any(|input| waiting.contains(&input.previous_output.txid));
        apply(tx, if chained { -1 } else { 0 }, &mut coins);
    }
    assert_eq!(state.mempool.by_rate().count(), waiting.len());
    assert_eq!(state.mempool.weight(), state.mempool.by_rate().map(|(_, entry)| entry.weight).sum::<u64>());
    for (script, expected) in histories {
        let hash = ScriptHash::of(&script);
        let history: Vec<_> = state.history(&hash).into_iter().map(|line| (line.height, line.txid)).collect();
        assert_eq!(history, expected);
        let unspent: BTreeSet<_> = state.unspent(&hash).into_iter().map(|coin| coin.outpoint).collect();
        let ours = coins.iter().filter(|(_, output)| output.script_pubkey == script);
        assert_eq!(unspent, ours.map(|(outpoint, _)| *outpoint).collect());
    }
}

/// xorshift64*: the same seed gives the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}
