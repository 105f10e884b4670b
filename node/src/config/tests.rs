use super::*;

fn load(file: &str, flags: Flags, env: &[(&str, &str)]) -> Result<(Config, Vec<Setting>), ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let lookup = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Config::load(&path, flags, lookup)
}

fn setting<'a>(settings: &'a [Setting], key: &str) -> &'a Setting {
    settings.iter().find(|setting| setting.key == key).unwrap()
}

fn error(file: &str) -> String {
    load(file, Flags::new(), &[]).unwrap_err().to_string()
}

#[test]
fn everything_has_a_default() {
    let (config, settings) = Config::load(Path::new("/nowhere/config.toml"), Flags::new(), |_| None).unwrap();
    assert_eq!(config.network, Network::Signet);
    assert_eq!(config.listen.len(), 2);
    assert_eq!((config.credit.grant, config.credit.cap.floor_sat()), (Msat::ZERO, 100_000));
    assert_eq!((config.fees.max_sat_vb, config.limits.max_window), (100, MAX_WINDOW));
    assert!(settings.iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn a_flag_beats_the_environment_beats_the_file() {
    let file = "min_topup_sat = 1001\nlog = \"warn\"\n\n[fees]\nmax_sat_vb = 7\n";
    let flags = Flags::from([("min_topup_sat", vec!["1003".to_owned()]), ("listen", Vec::new())]);
    let env = [("PEDLAR_MIN_TOPUP_SAT", "1002"), ("PEDLAR_LOG", "debug")];
    let (config, settings) = load(file, flags, &env).unwrap();
    assert_eq!((config.min_topup_sat, config.log.as_str(), config.fees.max_sat_vb), (1_003, "debug", 7));
    let from = |key| &setting(&settings, key).origin;
    assert_eq!(*from("min_topup_sat"), Origin::Flag);
    assert_eq!(*from("log"), Origin::Env("PEDLAR_LOG".to_owned()));
    assert!(matches!(from("fees.max_sat_vb"), Origin::File { line: 5, .. }));
    assert_eq!(*from("listen"), Origin::Default, "a flag that was not given says nothing");
    assert_eq!(setting(&settings, "fees.max_sat_vb").value.to_string(), "7");
}

#[test]
fn what_is_shown_can_be_written_into_the_file() {
    let lookup = |name: &str| (name == "PEDLAR_BOOTSTRAP").then(|| "/ip4/127.0.0.1/tcp/1,/ip6/::1/tcp/2".to_owned());
    let (config, settings) = Config::load(Path::new("/nowhere"), Flags::new(), lookup).unwrap();
    let written = settings.iter().filter_map(|setting| match &setting.value {
        Value::One(value) => Some(format!("{} = {:?}\n", setting.key, value.as_ref()?)),
        Value::Many(values) => Some(format!("{} = {values:?}\n", setting.key)),
    });
    let (again, settings) = load(&written.collect::<String>(), Flags::new(), &[]).unwrap();
    assert_eq!(again, config);
    let said = |setting: &&Setting| matches!(setting.origin, Origin::File { .. });
    assert_eq!(
        settings.iter().filter(said).count(),
        settings.len() - 1,
        "all but the network's id, which has no default"
    );
}

#[test]
fn values_are_written_with_their_units() {
    let file = "electrum = [\"tcp://127.0.0.1:1\", \"ssl://a.example:2\"]\nmin_topup_sat = \"500 sat\"\n\
                [credit]\ngrant_sat = \"1sat\"\ncap_sat = 9\n[budget]\nday_sat = 0\nmonth_sat = \"70sat\"\n[limits]\nmax_window = \"64KiB\"\n";
    let (config, _) =
        load(file, Flags::new(), &[("PEDLAR_BOOTSTRAP", "/ip4/127.0.0.1/tcp/1, /ip6/::1/tcp/2")]).unwrap();
    assert_eq!(config.electrum.len(), 2);
    assert_eq!(config.bootstrap.len(), 2);
    assert_eq!((config.min_topup_sat, config.limits.max_window), (500, 65_536));
    assert_eq!((config.credit.grant.msat(), config.credit.cap.msat()), (1_000, 9_000));
    assert_eq!((config.budget.day_sat, config.budget.month_sat), (0, 70));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let message = error("network = \"regtest\"\n\n# fees\n[fees]\nmax = 3\n");
    assert!(message.contains("line 5: there is no setting `fees.max`; there is: network, "), "{message}");
    let message = error("electrun = []\nzzz = 1\n");
    assert!(message.contains("line 1: there is no setting `electrun`"), "{message}");
    let message = error("log = \"info\"\n[fess]\n[limits]\n");
    assert!(message.contains("line 2: there is no setting `fess`"), "{message}");
    let message = error("[fees]\nmax_sat_vb = 5\n[fees.max]\n");
    assert!(message.contains("line 3: there is no setting `fees.max`"), "{message}");
    assert!(error("[log]").contains("line 1: there is no setting `log`"), "a value is no table");
    load("[fees]\n[limits]\n", Flags::new(), &[]).expect("a table from which all was taken out");
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_reason() {
    let message = error("log = \"info\"\nnetwork = \"bitcoin\"\n");
    assert!(message.contains("line 2: network = \"bitcoin\": bitcoin is refused until"), "{message}");
    assert!(error("network = [\"signet\", \"regtest\"]").contains("one value is expected"));
    assert!(error("min_topup_sat = \"1.5sat\"").contains("whole sat"));
    assert!(error("min_topup_sat = 293").contains("line 1: min_topup_sat = \"293\": below 294 sat it is dust"));
    assert!(load("min_topup_sat = 294", Flags::new(), &[]).is_ok());
    assert!(error("electrum = [\"a:1\"]").contains("line 1: electrum = \"a:1\": a server is given as"));
    let login = error("electrum = [\"ssl://me:hunter2@a.example:2\"]");
    assert!(
        login.contains("ssl://…@a.example:2") && login.contains("no password") && !login.contains("hunter2"),
        "{login}"
    );
    assert!(error("network_id = \"xyz\"").contains("8 hex digits"));
    assert!(error("limits.max_window = \"many\"").contains("64KiB"));
    assert!(error("log = \n").contains("line 1"));
}
