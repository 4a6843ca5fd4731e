//! `vecho doctor`: one line for each check, with the remedy of each fault, and the exit status.

mod targets;

use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::harness::redis::Redis;
use crate::harness::tinyproxy::Tinyproxy;
use crate::harness::tls::{self, Folder, Identity};
use crate::harness::{Behaviour, Stub, Vecho};

const KEY: &str = "sk-s3cr3t";

/// A set-up without faults: free ports, a stub that accepts one key, and a folder for the disk tier.
struct Healthy {
    stub: Stub,
    folder: Folder,
}

impl Healthy {
    fn new(test: &str) -> Self {
        let stub = Stub::start();
        stub.accept_keys([KEY]);
        Self { stub, folder: Folder::new(&format!("doctor-{test}")) }
    }

    fn disk(&self) -> String {
        self.folder.path("disk").to_str().expect("the path is text").to_owned()
    }

    /// Runs the command with these arguments and variables added, which take precedence.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Report {
        let (upstream, disk) = (self.stub.base_url(), self.disk());
        let base = [
            ("VECHO_UPSTREAM_URL", upstream.as_str()),
            ("VECHO_LISTEN", "127.0.0.1:0"),
            ("VECHO_ADMIN_LISTEN", "127.0.0.1:0"),
            ("VECHO_DISK_PATH", disk.as_str()),
            ("VECHO_DISK_MAX_MB", "16"),
            ("VECHO_FALLBACK_MODE", "error"),
            ("VECHO_LIMITS_MAX_CONNECTIONS", "64"),
            ("OPENAI_API_KEY", KEY),
        ];
        let environment: Vec<_> = base.iter().chain(environment).copied().collect();
        let mut command = Vecho::command(&environment);
        let output = command.arg("doctor").args(arguments).stdout(std::process::Stdio::piped()).output();
        Report::of(&output.expect("vecho must start"))
    }
}

/// The output of a run.
struct Report {
    text: String,
    status: Option<i32>,
}

impl Report {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).expect("output is text");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("s3cr3t") && !errors.contains("s3cr3t"), "a secret is printed: {text}{errors}");
        Self { text, status: output.status.code() }
    }

    /// Asserts that exactly one line has this verdict for this check, and that it contains these parts.
    fn says(&self, verdict: &str, check: &str, parts: &[&str]) {
        let begins = |line: &&str| line.split_whitespace().next() == Some(verdict) && line[9..].starts_with(check);
        let lines: Vec<&str> = self.text.lines().filter(begins).collect();
        assert_eq!(lines.len(), 1, "{verdict} {check} in\n{}", self.text);
        for part in parts {
            assert!(lines[0].contains(part), "{part:?} is missing in {:?}", lines[0]);
        }
    }

    /// Asserts that this line is the only one that is not ok, and that the status fits it.
    fn says_only(&self, verdict: &str, check: &str, parts: &[&str]) {
        self.says(verdict, check, parts);
        let others = self.text.lines().filter(|line| !line.starts_with("ok")).count();
        assert_eq!((others, self.status), (1, Some(i32::from(verdict == "fault"))), "{}", self.text);
    }
}

/// Returns an address on which nothing listens.
fn closed() -> SocketAddr {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a loopback port must bind");
    gone.local_addr().expect("a bound socket has an address")
}

