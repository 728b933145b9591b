//! A real browser: Chromium, driven by playwright-core from `tests/browser`.

use std::path::Path;

use serde_json::Value;

/// Runs `tests/browser/<script>` with what it needs to know, and returns what it found. Its screenshots go to `target/shots`.
///
/// # Panics
/// The script fails; the message holds what it said.
pub async fn run_browser(script: &str, input: &Value) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let output = tokio::process::Command::new("node")
        .arg(folder.join(script))
        .arg(input.to_string())
        .current_dir(&folder)
        .kill_on_drop(true)
        .output()
        .await
        .expect("script/bootstrap installs Node.js");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed:\n{said}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{script} printed no JSON ({error}):\n{said}"))
}
