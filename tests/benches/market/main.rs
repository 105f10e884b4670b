//! What each rule of credit costs a seller, in seasons of 120 days: ours beside three that others have.
//!
//! `cargo bench -p pedlar-tests --bench market`; `PEDLAR_SEED` draws the same again, `PEDLAR_ROUNDS` sets the days.

use pedlar_tests::dice::{Dice, rounds};
use pedlar_tests::sim::{Habit, Policy, Report, Scenario, season, shop};

/// New names of the whitewasher in an hour.
const NAMES: u64 = 50;

fn main() {
    // Cargo asks every bench for its list of tests, and passes `--bench` when it is to run.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let (seed, days) = (Dice::new().below(1 << 40), rounds(120));
    println!("ten honest buyers and who else comes, {days} days, hourly; loss and net in sat\n");
    print!("{:<25}", "");
    Policy::ALL.iter().for_each(|policy| print!("{:>27}", policy.as_str()));
    print!("\n{:<25}", "");
    Policy::ALL.iter().for_each(|_| print!("{:>14}{:>13}", "loss", "net"));
    println!();
    let mut ours = Vec::new();
    for scenario in Scenario::ALL {
        print!("{:<25}", scenario.as_str());
        for policy in Policy::ALL {
            let report = season(seed, policy, scenario, days, NAMES);
            print!("{:>14}{:>13}", sat(report.loss), report.net / 1_000);
            if policy == Policy::Ours {
                ours.push((scenario, report));
            }
        }
        println!();
    }
    show_takes(&ours);
    show_waits(&ours);
    show_sellers(seed);
}

/// What an honest buyer loses to sellers, half of which vanish with what they are paid first.
fn show_sellers(seed: u64) {
    println!("\n{:<25}{:<26}{:>14}{:>14}{:>12}", "a buyer of 600 purchases", "", "lost", "bound", "sellers");
    for (habit, name) in [(Habit::FirstSteps, "our first steps"), (Habit::Fixed, "100 sat to everybody")] {
        let shopped = shop(seed, habit, 600);
        assert!(shopped.broken.is_none(), "{:?}", shopped.broken);
        for loss in &shopped.losses {
            let (lost, bound) = (sat(loss.lost), sat(loss.bound));
            println!("{name:<25}{:<26}{lost:>14}{bound:>14}{:>12}", loss.kind.as_str(), loss.sellers);
        }
        let (lost, spent) = (shopped.lost(), shopped.spent);
        let of_thousand = lost * 1_000 / (lost + spent);
        println!(
            "{name:<25}{:<26}{:>14}{:>14} sat got something",
            format!("{of_thousand} of 1000 sat"),
            sat(lost),
            sat(spent)
        );
    }
}

/// What each has for nothing under our rule, beside the most that it may have.
fn show_takes(ours: &[(Scenario, Report)]) {
    println!("\n{:<25}{:<26}{:>14}{:>14}{:>12}", "by our rule", "", "taken", "bound", "names");
    for (scenario, report) in ours {
        assert!(report.broken.is_none(), "{:?}", report.broken);
        let all = (report.loss, report.bound);
        println!("{:<25}{:<26}{:>14}{:>14}", scenario.as_str(), "all together", sat(all.0), sat(all.1));
        for take in report.takes.iter().filter(|take| take.agent != "honest") {
            let (taken, bound) = (sat(take.taken), sat(take.bound));
            println!("{:<25}{:<26}{taken:>14}{bound:>14}{:>12}", "", take.agent, take.identities);
        }
    }
}

/// How long an honest stranger pays in advance.
fn show_waits(ours: &[(Scenario, Report)]) {
    let mut hours: Vec<u64> = ours.iter().flat_map(|(_, report)| report.postpaid_after.iter().copied()).collect();
    hours.sort_unstable();
    if let (Some(first), Some(last)) = (hours.first(), hours.last()) {
        let median = hours[hours.len() / 2];
        println!(
            "\nhours from an honest buyer's first purchase to its first one on credit: {first} to {last}, median {median}"
        );
    }
}

const fn sat(msat: u64) -> u64 {
    msat.div_ceil(1_000)
}
