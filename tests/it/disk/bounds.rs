//! The folder of the disk tier never exceeds its size limit.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use vecho::cache::disk::{DiskBounds, DiskParts, DiskSettings, DiskTier};
use vecho::cache::{AtRest, LowerTier as _};
use vecho::key::{Key, KeyBuilder, Tag};
use vecho::observe::metrics::Metrics;
use vecho::process::clock::Clock;

use super::ground::{Folder, Ground, texts};
use crate::harness::eventually;

const MODEL: &str = "text-embedding-3-large";
const MIB: u64 = 1 << 20;
const BOUND: u64 = 16 * MIB;

/// Returns the disk usage of a folder, as counted by `du`.
fn taken_bytes(folder: &Folder) -> u64 {
    let told = Command::new("du").args(["-s", "--block-size=1", folder.text()]).output();
    let told = String::from_utf8(told.expect("du must run; it is part of coreutils").stdout).expect("du speaks text");
    told.split_whitespace().next().expect("du counts").parse().expect("du counts in numbers")
}

pub(super) async fn tier(folder: &Folder) -> DiskTier {
    let settings = DiskSettings {
        path: folder.path().to_owned(),
        bounds: DiskBounds { max_bytes: BOUND, max_entries: u64::MAX },
        queue_bytes: 4 << 20,
        off_for: Duration::from_mins(1),
    };
    let (clock, metrics, purges) = (Clock::manual(0), Metrics::new("test"), Arc::default());
    DiskTier::start(settings, DiskParts { clock, metrics, purges }).await
}

fn keys(batch: u32) -> Vec<Key> {
    (batch * 100..batch * 100 + 100).map(|n| KeyBuilder::new(None).part(Tag::Text, &n.to_le_bytes()).finish()).collect()
}

fn value(key: &Key) -> Bytes {
    let mut bytes = vec![0; 3_200];
    key.stream().fill(&mut bytes);
    Bytes::from(bytes)
}

#[tokio::test]
async fn the_newest_entries_stay_when_three_times_the_bound_is_written() {
    let folder = Folder::new();
    let tier = tier(&folder).await;
    let (mut most, batches) = (0, 160);
    for batch in 0..batches {
        for key in keys(batch) {
            tier.put(key, AtRest { bytes: value(&key), until_ms: 1 });
        }
        let written = async || tier.stats().entries + tier.stats().evictions == u64::from(batch + 1) * 100;
        eventually("the batch is written", written).await;
        most = most.max(taken_bytes(&folder));
    }
    assert!((13 * MIB..=BOUND).contains(&most), "{most}");
    let stats = tier.stats();
    assert_eq!((stats.dropped, stats.entries + stats.evictions), (0, u64::from(batches) * 100));
    assert!(stats.bytes <= BOUND && stats.capacity_bytes == BOUND, "{stats:?}");
    for batch in batches - 30..batches {
        let keys = keys(batch);
        let right: Vec<_> = keys.iter().map(|key| Some(value(key))).collect();
        assert!(tier.get(&keys).await == right, "batch {batch}");
    }
    assert!(tier.get(&keys(0)).await.iter().all(Option::is_none));
    assert_eq!(tier.close(Duration::from_secs(10)).await, 0);
    assert!(taken_bytes(&folder) <= BOUND, "with the last footer, too");
}

#[tokio::test]
async fn the_configured_bound_is_enforced() {
    let (ground, texts) = (Ground::new(), texts("bound", 3_168));
    let vecho = ground.start_with(&[("VECHO_DISK_MAX_MB", "16")]);
    for part in texts.chunks(96) {
        let body = json!({"model": MODEL, "input": part, "encoding_format": "base64"});
        assert_eq!(ground.embed(&vecho, &body).await.status, 200);
    }
    assert!(vecho.stop().status.success());
    let taken = taken_bytes(&ground.folder);
    assert!((13 * MIB..=BOUND).contains(&taken), "{taken}");
    let vecho = ground.start_with(&[("VECHO_DISK_MAX_MB", "16")]);
    let stats = ground.stats(&vecho).await;
    assert!(stats["bytes"].as_u64().is_some_and(|bytes| bytes <= BOUND), "{stats}");
    assert_eq!(ground.ask(&vecho, MODEL, &texts[3_072..]).await, 96);
    assert_eq!(ground.ask(&vecho, MODEL, &texts[..96]).await, 0);
}
