//! The command line, tested through the binary.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

fn vecho(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vecho"));
    command.env_clear().envs(environment.iter().copied()).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn check_prints_every_fault_on_standard_error_and_exits_64() {
    let output = vecho(
        &["check", "--listen", "nowhere", "--set", "cache.ttl=abc"],
        &[("VECHO_UPSTREAM_ULR", "x"), ("MEMORY_LIMIT_MB", "1")],
    );
    let faults = err(&output);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(64), ""));
    for part in [
        "listen (--listen): \"nowhere\" is not an address",
        "cache.ttl (--set): \"abc\" is not a duration",
        "VECHO_UPSTREAM_ULR (environment VECHO_UPSTREAM_ULR): unknown; did you mean VECHO_UPSTREAM_URL?",
        "memory.limit_mb (environment MEMORY_LIMIT_MB): 1 is not between 32 and",
    ] {
        assert!(faults.contains(part), "{part:?} is missing in\n{faults}");
    }
    assert_eq!(faults.lines().count(), 4, "{faults}");
}

#[test]
fn check_reports_a_valid_configuration() {
    let output = vecho(&["check"], &[]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "configuration ok\n"));
}

#[test]
fn a_failed_start_prints_one_plain_line_with_any_log_settings() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let ports = ["--upstream", "mock:", "--listen", &listen, "--admin-listen", "127.0.0.1:0"];
    for log in ["log.level=off", "log.level=info", "log.format=json"] {
        let output = vecho(&[&ports[..], &["--set", log]].concat(), &[]);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("vecho: cannot start: ")).collect();
        assert_eq!((lines.len(), said.matches("cannot start").count()), (1, 1), "{log}: {said}");
    }
}

#[test]
fn an_invalid_configuration_ends_every_command_with_64() {
    for command in [
        &["serve"][..],
        &[],
        &["config"],
        &["check"],
        &["healthcheck"],
        &["doctor"],
        &["export", "-"],
        &["import", "-"],
        &["import-batch", "a", "b"],
        &["warm", "--model", "m", "-"],
    ] {
        let arguments = [command, &["--workers", "none"]].concat();
        assert_eq!(vecho(&arguments, &[]).status.code(), Some(64), "{command:?}");
    }
}

#[test]
fn an_unknown_command_line_exits_64_and_help_exits_0() {
    for wrong in [
        &["--nonsense"][..],
        &["fly"],
        &["check", "--set", "no-equals-sign-s3cr3t"],
        &["export"],
        &["warm", "-"],
        &["warm", "--model", "m", "--batch", "0", "-"],
        &["import-batch", "requests.jsonl"],
    ] {
        let output = vecho(wrong, &[]);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        assert!(!err(&output).is_empty() && !err(&output).contains("s3cr3t"));
    }
    let help = vecho(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    for flag in ["--config", "--admin-listen", "--upstream", "--set", "healthcheck", "export", "import-batch", "warm"] {
        assert!(out(&help).contains(flag), "{flag} is missing in the help");
    }
}

#[test]
fn config_prints_values_with_their_origins_before_or_after_the_command() {
    let output = vecho(&["--upstream", "mock:", "config", "--set", "cache.ttl=90m"], &[("CACHE_MAX_SIZE", "5000")]);
    let text = out(&output);
    for line in [
        "url = \"mock:\"  # --upstream",
        "ttl = \"90m\"  # --set",
        "max_entries = 5000  # environment CACHE_MAX_SIZE",
        "scope = \"proxy\"  # default",
        "api_key = none  # default",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn no_command_prints_a_secret() {
    let environment = [("OPENAI_API_KEY", "s3cr3t-1"), ("VECHO_ADMIN_TOKEN", "s3cr3t-2")];
    for arguments in [
        &["config"][..],
        &["config", "--format", "json"],
        &["check", "--set", "cache.key_secret=s3cr3t-3", "--set", "upstream.url=http://me:s3cr3t-4@host/"],
        &["check", "--set", "upstream.api_key_file=/nowhere"],
    ] {
        let output = vecho(arguments, &environment);
        let printed = out(&output) + &err(&output);
        assert!(!printed.is_empty() && !printed.contains("s3cr3t"), "{arguments:?} printed\n{printed}");
    }
    let json = out(&vecho(&["config", "--format", "json"], &environment));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["upstream"]["api_key"]["value"], "[secret]");
    assert_eq!(json["upstream"]["api_key"]["origin"], "environment OPENAI_API_KEY");
    assert_eq!(json["cache"]["key_secret"]["value"], serde_json::Value::Null);
}

/// Starts an ops port that answers one request with this status line. The thread returns the head of that request.
fn ops_port(bind: &str, status: &'static str) -> (u16, thread::JoinHandle<String>) {
    let listener = TcpListener::bind(bind).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let asked = request_head(&mut stream);
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
        asked
    });
    (port, asked)
}

