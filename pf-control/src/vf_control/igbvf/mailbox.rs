//! The mailbox between VF and PF driver: one shared memory of 16 words, a lock bit, and flags
//! that vanish when they are read.

use super::Timing;
use super::registers::{
    ACK, MSG_ACK, MSG_CODE, MSG_NACK, PFACK, PFSTS, REQ, RSTD, RSTI, V2PMAILBOX, VFU, VMBMEM,
    VMBMEM_WORDS,
};
use crate::vf_control::{ControlRegion, VfControlError};
use std::thread;
use std::time::Instant;

/// A message's or reply's words.
pub(crate) type Words = [u32; VMBMEM_WORDS];

/// The VF's end of the mailbox.
pub(crate) struct Mailbox<R> {
    region: R,
    timing: Timing,
    /// Flags that were read, hence cleared in the register, and that nobody has used up yet.
    cached: u32,
}

/// Flags that a read of the register clears.
const CLEAR_ON_READ: u32 = PFSTS | PFACK | RSTD;

impl<R: ControlRegion> Mailbox<R> {
    pub(crate) fn new(region: R, timing: Timing) -> Self {
        Self { region, timing, cached: 0 }
    }

    pub(crate) fn region(&self) -> &R {
        &self.region
    }

    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    /// The register with all flags that have come and are not used up.
    ///
    /// # Errors
    /// [`VfControlError::Gone`]: all ones is impossible, since REQ and ACK read as zero.
    pub(crate) fn flags(&mut self) -> Result<u32, VfControlError> {
        let value = self.region.read32(V2PMAILBOX);
        if value == u32::MAX {
            return Err(VfControlError::Gone);
        }
        self.cached |= value & CLEAR_ON_READ;
        Ok(value | self.cached)
    }

    /// Marks `flags` as used up.
    pub(crate) fn use_up(&mut self, flags: u32) {
        self.cached &= !flags;
    }

    /// Forgets everything that came before, as after a reset.
    pub(crate) fn forget(&mut self) {
        self.cached = 0;
    }

    /// Sends `message` and returns the reply's words, acknowledged or refused by the PF.
    ///
    /// # Errors
    /// Time-out, PF reset in the middle (seen by RSTI or RSTD), or the VF is gone.
    pub(crate) fn exchange(
        &mut self,
        name: &'static str,
        message: &[u32],
        deadline: Instant,
    ) -> Result<Words, VfControlError> {
        self.lock(name, deadline)?;
        // A ping of the PF may lie here, and flags of an exchange that was given up. Writing the
        // memory discards the ping; its flag must go with it, or it would pass for the reply's.
        self.flags()?;
        self.use_up(PFSTS | PFACK);
        for (offset, word) in (VMBMEM..).step_by(4).zip(message) {
            self.region.write32(offset, *word);
        }
        // REQ without VFU hands the memory to the PF.
        self.region.write32(V2PMAILBOX, REQ);
        self.wait(PFACK, name, deadline)?;
        loop {
            self.wait(PFSTS, name, deadline)?;
            let reply = self.receive(name, deadline)?;
            // The PF pings its VFs when its link changes; that may come before the reply.
            if reply[0] & MSG_CODE == message[0] & MSG_CODE && reply[0] & (MSG_ACK | MSG_NACK) != 0
            {
                return Ok(reply);
            }
        }
    }

    /// Takes the PF's message that PFSTS announced, acknowledges it and leaves the mailbox free.
    ///
    /// # Errors
    /// As [`Mailbox::exchange`].
    pub(crate) fn receive(
        &mut self,
        during: &'static str,
        deadline: Instant,
    ) -> Result<Words, VfControlError> {
        self.lock(during, deadline)?;
        let mut words = [0; VMBMEM_WORDS];
        for (offset, word) in (VMBMEM..).step_by(4).zip(&mut words) {
            *word = self.region.read32(offset);
        }
        self.region.write32(V2PMAILBOX, ACK);
        Ok(words)
    }

    /// Gets hold of the mailbox memory.
    fn lock(&mut self, during: &'static str, deadline: Instant) -> Result<(), VfControlError> {
        self.poll(during, deadline, |mailbox| {
            mailbox.region.write32(V2PMAILBOX, VFU);
            Ok(mailbox.flags()? & VFU != 0)
        })
    }

    /// Waits for one of the PF's flags and uses it up.
    fn wait(
        &mut self,
        flag: u32,
        during: &'static str,
        deadline: Instant,
    ) -> Result<(), VfControlError> {
        self.poll(during, deadline, |mailbox| {
            let flags = mailbox.flags()?;
            if flags & flag != 0 {
                mailbox.use_up(flag);
                return Ok(true);
            }
            // RSTD stays cached: whoever looks for events must still see it.
            if flags & (RSTI | RSTD) != 0 {
                return Err(VfControlError::PfReset { during });
            }
            Ok(false)
        })
    }

    /// Calls `done` until it says so.
    fn poll(
        &mut self,
        step: &'static str,
        deadline: Instant,
        mut done: impl FnMut(&mut Self) -> Result<bool, VfControlError>,
    ) -> Result<(), VfControlError> {
        // The bound of one exchange holds within the caller's.
        let started = Instant::now();
        let deadline = deadline.min(started + self.timing.exchange);
        while !done(self)? {
            if Instant::now() >= deadline {
                return Err(VfControlError::TimedOut { step, after: started.elapsed() });
            }
            thread::sleep(self.timing.poll);
        }
        Ok(())
    }

    /// Waits until no reset of the PF is going on.
    ///
    /// # Errors
    /// Time-out, or the VF is gone.
    pub(crate) fn wait_pf_ready(&mut self, deadline: Instant) -> Result<(), VfControlError> {
        let started = Instant::now();
        while self.flags()? & RSTI != 0 {
            if Instant::now() >= deadline {
                let after = started.elapsed();
                return Err(VfControlError::TimedOut { step: "the reset of the PF", after });
            }
            thread::sleep(self.timing.poll);
        }
        Ok(())
    }
}
