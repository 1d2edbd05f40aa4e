//! What a file may say, for programs.

use serde_json::Value;

use super::Model;

/// The JSON schema of a configuration file, as JSON.
pub(crate) fn schema() -> String {
    format!("{:#}\n", value())
}

pub(super) fn value() -> Value {
    schemars::schema_for!(Model).to_value()
}