fn request_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn healthcheck_requests_readyz_on_loopback_at_the_configured_port() {
    for (status, expected) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
        let (port, asked) = ops_port("127.0.0.1:0", status);
        let output = vecho(&["healthcheck"], &[("VECHO_ADMIN_LISTEN", &format!("0.0.0.0:{port}"))]);
        assert_eq!(output.status.code(), Some(expected), "{status}: {}", err(&output));
        assert!(asked.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
    }
}

#[test]
fn healthcheck_requests_a_given_url_without_reading_the_configuration() {
    let (port, asked) = ops_port("127.0.0.1:0", "204 No Content");
    let url = format!("http://127.0.0.1:{port}/livez");
    let output = vecho(&["healthcheck", "--url", &url], &[("VECHO_WORKERS", "none")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(asked.join().unwrap().starts_with("GET /livez HTTP/1.1\r\n"));
}

#[test]
fn healthcheck_fails_on_a_closed_or_silent_port() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed_port = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().port()
    };
    for port in [silent_port, closed_port] {
        let output = vecho(&["healthcheck", "--admin-listen", &format!("127.0.0.1:{port}")], &[]);
        assert_eq!(output.status.code(), Some(1), "{}", err(&output));
        assert!(err(&output).starts_with("no answer: "), "{}", err(&output));
    }
}

#[test]
fn healthcheck_fails_on_a_server_that_does_not_speak_http() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    let server = thread::spawn(move || listener.accept().unwrap().0.write_all(b"SSH-2.0-OpenSSH 200\r\n").unwrap());
    let output = vecho(&["healthcheck", "--url", &url], &[]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).starts_with(&format!("no answer: {url}: ")), "{}", err(&output));
}

#[test]
fn healthcheck_has_one_timeout_for_the_whole_head() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    // One byte at a time: each read succeeds, but the head never ends.
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut head = b"HTTP/1.1 200 OK\r\nx: ".iter().chain(std::iter::repeat(&b'x'));
        while stream.write_all(&[*head.next().unwrap()]).is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let begun = Instant::now();
    let output = vecho(&["healthcheck", "--url", &url], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.join().unwrap();
}