#[tokio::test]
async fn a_healthy_set_up_is_all_ok_in_text_and_in_json() {
    let healthy = Healthy::new("healthy");
    let redis = Redis::start().with(&[]);
    redis.cli(&["config", "set", "maxmemory", "64mb"]);
    redis.cli(&["config", "set", "maxmemory-policy", "volatile-lru"]);
    let url = redis.url();
    let report = healthy.run(&["--call", "--model", "tiny"], &[("VECHO_REDIS_URL", &url)]);
    assert_eq!(report.status, Some(0), "{}", report.text);
    assert!(report.text.lines().all(|line| line.starts_with("ok ")), "{}", report.text);
    report.says("ok", "configuration", &["valid; calls are paid by the key from environment OPENAI_API_KEY"]);
    report.says("ok", "upstream", &[&healthy.stub.base_url(), "it answers (status "]);
    report.says("ok", "call", &["tiny: key accepted, status 200 after ", " 8 dimensions, base64 honoured"]);
    report.says("ok", "redis", &["version ", "maxmemory 64 MiB with volatile-lru"]);
    report.says("ok", "disk", &["can be made", "disk.max_mb is 16"]);
    report.says("ok", "clock", &["of the upstream's"]);
    let call = healthy.stub.embedding_calls();
    assert_eq!((call.len(), call[0].texts()), (1, vec!["vecho doctor".to_owned()]), "one call in all");
    assert!(!healthy.folder.path("disk").exists(), "it leaves no folder behind");

    let json = healthy.run(&["--call", "--model", "tiny", "--json"], &[("VECHO_REDIS_URL", &url)]);
    let parsed: Value = serde_json::from_str(&json.text).expect("it is JSON");
    assert_eq!((&parsed["verdict"], json.status), (&json!("ok"), Some(0)));
    let checks = parsed["checks"].as_array().expect("a list");
    let names: Vec<&str> = checks.iter().map(|check| check["check"].as_str().expect("a name")).collect();
    let printed: Vec<&str> = report.text.lines().map(|line| line[9..23].trim_end()).collect();
    assert_eq!(names, printed);
    assert!(checks.iter().all(|check| check["verdict"] == "ok" && check.get("remedy").is_none()), "{}", json.text);
}

#[tokio::test]
async fn json_has_the_verdicts_and_remedies_of_the_lines() {
    let healthy = Healthy::new("json");
    let upstream = format!("http://{}/v1", closed());
    let (arguments, bypassing) = (["--upstream", upstream.as_str()], [("OPENAI_BASE_URL", upstream.as_str())]);
    let lines = healthy.run(&arguments, &bypassing);
    let json = healthy.run(&[&arguments[..], &["--json"]].concat(), &bypassing);
    let parsed: Value = serde_json::from_str(&json.text).expect("it is JSON");
    assert_eq!((&parsed["verdict"], json.status, lines.status), (&json!("fault"), Some(1), Some(1)));
    let checks = parsed["checks"].as_array().expect("a list").iter();
    let verdicts: Vec<&str> = checks.clone().map(|check| check["verdict"].as_str().expect("a verdict")).collect();
    let printed: Vec<&str> = lines.text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(verdicts, printed);
    assert!(verdicts.contains(&"warning") && verdicts.contains(&"fault"), "{}", json.text);
    assert!(checks.clone().all(|check| (check["verdict"] == "ok") == check.get("remedy").is_none()), "{}", json.text);
}

#[tokio::test]
async fn a_wrong_configuration_is_reported_with_status_64_in_both_forms() {
    let healthy = Healthy::new("wrong");
    let wrong = [("VECHO_CACHE_TLL", "1h"), ("VECHO_WORKERS", "none")];
    let report = healthy.run(&[], &wrong);
    assert_eq!(report.status, Some(64));
    assert_eq!(report.text.lines().count(), 2, "{}", report.text);
    for part in ["fault    configuration", "did you mean VECHO_CACHE_TTL?", "; correct workers"] {
        assert!(report.text.contains(part), "{part:?} is missing in\n{}", report.text);
    }
    let json = healthy.run(&["--json"], &wrong);
    let parsed: Value = serde_json::from_str(&json.text).expect("it is JSON");
    assert_eq!((json.status, &parsed["verdict"]), (Some(64), &json!("fault")));
}

