//! The folder never takes more than it may.

use std::process::Command;

use serde_json::json;

use super::ground::{Ground, texts};

const MODEL: &str = "text-embedding-3-large";
const MIB: u64 = 1 << 20;

/// What the folder takes on the medium, as `du` counts it.
fn taken_bytes(ground: &Ground) -> u64 {
    let told = Command::new("du").args(["-s", "--block-size=1", ground.folder.text()]).output();
    let told = String::from_utf8(told.expect("du must run; it is part of coreutils").stdout).expect("du speaks text");
    told.split_whitespace().next().expect("du counts").parse().expect("du counts in numbers")
}

#[tokio::test]
async fn three_times_the_bound_goes_in_and_the_newest_of_it_stays() {
    let (ground, texts) = (Ground::new(), texts("bound", 7_872));
    let vecho = ground.start_with(&[("VECHO_DISK_MAX_MB", "16")]);
    let mut most = 0;
    for part in texts.chunks(96) {
        let body = json!({"model": MODEL, "input": part, "encoding_format": "base64"});
        assert_eq!(ground.embed(&vecho, &body).await.status, 200);
        most = most.max(taken_bytes(&ground));
    }
    let ended = vecho.stop();
    assert!(ended.log.contains("stopped: nothing was cut"), "{}", ended.log);
    most = most.max(taken_bytes(&ground));
    assert!((12 * MIB..=16 * MIB).contains(&most), "{most}");
    let vecho = ground.start_with(&[("VECHO_DISK_MAX_MB", "16")]);
    let stats = ground.stats(&vecho).await;
    assert!(stats["bytes"].as_u64().is_some_and(|bytes| bytes <= 16 * MIB), "{stats}");
    assert_eq!(ground.ask(&vecho, MODEL, &texts[7_372..]).await, 500);
    assert_eq!(ground.ask(&vecho, MODEL, &texts[..96]).await, 0);
}