#[test]
fn help_of_warm_groups_its_options_by_subject() {
    let help = out(&vecho(&["warm", "--help"], &[]));
    let group = |heading: &str| {
        let rest =
            help.split_once(&format!("\n{heading}:\n")).unwrap_or_else(|| panic!("{heading} is missing in {help}")).1;
        let lines = rest.lines().take_while(|line| !line.is_empty());
        let flags =
            lines.filter_map(|line| line.trim().split_once("--")).map(|(_, flag)| flag.split(' ').next().unwrap());
        flags.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(group("Options"), ["model", "dimensions", "namespace", "batch", "concurrency", "quiet", "help"]);
    assert_eq!(group("Input"), ["text", "chunk", "overlap"]);
    let batch_api =
        "batch-api state yes beyond-capacity poll retry-failed keep-files batch-requests batch-tokens batch-model path";
    assert_eq!(group("Batch API (with --batch-api)").join(" "), batch_api);
    let configuration = "config listen admin-listen upstream workers log-level log-format set";
    assert_eq!(group("Configuration").join(" "), configuration);
}

#[test]
fn help_describes_options_as_the_table_of_keys_does_with_their_defaults() {
    let help = out(&vecho(&["--help"], &[]));
    for (name, flag) in [
        ("listen", "--listen"),
        ("admin_listen", "--admin-listen"),
        ("upstream.url", "--upstream"),
        ("workers", "--workers"),
        ("log.level", "--log-level"),
        ("log.format", "--log-format"),
    ] {
        let key = vecho::config::KEYS.iter().find(|known| known.name == name).unwrap();
        let line = help.lines().find(|line| line.contains(&format!("{flag} <"))).unwrap();
        assert!(line.contains(key.doc.trim_end_matches('.')), "{} is missing in {line:?}", key.doc);
        let default = format!("[default: {}]", key.default.trim_matches('"'));
        assert_eq!(line.contains(&default), key.default != "none", "{default} and {line:?}");
    }
}

#[test]
fn localhost_is_accepted_as_an_address_and_other_names_are_not() {
    let listen = ["config", "--listen", "localhost:7961", "--set", "admin_listen=LOCALHOST.:7962"];
    let output = vecho(&[&listen[..], &["--format", "json"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for wrong in ["localhost", "localhost:", "localhost:99999", "myhost:7861"] {
        let output = vecho(&["check", "--listen", wrong], &[]);
        assert_eq!(output.status.code(), Some(64), "{wrong}");
        assert!(err(&output).contains("or localhost:7861"), "{}", err(&output));
    }
}

#[test]
fn healthcheck_prints_the_requested_address() {
    let (port, asked) = ops_port("127.0.0.1:0", "200 OK");
    let output = vecho(&["healthcheck", "--admin-listen", &format!("localhost:{port}")], &[]);
    assert_eq!(out(&output), format!("ready (200): http://127.0.0.1:{port}/readyz\n"), "{}", err(&output));
    asked.join().unwrap();
    let (port, asked) = ops_port("127.0.0.1:0", "503 Service Unavailable");
    let url = format!("http://127.0.0.1:{port}/readyz");
    assert_eq!(err(&vecho(&["healthcheck", "--url", &url], &[])), format!("not ready (503): {url}\n"));
    asked.join().unwrap();
    let gone = vecho(&["healthcheck", "--url", &url], &[]);
    assert!(err(&gone).starts_with(&format!("no answer: {url}: ")), "{}", err(&gone));
}

#[test]
fn check_reports_the_paying_key_and_warns_if_it_is_publicly_usable() {
    let callers = vecho(&["check", "--set", "fallback.mode=error"], &[]);
    assert_eq!(err(&callers), "note: calls are paid by each caller's own key\n");
    let key = [("OPENAI_API_KEY", "sk-s3cr3t")];
    let local = vecho(&["check", "--set", "fallback.mode=error"], &key);
    assert_eq!(err(&local), "note: calls are paid by the key from environment OPENAI_API_KEY\n");
    for listen in ["0.0.0.0:7861", "[::]:7861", "192.0.2.1:7861"] {
        let open = vecho(&["check", "--listen", listen, "--set", "fallback.mode=error"], &key);
        assert_eq!(open.status.code(), Some(0));
        let said = err(&open);
        assert!(said.contains("warning: vecho holds a key (environment OPENAI_API_KEY)"), "{said}");
        assert!(said.contains("anyone who can reach the port spends that key"), "{said}");
        assert!(!said.contains("s3cr3t"), "{said}");
    }
    let mock = vecho(&["check", "--listen", "0.0.0.0:7861", "--upstream", "mock:"], &key);
    assert_eq!(err(&mock), "note: calls cost nothing: the built-in mock makes the vectors\n");
}

#[test]
fn check_names_the_proxy_of_calls() {
    let check = ["check", "--set", "fallback.mode=error"];
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let said = err(&vecho(&check, &[(name, "http://me:s3cr3t@proxy:3128")]));
        let note =
            format!("note: calls to the upstream go through the proxy http://proxy:3128 ({name}), with credentials");
        assert!(said.contains(&note) && !said.contains("s3cr3t"), "{said}");
        let exempt = err(&vecho(&check, &[(name, "http://proxy:3128"), ("no_proxy", "localhost,.openai.com")]));
        assert!(!exempt.contains("proxy:3128"), "{exempt}");
    }
}
