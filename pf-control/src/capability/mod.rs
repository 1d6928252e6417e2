//! What a VM may ask for, by name: capabilities, never devices. An operator writes profiles; a
//! request names one, and gets a VF of any adapter that has what it says.
//!
//! Pure: what an adapter has is handed in.

mod profile;

pub use profile::{Candidate, Mismatch, Profile, ProfileError, Profiles};
