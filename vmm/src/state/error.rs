//! Why a state cannot be saved or restored.

/// A state that cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It does not begin like one.
    #[error("this is no VM state; was the right file or the right peer named?")]
    NotState,
    /// Another format.
    #[error("the VM state has format {found}, and this vmm knows {known}; use {} vmm", age(*found, *known))]
    Format {
        /// In the state.
        found: u16,
        /// Known here.
        known: u16,
    },
    /// It ends too early, or a length in it is impossible.
    #[error("the VM state is truncated or damaged after {at} bytes")]
    Truncated {
        /// Bytes up to the place where it does not go on.
        at: usize,
    },
    /// It is larger than any state.
    #[error("the VM state has {len} bytes, and at most {max} are possible")]
    TooLarge {
        /// Bytes.
        len: usize,
        /// Bytes at most.
        max: usize,
    },
    /// A payload's checksum is wrong.
    #[error("the VM state is damaged: the checksum of {kind} {instance} is wrong")]
    Checksum {
        /// Kind of component.
        kind: String,
        /// Which one.
        instance: String,
    },
    /// Two payloads of one component.
    #[error("the VM state has {kind} {instance} twice")]
    Twice {
        /// Kind of component.
        kind: String,
        /// Which one.
        instance: String,
    },
    /// A component finds nothing.
    #[error("the VM state has no {kind} {instance}; was it saved by a VM with other devices?")]
    Missing {
        /// Kind of component.
        kind: &'static str,
        /// Which one.
        instance: String,
    },
    /// Another version.
    #[error(
        "{kind} {instance} was saved in version {found}, and this vmm knows {known}; use {} vmm",
        age(*found, *known)
    )]
    Version {
        /// Kind of component.
        kind: &'static str,
        /// Which one.
        instance: String,
        /// In the state.
        found: u16,
        /// Known here.
        known: u16,
    },
    /// The bytes are not of the payload's type.
    #[error("the state of {kind} {instance} is not understood: {reason}")]
    Malformed {
        /// Kind of component.
        kind: &'static str,
        /// Which one.
        instance: String,
        /// What the decoder says.
        reason: String,
    },
    /// Payloads that nobody took.
    #[error("the VM state has parts that this VM has no device for: {}", .0.join(", "))]
    LeftOver(Vec<String>),
    /// It says what cannot be, or not here.
    #[error("the state of {kind} {instance} does not suit this VM: {reason}")]
    Unsuitable {
        /// Kind of component.
        kind: &'static str,
        /// Which one.
        instance: String,
        /// What does not fit.
        reason: String,
    },
    /// A component cannot be saved now.
    #[error("{kind} {instance} cannot be saved: {reason}")]
    Unsaveable {
        /// Kind of component.
        kind: &'static str,
        /// Which one.
        instance: String,
        /// Why.
        reason: String,
    },
}

fn age(found: u16, known: u16) -> &'static str {
    if found > known { "a newer" } else { "an older" }
}

impl StateError {
    /// [`StateError::Unsuitable`] for a payload of type `P`.
    pub fn unsuitable<P: super::Payload>(instance: &str, reason: impl Into<String>) -> Self {
        Self::Unsuitable { kind: P::KIND, instance: instance.to_owned(), reason: reason.into() }
    }

    /// [`StateError::Unsaveable`] for a payload of type `P`.
    pub fn unsaveable<P: super::Payload>(instance: &str, reason: impl Into<String>) -> Self {
        Self::Unsaveable { kind: P::KIND, instance: instance.to_owned(), reason: reason.into() }
    }
}
