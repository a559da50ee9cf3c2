//! The house rules hold.

#[test]
fn the_tree_keeps_the_house_rules() {
    let complaints = xtask::tidy::complaints().unwrap();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
