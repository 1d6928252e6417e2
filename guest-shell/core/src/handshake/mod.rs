//! The shell's talk with the hypervisor: the NPA register page, the shell page, commands. Knows
//! nothing of what is switched.

mod link;
mod page;
mod registers;

pub use link::{Link, LinkError};
pub use page::{RevokedWord, SharedPage};
pub use registers::Registers;
