//! A Redis cluster: three nodes that share the keys.

use super::{DOWN, LOOKUPS, comes_up, goes_down, name_of, purge, replica, sources};
use crate::harness::front::texts_of;
use crate::harness::ops::metric_becomes;
use crate::harness::redis::Cluster;
use crate::harness::{Inside, Stub, eventually};

const CLUSTER: (&str, &str) = ("redis.cluster", "true");

fn texts(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name} {n}")).collect()
}

async fn ask(replica: &Inside, texts: &[String]) -> String {
    sources(replica, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Returns the number of records on each node, including the note that names the space's model.
fn records(cluster: &Cluster) -> Vec<usize> {
    cluster.0.iter().map(|node| node.records().len()).collect()
}

#[tokio::test]
async fn cluster_nodes_share_the_records_and_replicas_find_all_of_them() {
    let (cluster, stub) = (Cluster::start(), Stub::start());
    let one = replica(&stub, &cluster.url(), &[CLUSTER]).await;
    let texts = texts("text", 60);
    assert_eq!(ask(&one, &texts).await, "upstream=60");
    eventually("all are stored", async || records(&cluster).iter().sum::<usize>() == 61).await;
    assert!(records(&cluster).iter().all(|count| *count > 5), "{:?}", records(&cluster));
    // A client can discover the other nodes from any node.
    let other = replica(&stub, &cluster.0[1].url(), &[CLUSTER]).await;
    assert_eq!(ask(&other, &texts).await, "redis=60");
    assert_eq!(stub.embedding_calls().len(), 1);
}

#[tokio::test]
async fn purges_and_leases_work_in_a_cluster() {
    let (cluster, stub) = (Cluster::start(), Stub::start());
    let settings = [CLUSTER, ("redis.lease", "20s")];
    let one = replica(&stub, &cluster.url(), &settings).await;
    let other = replica(&stub, &cluster.url(), &settings).await;
    let texts = texts("text", 30);
    let (first, second) = futures_util::future::join(ask(&one, &texts), ask(&other, &texts)).await;
    assert_eq!(stub.inputs_sent(), 30, "{first} and {second}");
    eventually("all are stored", async || records(&cluster).iter().sum::<usize>() == 31).await;
    purge(&one, "").await;
    let is_forgotten = async || {
        let url = format!("http://{}/api/performance/cache/explain", other.admin());
        other.client.post(&url, &texts_of(&["text 0"])).await.json()["inputs"][0]["state"] == "missing"
    };
    eventually("it is purged everywhere", is_forgotten).await;
    assert_eq!(ask(&other, &texts).await, "upstream=30");
}

#[tokio::test]
async fn foreign_values_in_a_cluster_are_misses() {
    let (cluster, stub) = (Cluster::start(), Stub::start());
    let one = replica(&stub, &cluster.url(), &[CLUSTER]).await;
    let texts = texts("text", 12);
    ask(&one, &texts).await;
    eventually("all are stored", async || records(&cluster).iter().sum::<usize>() == 13).await;
    let record = name_of(&one, "text 0").await;
    let node = cluster.0.iter().find(|node| node.records().contains(&record)).expect("one of them has it");
    node.cli(&["del", &record]);
    node.cli(&["rpush", &record, "a list"]);
    let other = replica(&stub, &cluster.url(), &[CLUSTER]).await;
    assert_eq!(ask(&other, &texts).await, "redis=11, upstream=1");
    assert!(other.metric(DOWN).await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_lost_cluster_node_takes_the_tier_down_without_delaying_requests() {
    let (mut cluster, stub) = (Cluster::start(), Stub::start());
    let settings = [CLUSTER, ("redis.timeout", "300ms"), ("redis.connect_timeout", "1s")];
    let replica = replica(&stub, &cluster.url(), &settings).await;
    ask(&replica, &texts("before", 10)).await;
    cluster.0[2].kill();
    for text in texts("at once", 5) {
        let begun = std::time::Instant::now();
        assert_eq!(sources(&replica, &[&text]).await, "upstream=1");
        assert!(begun.elapsed() < std::time::Duration::from_millis(1_800), "{:?}", begun.elapsed());
    }
    goes_down(&replica).await;
    let asked = replica.metric(LOOKUPS).await;
    for text in texts("without", 10) {
        assert_eq!(sources(&replica, &[&text]).await, "upstream=1");
    }
    metric_becomes(replica.admin(), LOOKUPS, asked).await;
    cluster.revive(2);
    comes_up(&replica).await;
}

#[tokio::test]
async fn a_cluster_node_used_as_a_single_server_logs_the_needed_setting() {
    let (cluster, stub) = (Cluster::start(), Stub::start());
    let environment = [("VECHO_REDIS_URL", &*cluster.0[0].url()), ("VECHO_DISK_ENABLED", "false")];
    let vecho = crate::harness::Vecho::start_with(&stub.base_url(), &environment);
    vecho.logged("redis.cluster = true").await;
}
