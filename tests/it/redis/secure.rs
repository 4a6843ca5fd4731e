//! Redis with TLS, a password, and a selected database.

use super::{goes_down, login, purge, replica, sources, started, stored};
use crate::harness::redis::Redis;
use crate::harness::tls::{Folder, Identity};
use crate::harness::{Stub, Vecho};

#[tokio::test]
async fn tls_uses_the_configured_root_and_client_certificate() {
    let (folder, stub) = (Folder::new("redis-tls"), Stub::start());
    let identity = Identity::new("localhost");
    let (cert, key) = (folder.write("cert.pem", &identity.cert_pem), folder.write("key.pem", &identity.key_pem));
    let mut redis = Redis::absent().with_tls(&cert, &key, &cert);
    redis.go_on();
    let url = format!("rediss://localhost:{}", redis.port());
    let trusting = [("redis.ca_file", &*cert), ("redis.cert_file", &*cert), ("redis.key_file", &*key)];
    let one = replica(&stub, &url, &trusting).await;
    assert_eq!(sources(&one, &["a"]).await, "upstream=1");
    stored(&redis, 1).await;
    let other = replica(&stub, &url, &trusting).await;
    assert_eq!(sources(&other, &["a"]).await, "redis=1");
    // Without the root, vecho refuses the server. Without the client certificate, the server refuses vecho.
    for settings in [&trusting[1..], &trusting[..1]] {
        let refused = started(&stub, &url, settings).await;
        goes_down(&refused).await;
        assert_eq!(sources(&refused, &["a"]).await, "upstream=1");
    }
}

#[tokio::test]
async fn minimal_redis_permissions_and_a_separate_database_suffice() {
    let stub = Stub::start();
    let rights = ["+getrange", "+get", "+set", "+hgetall", "+hget", "+hset", "+eval", "+del", "+select"];
    let mut redis = Redis::absent().with(&["--requirepass", "admin", "--user", "app", "on", ">right", "~vecho:*"]);
    redis = redis.with(&rights);
    redis = redis.with_cli_arguments(&["-a", "admin", "-n", "3"]);
    redis.go_on();
    let url = format!("{}/3", redis.url());
    let login = [("redis.username", "app"), ("redis.password", "right"), ("redis.lease", "1m")];
    let one = replica(&stub, &url, &login).await;
    sources(&one, &["a"]).await;
    stored(&redis, 1).await;
    let other = replica(&stub, &url, &login).await;
    assert_eq!(sources(&other, &["a"]).await, "redis=1");
    purge(&one, "").await;
    assert_eq!(redis.cli(&["hget", "vecho:1:purges", "everything"]), "1700000000000", "the time of the purge");
    crate::harness::eventually("the lease is given back", async || redis.cli(&["dbsize"]) == "3").await;
    assert_eq!(redis.cli(&["-n", "0", "dbsize"]), "0", "the other databases are left alone");
}

#[tokio::test]
async fn a_wrong_password_is_logged_once_without_its_value() {
    let stub = Stub::start();
    let mut redis = Redis::absent().with(&["--requirepass", "right"]).with_cli_arguments(&["-a", "right"]);
    redis.go_on();
    let environment = [
        ("VECHO_REDIS_URL", &*redis.url()),
        ("VECHO_REDIS_PASSWORD", "hunter2"),
        ("VECHO_LOG_LEVEL", "debug"),
        ("VECHO_DISK_ENABLED", "false"),
    ];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    vecho.logged("the Redis tier is down").await;
    let refused = |times: u32| redis.cli(&["info", "errorstats"]).contains(&format!("WRONGPASS:count={times}"));
    crate::harness::eventually("it tries again", async || (6..20).any(refused)).await;
    let log = vecho.stop().log;
    assert_eq!(log.matches("the Redis tier is down").count(), 1, "{log}");
    assert!(log.contains("redis.password are refused") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn a_missing_password_is_logged() {
    let stub = Stub::start();
    let mut redis = Redis::absent().with(&["--requirepass", "right"]).with_cli_arguments(&["-a", "right"]);
    redis.go_on();
    let environment = [("VECHO_REDIS_URL", &*redis.url()), ("VECHO_DISK_ENABLED", "false")];
    let vecho = Vecho::start_with(&stub.base_url(), &environment);
    vecho.logged("NOAUTH").await;
}

#[tokio::test]
async fn missing_permissions_are_logged_once() {
    let stub = Stub::start();
    let mut redis = Redis::absent().with(&["--user", "app", "on", ">right", "~*", "+hgetall"]);
    redis.go_on();
    let vecho = Vecho::start_with(&stub.base_url(), &login(&redis.url()));
    crate::harness::eventually("it tries again", async || redis.calls("hgetall") >= 4).await;
    let log = vecho.stop().log;
    assert!(log.contains("NOPERM"), "{log}");
    assert_eq!((log.matches("tier is down").count(), log.matches("tier is up").count()), (1, 0), "{log}");
}
