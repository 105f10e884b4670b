//! Each fault that was once found in a rule of credit, put back: the simulator finds it.
//!
//! Nothing in the product knows of this: its sources are copied, a piece of text is replaced, and the simulator is built
//! against that. A piece that is not there exactly once fails the story, so that no mutant rots.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A piece of a file of `protocol`, and what stands there instead.
struct Edit {
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

/// A rule that is wrong.
struct Mutant {
    name: &'static str,
    edits: &'static [Edit],
    /// The bound that it breaks.
    breaks: &'static str,
}

const MUTANTS: [Mutant; 4] = [
    Mutant {
        name: "no common pool",
        edits: &[Edit {
            file: "market/standing.rs",
            from: "others.covers(pool.outstanding, &self.terms.credit)",
            to: "others.covers(Msat::ZERO, &self.terms.credit)",
        }],
        breaks: "(B)",
    },
    Mutant {
        name: "limit = 2R",
        edits: &[
            Edit {
                file: "credit.rs",
                from: "self.line(history.decayed_to(now))",
                to: "Ratio { num: 2, den: 1 }.of(self.line(history.decayed_to(now)))",
            },
            Edit {
                file: "credit.rs",
                from: "unsecured <= self.line(realised)",
                to: "unsecured <= Ratio { num: 2, den: 1 }.of(self.line(realised))",
            },
        ],
        breaks: "(A)",
    },
    Mutant {
        name: "limit without outstanding",
        edits: &[
            Edit {
                file: "account.rs",
                from: "let owed = self.spent.saturating_add(self.held).saturating_add(cost);",
                to: "let owed = self.spent.min(self.paid).saturating_add(self.held).saturating_add(cost);",
            },
            Edit {
                file: "account.rs",
                from: "covered.saturating_sub(self.spent.saturating_add(self.held))",
                to: "covered.saturating_sub(self.spent.min(self.paid).saturating_add(self.held))",
            },
            Edit {
                file: "market/selling.rs",
                from: "let at_stake = unsecured.saturating_add(footing.tails);",
                to: "let at_stake = cost.saturating_add(footing.tails);",
            },
        ],
        breaks: "(A)",
    },
    Mutant {
        name: "hold released on disconnect",
        edits: &[Edit {
            file: "account/line.rs",
            from: "self.admitted = sent.min(self.admitted).max(self.signed_units());",
            to: "self.admitted = sent.min(self.signed_units()).max(self.signed_units());",
        }],
        breaks: "(A)",
    },
];

#[test]
fn the_simulator_finds_each_rule_that_is_wrong() {
    let lab = Lab::set_up();
    let sound = lab.run();
    assert!(sound.status.success(), "the rules as they are: {}", told(&sound));
    for mutant in MUTANTS {
        let edited: Vec<_> = mutant.edits.iter().map(|edit| lab.edit(&mutant, edit)).collect();
        let found = lab.run();
        // The last edit of a file first: each puts back what it found.
        edited.into_iter().rev().for_each(|(path, before)| fs::write(path, before).expect("the copy is ours"));
        let (name, told) = (mutant.name, told(&found));
        assert_eq!(found.status.code(), Some(1), "{name}: {told}");
        assert!(told.contains(mutant.breaks), "{name} breaks {}: {told}", mutant.breaks);
        println!("{name}: {}", told.chars().take(160).collect::<String>());
    }
    println!("faults fired: {}", MUTANTS.len());
}

/// A copy of the sources with a program that runs the simulator; what was built before is used again.
struct Lab {
    dir: PathBuf,
}

impl Lab {
    fn set_up() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
        for folder in ["proto", "protocol"] {
            copy(&root.join(folder), &dir.join(folder));
        }
        copy(&root.join("tests/src/sim"), &dir.join("lab/src/sim"));
        for file in ["sim.rs", "dice.rs"] {
            copy(&root.join("tests/src").join(file), &dir.join("lab/src").join(file));
        }
        put(&dir.join("Cargo.lock"), &fs::read(root.join("Cargo.lock")).expect("the lock file"));
        put(&dir.join("Cargo.toml"), workspace(&root.join("Cargo.toml")).as_bytes());
        put(&dir.join("lab/Cargo.toml"), LAB.as_bytes());
        put(&dir.join("lab/src/main.rs"), MAIN.as_bytes());
        Self { dir }
    }

    /// Replaces a piece of a file; the file, and what stood in it.
    fn edit(&self, mutant: &Mutant, edit: &Edit) -> (PathBuf, String) {
        let path = self.dir.join("protocol/src").join(edit.file);
        let before = fs::read_to_string(&path).expect("a file of protocol");
        let there = before.matches(edit.from).count();
        assert_eq!(there, 1, "{}: {} has {there} times: {}", mutant.name, edit.file, edit.from);
        fs::write(&path, before.replace(edit.from, edit.to)).expect("the copy is ours");
        (path, before)
    }

    /// Builds the program with what is there, and runs it.
    fn run(&self) -> Output {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let target = self.dir.join("target");
        let mut build = Command::new(cargo);
        build.args(["build", "--offline", "--quiet", "-p", "lab", "--target-dir"]).arg(&target).current_dir(&self.dir);
        let built = build.output().expect("cargo runs");
        assert!(built.status.success(), "{}", told(&built));
        Command::new(target.join("debug/lab")).output().expect("the lab runs")
    }
}

/// The workspace with the copied members alone, built for a short time to the first result.
fn workspace(path: &Path) -> String {
    let whole = fs::read_to_string(path).expect("the workspace's manifest");
    let members = whole.lines().find(|line| line.starts_with("members = ")).expect("members");
    let profiles = whole.find("[profile.dev]").expect("profiles");
    let lints = whole.find("[workspace.lints").expect("lints");
    let head = whole[..profiles].replace(members, r#"members = ["proto", "protocol", "lab"]"#);
    format!("{head}{PROFILE}{}", &whole[lints..])
}

const PROFILE: &str = "
[profile.dev]
debug = false

[profile.dev.package.blake3]
opt-level = 3
[profile.dev.package.curve25519-dalek]
opt-level = 3
[profile.dev.package.ed25519-dalek]
opt-level = 3
[profile.dev.package.sha2]
opt-level = 3

";

const LAB: &str = r#"
[package]
name = "lab"
version = "0.0.0"
edition.workspace = true

[dependencies]
pedlar-protocol.workspace = true
blake3.workspace = true
getrandom.workspace = true
libp2p-identity.workspace = true
"#;

/// Seasons of each kind of cheat alone, then of all at once; the first bound that breaks ends it.
const MAIN: &str = r#"
#![allow(dead_code)]
mod dice;
mod sim;

fn main() {
    for scenario in sim::Scenario::ALL {
        let report = sim::season(1, sim::Policy::Ours, scenario, 25, 1);
        if let Some(broken) = report.broken {
            eprintln!("{}: {broken}", scenario.as_str());
            std::process::exit(1);
        }
    }
}
"#;

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        return put(to, &fs::read(from).expect("a source"));
    }
    for entry in fs::read_dir(from).expect("a folder of sources") {
        let name = entry.expect("an entry").file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

/// Writes what is not there yet, so that nothing is built twice.
fn put(path: &Path, bytes: &[u8]) {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a folder")).expect("our folder");
    fs::write(path, bytes).expect("our file");
}

fn told(output: &Output) -> String {
    let mut told = String::from_utf8_lossy(&output.stdout).into_owned();
    told.push_str(&String::from_utf8_lossy(&output.stderr));
    told.trim_end().chars().take(2_000).collect()
}
