//! The reader of model files: a whole one is read, a broken one is refused and never believed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use proptest::prelude::*;
use quartermaster_inference_pod::gguf::{Gguf, GgufError, Shape};
use quartermaster_inference_pod::kv::Sharing;
use quartermaster_inference_pod::memory::{Estimate, KvPrecision, Load};
use std::path::Path;
use support::gguf::{Options, bytes};

fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}

fn problem(bytes: &[u8]) -> String {
    match open(bytes) {
        Err(GgufError::Corrupt { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_file_gives_its_shape_and_its_need() {
    let whole = bytes(&Options::default());
    let gguf = open(&whole).unwrap();
    let shape = Shape::of(&gguf).unwrap();
    assert_eq!((shape.architecture.as_str(), shape.layers, shape.vocabulary, shape.context), ("llama", 2, 273, 512));
    // 2 layers x 2 KV heads x (16 + 16).
    assert_eq!(shape.kv_elements_per_token, 128);
    let load = Load::new(100, 3, false, Sharing::Cells);
    let estimate = Estimate::of(&gguf, &shape, load);
    assert_eq!(estimate.kv_bytes, 128 * 2 * 256 * 3, "the context is padded to 256");
    assert!(estimate.weights_bytes < gguf.file_bytes && estimate.weights_bytes > gguf.file_bytes * 9 / 10);
    let parts = estimate.weights_bytes + estimate.kv_bytes + estimate.compute_bytes + estimate.process_bytes;
    assert_eq!(estimate.total_bytes, parts);
    let more = Estimate::of(&gguf, &shape, Load { slots: 6, ..load });
    assert!(more.total_bytes > estimate.total_bytes);
    let halved = Estimate::of(&gguf, &shape, Load { kv: KvPrecision::Q8_0, ..load });
    assert_eq!(halved.kv_bytes, 128 / 32 * 34 * 256 * 3);
}

#[test]
fn each_kind_of_damage_is_named() {
    let whole = bytes(&Options::default());
    assert!(problem(b"").contains("ends inside its first four bytes"));
    assert!(problem(b"PK\x03\x04 a zip file").contains("GGUF"));
    assert!(problem(&[b"GGUF".as_slice(), &9_u32.to_le_bytes()].concat()).contains("version is 9"));
    let mut many = whole.clone();
    many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(problem(&many).contains("tensors"));
    let mut long = whole.clone();
    long[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(problem(&long).contains("left in the file"));
    assert!(problem(&whole[..whole.len() - 100]).contains("truncated"));
    assert!(matches!(Gguf::open(Path::new("/nonexistent/m.gguf")), Err(GgufError::NotFound(_))));
    assert!(matches!(Gguf::open(Path::new("/proc")), Err(GgufError::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_cut_file_is_always_refused(cut in 0.0_f64..1.0) {
        let whole = bytes(&Options::default());
        let length = whole.len() - 1;
        let cut = (0..length).nth(((cut * 1e6).round() as usize * length) / 1_000_001).unwrap();
        prop_assert!(open(&whole[..cut]).is_err());
    }

    #[test]
    fn flipped_bytes_in_the_header_never_panic(flips in prop::collection::vec((0_usize..12_000, 0_u8..=255), 1..8)) {
        let mut file = bytes(&Options::default());
        for (at, byte) in flips {
            file[at] = byte;
        }
        if let Ok(gguf) = open(&file)
            && let Ok(shape) = Shape::of(&gguf)
        {
            let load = Load::new(u32::MAX, u32::MAX, false, Sharing::Cells);
            prop_assert!(Estimate::of(&gguf, &shape, load).total_bytes >= gguf.tensor_bytes());
        }
    }
}
