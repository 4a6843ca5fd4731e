//! The charts, their alerts and dashboard, and the image. Each check is a function of a script in `tests/chart/`, and
//! runs with Helm's own engine and the real binary.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Stub;
use crate::harness::tls::{Folder, Identity, front};

const SCRIPTS: [&str; 7] = ["manifests", "running", "injection", "monitoring", "prometheus", "image", "documents"];

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart")
}

/// Runs one check and panics with its error output if it fails.
fn check(script: &str, name: &str, environment: &[(&str, &str)]) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-env/chart/bin/python");
    assert!(python.exists(), "Helm's engine is not installed: run `bash scripts/setup-tests` first");
    let mut command = Command::new(python);
    command.arg(scripts().join(format!("{script}.py"))).arg(name).envs(environment.iter().copied());
    command.env("VECHO", env!("CARGO_BIN_EXE_vecho")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("the interpreter must run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}.py {name}:\n{said}");
}

macro_rules! checks {
    ($($script:ident { $($name:ident)+ })+) => {
        $(mod $script {
            $(#[test]
            fn $name() {
                super::check(stringify!($script), stringify!($name), &[]);
            })+
        })+

        /// The checks that run, as pairs of script name and function name.
        const RUN: &[(&str, &str)] = &[$($((stringify!($script), stringify!($name))),+),+];
    };
}

checks! {
    manifests {
        both_charts_are_without_fault
        every_manifest_is_valid
        selectors_find_what_they_mean
        the_network_policy_follows_the_addresses
        the_network_policy_lets_names_be_resolved
        production_values_choose_and_say_what_a_mock_means
        the_monitor_of_an_application_finds_its_own_pods
        containers_are_restricted
        the_example_runs_where_only_restricted_pods_may
        the_sidecar_is_native_and_the_deployment_leaves_slowly
        every_path_that_is_named_is_mounted
        the_deployment_does_as_its_values_say
        nothing_of_monitoring_comes_unasked
        wrong_and_unknown_values_are_refused
        no_value_can_be_taken_away
        values_that_do_not_fit_each_other_are_refused
        an_application_has_to_choose_the_mode
        the_notes_tell_how_to_point_an_application_at_it
        no_registry_is_named
    }
    running {
        the_binary_accepts_every_configuration
        the_words_of_the_schema_are_those_of_the_binary
        every_container_starts_answers_its_probes_and_stops
    }
    injection {
        an_annotated_pod_gets_vecho_and_its_address
        it_gets_what_an_application_would_include
        what_a_pod_has_stays
        other_pods_are_left_alone
        free_maps_hold_texts_alone
        the_binding_names_the_policy_and_spares_the_system
    }
    monitoring {
        promtool_takes_the_rules_and_their_tests_pass
        every_alert_is_seen_to_fire_and_not_to_fire
        every_alert_has_its_section_in_the_runbook
        every_metric_that_is_named_exists
        every_metric_that_is_named_is_scraped
        every_label_value_that_is_named_exists
        promtool_parses_every_query_of_the_dashboard
        the_dashboard_is_laid_out
        the_chart_carries_both_as_they_are
    }
    prometheus {
        a_scrape_under_load_has_the_right_values
        each_fault_fires_its_alerts_and_no_other
    }
    image {
        the_image_holds_the_program_and_its_libraries_alone
        the_build_context_is_enough_to_build
    }
    documents {
        schema_and_table_are_current
        the_keys_of_runbook_and_readme_are_keys
        the_image_that_is_built_is_the_one_that_the_chart_runs
        the_readme_of_the_chart_links_to_files_that_exist
    }
}

const IN_THE_IMAGE: (&str, &str) = ("image", "the_program_runs_in_the_image_as_nobody_on_a_root_that_it_cannot_write");

#[tokio::test(flavor = "multi_thread")]
async fn the_program_runs_in_the_image_as_nobody_on_a_root_that_it_cannot_write() {
    let (stub, folder, identity) = (Stub::start(), Folder::new("image-ca"), Identity::new("localhost"));
    let addr = front(&identity, stub.addr()).await;
    let upstream = format!("https://localhost:{}/v1", addr.port());
    let ca_file = folder.write("ca.pem", &identity.cert_pem);
    let run = move || check(IN_THE_IMAGE.0, IN_THE_IMAGE.1, &[("UPSTREAM", &upstream), ("CA_FILE", &ca_file)]);
    tokio::task::spawn_blocking(run).await.expect("the check must pass");
    assert_eq!(stub.inputs_sent(), 1);
}

#[test]
fn every_check_of_the_scripts_is_run() {
    let mut written = BTreeSet::new();
    for script in SCRIPTS {
        let text = std::fs::read_to_string(scripts().join(format!("{script}.py"))).expect("the script is there");
        let lines = text.lines().filter_map(|line| line.strip_prefix("def ")?.strip_suffix("():"));
        // Checks have names of several words; their helper functions have names of one word.
        let names = lines.filter(|name| name.contains('_')).map(str::to_owned);
        written.extend(names.map(|name| (script.to_owned(), name)));
    }
    let run = RUN.iter().chain([&IN_THE_IMAGE]).map(|(script, name)| ((*script).to_owned(), (*name).to_owned()));
    assert_eq!(written, run.collect());
}
