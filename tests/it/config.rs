//! The configuration: layers, origins, errors, secrets, files.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must panic")]

mod guides;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vecho::config::{Config, ConfigSource, Faults, Flag, KeyHeader, Origin, Scope, Secret, UpstreamTarget, reference};

/// A temporary folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vecho-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn source(file: Option<&Path>, env: &[(&str, &str)], flags: &[(&str, &str)]) -> ConfigSource {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flag = |(key, value): &(&str, &str)| Flag { flag: "--set", key: (*key).into(), value: (*value).into() };
    ConfigSource::new(file.map(Path::to_owned), env, flags.iter().map(flag).collect())
}

fn faults(outcome: Result<Config, Faults>) -> Vec<String> {
    outcome.unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn fault_of(key: &str, value: &str) -> String {
    let found = Config::from_pairs(&[(key, value)]).err().unwrap_or_else(|| panic!("{key} = {value:?} is accepted"));
    assert_eq!(found.0.len(), 1, "{found}");
    assert_eq!(found.0[0].key, key);
    found.0[0].message.clone()
}

fn origin_of(config: &Config, name: &str) -> Origin {
    config.effective.entries().iter().find(|entry| entry.key.name == name).unwrap().origin.clone()
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Config::from_pairs(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7861");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:7862");
    assert_eq!(config.upstream.target, UpstreamTarget::Http("https://api.openai.com/v1".parse().unwrap()));
    assert_eq!(config.upstream.max_concurrent, 20);
    assert_eq!(config.cache.ttl, Duration::from_hours(30 * 24));
    assert_eq!(config.cache.scope, Scope::Credential);
    assert_eq!(config.memory.limit_bytes, 500 * 1024 * 1024);
    assert!(config.workers >= 1 && config.tls.is_none() && config.upstream.api_key.is_none());
}

#[test]
fn each_layer_overrides_the_previous_one_and_is_the_origin() {
    let folder = Folder::new("layers");
    let file = folder.file("x.toml", "[batch]\nmax_inputs = 1\nmax_tokens = 1\n[retry]\nmax_attempts = 1\n");
    let env = [("VECHO_BATCH_MAX_TOKENS", "2"), ("VECHO_RETRY_MAX_ATTEMPTS", "2")];
    let config = source(Some(&file), &env, &[("retry.max_attempts", "3")]).load().unwrap();
    assert_eq!((config.batch.max_inputs, config.batch.max_tokens, config.retry.max_attempts), (1, 2, 3));
    assert_eq!(origin_of(&config, "batch.max_inputs"), Origin::File(file));
    assert_eq!(origin_of(&config, "batch.max_tokens"), Origin::Env("VECHO_BATCH_MAX_TOKENS".to_owned()));
    assert_eq!(origin_of(&config, "retry.max_attempts"), Origin::Flag("--set"));
    assert_eq!(origin_of(&config, "breaker.failures"), Origin::Default);
}

#[test]
fn vecho_variables_override_well_known_ones_and_empty_ones_are_unset() {
    let env = [
        ("VECHO_CACHE_TTL", "2h"),
        ("CACHE_TTL_SECONDS", "3600"),
        ("EMBEDDING_BATCH_SIZE", "16"),
        ("VECHO_BATCH_MAX_INPUTS", ""),
        ("MAX_CONCURRENT_REQUESTS", "5"),
        ("CACHE_MAX_SIZE", "1000"),
        ("MEMORY_LIMIT_MB", "64"),
        ("OPENAI_API_KEY", ""),
    ];
    let config = source(None, &env, &[]).load().unwrap();
    assert_eq!(config.cache.ttl, Duration::from_hours(2));
    assert_eq!((config.batch.max_inputs, config.upstream.max_concurrent), (16, 5));
    assert_eq!((config.cache.max_entries, config.memory.limit_bytes), (Some(1000), 64 * 1024 * 1024));
    assert_eq!(config.upstream.api_key, None);
}

#[test]
fn the_well_known_api_key_is_used_and_sets_the_proxy_scope() {
    let config = source(None, &[("OPENAI_API_KEY", "sk-1\n")], &[]).load().unwrap();
    assert_eq!(config.upstream.api_key.as_ref().map(Secret::reveal), Some("sk-1"));
    assert_eq!(config.cache.scope, Scope::Proxy);
    assert_eq!(Config::from_pairs(&[("upstream.url", "mock:")]).unwrap().cache.scope, Scope::Proxy);
}

#[test]
fn lists_are_separated_by_commas_in_the_environment() {
    let env = [("VECHO_CACHE_EXTRA_FIELDS", "task, truncate"), ("VECHO_AUTH_CREDENTIAL_HEADERS", "X-One,x-two")];
    let config = source(None, &env, &[]).load().unwrap();
    assert!(config.cache.extra_fields.iter().eq(["task", "truncate"]));
    assert_eq!(config.auth.credential_headers, ["x-one", "x-two"]);
}

#[test]
fn faults_of_all_layers_are_reported_at_once() {
    let folder = Folder::new("all");
    let text = "lisen = 'x'\ncache.ttl = 'abc'\nupstrem.url = 'x'\nbatch.max_inptus = 3\nlog.level = 'inf'\n";
    let file = folder.file("x.toml", text);
    let env = [("VECHO_FALLBACK_MODE", "maybe"), ("VECHO_CASHE_TTL", "1")];
    let found = faults(source(Some(&file), &env, &[("workers", "0"), ("tls.cert_file", "/nowhere/x")]).load());
    let path = file.display();
    for start in [
        format!("lisen ({path}): unknown; did you mean listen?"),
        format!("upstrem ({path}): unknown; did you mean upstream?"),
        format!("batch.max_inptus ({path}): unknown; did you mean batch.max_inputs?"),
        format!("cache.ttl ({path}): \"abc\" is not a duration"),
        format!("log.level ({path}): \"inf\" is not a log level"),
        "fallback.mode (environment VECHO_FALLBACK_MODE): \"maybe\" is none of error, stale, mock".to_owned(),
        "VECHO_CASHE_TTL (environment VECHO_CASHE_TTL): unknown; did you mean VECHO_CACHE_TTL?".to_owned(),
        "workers (--set): 0 is not between 1 and 1024".to_owned(),
        "tls.cert_file (--set): /nowhere/x cannot be read".to_owned(),
        "tls.cert_file (--set): needs tls.key_file beside it".to_owned(),
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(&start)), "{start:?} is missing in {found:#?}");
    }
    assert_eq!(found.len(), 10, "{found:#?}");
}

