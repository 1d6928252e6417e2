//! VFs through VFIO: one type 1 container per VM, and open VFs whose BARs are divided page by
//! page. A page that is not named as data is never mapped anywhere; the control page is reached
//! only through the kernel. Knows nothing of switches or plugins.

mod container;
mod device;
mod error;
mod msix;
pub(crate) mod sys;

pub use container::VfioSpace;
pub use error::VfError;
pub use sys::VfioError;
