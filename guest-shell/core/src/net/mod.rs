//! The network class. [`NetShell`] is what an operating system layer holds: one interface with an
//! emulated path that is always there and, while attached, a VF path.
//!
//! | file | what |
//! |---|---|
//! | `path` | one path: a plugin instance and the buffers in its receive ring |
//! | `callbacks` | what a plugin may call, with every check of what it reports |
//! | `transmit` | frames to send, first in first out, kept until they are complete |
//! | `receive`, `group` | received frames: own echoes and double group frames are dropped |
//! | `paths` | both paths behind the path lock: routing, drains, poll |
//! | `built_in` | the emulated path: virtio-net features, queues, configuration |
//! | `steps` | what the switch's steps mean for a network interface |
//! | `shell` | the operating system layer's interface |

mod built_in;
mod callbacks;
mod calls;
mod group;
mod path;
mod paths;
mod receive;
mod shell;
mod stats;
mod steps;
mod transmit;

pub use built_in::{Facts, Offloads};
pub use paths::Poll;
pub use shell::{NetShell, PluginLabel, StartError, Transmit};
pub use stats::{PathStats, Stats};
