//! A fake PF behind the VF's registers, for tests: it serves the mailbox as the real driver
//! does, and misbehaves on command.

use super::registers::*;
use crate::vf_control::ControlRegion;
use std::sync::{Arc, Mutex};

/// How the PF misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    /// Not at all.
    #[default]
    Well,
    /// Takes messages, but PFACK never shows.
    LosesAck,
    /// Acknowledges, but never replies.
    NeverReplies,
    /// Refuses every message of this code.
    Refuses(u32),
    /// Keeps the mailbox memory to itself.
    KeepsMailbox,
    /// Starts a reset on the next message, once.
    ResetsOnMessage,
    /// Puts a ping before the reply.
    PingsFirst,
    /// Reads as all ones.
    Removed,
}

#[derive(Debug, Default)]
pub(crate) struct PfState {
    pub(crate) mood: Mood,
    /// The administrator's address, if set.
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) memory: [u32; VMBMEM_WORDS],
    /// V2PMAILBOX as a read shows it.
    pub(crate) flags: u32,
    /// Reads for which RSTI still shows.
    pub(crate) reset_reads: u32,
    pub(crate) cts: bool,
    pub(crate) resets: u32,
    pub(crate) link: bool,
    /// All messages that came, first and second word.
    pub(crate) messages: Vec<(u32, u32)>,
    pub(crate) writes: Vec<(u32, u32)>,
    /// A reply that waits for the VF to acknowledge a ping.
    pending_reply: Option<[u32; 3]>,
}

impl PfState {
    fn answer(&mut self) {
        let message = self.memory[0];
        self.messages.push((message, self.memory[1]));
        if self.mood == Mood::ResetsOnMessage {
            self.mood = Mood::Well;
            self.cts = false;
            self.reset_reads = 5;
            return;
        }
        if self.mood != Mood::LosesAck {
            self.flags |= PFACK;
        }
        if matches!(self.mood, Mood::NeverReplies | Mood::LosesAck) {
            return;
        }
        let code = message & MSG_CODE;
        let granted = if code == MSG_RESET {
            self.cts = true;
            self.mac.is_some()
        } else {
            self.cts && self.mood != Mood::Refuses(code)
        };
        let mut reply = [message | if granted { MSG_ACK } else { MSG_NACK }, 0, 0];
        if self.cts {
            reply[0] |= MSG_CTS;
        }
        if let (true, Some([a, b, c, d, e, f])) = (code == MSG_RESET, self.mac) {
            reply[1] = u32::from_le_bytes([a, b, c, d]);
            reply[2] = u32::from_le_bytes([e, f, 0, 0]);
        }
        if self.mood == Mood::PingsFirst {
            self.pending_reply = Some(reply);
            self.put(&[0x100]);
        } else {
            self.put(&reply);
        }
    }

    /// Puts a message of the PF into the mailbox.
    pub(crate) fn put(&mut self, words: &[u32]) {
        self.memory[..words.len()].copy_from_slice(words);
        self.flags |= PFSTS;
    }
}

/// The region handed to the VF's side; clones share the PF.
#[derive(Clone, Default)]
pub(crate) struct FakePf(pub(crate) Arc<Mutex<PfState>>);

impl FakePf {
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut PfState) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}

impl ControlRegion for FakePf {
    fn read(&self, offset: u32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.load(offset).to_le_bytes());
    }

    fn write(&self, offset: u32, bytes: &[u8]) {
        self.store(offset, u32::from_le_bytes(bytes.try_into().expect("registers have 32 bits")));
    }

    fn read_config(&self, _: u16, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }
}

impl FakePf {
    fn load(&self, offset: u32) -> u32 {
        self.with(|pf| {
            if pf.mood == Mood::Removed {
                return u32::MAX;
            }
            match offset {
                V2PMAILBOX => {
                    let mut value = pf.flags;
                    if pf.reset_reads > 0 {
                        value |= RSTI;
                        pf.reset_reads -= 1;
                        if pf.reset_reads == 0 {
                            pf.flags |= RSTD;
                        }
                    }
                    pf.flags &= !(value & (PFSTS | PFACK | RSTD));
                    value
                }
                VMBMEM..0x0840 => pf.memory[(offset - VMBMEM) as usize / 4],
                STATUS if pf.link => STATUS_LU,
                VFGPRC => 7,
                VFGOTC => 9,
                _ => 0,
            }
        })
    }

    fn store(&self, offset: u32, value: u32) {
        self.with(|pf| {
            pf.writes.push((offset, value));
            match offset {
                CTRL if value & CTRL_RST != 0 => {
                    pf.resets += 1;
                    pf.cts = false;
                }
                V2PMAILBOX => {
                    pf.flags &= !VFU;
                    if value & VFU != 0 && pf.mood != Mood::KeepsMailbox {
                        pf.flags |= VFU;
                    }
                    if value & REQ != 0 {
                        pf.answer();
                    }
                    if value & ACK != 0
                        && let Some(reply) = pf.pending_reply.take()
                    {
                        pf.put(&reply);
                    }
                }
                VMBMEM..0x0840 => {
                    assert!(pf.flags & VFU != 0, "mailbox written without holding it");
                    pf.memory[(offset - VMBMEM) as usize / 4] = value;
                }
                _ => {}
            }
        });
    }
}
