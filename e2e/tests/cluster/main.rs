//! Scenarios on one real cluster, one after another: `cargo xtask ci` makes the images and runs them with
//! `--ignored --test-threads=1`, in the order of their names.

mod bad_manifests;
mod bad_requests;
mod family;
mod rules;
mod source;
mod swap;
mod upgrade;

use anyhow::Context;
use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::stage::Stage;
use quartermaster_e2e::story;
use std::time::Duration;

/// Name of the tests' cluster.
const CLUSTER: &str = "e2e";

async fn stage() -> anyhow::Result<Stage> {
    let narrator = Narrator::default();
    let stage = Stage::set_up(CLUSTER, &narrator).await?;
    stage.apply_examples(&narrator).await?;
    Ok(stage)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn a_the_demo_holds_what_it_shows() -> anyhow::Result<()> {
    story::tell(&stage().await?, &Narrator::default()).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn b_bad_requests_get_a_clear_answer() -> anyhow::Result<()> {
    bad_requests::each_gets_its_status(&stage().await?).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn c_bad_manifests_get_a_clear_condition() -> anyhow::Result<()> {
    bad_manifests::each_says_what_is_wrong(&stage().await?).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn d_every_rule_accepts_and_refuses_on_the_real_api_server() -> anyhow::Result<()> {
    rules::hold_on_the_api_server(&stage().await?).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn e_another_variant_on_the_same_hardware_replaces_no_pod() -> anyhow::Result<()> {
    swap::replaces_no_pod_and_loses_no_request(&stage().await?).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn f_models_elsewhere_are_fetched_or_mounted() -> anyhow::Result<()> {
    source::elsewhere_is_fetched_or_mounted(&stage().await?).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn g_the_family_answers_its_tasks() -> anyhow::Result<()> {
    family::answers_its_tasks(&stage().await?).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn h_an_upgrade_with_other_values_locks_nobody_out() -> anyhow::Result<()> {
    upgrade::keeps_the_secrets_and_applies_the_values(&stage().await?).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the images in dist: `cargo xtask ci` makes them and runs this"]
async fn i_uninstall_leaves_nothing_behind() -> anyhow::Result<()> {
    let stage = stage().await?;
    stage.uninstall().await?;
    // The kinds stay on purpose, for with them would go every object of every user; they go when they are told to.
    let mut kinds = Vec::new();
    let only_kinds = async || {
        kinds = stage.leftovers().await?;
        Ok(kinds.iter().all(|left| left.starts_with("customresourcedefinition")))
    };
    let limit = Duration::from_secs(120);
    let gone = stage.until(limit, "the pods of the charts have ended and only the kinds are left", only_kinds).await;
    gone.with_context(|| format!("left behind: {kinds:?}"))?;
    anyhow::ensure!(kinds.len() == 4, "helm uninstall took kinds away, and with them objects of users: {kinds:?}");
    let names = kinds.iter().map(String::as_str);
    stage.kubectl(&["delete"].into_iter().chain(names).collect::<Vec<_>>()).await?;
    let left = stage.leftovers().await?;
    anyhow::ensure!(left.is_empty(), "left behind: {left:?}");
    stage.cluster().clone().down()
}
