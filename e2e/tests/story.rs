//! The demo's story, asserted: the same steps on a cluster of the test's own.

use quartermaster_e2e::narrator::Narrator;
use quartermaster_e2e::stage::Stage;
use quartermaster_e2e::story;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the images in dist: `cargo xtask ci` makes them and runs this"]
async fn the_demo_holds_what_it_shows() -> anyhow::Result<()> {
    let narrator = Narrator::default();
    let stage = Stage::set_up("e2e", &narrator).await?;
    stage.apply_examples(&narrator).await?;
    story::tell(&stage, &narrator).await
}