#[test]
fn service_variables_of_kubernetes_are_ignored() {
    let env = [
        ("VECHO_SERVICE_HOST", "10.0.0.1"),
        ("VECHO_SERVICE_PORT", "7861"),
        ("VECHO_SERVICE_PORT_OPS", "7862"),
        ("VECHO_PORT", "tcp://10.0.0.1:7861"),
        ("VECHO_PORT_7861_TCP", "tcp://10.0.0.1:7861"),
        ("VECHO_PORT_7861_TCP_ADDR", "10.0.0.1"),
        ("VECHO_ADMIN_SERVICE_HOST", "10.0.0.2"),
        ("VECHO_ADMIN_PORT", "tcp://10.0.0.2:7862"),
    ];
    source(None, &env, &[]).load().unwrap();
    assert_eq!(faults(source(None, &[("VECHO_PORT", "8080")], &[]).load()).len(), 1);
}

#[test]
fn the_config_variable_names_the_file_unless_a_flag_does() {
    let folder = Folder::new("named");
    let (one, two) = (folder.file("1.toml", "workers = 1"), folder.file("2.toml", "workers = 2"));
    let env = [("VECHO_CONFIG", one.to_str().unwrap())];
    assert_eq!(source(None, &env, &[]).load().unwrap().workers, 1);
    assert_eq!(source(Some(&two), &env, &[]).load().unwrap().workers, 2);
    let gone = faults(source(None, &[("VECHO_CONFIG", "/nowhere/v.toml")], &[]).load());
    assert!(gone[0].starts_with("config (environment VECHO_CONFIG): /nowhere/v.toml cannot be read"), "{gone:?}");
}

