//! The binary itself, on loopback.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_quartermaster-inference-pod");

/// A folder with a `serve.json`, and the process that serves it.
pub struct Pod {
    pub folder: tempfile::TempDir,
    child: Child,
    lines: Receiver<String>,
}

/// Writes a config for the file `model.gguf` in the folder.
pub fn write_config(folder: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let model = folder.join("model.gguf");
    let mut config = json!({"model": "tiny", "namespace": "demo", "variant": "f32", "contextTokens": 256, "slots": 4,
        "variants": [{"name": "f32", "path": model, "precision": "F32"}], "hardwareClass": "cpu", "devices": 1, "threads": 1});
    change(&mut config);
    let path = folder.join("serve.json");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

impl Pod {
    pub fn start(folder: tempfile::TempDir, flags: &[&str]) -> Self {
        let mut child = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(folder.path().join("serve.json"))
            .arg("--termination-log")
            .arg(folder.path().join("termination"))
            .args(flags)
            .env("GGML_NO_BACKTRACE", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { folder, child, lines }
    }

    /// The address that it listens on, once it is ready.
    pub fn ready(&self) -> String {
        let mut url = None;
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(120)).expect("the pod never became ready");
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            let fields = &line["fields"];
            if fields["message"] == "listening" {
                url = Some(format!("http://{}", fields["address"].as_str().unwrap()));
            }
            if fields["message"] == "ready" {
                return url.expect("it listens before it is ready");
            }
        }
    }

    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(120) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the pod does not end");
    }

    /// What stands in the termination log.
    pub fn last_words(&self) -> Value {
        let text = std::fs::read_to_string(self.folder.path().join("termination")).unwrap_or_default();
        serde_json::from_str(text.trim()).unwrap_or(Value::Null)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
