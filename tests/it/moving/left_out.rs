//! Records that an export omits are logged.

use std::os::unix::fs::FileExt as _;

use serde_json::json;

use super::command::{TINY, ask, embed, run_at};
use crate::harness::scripted::{Act, Scripted, ok, one_vector};
use crate::harness::tls::Folder;
use crate::harness::{Stub, Vecho};

#[tokio::test]
async fn a_record_too_large_for_an_export_is_logged() {
    // More than 1 MiB as f32.
    let long = one_vector(0.5).replace("[0.5,", &format!("[{}", "0.5,".repeat(300_000)));
    let (_, long) = long.split_once("\r\n\r\n").expect("a body follows the head");
    let long = ok(long);
    let upstream = Scripted::start(move |arrival| {
        Act::Say(if arrival.body.contains("\"long\"") { long.clone() } else { one_vector(0.5) })
    })
    .await;
    let vecho =
        Vecho::start_with(&upstream.base_url(), &[("VECHO_CACHE_CODEC", "f32"), ("VECHO_DISK_ENABLED", "false")]);
    for model in ["long", "short"] {
        let body = json!({"model": model, "input": "a", "encoding_format": "float"});
        assert_eq!(ask(&vecho, &body, None).await.status, 200);
        assert_eq!(ask(&vecho, &body, None).await.cache(), "hit", "{model} is kept");
    }
    run_at(&vecho, &["export", "-"]).well().said("exported 1 record");
    vecho.logged("record skipped in export").await;
    let log = vecho.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("record skipped in export")).collect();
    assert!(
        matches!(lines[..], [line] if line.contains("WARN") && line.contains("larger than 1048576 bytes")),
        "{log}"
    );
}

#[tokio::test]
async fn a_damaged_record_is_skipped_and_logged() {
    let (stub, folder) = (Stub::start(), Folder::new("damaged-record"));
    let path = folder.path("disk");
    let environment = [("VECHO_DISK_PATH", path.to_str().expect("the path is text"))];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    let texts = ["one", "two", "three"];
    embed(&vecho, &texts, "float").await;
    assert!(vecho.stop().status.success());
    // Each record contains the name of its model. This write changes the name in the first record.
    let segment = path.join("0000000001.segment");
    let bytes = std::fs::read(&segment).expect("it was written");
    let at = bytes.windows(TINY.len()).position(|bytes| bytes == TINY.as_bytes()).expect("a record names its model");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).expect("it is there");
    file.write_all_at(b"T", at as u64).expect("it can be written");
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    vecho.logged("the disk tier is open").await;
    run_at(&vecho, &["export", "-"]).well().said("exported 2 records");
    vecho.logged("a stored record is damaged").await;
    assert_eq!(vecho.log().matches("a stored record is damaged").count(), 1, "{}", vecho.log());
}
