//! The charts, their alerts and dashboard, the image, the Compose example and the guides. Each check is a function of a script in `tests/chart/`, and
//! runs with Helm's own engine and the real binary.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Stub;
use crate::harness::tls::{Folder, Identity, front};

const SCRIPTS: [&str; 12] = [
    "manifests",
    "values",
    "options",
    "hooks",
    "running",
    "injection",
    "monitoring",
    "prometheus",
    "image",
    "documents",
    "compose",
    "guides",
];

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
        both_charts_pass_the_linter
        every_manifest_is_valid
        selectors_match_the_labels_and_ports_of_the_pods
        the_network_policy_follows_the_addresses
        the_network_policy_allows_dns
        values_files_set_a_fallback_mode_and_explain_mocks
        the_pod_monitor_of_an_application_selects_its_own_pods
        containers_are_restricted
        all_pods_meet_the_restricted_pod_security_standard
        sidecars_are_native_and_deployments_sleep_before_they_stop
        targets_take_their_keys_from_existing_secrets
        every_configured_path_is_mounted
        the_deployment_follows_its_values
        monitoring_objects_are_rendered_only_on_request
        the_notes_explain_how_to_configure_an_application
        images_have_no_registry_by_default
    }
    values {
        wrong_and_unknown_values_are_refused
        null_values_are_refused_unless_optional
        contradictory_values_are_refused
        secrets_are_refused_in_the_open
        an_application_must_use_the_sidecar_mode
    }
    options {
        every_value_changes_the_manifests_and_keeps_them_valid
        extras_reach_the_container_in_every_mode
        images_follow_the_registry_of_the_chart_or_of_all_charts
        an_application_hands_its_registry_and_extras_to_the_sidecar
        names_follow_the_overrides
        common_labels_and_annotations_are_on_every_object
        the_service_account_has_no_token_unless_asked
        pods_are_placed_as_asked
        the_strategy_is_recreate_on_a_claim
        ephemeral_storage_fits_the_volume
    }
    hooks {
        the_objects_of_the_test_are_valid_and_temporary
        the_pod_of_the_test_reaches_only_the_ops_port
        the_pod_of_the_test_is_restricted
        the_pod_of_the_test_gets_vecho_in_injection
        the_commands_of_the_test_ask_a_real_vecho
    }
    running {
        the_binary_accepts_every_configuration
        enumerated_values_of_the_schema_equal_those_of_the_binary
        every_container_starts_answers_its_probes_and_stops
    }
    injection {
        an_annotated_pod_gets_vecho_and_its_address
        injected_containers_equal_those_of_the_application_mode
        injection_keeps_the_existing_fields_of_a_pod
        injected_containers_reach_loopback_without_a_proxy
        injection_takes_the_newest_version_that_the_cluster_serves
        pods_without_the_annotation_are_not_changed
        resource_maps_in_the_policy_contain_only_strings
        the_binding_references_the_policy_and_excludes_system_namespaces
    }
    monitoring {
        promtool_accepts_the_rules_and_their_tests_pass
        every_alert_has_a_firing_and_a_silent_test_case
        every_alert_has_its_section_in_the_runbook
        every_referenced_metric_exists
        every_referenced_metric_is_scraped
        every_referenced_label_value_exists
        promtool_parses_every_query_of_the_dashboard
        dashboard_panels_do_not_overlap
        the_chart_contains_rules_and_dashboard_unchanged
        autoscalers_ask_for_metrics_that_the_adapter_makes_of_exported_ones
        the_queries_of_the_adapter_return_the_figures_of_each_pod
    }
    prometheus {
        a_scrape_under_load_has_the_right_values
        each_fault_fires_its_alerts_and_no_other
    }
    image {
        the_image_contains_only_the_program_its_libraries_and_their_licences
        the_build_context_has_all_files_of_the_build
    }
    documents {
        schema_and_table_are_current
        the_readme_of_the_chart_links_to_files_that_exist
        the_commands_of_the_chart_s_readme_are_accepted
        the_keys_of_runbook_and_readme_are_keys
        the_chart_runs_the_image_that_is_built
        the_metadata_of_the_chart_equals_that_of_the_program
    }
    compose {
        compose_reads_the_project
        every_mounted_file_exists
        vecho_runs_with_the_variables_of_the_service
        the_dashboard_opens_with_the_token_of_the_guide
        promtool_accepts_the_configuration
        prometheus_shows_vecho_on_the_dashboard
        grafana_finds_its_data_source_and_the_dashboard
    }
    guides {
        the_requests_of_the_guides_miss_and_then_hit
        the_compose_guide_uses_the_example_and_its_ports
        the_kubernetes_guide_installs_what_it_then_calls
        the_cells_of_the_notebook_run_in_order
        the_notebook_has_the_form_of_version_4
        the_programs_of_the_langchain_guide_print_what_it_says
        the_guides_need_only_packages_that_the_tests_have
    }
}

const IN_THE_IMAGE: (&str, &str) = ("image", "the_image_runs_without_root_on_a_read_only_filesystem");

#[tokio::test(flavor = "multi_thread")]
async fn the_image_runs_without_root_on_a_read_only_filesystem() {
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
