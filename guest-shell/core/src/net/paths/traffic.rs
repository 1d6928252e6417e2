//! The traffic itself: completions, frames to send, received frames, interrupts, each on whichever
//! path the present position says.

use super::{Delivery, Paths, Route};
use crate::net::path::{Fault, NetPath, RX_QUEUE, TX_QUEUE};
use crate::os::{LogLevel, NetOs};

impl Paths {
    pub(super) fn reap<O: NetOs>(&mut self, os: &O) {
        let stats = &mut self.receiver.stats;
        if !self.route.is_with_vf() {
            if self.emulated.check_tx(os, &mut self.frames, &mut stats.emulated).is_err() {
                self.fail_emulated(os);
            }
            return;
        }
        if let Some(vf) = self.vf.as_mut().filter(|vf| vf.live)
            && vf.path.check_tx(os, &mut self.frames, &mut stats.vf).is_err()
        {
            self.fail_vf(os);
        }
    }

    pub(super) fn submit<O: NetOs>(&mut self, os: &O) {
        if self.frames.waiting() == 0 {
            return;
        }
        let stats = &mut self.receiver.stats;
        match self.route {
            Route::Emulated => {
                if self.emulated.submit(os, &mut self.frames, &mut stats.emulated).is_err() {
                    self.fail_emulated(os);
                }
            }
            Route::Vf => {
                if let Some(vf) = self.vf.as_mut().filter(|vf| vf.live)
                    && vf.path.submit(os, &mut self.frames, &mut stats.vf).is_err()
                {
                    self.fail_vf(os);
                }
            }
            Route::DrainToVf | Route::DrainToEmulated | Route::Stalled => {}
        }
    }

    /// Answers the frames received and whether some may be left although the budget is not used.
    pub(super) fn receive<O: NetOs>(&mut self, os: &O, budget: u32) -> (u32, bool) {
        let mut done = 0u32;
        let mut more = false;
        // The VF first: what it delivers is then remembered when the emulated copy comes.
        if matches!(self.delivery, Delivery::Both | Delivery::EmulatedHeld | Delivery::DrainVf) {
            let share = match self.delivery {
                Delivery::Both => budget.saturating_sub(budget / 8),
                _ => budget,
            };
            done = self.check_vf_rx(os, share);
            if done < share {
                self.receiver.vf_empty();
                if self.delivery == Delivery::DrainVf {
                    self.quiesce_vf(os);
                }
            } else {
                more = true;
            }
        }
        let left = budget.saturating_sub(done);
        if left != 0
            && matches!(self.delivery, Delivery::Emulated | Delivery::ToVf | Delivery::Both)
        {
            let got = match self.delivery {
                Delivery::Both => self.receive_beside_vf(os, left),
                _ => self.check_emulated_rx(os, left),
            };
            done = done.saturating_add(got);
            if self.delivery == Delivery::ToVf && got < left {
                self.delivery = Delivery::Both;
                self.receiver.vf_released();
                more = true;
            }
        }
        (done, more)
    }

    /// Receives from the emulated path while the VF delivers. A frame there may be one that came
    /// after a revoke, and the VF's ring may hold older ones, however lately the revoked word was
    /// looked at: this thread may have stood still since. So the word is read after the frame was
    /// seen, and the host, which sets it before it moves the address, makes that enough.
    fn receive_beside_vf<O: NetOs>(&mut self, os: &O, budget: u32) -> u32 {
        let mut done = 0u32;
        while done < budget && self.delivery == Delivery::Both {
            self.receiver.shut_gate();
            let got = self.check_emulated_rx(os, 1);
            if got != 0 {
                self.notice_revoke(os);
            }
            self.receiver.open_gate(os);
            if got == 0 {
                break;
            }
            done = done.saturating_add(got);
        }
        done
    }

    pub(super) fn check_vf_rx<O: NetOs>(&mut self, os: &O, budget: u32) -> u32 {
        let Some(vf) = self.vf.as_mut().filter(|vf| vf.live) else { return 0 };
        let got = vf.path.check_rx(os, &mut self.receiver, budget);
        let outcome = got.and_then(|got| refill(os, &mut vf.path).map(|()| got));
        let shortages = vf.path.take_shortages();
        self.count_shortages(os, shortages);
        match outcome {
            Ok(got) => got,
            Err(Fault) => {
                self.fail_vf(os);
                0
            }
        }
    }

    pub(super) fn check_emulated_rx<O: NetOs>(&mut self, os: &O, budget: u32) -> u32 {
        let got = self.emulated.check_rx(os, &mut self.receiver, budget);
        let outcome = got.and_then(|got| refill(os, &mut self.emulated).map(|()| got));
        let shortages = self.emulated.take_shortages();
        self.count_shortages(os, shortages);
        match outcome {
            Ok(got) => got,
            Err(Fault) => {
                self.fail_emulated(os);
                0
            }
        }
    }

    /// Arms what is in use; answers whether work waits already.
    pub(super) fn arm<O: NetOs>(&mut self, os: &O) -> bool {
        let mut waits = false;
        let (emulated_delivers, vf_delivers) = match self.delivery {
            Delivery::Emulated | Delivery::ToVf => (true, false),
            Delivery::Both => (true, true),
            Delivery::EmulatedHeld | Delivery::DrainVf => (false, true),
        };
        let vf_sends = self.route.is_with_vf();
        for (wanted, queue) in [(emulated_delivers, RX_QUEUE), (!vf_sends, TX_QUEUE)] {
            if wanted {
                match self.emulated.arm(os, queue) {
                    Ok(work) => waits |= work,
                    Err(Fault) => self.fail_emulated(os),
                }
            }
        }
        for (wanted, queue) in [(vf_delivers, RX_QUEUE), (vf_sends, TX_QUEUE)] {
            if wanted && let Some(vf) = self.vf.as_mut().filter(|vf| vf.live) {
                match vf.path.arm(os, queue) {
                    Ok(work) => waits |= work,
                    Err(Fault) => self.fail_vf(os),
                }
            }
        }
        waits
    }

    pub(super) fn fail_emulated<O: NetOs>(&mut self, os: &O) {
        // The path refuses every further call, so this is said once per kind of call at most.
        os.log(LogLevel::Error, "npa: emulated path is broken, reset the device");
    }

    pub(super) fn count_shortages<O: NetOs>(&mut self, os: &O, shortages: u64) {
        if shortages != 0 {
            let total = &mut self.receiver.stats.rx_no_buffer;
            *total = total.wrapping_add(shortages);
            if self.is_starved() {
                os.schedule_event();
            }
        }
    }
}

fn refill<O: NetOs>(os: &O, path: &mut NetPath) -> Result<(), Fault> {
    if path.wants_buffers() {
        path.fill(os)?;
    }
    Ok(())
}
