//! A client that opens requests and takes them back without end (CVE-2023-44487) is shown the door. Thousands that
//! connect and never shake hands keep nobody out, at either listener. Meanwhile and afterwards others are served,
//! and the control plane has not grown.

use std::{fs, net::TcpStream};

use countersign_tests::{client, setting::Setting};
use h2::{Reason, client::SendRequest};
use http::Request;
use serde_json::json;
use tokio::runtime::Runtime;

/// Far more than a client may take back before it is noticed.
const RESETS: usize = 200_000;
/// More than may shake hands at once, and how many come in each round.
const SILENT: usize = 1500;
const ROUND: usize = 200;

/// Memory of the control plane in KiB.
fn resident(setting: &Setting) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", setting.control_plane.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.unwrap().trim().split(' ').next();
    digits.unwrap().parse().unwrap()
}

fn serves(setting: &Setting) {
    setting.api().ok("AccountService/ListAccounts", &json!({}));
}

#[test]
fn who_takes_back_what_it_asks_for_is_shown_the_door() {
    let setting = Setting::new("rapid-reset");
    serves(&setting);
    let before = resident(&setting);
    let listeners = setting.control_plane.listeners();
    let ca_file = setting.control_plane.ca_file();
    let runtime = Runtime::new().unwrap();
    for address in [listeners.api, listeners.agents] {
        let taken_back = runtime.block_on(async {
            let stream = client::connection(address, &ca_file).await.unwrap();
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::select! {
                ended = connection => {
                    let error = ended.unwrap_err();
                    // What still was on its way to a closed socket can take the farewell along.
                    let calm = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
                    assert!(calm || error.is_io(), "{error}");
                    None
                }
                taken_back = take_back(requests) => taken_back,
            }
        });
        assert_eq!(taken_back, None, "it was let go on for ever");
        serves(&setting);
    }
    // Both times for what they did, and for nothing else.
    let log = setting.control_plane.output();
    assert_eq!(log.matches("remotely-reset").count(), 2, "{log}");
    let after = resident(&setting);
    assert!(after < before + 64 * 1024, "{before} KiB, then {after}");
}

/// Asks and takes back; how often, when nobody objects.
async fn take_back(mut requests: SendRequest<bytes::Bytes>) -> Option<usize> {
    for _ in 0..RESETS {
        let Ok(mut ready) = requests.ready().await else {
            // The connection knows why.
            return std::future::pending().await;
        };
        let request = Request::post("https://localhost/countersign.v1.AccountService/ListAccounts");
        let request = request.body(()).unwrap();
        if let Ok((_answer, mut stream)) = ready.send_request(request, false) {
            stream.send_reset(Reason::CANCEL);
        }
        requests = ready;
        // So that the connection gets its turn.
        tokio::task::yield_now().await;
    }
    Some(RESETS)
}

#[test]
fn who_never_shakes_hands_keeps_nobody_out() {
    let setting = Setting::new("slow-handshakes");
    let listeners = setting.control_plane.listeners();
    let mut silent = Vec::new();
    let mut more = |count: usize| {
        for _ in 0..count {
            for address in [listeners.api, listeners.agents] {
                silent.push(TcpStream::connect(address).unwrap());
            }
        }
    };
    more(SILENT);
    // While more and more of them come, calls and agents get through.
    for round in 0..10 {
        more(ROUND);
        serves(&setting);
        if round == 5 {
            let _agent = setting.agent("edge-1", &[]);
        }
    }
    let log = setting.control_plane.output();
    assert!(
        log.contains("too many others are waiting"),
        "there was room for all of them"
    );
}
