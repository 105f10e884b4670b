use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::failure::Exit;
use crate::home::Home;
use crate::socket;

type Line = client::Answer<Value, Value>;

fn home(dir: &Path) -> Home {
    let home = Home::resolve(Some(dir), |_| None).unwrap();
    home.create().unwrap();
    home
}

/// A node that echoes a request, waits for ever at `"wait"` and fails at `"fail"`.
fn start(home: &Home) -> (CancellationToken, Arc<AtomicBool>) {
    let listener = bind(&home.lock().unwrap()).unwrap();
    let (stop, dropped) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let flag = dropped.clone();
    tokio::spawn(serve(listener, stop.clone(), move |request: Value, lines: LineSender| {
        let on_drop = OnDrop(flag.clone());
        async move {
            if request == "wait" {
                std::future::pending::<()>().await;
            }
            drop(on_drop);
            if request == "fail" {
                return Err(Failure::new(Exit::NoSeller, "dear", "too dear"));
            }
            let out = Out::new(lines.clone());
            out.line(json!({"type": "echo", "request": request})).await?;
            let _ = lines.send(json!({"type": "summary", "n": 1}).to_string()).await;
            Ok(())
        }
    }));
    (stop, dropped)
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn talk(home: &Home, request: &Value) -> Result<(Value, Value), Failure> {
    let mut answers = ask(home, request).await?;
    let Line::Line(line) = Line::parse(&answers.next().await?)? else { panic!("a line comes first") };
    let Line::Summary(summary) = Line::parse(&answers.next().await?)? else { panic!("the summary comes last") };
    assert!(answers.next().await.is_err(), "nothing follows the summary");
    Ok((line, summary))
}

#[tokio::test]
async fn a_request_gets_its_lines_and_its_summary() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    start(&home);
    let (line, summary) = talk(&home, &json!({"verb": "x"})).await.unwrap();
    assert_eq!(line["request"]["verb"], "x");
    assert_eq!(summary["n"], 1);
    assert_eq!(fs::metadata(home.socket()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_failure_takes_the_place_of_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    start(&home);
    let failure = talk(&home, &json!("fail")).await.unwrap_err();
    assert_eq!((failure.exit, &*failure.code), (Exit::NoSeller, "dear"));
}

#[tokio::test]
async fn a_home_with_a_long_path_works_alike() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(&dir.path().join("d".repeat(120)).join("e".repeat(120)));
    start(&home);
    assert!(talk(&home, &json!(1)).await.is_ok());
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    drop(std::os::unix::net::UnixListener::bind(home.socket()).unwrap());
    assert_eq!(talk(&home, &json!(1)).await.unwrap_err().exit, Exit::NotRunning);
    start(&home);
    assert!(talk(&home, &json!(1)).await.is_ok());
}

#[tokio::test]
async fn oversized_and_garbled_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    start(&home);
    let long = "x".repeat(usize::try_from(MAX_REQUEST).unwrap());
    for (request, code) in [(long.as_str(), "request_too_long"), ("{\n", "malformed_request")] {
        let mut stream = socket::connect(&home.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(b"\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((&answer["type"], &answer["code"], &answer["exit"]), (&json!("error"), &json!(code), &json!(2)));
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_verb() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let (_, dropped) = start(&home);
    let answers = ask(&home, &json!("wait")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!dropped.load(Ordering::SeqCst), "the verb runs while the client is there");
    drop(answers);
    tokio::time::timeout(Duration::from_secs(5), async {
        while !dropped.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn stopping_ends_verbs_and_removes_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let (stop, _) = start(&home);
    let mut answers = ask(&home, &json!("wait")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.cancel();
    assert_eq!(answers.next().await.unwrap_err().code, "node_ended");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!home.socket().exists());
}