#[tokio::test]
async fn each_step_on_the_way_to_the_upstream_is_named_if_it_fails() {
    let healthy = Healthy::new("steps");
    let closed = closed();
    let refused = healthy.run(&["--upstream", &format!("http://{closed}/v1")], &[]);
    refused.says_only("fault", "upstream", &[&format!("TCP fails: {closed}: "), "refused", "; start the service"]);
    let unknown = healthy.run(&["--upstream", "http://no-such-host.invalid/v1"], &[]);
    unknown.says_only("fault", "upstream", &["DNS fails: no-such-host.invalid", "; correct the host in upstream.url"]);
    let plain = healthy.run(&["--upstream", &format!("https://{}/v1", healthy.stub.addr())], &[]);
    plain.says_only("fault", "upstream", &["TLS fails: ", "; write http:// in upstream.url"]);
    let identity = Identity::new("localhost");
    let front = tls::front(&identity, healthy.stub.addr()).await;
    let secure = format!("https://localhost:{}/v1", front.port());
    let root = healthy.folder.write("root.pem", &identity.cert_pem);
    // The front runs on this test's runtime, so the command must not block it.
    let (strange, trusted) = tokio::task::spawn_blocking(move || {
        let strange = healthy.run(&["--upstream", &secure], &[]);
        (strange, healthy.run(&["--upstream", &secure], &[("VECHO_UPSTREAM_CA_FILE", &root)]))
    })
    .await
    .expect("it does not panic");
    strange.says_only("fault", "upstream", &["TLS fails: ", "certificate", "upstream.ca_file"]);
    trusted.says("ok", "upstream", &["it answers"]);
    assert_eq!(trusted.status, Some(0), "{}", trusted.text);
}

#[tokio::test]
async fn a_server_that_hangs_up_or_fails_is_told_from_one_that_answers() {
    let healthy = Healthy::new("http");
    healthy.stub.always(Behaviour::HangUp);
    healthy.run(&[], &[]).says_only("fault", "upstream", &["HTTP fails: ", "; look whether the server"]);
    healthy.stub.always(Behaviour::Status { code: 503, headers: vec![], body: String::new() });
    healthy.run(&[], &[]).says_only("warning", "upstream", &["(status 503)", "; look at the state"]);
}

#[tokio::test]
async fn a_call_reports_a_refused_key_a_quota_and_an_answer_in_numbers() {
    let healthy = Healthy::new("call");
    let call = ["--call", "--model", "tiny"];
    let refused = healthy.run(&call, &[("OPENAI_API_KEY", "sk-s3cr3t-wrong")]);
    let parts = ["the key is refused: status 401 (invalid_api_key)", "; set upstream.api_key"];
    refused.says_only("fault", "call", &parts);
    let none = healthy.run(&call, &[("OPENAI_API_KEY", "")]);
    none.says_only("fault", "call", &["no key was sent: status 401", "; set OPENAI_API_KEY"]);
    // The request without a key comes before the call.
    let next = |behaviour| [Behaviour::Normal, behaviour].into_iter().for_each(|each| healthy.stub.next(each));
    next(Behaviour::Quota);
    healthy.run(&call, &[]).says_only("fault", "call", &["status 429 (insufficient_quota)", "billing"]);
    let body = json!({"data": [{"embedding": [1.0, 2.0, 3.0], "index": 0}]}).to_string();
    let headers = vec![("content-type", "application/json".to_owned())];
    next(Behaviour::Status { code: 200, headers, body });
    healthy.run(&call, &[]).says("ok", "call", &["3 dimensions, base64 not honoured"]);
    next(Behaviour::Garbage);
    healthy.run(&call, &[]).says_only("fault", "call", &["no vector", "; set upstream.url"]);
    assert_eq!(healthy.run(&["--model", "tiny"], &[]).status, Some(64), "a model is for a call");
    healthy.stub.always(Behaviour::Normal);
    let budget = ("VECHO_BUDGET_MONEY_PER_DAY", "1");
    let unpriced = healthy.run(&call, &[budget]);
    unpriced.says_only("warning", "call", &["tiny has no price", "; add the model to savings.prices"]);
    assert_eq!(healthy.run(&call, &[budget, ("VECHO_SAVINGS_PRICES", "tiny=1")]).status, Some(0));
    let forgetful = healthy.run(&[], &[budget, ("VECHO_DISK_ENABLED", "false")]);
    forgetful.says_only(
        "warning",
        "budget",
        &["a restart forgets what was spent today", "; set disk.path or redis.url"],
    );
}

