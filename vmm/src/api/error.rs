//! How the interface says no.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What kind of refusal; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// There is no such device or resource (404).
    NotFound,
    /// The guest runs no driver that can switch its data path (409).
    NoShell,
    /// The request does not fit the present state: attached already, or nothing attached (409).
    WrongState,
    /// Another switch of the device is under way (409).
    Busy,
    /// Acceleration is not set up for the device (409).
    NotAccelerated,
    /// The guest refused or failed its part (409).
    Guest,
    /// The plugin image was refused (422).
    Plugin,
    /// pf-control is away, or no VF is free or fit (503).
    NoVf,
    /// The request is not understood, or asks for what cannot be (400).
    BadRequest,
    /// The other host, or this one, does not suit the VM (422).
    Unfit,
    /// The other host cannot be reached, or gave up (502).
    Peer,
    /// Somebody cancelled it (409).
    Cancelled,
    /// It is not known whether the VM runs here or there; it is held (500).
    InDoubt,
    /// A deadline passed (504).
    Deadline,
    /// Something in the host failed (500).
    Internal,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::NoShell
            | Self::WrongState
            | Self::Busy
            | Self::Cancelled
            | Self::NotAccelerated
            | Self::Guest => 409,
            Self::Plugin | Self::Unfit => 422,
            Self::BadRequest => 400,
            Self::Peer => 502,
            Self::NoVf => 503,
            Self::Deadline => 504,
            Self::Internal | Self::InDoubt => 500,
        }
    }
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Kind of refusal.
    pub code: ErrorCode,
    /// What went wrong, with its causes.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// An error whose message is the chain of `error` and its sources, each once.
    pub fn from_chain(code: ErrorCode, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, chain(error))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

/// The messages of an error and its sources, from the outside in. A message that the one before
/// it already contains is left out.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !last.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        last = message;
        source = cause.source();
    }
    text
}

/// An error as it stands in a response.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What went wrong.
    pub(super) error: ApiError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner: {0}")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn the_chain_says_each_thing_once() {
        let error = Outer(Inner(std::io::Error::other("no disk")));
        assert_eq!(chain(&error), "outer: inner: no disk");
    }
}
