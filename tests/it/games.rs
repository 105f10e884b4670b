//! Ten thousand ways to cheat, in the pure core: what they bring is what the honest side left with the cheat.

use std::thread;

use pedlar_tests::dice::{Dice, rounds};
use pedlar_tests::games::play;

#[test]
fn no_strategy_brings_more_than_was_left_with_the_cheat() {
    play_many(10_000);
}

/// The long run: `cargo test -p pedlar-tests -- --ignored a_million_games --nocapture`.
#[test]
#[ignore = "takes half an hour"]
fn a_million_games() {
    play_many(rounds(1_000_000));
}

#[test]
fn a_game_is_played_again_by_its_seed() {
    let first = Dice::new().below(1 << 40);
    for seed in first..first + 20 {
        assert_eq!(play(seed), play(seed));
    }
}

fn play_many(games: u64) {
    let first = Dice::new().below(1 << 40);
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let share = |thread: u64| {
        let seeds = (first..first + games).skip(thread as usize).step_by(threads as usize);
        seeds.fold((0, 0, 0), |(cheats, losers, most), seed| {
            let played = play(seed);
            (cheats + played.cheats, losers + u64::from(played.lost_msat > 0), played.lost_msat.max(most))
        })
    };
    let shares: Vec<(u64, u64, u64)> = thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        players.into_iter().map(|player| player.join().expect("no game is lost")).collect()
    });
    let sum = |of: fn(&(u64, u64, u64)) -> u64| shares.iter().map(of).sum::<u64>();
    let (cheats, losers) = (sum(|share| share.0), sum(|share| share.1));
    println!("faults fired: {cheats} cheats in {games} games from {first} on; {losers} brought something");
    assert!(cheats > games && losers > games / 40, "the cheats are too tame");
}