#[tokio::test]
async fn the_built_in_mock_needs_no_network() {
    let mock = Healthy::new("mock").run(&["--call", "--upstream", "mock:"], &[]);
    mock.says("ok", "upstream", &["needs no network"]);
    mock.says("ok", "call", &["nothing to call"]);
    assert_eq!(mock.status, Some(0), "{}", mock.text);
}

#[tokio::test]
async fn no_call_costs_anything_unless_it_is_asked_for() {
    let healthy = Healthy::new("free");
    assert_eq!(healthy.run(&[], &[]).status, Some(0));
    let calls = healthy.stub.calls();
    assert!(calls.iter().all(|call| call.method == http::Method::HEAD), "{calls:?}");
    assert!(calls.iter().all(|call| call.header("authorization").is_none()), "it sends no key: {calls:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_a_fault_with_its_cause() {
    let healthy = Healthy::new("folder");
    let file = healthy.folder.write("file", "x");
    let parts = ["cannot be used", "; remove the file"];
    healthy.run(&[], &[("VECHO_DISK_PATH", &file)]).says_only("fault", "disk", &parts);
    let below = format!("{file}/disk");
    healthy.run(&[], &[("VECHO_DISK_PATH", &below)]).says_only("fault", "disk", &parts);
    // Not even root can write here.
    let denied = healthy.run(&[], &[("VECHO_DISK_PATH", "/proc/vecho")]);
    denied.says_only("fault", "disk", &["/proc/vecho cannot be used", "or set disk.path to another folder"]);
    let memory = format!("/dev/shm/vecho-doctor-{}", std::process::id());
    let memory = healthy.run(&[], &[("VECHO_DISK_PATH", &memory)]);
    memory.says_only("warning", "disk", &["is in memory (tmpfs)", "; set disk.path"]);
    let small = healthy.run(&["--set", "disk.max_mb=16777216"], &[]);
    small.says_only("warning", "disk", &["MiB free, disk.max_mb is 16777216", "; free space"]);
}

#[tokio::test]
async fn a_folder_of_a_running_vecho_is_free_for_that_one_only() {
    let healthy = Healthy::new("locked");
    let disk = healthy.disk();
    let running = Vecho::start_with(&healthy.stub.base_url(), &[("VECHO_DISK_PATH", &disk)]);
    running.logged("the disk tier is open").await;
    let other = healthy.run(&[], &[]);
    other.says_only("fault", "disk", &[&format!("another process uses {disk}"), "; stop that process"]);
    let (public, admin) = (running.public().to_string(), running.admin().to_string());
    let same = healthy.run(&[], &[("VECHO_LISTEN", &public), ("VECHO_ADMIN_LISTEN", &admin)]);
    let version = env!("CARGO_PKG_VERSION");
    same.says("ok", "ops port", &[&format!("{admin}: vecho {version} runs there")]);
    same.says("ok", "public port", &[&format!("{public}: a vecho listens there")]);
    same.says("ok", "disk", &["is in use by the vecho that runs on these ports"]);
    assert_eq!(same.status, Some(0), "{}", same.text);
    assert!(healthy.stub.embedding_calls().is_empty(), "the running vecho calls nothing for it");
    drop(running);
    healthy.run(&[], &[]).says("ok", "disk", &["is writable (owner "]);
}

#[tokio::test]
async fn a_port_of_another_server_and_one_that_cannot_be_bound_are_faults() {
    let healthy = Healthy::new("ports");
    let foreign = Stub::start();
    let address = foreign.addr().to_string();
    let public = healthy.run(&[], &[("VECHO_LISTEN", &address)]);
    let parts = [&*format!("{address} is taken by a server that is not vecho"), "; stop it, or set listen"];
    public.says_only("fault", "public port", &parts);
    let ops = healthy.run(&[], &[("VECHO_ADMIN_LISTEN", &address)]);
    ops.says_only("fault", "ops port", &["is taken by a server", "; stop it, or set admin_listen"]);
    let elsewhere = healthy.run(&[], &[("VECHO_ADMIN_LISTEN", "192.0.2.1:7862")]);
    elsewhere.says_only("fault", "ops port", &["cannot be bound", "; set admin_listen to an address of this machine"]);
}

#[tokio::test]
async fn servers_that_accept_and_never_answer_end_no_check_late() {
    let healthy = Healthy::new("silent");
    let silent: [TcpListener; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("it must bind"));
    let [upstream, public, ops] =
        silent.each_ref().map(|server| server.local_addr().expect("a bound socket has an address").to_string());
    let begun = Instant::now();
    let arguments = ["--upstream", &*format!("http://{upstream}/v1"), "--listen", &public, "--admin-listen", &ops];
    let report = healthy.run(&arguments, &[]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    report.says("fault", "upstream", &["HTTP fails: no answer within 5 s"]);
    report.says("fault", "public port", &["is taken by a server that is not vecho"]);
    report.says("fault", "ops port", &["is taken by a server that is not vecho"]);
    report.says("ok", "disk", &["can be made"]);
    assert_eq!(report.status, Some(1));
}

#[tokio::test]
async fn redis_faults_and_risky_eviction_have_their_remedies() {
    let healthy = Healthy::new("redis");
    let mut redis = Redis::absent().with(&["--requirepass", "s3cr3t-redis"]);
    let url = redis.url();
    let settings = [("VECHO_REDIS_URL", url.as_str())];
    healthy.run(&[], &settings).says_only("fault", "redis", &["refused", "; start the server, or correct redis.url"]);
    redis = redis.with_cli_arguments(&["-a", "s3cr3t-redis"]);
    redis.go_on();
    let without = healthy.run(&[], &settings);
    without.says_only("fault", "redis", &["NOAUTH", "; correct redis.username and redis.password"]);
    let wrong = healthy.run(&[], &[settings[0], ("VECHO_REDIS_PASSWORD", "s3cr3t-wrong")]);
    wrong.says_only("fault", "redis", &["are refused", "; correct redis.username and redis.password"]);
    let login = [settings[0], ("VECHO_REDIS_PASSWORD", "s3cr3t-redis")];
    healthy.run(&[], &login).says_only("warning", "redis", &["maxmemory is not set", "; set maxmemory"]);
    redis.cli(&["config", "set", "maxmemory", "64mb"]);
    let policies = [("noeviction", "it refuses writes at 64 MiB"), ("allkeys-lru", "can evict the list of purges")];
    for (policy, part) in policies {
        redis.cli(&["config", "set", "maxmemory-policy", policy]);
        healthy.run(&[], &login).says_only("warning", "redis", &[policy, part, "; set maxmemory-policy volatile-lru"]);
    }
    redis.freeze();
    let frozen = healthy.run(&[], &login);
    redis.thaw();
    frozen.says_only("fault", "redis", &["timed out", "; start the server"]);
}

#[tokio::test]
async fn the_environment_is_searched_for_loops_and_applications_that_bypass_vecho() {
    let healthy = Healthy::new("environment");
    let port = closed().port();
    let own = [("VECHO_ADMIN_LISTEN", &*format!("127.0.0.1:{port}"))];
    let called = healthy.run(&["--upstream", &format!("http://localhost:{port}/v1")], &own);
    called.says("fault", "environment", &["is vecho itself (admin_listen", "; set upstream.url to the service"]);
    assert_eq!(called.status, Some(1));
    // The configuration refuses an address that is its own public port.
    let own = [("VECHO_LISTEN", &*format!("127.0.0.1:{port}"))];
    let refused = healthy.run(&["--upstream", &format!("http://127.0.0.1:{port}/v1")], &own);
    assert_eq!(refused.status, Some(64));
    refused.says("fault", "configuration", &["upstream.url", "is vecho itself"]);
    let through = [own[0], ("OPENAI_BASE_URL", &*format!("http://localhost:{port}/v1"))];
    healthy.run(&[], &through).says("ok", "environment", &["OPENAI_BASE_URL is vecho's public port"]);
    let past = healthy.run(&[], &[("OPENAI_BASE_URL", &healthy.stub.base_url())]);
    past.says_only("warning", "environment", &["OPENAI_BASE_URL is the upstream", "bypass vecho", "; set it to"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_and_the_client_certificate_of_calls_are_checked() {
    let healthy = Healthy::new("egress");
    let (proxy, closed) = (Tinyproxy::start(&["BasicAuth me s3cr3t"]), closed());
    for name in ["http_proxy", "ALL_PROXY", "VECHO_UPSTREAM_PROXY"] {
        let through = healthy.run(&["--call", "--model", "tiny"], &[(name, &proxy.url("me:s3cr3t@"))]);
        assert_eq!(through.status, Some(0), "{}", through.text);
        through.says("ok", "upstream", &["connected through the proxy http://", "; it answers"]);
        through.says("ok", "call", &["tiny: key accepted"]);
    }
    let without = healthy.run(&[], &[("http_proxy", &proxy.url(""))]);
    without.says_only("fault", "upstream", &["(http_proxy) did not connect", "407", "; correct http_proxy"]);
    let absent = healthy.run(&[], &[("http_proxy", &format!("http://me:s3cr3t@{closed}"))]);
    absent.says_only("fault", "upstream", &["TCP fails", "refused", "correct the port in http_proxy"]);
    let encrypted =
        healthy.run(&["--upstream", "https://localhost:9/v1"], &[("https_proxy", &proxy.url("me:s3cr3t-wrong@"))]);
    encrypted.says_only("fault", "upstream", &["(https_proxy) did not connect to localhost:9", "it does not accept"]);

    let (server, client) = (Identity::new("localhost"), Identity::new("vecho"));
    let port = tls::front_for(&server, healthy.stub.addr(), &[&client]).await.port();
    let upstream = format!("https://localhost:{port}/v1");
    let ca_file = healthy.folder.write("ca.pem", &server.cert_pem);
    let cert = healthy.folder.write("cert.pem", &client.cert_pem);
    let key = healthy.folder.write("key.pem", &client.key_pem);
    let trust = [("VECHO_UPSTREAM_CA_FILE", &*ca_file)];
    let missing = healthy.run(&["--upstream", &upstream], &trust);
    missing.says_only(
        "fault",
        "upstream",
        &["CertificateRequired", "; name a client certificate in upstream.cert_file"],
    );
    let known = [trust[0], ("VECHO_UPSTREAM_CERT_FILE", &cert), ("VECHO_UPSTREAM_KEY_FILE", &key)];
    let known = healthy.run(&["--upstream", &upstream], &known);
    known.says("ok", "upstream", &["with the client certificate; it answers"]);
}

#[tokio::test]
async fn limits_and_the_clock_of_the_machine_are_compared() {
    let healthy = Healthy::new("limits");
    let files = healthy.run(&[], &[("VECHO_LIMITS_MAX_CONNECTIONS", "1000000")]);
    files.says_only("warning", "open files", &["limits.max_connections 1000000", "ulimit -n "]);
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_mins(10));
    healthy.stub.always(Behaviour::Status { code: 404, headers: vec![("date", date)], body: String::new() });
    healthy.run(&[], &[]).says_only("warning", "clock", &["s behind the upstream's", "; set the clock"]);
}
