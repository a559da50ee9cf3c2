//! `serve.json`, read and checked.

use crate::exit::{Failure, Reason};
use crate::limits::{CONFIG_BYTES_MAX, CONTEXT_TOKENS_MAX, SLOTS_MAX, VARIANTS_MAX};
use quartermaster_core::wire::serve::ServeConfig;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Threads that a config may ask for.
const THREADS_MAX: u32 = 1024;

/// Reads and checks the file.
///
/// # Errors
/// `BadConfig`, naming the file, the field and what would be right.
pub fn load(path: &Path) -> Result<ServeConfig, Failure> {
    let bad = |problem: String| Failure::new(Reason::BadConfig, format!("config {}: {problem}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    file.take(CONFIG_BYTES_MAX).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    let config: ServeConfig = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    check(&config).map_err(bad)?;
    Ok(config)
}

fn check(config: &ServeConfig) -> Result<(), String> {
    let within = |name: &str, value: u32, most: u32| {
        if (1..=most).contains(&value) { Ok(()) } else { Err(format!("{name} is {value}; it must be 1 to {most}")) }
    };
    within("contextTokens", config.context_tokens, CONTEXT_TOKENS_MAX)?;
    within("slots", config.slots, SLOTS_MAX)?;
    within("threads", config.threads.unwrap_or(1), THREADS_MAX)?;
    if config.model.is_empty() {
        return Err("model is empty; it is the name that clients use".into());
    }
    if config.variants.len() > VARIANTS_MAX {
        return Err(format!("variants holds {} files; at most {VARIANTS_MAX}", config.variants.len()));
    }
    let names: Vec<&str> = config.variants.iter().map(|file| file.name.as_str()).collect();
    for (field, name) in [("variant", Some(&config.variant)), ("draft", config.draft.as_ref())] {
        if let Some(name) = name.filter(|name| !names.contains(&name.as_str())) {
            return Err(format!("{field} is {name:?}, which is none of variants ({})", names.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.json");
        std::fs::write(&path, text).unwrap();
        let failure = load(&path).unwrap_err();
        assert_eq!(failure.reason, Reason::BadConfig);
        failure.message
    }

    fn with(change: (&str, serde_json::Value)) -> String {
        let mut config = serde_json::json!({"model": "m", "namespace": "demo", "variant": "q8", "contextTokens": 64,
            "variants": [{"name": "q8", "path": "/q8", "precision": "Q8_0"}], "slots": 2, "hardwareClass": "c", "devices": 1});
        config[change.0] = change.1;
        config.to_string()
    }

    #[test]
    fn each_problem_names_its_field() {
        assert!(message("{").contains("EOF"));
        assert!(message("{}").contains("missing field `model`"));
        assert!(message(&with(("slots", 0.into()))).contains("slots is 0"));
        assert!(
            message(&with(("slots", "two".into()))).contains("slots")
                || message(&with(("slots", "two".into()))).contains("u32")
        );
        assert!(message(&with(("contextTokens", 0.into()))).contains("contextTokens is 0"));
        assert!(message(&with(("threads", 0.into()))).contains("threads is 0"));
        assert!(message(&with(("variant", "q4".into()))).contains("\"q4\", which is none of variants (q8)"));
        assert!(message(&with(("draft", "q4".into()))).contains("draft is \"q4\", which is none of variants (q8)"));
        assert!(message(&with(("model", "".into()))).contains("model is empty"));
    }

    #[test]
    fn a_missing_file_is_a_bad_config() {
        assert_eq!(load(Path::new("/nonexistent/serve.json")).unwrap_err().reason, Reason::BadConfig);
    }
}
