//! The function as a guest sees it.

mod extension;
mod rubbish;
mod transport;