#[test]
fn an_invalid_upstream_address_is_refused_without_quoting_it() {
    for (url, reason) in [
        ("ftp://host/v1", "must be http://"),
        ("host/v1", "must be http://"),
        ("http://", "must be http://"),
        ("https://host/v1?key=s3cr3t", "must not have a query"),
        ("https://me:s3cr3t@host/v1", "must not hold a user or password"),
        ("https://me:s3cr3t?@host/v1", "must not have a query"),
    ] {
        let message = fault_of("upstream.url", url);
        assert!(message.starts_with(reason) && !message.contains("s3cr3t"), "{url}: {message}");
    }
    let trimmed = Config::from_pairs(&[("upstream.url", "http://localhost:1/v1/")]).unwrap();
    assert_eq!(trimmed.upstream.target, UpstreamTarget::Http("http://localhost:1/v1".parse().unwrap()));
}

#[test]
fn the_api_key_header_follows_the_upstream_unless_configured() {
    let header = |pairs: &[(&str, &str)]| Config::from_pairs(pairs).unwrap().upstream.api_key_header;
    assert_eq!(header(&[]), KeyHeader::Authorization);
    assert_eq!(header(&[("upstream.url", "https://Me.openai.Azure.com/x")]), KeyHeader::ApiKey);
    assert_eq!(header(&[("upstream.url", "http://gateway/openai/deployments/a")]), KeyHeader::ApiKey);
    let said = [("upstream.url", "https://me.azure.com"), ("upstream.api_key_header", "authorization")];
    assert_eq!(header(&said), KeyHeader::Authorization);
}

/// A file that every test can read.
const READABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

#[test]
fn numbers_may_be_grouped_and_localhost_may_be_written_as_a_host_name() {
    let pairs = [("limits.max_body_bytes", "1_000_000"), ("listen", "LocalHost.:7861")];
    let config = Config::from_pairs(&pairs).expect("it is legal");
    assert_eq!((config.limits.max_body_bytes, &*config.listen.to_string()), (1_000_000, "127.0.0.1:7861"));
}

#[test]
fn invalid_values_are_refused() {
    for (key, value) in [
        ("workers", "1025"),
        ("admin_listen", "127.0.0.1:7861"),
        ("admin_listen", "0.0.0.0:7861"),
        ("batch.max_inputs", "0"),
        ("batch.max_inputs", "100001"),
        ("retry.budget_ratio", "10.5"),
        ("retry.base_wait", "6s"),
        ("breaker.open_for", "31s"),
        ("fallback.mock_dimensions", "65537"),
        ("cache.memory_percent", "85"),
        ("cache.extra_fields", "task,model"),
        ("auth.credential_headers", "[\"no space\"]"),
        ("auth.credential_headers", "[]"),
        ("memory.limit_mb", "31"),
        ("upstream.call_timeout", "0s"),
        ("upstream.ca_file", "/"),
        ("disk.path", ""),
        ("redis.key_prefix", ""),
        ("tls.cert_file", READABLE),
        ("tls.key_file", READABLE),
        ("cache.same_models", "m=m"),
        ("cache.same_models", "m"),
        ("upstream.api_key", "two\nlines"),
        ("admin.token", ""),
        ("log.format", "xml"),
    ] {
        assert!(!fault_of(key, value).is_empty());
    }
    Config::from_pairs(&[("listen", "127.0.0.1:0"), ("admin_listen", "127.0.0.1:0")]).unwrap();
}

#[test]
fn the_proxy_scope_requires_an_api_key_of_vecho() {
    let fault = fault_of("cache.scope", "proxy");
    assert!(fault.contains("upstream.api_key"), "{fault}");
    for served in [("upstream.api_key", "sk-vecho"), ("upstream.url", "mock:")] {
        assert!(Config::from_pairs(&[("cache.scope", "proxy"), served]).is_ok(), "{served:?}");
    }
}

#[test]
fn a_secret_may_come_from_a_file_but_only_from_one_origin() {
    let folder = Folder::new("secrets");
    let full = folder.file("key", " sk-file \n");
    let (full, empty) = (full.to_str().unwrap(), folder.file("empty", " \n"));
    let config = Config::from_pairs(&[("upstream.api_key_file", full)]).unwrap();
    assert_eq!(config.upstream.api_key.as_ref().map(Secret::reveal), Some("sk-file"));
    assert_eq!(origin_of(&config, "upstream.api_key"), Origin::File(full.into()));
    let both = Config::from_pairs(&[("upstream.api_key", "sk-said"), ("upstream.api_key_file", full)]);
    assert!(faults(both)[0].contains("both upstream.api_key and upstream.api_key_file"));
    assert!(fault_of("admin.token_file", empty.to_str().unwrap()).ends_with("is empty"));
    assert!(fault_of("cache.key_secret_file", "/nowhere/key").contains("cannot be read"));
    let odd = folder.file("odd", "a\nb");
    let odd = odd.to_str().unwrap();
    let found = faults(Config::from_pairs(&[("upstream.api_key_file", odd)]));
    assert_eq!(found, [format!("upstream.api_key ({odd}): holds characters that a header cannot carry")]);
}

