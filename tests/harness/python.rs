//! Judges in Python: scripts in `tests/judges` that use libraries which receivers use.

use std::process::Command;

use serde_json::Value;

use crate::{process::run, tools};

/// Gives `question` as JSON to the judge `script` and returns its answer.
///
/// # Panics
/// When the script fails or does not answer in JSON.
pub fn judge(script: &str, question: &Value) -> Value {
    let path = tools::project().join("tests/judges").join(script);
    let finished = run(
        Command::new(tools::python()).arg(path),
        question.to_string().as_bytes(),
    );
    assert!(finished.status.success(), "{script}: {finished:?}");
    serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{script} does not answer in JSON ({error}): {finished:?}"))
}
