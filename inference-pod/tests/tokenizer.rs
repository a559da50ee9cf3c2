//! The bundle counts as llama.cpp counts: Hugging Face's tokenizers, built from it, against the engine's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions, reason = "tests")]

mod support;

use quartermaster_core::chat::{ChatTemplate, Message};
use quartermaster_inference_pod::engine::Vocabulary;
use quartermaster_inference_pod::engine::llama::LlamaWeights;
use quartermaster_inference_pod::gguf::Gguf;
use quartermaster_inference_pod::tokenizer::{TokenizerError, bundle};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use support::gguf::{Options, write};
use support::strings::varied;
use tokenizers::Tokenizer;

/// Both tokenizers over all texts; returns how many were compared.
fn compare(path: &Path, more: &[String]) -> usize {
    let weights = LlamaWeights::load(path).unwrap();
    let bundle = bundle(&Gguf::open(path).unwrap(), &weights.specials(), 1024).unwrap();
    assert_eq!(bundle.hash.len(), 64);
    let tokenizer = Tokenizer::from_str(&bundle.tokenizer_json).unwrap();
    let texts: Vec<String> = varied().into_iter().chain(more.iter().cloned()).collect();
    let mut wrong = Vec::new();
    for text in &texts {
        let theirs: Vec<i32> = weights.tokenize(text);
        let encoding = tokenizer.encode(text.as_str(), false).unwrap();
        let ours: Vec<i32> = encoding.get_ids().iter().map(|id| i32::try_from(*id).unwrap()).collect();
        if ours != theirs {
            wrong.push(format!("{text:?}: bundle {ours:?}, llama.cpp {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), texts.len(), wrong.join("\n"));
    texts.len()
}

#[test]
fn each_pre_tokenizer_counts_as_the_engine_does() {
    let folder = tempfile::tempdir().unwrap();
    let special = ["<|begin|>user\nhi<|end|>\n", "a<|end|>b", "<|begin|><|begin|>", "<|beg", "|end|>", "<|end|> x"];
    for pre in ["smollm", "gpt-2", "llama-bpe", "qwen2", "default"] {
        let path = folder.path().join(format!("{pre}.gguf"));
        write(&path, &Options { pre: pre.into(), ..Options::default() });
        assert!(compare(&path, &special.map(str::to_owned)) >= 200, "{pre}");
    }
}

#[test]
fn what_we_cannot_express_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (options, word) in [
        (Options { pre: "tekken".into(), ..Options::default() }, "tekken"),
        (Options { model: "llama".into(), ..Options::default() }, "llama"),
    ] {
        write(&path, &options);
        let refused = bundle(&Gguf::open(&path).unwrap(), &Default::default(), 64).unwrap_err();
        assert!(matches!(&refused, TokenizerError::Unsupported(why) if why.contains(word)), "{refused}");
    }
    write(&path, &Options { duplicate: true, ..Options::default() });
    let broken = bundle(&Gguf::open(&path).unwrap(), &Default::default(), 64).unwrap_err();
    assert!(matches!(broken, TokenizerError::Broken(_)));
}

/// The demo's model, where somebody has fetched it.
fn smollm() -> Option<PathBuf> {
    let named = std::env::var_os("QM_TEST_MODEL").map(PathBuf::from);
    let cached = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/quartermaster/models/smollm2-135m-q8_0.gguf"));
    named.or(cached).filter(|path| path.exists())
}

#[test]
fn smollm2_counts_as_the_engine_does() {
    let Some(path) = smollm() else {
        eprintln!("skipped: no SmolLM2 model file; set QM_TEST_MODEL or run the demo once");
        return;
    };
    let gguf = Gguf::open(&path).unwrap();
    let template = ChatTemplate::new(gguf.text("tokenizer.chat_template").unwrap(), None, None).unwrap();
    let now = "2024-07-26T00:00:00Z".parse().unwrap();
    let chats = varied().into_iter().map(|text| {
        let messages =
            [Message::new("system", "Be brief."), Message::new("user", text), Message::new("assistant", "No.")];
        template.render(&messages, now).unwrap()
    });
    assert!(compare(&path, &chats.collect::<Vec<_>>()) >= 400);
}