#[test]
fn no_secret_shows_in_debug_text_json_or_faults() {
    let secrets = [("upstream.api_key", "s3cr3t1"), ("cache.key_secret", "s3cr3t2"), ("admin.token", "s3cr3t3")];
    let config = Config::from_pairs(&secrets).unwrap();
    let shown = [format!("{config:?}"), config.effective.to_text(), config.effective.to_json().to_string()];
    let set = source(None, &[("OPENAI_API_KEY", "s3cr3t4")], &secrets);
    let wrong = secrets.map(|(key, value)| (key, format!("[\"{value}\"]")));
    let wrong = Config::from_pairs(&wrong.each_ref().map(|(key, value)| (*key, value.as_str()))).unwrap_err();
    assert_eq!(wrong.0.len(), 3);
    for text in shown.into_iter().chain([format!("{set:?}"), wrong.to_string(), format!("{wrong:?}")]) {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    let folder = Folder::new("shown");
    let file = folder.file("x.toml", "[upstream.url]\napi_key = \"s3cr3t5\"\n[upstream]\napi_key = [\"s3cr3t6\"]\n");
    let misplaced = faults(source(Some(&file), &[], &[]).load());
    assert!(misplaced.len() == 2 && !misplaced.concat().contains("s3cr3t"), "{misplaced:?}");
    assert_eq!(config.effective.to_text().matches("[secret]").count(), 3);
}

#[test]
fn a_syntax_error_is_reported_by_line_without_quoting_the_file() {
    let folder = Folder::new("broken");
    let file = folder.file("x.toml", "workers = 2\n[upstream]\napi_key = \"s3cr3t\nurl = \"mock:\"\n");
    let found = faults(source(Some(&file), &[("VECHO_WORKERS", "0")], &[]).load());
    assert!(found[0].starts_with(&format!("config ({}): line 3 is not TOML", file.display())), "{found:?}");
    assert!(found.len() == 2 && !found.concat().contains("s3cr3t"), "{found:?}");
}

#[test]
fn the_fingerprint_covers_the_content_of_config_and_secret_files() {
    let folder = Folder::new("fingerprint");
    let secret = folder.file("key", "one");
    let file = folder.file("x.toml", &format!("[upstream]\napi_key_file = {:?}\n", secret.to_str().unwrap()));
    let source = source(Some(&file), &[], &[]);
    let first = source.fingerprint();
    assert_eq!(first, source.fingerprint());
    folder.file("key", "two");
    let second = source.fingerprint();
    folder.file("x.toml", &(fs::read_to_string(&file).unwrap() + "[retry]\nmax_attempts = 2\n"));
    let third = source.fingerprint();
    fs::remove_file(&secret).unwrap();
    let fourth = source.fingerprint();
    assert!(first != second && second != third && third != fourth && first != third);
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn the_reference_file_is_generated_from_the_table_of_keys() {
    let path = shipped("vecho.toml");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    let same = fs::read_to_string(&path).unwrap_or_default() == reference();
    assert!(same, "config/vecho.toml differs from the table of keys; run the tests once with UPDATE_FIXTURES=1");
}

#[test]
fn the_shipped_files_load_and_the_reference_file_has_the_defaults() {
    for name in ["vecho.toml", "minimal.toml", "production.toml"] {
        let loaded = source(Some(&shipped(name)), &[], &[]).load();
        assert!(loaded.is_ok(), "config/{name}:\n{}", loaded.unwrap_err());
    }
    let (defaults, said) = (Config::from_pairs(&[]).unwrap(), source(Some(&shipped("vecho.toml")), &[], &[]).load());
    assert_eq!(vecho::config::changes(&defaults, &said.unwrap()), vecho::config::Changes::default());
}
