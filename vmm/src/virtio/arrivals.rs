//! What arrives for a device from outside while its VM changes hosts. The network does not wait:
//! for some milliseconds the same frames may come to both ends, to one, or to the other, so the
//! destination holds its own back until the source has handed over what came to it.

use super::worker::CallError;

/// What a device does with what arrives from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Delivers it.
    Open,
    /// Throws it away: another host has the VM, and gets it too.
    Discard,
    /// Leaves it where it arrived.
    Hold,
    /// Keeps it in memory for [`Arrivals::collect`]: where it arrives there is room for so much only.
    /// For a device that holds.
    Keep,
}

/// One unit (a frame) as it arrived, with what the backend says about it.
pub type Arrival = Vec<u8>;

/// The outside of a device, as seen by whoever moves its VM. Calls come from one control thread.
pub trait Arrivals: Send + Sync {
    /// The device's name.
    fn id(&self) -> &str;

    /// Sets what is done with what arrives from now on. [`Intake::Discard`] includes what is there.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn set_intake(&self, intake: Intake) -> Result<(), CallError>;

    /// Takes what has arrived and was not delivered, oldest first. Only while the device holds.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn collect(&self) -> Result<Vec<Arrival>, CallError>;

    /// Delivers `arrivals` before anything else.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn deliver(&self, arrivals: Vec<Arrival>) -> Result<(), CallError>;

    /// Takes back `arrivals` that were collected: they come before what has arrived since.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn put_back(&self, arrivals: Vec<Arrival>) -> Result<(), CallError>;

    /// How many arrivals that were handed in by [`Arrivals::deliver`] the guest has not got yet.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn undelivered(&self) -> Result<usize, CallError>;

    /// How many units this end has dropped so far that the guest was to get, those that found no
    /// room where they arrive included; `None` if the backend does not count them.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn lost(&self) -> Result<Option<u64>, CallError>;

    /// Ends [`Intake::Hold`]: delivers `late`, then what was held without what is in `late` or in
    /// `seen` (delivered before, and on its way here all the longer), then whatever arrives.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn open_after(&self, late: Vec<Arrival>, seen: Vec<Arrival>) -> Result<(), CallError>;

    /// Tells the network that the device is here now.
    ///
    /// # Errors
    /// When the device's thread does not answer.
    fn announce(&self) -> Result<(), CallError>;
}
