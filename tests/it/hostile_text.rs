//! Text of strangers that would steer a terminal, reorder or hide what stands beside it, or flood it: whatever shows it,
//! a terminal, JSON, the socket, the log, shows it escaped and cut (CHECKS R29).

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use pedlar_net::Multiaddr;
use pedlar_protocol::content::{Kind, Root, Size};
use pedlar_protocol::money::Price;
use pedlar_protocol::offer::{Listing, Offer, RailKind, Service, SignedOffer, Terms, Title};
use pedlar_protocol::text::{Name, is_hidden};
use pedlar_protocol::wire::peer_id;
use pedlar_tests::cluster::{Peer, path, until};
use pedlar_tests::hostile::{Stranger, now};
use pedlar_tests::lying_electrum::LyingElectrum;

use crate::{PRICE, world};

/// What strangers write, what of it people see, and what of it programs see.
const TEXTS: [(&str, &str, &str); 6] = [
    // Clears the screen, names the window.
    ("\u{1b}[2J\u{1b}]0;owned\u{7}", r"\u{1b}[2J\u{1b}]0;owned\u{7}", r"\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
    ("song\u{202e}3pm.\u{2066}exe\u{2069}", r"song\u{202e}3pm.\u{2066}exe\u{2069}", r"song\\u{202e}3pm.\\u{2066}exe"),
    ("a\0b\r\ngone", r"a\u{0}b\u{d}\u{a}gone", r"a\\u{0}b\\u{d}\\u{a}gone"),
    ("c\u{9b}31mred\u{85}", r"c\u{9b}31mred\u{85}", r"c\\u{9b}31mred\\u{85}"),
    ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
    ("pay\u{200b}pal\u{feff}\u{e0041}", r"pay\u{200b}pal\u{feff}\u{e0041}", r"pay\\u{200b}pal\\u{feff}\\u{e0041}"),
];

/// No line of an answer is longer: the longest have the addresses of a seller, up to 4 KiB.
const LONGEST_LINE: usize = 16 << 10;

/// No line of a log is longer: an event has a few values, and so has each span round it.
const LONGEST_EVENT: usize = 32 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn names_agents_and_addresses_of_strangers_are_shown_and_not_obeyed() {
    let world = world().await;
    let node = world.node_with("node", "log = \"trace\"\n").await;
    let mut strangers = Vec::new();
    for (text, _, _) in TEXTS {
        let stranger = Stranger::called(&world, text).await;
        stranger.meet(&node, &node.addrs()).await;
        strangers.push(stranger);
    }
    // Longer than anybody reads, and not at all what a text may be.
    let long = Stranger::called(&world, &"\u{1b}".repeat(1_000)).await;
    long.meet(&node, &node.addrs()).await;
    let offer = hostile_offer(&strangers[0]);
    strangers[0].gossip(offer.bytes()).await;
    let seller: &str = &strangers[0].id().to_string();
    let known = async || node.ask(&["market"]).await.iter().any(|line| line["peer"] == seller).then_some(());
    until("the offer is known", known).await;
    let met = async || {
        let peers = node.ask(&["peers"]).await;
        let agents: BTreeSet<&str> = peers.iter().filter_map(|peer| peer["agent"].as_str()).collect();
        TEXTS.iter().all(|(_, shown, _)| agents.contains(shown)).then_some(())
    };
    until("all have said what they call their software", met).await;

    let mut seen = Seen::default();
    let verbs: [&[&str]; 9] = [
        &["peers"],
        &["market"],
        &["market", "chunks"],
        &["status"],
        &["published"],
        &["account", "list"],
        &["wallet", "history"],
        &["config", "show", "--origin"],
        &["doctor"],
    ];
    for verb in verbs {
        seen.by_program(&node, verb);
        seen.on_terminal(&node, verb);
    }
    for verb in ["peers", "market"] {
        for (_, shown, escaped) in TEXTS {
            seen.holds(&format!("{verb} on a terminal"), shown);
            seen.holds(&format!("{verb} as JSON"), escaped);
        }
    }
    seen.holds("market as JSON", "/dns4/\\u001b[31mred\\u202e/tcp/1");
    seen.socket(&node, r#"{"verb":"peers"}"#, TEXTS[0].2);
    seen.socket(&node, r#"{"verb":"\u001b[31m\u202e"}"#, r"\\u{1b}[31m\\u{202e}");
    let long = format!("{{\"verb\":\"{}\"}}", "\u{202e}".repeat(20_000));
    seen.socket(&node, &long, "…");
    let garbage = format!("{{\"verb\":\"peers\",\"{}\":1}}", "\u{1b}\u{202e}".repeat(10_000));
    seen.socket(&node, &garbage, "\"type\":\"error\"");
    seen.log(&node);
    seen.holds("the log", TEXTS[0].1);
    println!("faults fired: {} ({} texts each from an agent and a title, and more)", seen.faults, TEXTS.len());
    assert!(seen.faults >= 4 * TEXTS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_links_with_hostile_names_are_sold_and_bought_without_a_trace_on_the_terminal() {
    let world = world().await;
    let (seller, buyer) = (world.node("seller").await, world.node("buyer").await);
    world.fund(&buyer).await;
    let folder = world.path("folder");
    fs::create_dir(&folder).unwrap();
    let mut seen = Seen::default();
    // What a file system takes for a name, and what it takes for none of a regular file.
    for (number, (text, _, _)) in TEXTS.iter().enumerate() {
        let name = text.replace('\0', "");
        fs::write(folder.join(&name), format!("{number}")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.join(format!("link {name}"))).unwrap();
    }
    let publish = ["publish", path(&folder), "--price", PRICE, "--name", TEXTS[0].0];
    seen.by_program(&seller, &publish);
    for (_, _, escaped) in TEXTS.iter().filter(|(text, _, _)| !text.contains('\0')) {
        seen.holds("publish as JSON", &format!("link {escaped}"));
    }
    seen.by_program(&seller, &["published"]);
    seen.on_terminal(&seller, &["published"]);
    seen.holds("published on a terminal", TEXTS[0].1);
    let link = seen.published_link();
    buyer.pay(&seller, "1000sat").await;
    let bought = world.path("bought");
    seen.by_program(&buyer, &["get", &link, "-o", path(&bought)]);
    assert_eq!(fs::read_dir(&bought).unwrap().count(), TEXTS.len());

    // The same file again, by links that a web page made.
    for (text, _, _) in TEXTS {
        let name: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let base = link.split('?').next().unwrap();
        for hostile in [format!("{base}?name={name}"), format!("{base}{text}"), format!("pedlar:{text}")] {
            let hostile = hostile.replace('\0', "");
            for verb in [&["get", &hostile, "--dry-run"][..], &["unpublish", &hostile]] {
                seen.by_program(&buyer, verb);
                seen.on_terminal(&buyer, verb);
            }
            seen.faults += 1;
        }
    }
    let long = format!("pedlar:{}", "\u{202e}".repeat(30_000));
    seen.by_program(&buyer, &["get", &long]);
    for node in [&seller, &buyer] {
        seen.log(node);
    }
    println!("faults fired: {}", seen.faults);
    assert!(seen.faults > 3 * TEXTS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_electrum_server_writes_is_never_shown() {
    let world = world().await;
    let liar = LyingElectrum::before(world.electrum.local_addr()).await;
    let node = world.node_asking("node", &[liar.url()]).await;
    let mut seen = Seen::default();
    let mark = "MARK-5f1c";
    let texts = TEXTS.iter().map(|(text, _, _)| serde_json::to_vec(&format!("{mark}{text}")).unwrap());
    let overlong = [b"\"".as_slice(), mark.as_bytes(), b"\xc0\x80\xe0\x80\xaf\xff\""].concat();
    let megabyte = serde_json::to_vec(&format!("{mark}{}", "\u{1b}[2J\u{202e}".repeat(1 << 17))).unwrap();
    let raw = format!("\"{mark}\u{1b}[2J\"").into_bytes();
    for words in texts.chain([overlong, megabyte, raw]) {
        let told = liar.told();
        liar.say(&words);
        until("the server has spoken", async || (liar.told() > told).then_some(())).await;
        let down = async || (node.one(&["status"], "status").await["servers"][0]["state"] == "down").then_some(());
        until("the server is set aside", down).await;
        seen.faults += 1;
        for verb in [&["status"][..], &["doctor"], &["wallet", "balance"], &["wallet", "send", "x", "1sat", "--yes"]] {
            seen.by_program(&node, verb);
            seen.on_terminal(&node, verb);
        }
        liar.lie(pedlar_tests::lying_electrum::Lie::None);
        let up = async || (node.one(&["status"], "status").await["servers"][0]["state"] == "up").then_some(());
        until("the server is forgiven", up).await;
    }
    seen.log(&node);
    let shown = seen.all();
    assert!(shown.contains("refused a request") || shown.contains("broke the protocol"), "in our words");
    assert!(!shown.contains(mark), "and never in the server's");
    println!("faults fired: {}", seen.faults);
}

/// What was shown, by whom; and how many hostile texts were found in it, escaped.
#[derive(Default)]
struct Seen {
    shown: Vec<(String, String)>,
    faults: usize,
}

impl Seen {
    /// Runs a verb as a program does: lines of JSON, and an error of JSON, in which nothing is hidden.
    fn by_program(&mut self, node: &Peer, verb: &[&str]) {
        let mut program = node.home.command(&[verb, &["--json"]].concat()).into_std();
        let output = program.stdin(Stdio::null()).output().unwrap();
        for (what, bytes) in [("answer", output.stdout), ("error", output.stderr)] {
            let text = String::from_utf8(bytes).unwrap_or_else(|_| panic!("{what} of {verb:?} is UTF-8"));
            let hidden = text.chars().find(|char| *char != '\n' && is_hidden(*char));
            assert_eq!(hidden, None, "in the {what} of {verb:?}: {text:?}");
            for line in text.lines() {
                assert!(line.len() <= LONGEST_LINE, "{} bytes in a line of {verb:?}", line.len());
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("JSON: {line:?}"));
            }
            self.shown.push((format!("{} as JSON", verb[0]), text));
        }
    }

    /// Runs a verb on a terminal of its own, as a person does.
    fn on_terminal(&mut self, node: &Peer, verb: &[&str]) {
        let command = node.home.command(verb).into_std();
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap().replace('\'', r"'\''"));
        let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        let mut script = Command::new("script");
        script.args(["-qec", &words.join(" "), "/dev/null"]).stdin(Stdio::null()).stderr(Stdio::null());
        for (name, value) in command.get_envs() {
            script.env(name, value.unwrap());
        }
        let output = script.output().expect("`script`, which every Debian has");
        let text = String::from_utf8(output.stdout).unwrap_or_else(|_| panic!("{verb:?} writes UTF-8"));
        assert!(!text.is_empty(), "{verb:?} says something");
        // A terminal ends lines with both.
        let text = text.replace("\r\n", "\n");
        let hidden = text.chars().find(|char| *char != '\n' && is_hidden(*char));
        assert_eq!(hidden, None, "on the terminal of {verb:?}: {text:?}");
        self.shown.push((format!("{} on a terminal", verb[0]), text));
    }

    /// Asks the socket itself.
    fn socket(&mut self, node: &Peer, request: &str, holds: &str) {
        let mut stream = UnixStream::connect(node.home.dir.join("api.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // A request that is too long is not read to its end.
        let _ = stream.write_all(format!("{request}\n").as_bytes());
        let lines: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).collect();
        let text = lines.join("\n");
        assert_eq!(text.chars().find(|char| *char != '\n' && is_hidden(*char)), None, "{text:?}");
        assert!(lines.iter().all(|line| line.len() <= LONGEST_LINE));
        self.shown.push(("the socket".to_owned(), text));
        self.holds("the socket", holds);
    }

    /// Reads the node's log.
    fn log(&mut self, node: &Peer) {
        let text = String::from_utf8(fs::read(node.home.log()).unwrap()).expect("a log is UTF-8");
        for line in text.lines() {
            assert_eq!(line.chars().find(|char| is_hidden(*char)), None, "in the log: {line:?}");
            assert!(line.len() <= LONGEST_EVENT, "{} bytes in a line of the log", line.len());
        }
        assert!(!text.is_empty());
        self.shown.push(("the log".to_owned(), text));
    }

    /// Asserts that this was really seen there, and counts it.
    fn holds(&mut self, place: &str, text: &str) {
        let there = self.shown.iter().filter(|(name, _)| name == place);
        let all: String = there.map(|(_, shown)| shown.as_str()).collect();
        assert!(all.contains(text), "{place} shows {text:?}: {all}");
        self.faults += 1;
    }

    fn all(&self) -> String {
        self.shown.iter().map(|(_, shown)| shown.as_str()).collect()
    }

    /// The link of what was published.
    fn published_link(&self) -> String {
        let lines = self.shown.iter().flat_map(|(_, shown)| shown.lines());
        let mut published = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let line = published.find(|line| line["type"] == "published").expect("something is published");
        line["link"].as_str().unwrap().split('?').next().unwrap().to_owned()
    }
}

/// An offer whose titles and whose address say what no honest one does.
fn hostile_offer(stranger: &Stranger) -> SignedOffer {
    let title = |(number, (text, _, _)): (usize, &(&str, &str, &str))| Title {
        name: Name::new(*text).unwrap(),
        root: Root::of(&[number as u8]),
        size: Size::new(1).unwrap(),
        kind: Kind::File,
    };
    let titles = TEXTS.iter().enumerate().map(title).collect();
    let price = Price::per_gib(10_000);
    let listing = Listing { service: Service::Chunks, price, ceiling: price, capacity_bytes_per_s: 0, titles };
    // /dns4/ESC[31mred RLO/tcp/1, in bytes: the code of dns4 is 0x36.
    let name = "\u{1b}[31mred\u{202e}".as_bytes();
    let address = [&[0x36, name.len() as u8], name, &[0x06, 0, 1]].concat();
    let offer = Offer {
        network: stranger.network.clone(),
        seller: peer_id(&stranger.key),
        sequence: 1,
        issued: now(),
        expires: now().saturating_add(Duration::from_secs(3_600)),
        addresses: vec![Multiaddr::try_from(address).unwrap()],
        rails: [RailKind::Onchain].into(),
        terms: Terms::default(),
        listings: vec![listing],
    };
    SignedOffer::sign(&stranger.key, offer).unwrap()
}
