//! The one error body: `{"error":{"code","message","remedy"}}`.
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable word for programs, such as `unknown-instance`.
    pub code: String,
    /// What is wrong, naming the thing.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl ErrorBody {
    pub fn new(code: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { error: ErrorDetail { code: code.into(), message: message.into(), remedy: remedy.into() } }
    }
}
