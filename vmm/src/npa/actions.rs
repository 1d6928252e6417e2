//! Carries out the switch's actions, on the control thread. Decides nothing.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use npa_plugin::image::landed_sha256;
use pf_control::ops::LeaseId;
use pf_control::vf_control::{VfEvent, VfStats};

use super::core::Core;
use super::hardware::{Plugin, PluginStore, Vf, VfGrant, VfOpener, VfPool};
use super::inject::{Fit, Host, fit};
use super::outcome::StepError;
use super::registers::OfferRegisters;
use super::switch::SwitchAction;
use super::window::{Window, WindowPart};
use crate::background::make_way_during;
use crate::virtio::{EmulatedPath, PathMode};

/// What a device is made of, beside its registers.
pub struct Hardware {
    /// Where VFs come from.
    pub pool: Arc<dyn VfPool>,
    /// What opens them.
    pub opener: Box<dyn VfOpener>,
    /// Where plugins come from.
    pub plugins: Box<dyn PluginStore>,
    /// The emulated path of the same device.
    pub path: Arc<dyn EmulatedPath>,
}

/// See the module.
pub(super) struct Executor {
    core: Arc<Core>,
    hardware: Hardware,
    window: Arc<Mutex<Window>>,
    grant: Option<VfGrant>,
    vf: Option<Box<dyn Vf>>,
    plugin: Option<(Box<dyn Plugin>, Fit)>,
    /// What the VF had counted when it was last looked at.
    counted: VfStats,
    /// The address may be with the VF.
    moved: bool,
    /// VFs that the daemon has not taken back yet.
    unreleased: Vec<LeaseId>,
}

impl Executor {
    pub(super) fn new(core: Arc<Core>, hardware: Hardware, window: Arc<Mutex<Window>>) -> Self {
        Self {
            core,
            hardware,
            window,
            grant: None,
            vf: None,
            plugin: None,
            counted: VfStats::default(),
            moved: false,
            unreleased: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, action: SwitchAction) -> Result<(), StepError> {
        match action {
            SwitchAction::Acquire => self.acquire(),
            SwitchAction::OpenVf => {
                let grant = self.grant.as_ref().ok_or(StepError::Missing("VF"))?;
                let group = self.hardware.pool.open(grant.acquired.lease)?;
                let opener = &mut self.hardware.opener;
                // All of RAM is pinned, which is long work.
                self.vf = Some(make_way_during("vf-open", || opener.open(grant, group))?);
                Ok(())
            }
            SwitchAction::InitVf => {
                let grant = self.grant.as_ref().ok_or(StepError::Missing("VF"))?;
                let vf = self.vf.as_mut().ok_or(StepError::Missing("open VF"))?;
                vf.init(&grant.config)?;
                let lacks = self.hardware.path.offers().beyond(vf.offloads());
                if !lacks.is_empty() {
                    let vf = grant.acquired.vf.to_string();
                    return Err(StepError::Offloads { vf, lacks });
                }
                self.counted = VfStats::default();
                Ok(())
            }
            SwitchAction::LoadPlugin => self.load_plugin(),
            SwitchAction::WriteLanding => self.write_landing(),
            SwitchAction::MapWindow => self.map_window(),
            SwitchAction::WireVectors => self.wire_vectors(),
            SwitchAction::PfInit => {
                let queues = self.core.lock().queues.clone();
                Ok(self.hardware.pool.init(self.lease()?, &queues)?)
            }
            SwitchAction::PfActivate => {
                let lease = self.lease()?;
                self.moved = true;
                Ok(self.hardware.pool.activate(lease)?)
            }
            SwitchAction::StartQueues => {
                let queues = self.core.lock().queues.clone();
                Ok(self.vf()?.start(&queues)?)
            }
            SwitchAction::AdmitVf => Ok(self.vf()?.admit()?),
            SwitchAction::DismissVf => Ok(self.vf()?.dismiss()?),
            SwitchAction::DrainPath => {
                self.hardware.path.drain(self.core.timing.path_drain)?;
                Ok(())
            }
            SwitchAction::StandbyPath => Ok(self.hardware.path.set_mode(PathMode::Standby)?),
            SwitchAction::ServePath => Ok(self.hardware.path.set_mode(PathMode::Serving)?),
            SwitchAction::PfQuiesce => self.quiesce(),
            SwitchAction::SetRevoked => {
                let state = self.core.lock();
                let registration = state.registration.as_ref();
                let registration = registration.ok_or(StepError::Missing("shell page"))?;
                Ok(registration.set_revoked(&self.core.ram, state.switch.generation())?)
            }
            SwitchAction::MapDeadPage => Ok(self.window().kill()?),
            SwitchAction::StopVf => {
                self.count_traffic();
                if let Some(vf) = &mut self.vf {
                    vf.stop();
                }
                Ok(())
            }
            SwitchAction::UnwireVectors => Ok(self.vf.as_mut().map_or(Ok(()), |vf| vf.unwire())?),
            SwitchAction::RestoreLanding => self.restore_landing(),
            SwitchAction::CloseVf => self.close(),
            SwitchAction::Release => self.release(),
            SwitchAction::Notify => {
                if let Some(connection) = self.core.connection.get() {
                    connection.interrupts.raise_config();
                }
                Ok(())
            }
        }
    }

    /// The pool, for questions that change nothing.
    pub(super) fn pool(&self) -> &Arc<dyn VfPool> {
        &self.hardware.pool
    }

    /// Descriptors of the VF to wait for.
    pub(super) fn signals(&self) -> Vec<RawFd> {
        self.vf.as_ref().map_or_else(Vec::new, |vf| vf.signals())
    }

    /// The next event of the VF.
    pub(super) fn poll_event(&mut self) -> Option<VfEvent> {
        self.vf.as_mut()?.poll_event()
    }

    /// Adds what the VF counted since the last time to the device's counters.
    pub(super) fn count_traffic(&mut self) {
        let Some(now) = self.vf.as_ref().and_then(|vf| vf.stats()) else { return };
        let before = std::mem::replace(&mut self.counted, now);
        // The VF's counters are 32 bits wide and wrap.
        let more = |now: u32, before: u32| u64::from(now.wrapping_sub(before));
        let mut state = self.core.lock();
        let traffic = &mut state.vf_traffic;
        traffic.received += more(now.rx_frames, before.rx_frames);
        traffic.received_bytes += more(now.rx_bytes, before.rx_bytes);
        traffic.sent += more(now.tx_frames, before.tx_frames);
        traffic.sent_bytes += more(now.tx_bytes, before.tx_bytes);
    }

    /// Whether the daemon still has a VF to take back.
    pub(super) fn has_unreleased(&self) -> bool {
        !self.unreleased.is_empty()
    }

    /// Tries again to give back what the daemon did not take.
    pub(super) fn retry_release(&mut self) {
        let pool = &self.hardware.pool;
        self.unreleased.retain(|lease| match pool.release(*lease) {
            Ok(()) => {
                tracing::info!(device = self.core.id, %lease, "the VF is back in its pool");
                false
            }
            Err(error) => {
                tracing::debug!(device = self.core.id, %lease, %error, "release");
                true
            }
        });
        self.core.lock().release_pending = self.has_unreleased();
    }

    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vf(&mut self) -> Result<&mut (dyn Vf + 'static), StepError> {
        self.vf.as_deref_mut().ok_or(StepError::Missing("open VF"))
    }

    fn lease(&self) -> Result<LeaseId, StepError> {
        self.grant.as_ref().map(|grant| grant.acquired.lease).ok_or(StepError::Missing("VF"))
    }

    fn acquire(&mut self) -> Result<(), StepError> {
        if self.has_unreleased() {
            self.retry_release();
        }
        let wait = self.core.lock().wants_vf;
        let grant = self.hardware.pool.acquire(wait)?;
        let mut state = self.core.lock();
        state.lease = Some(grant.acquired.lease);
        state.vf = Some(grant.acquired.vf);
        drop(state);
        self.grant = Some(grant);
        Ok(())
    }

    fn load_plugin(&mut self) -> Result<(), StepError> {
        let grant = self.grant.as_ref().ok_or(StepError::Missing("VF"))?;
        let plugin = self.hardware.plugins.load(&grant.acquired.plugin)?;
        let mut device_info = grant.device_info;
        let vf = self.vf.as_ref().ok_or(StepError::Missing("open VF"))?;
        vf.describe(&mut device_info);
        let [receive, transmit] = vf.ring_limits();
        let mut state = self.core.lock();
        let host = Host {
            class: self.core.class,
            abi: state.guest.abi as u16,
            vectors: self.core.connection.get().map_or(0, |connection| connection.extra),
        };
        let fit = fit(plugin.as_ref(), &grant.acquired, &host)?;
        state.plugin = Some((plugin.name().to_owned(), plugin.version().to_owned()));
        state.needs = fit.queues.clone();
        state.offer = OfferRegisters {
            vector_count: fit.vectors,
            window_length: fit.window_length,
            device_info,
            ring_limits: u32::from(receive) | u32::from(transmit) << 16,
            ..OfferRegisters::default()
        };
        drop(state);
        self.plugin = Some((plugin, fit));
        Ok(())
    }

    fn write_landing(&mut self) -> Result<(), StepError> {
        let (plugin, _) = self.plugin.as_ref().ok_or(StepError::Missing("plugin"))?;
        let registration = self.core.lock().registration.clone();
        let landing = registration.ok_or(StepError::Missing("landing"))?;
        let landing = landing.landing();
        let image = plugin.relocate(landing.base());
        // Not under the lock: a vCPU may wait for that.
        let residue = landing.write(&self.core.ram, &image)?;
        let mut state = self.core.lock();
        state.residue = Some(residue);
        state.offer.image_length = image.len() as u32;
        state.offer.image_sha256 = landed_sha256(&image);
        Ok(())
    }

    fn restore_landing(&mut self) -> Result<(), StepError> {
        let registration = self.core.lock().registration.clone();
        if let Some(registration) = registration {
            registration.landing().restore(&self.core.ram)?;
            self.core.lock().residue = None;
        }
        Ok(())
    }

    fn map_window(&mut self) -> Result<(), StepError> {
        let vf = self.vf.as_ref().ok_or(StepError::Missing("open VF"))?;
        let (_, fit) = self.plugin.as_ref().ok_or(StepError::Missing("plugin"))?;
        let parts = fit
            .placements
            .iter()
            .map(|part| {
                let memory = vf.data(part.bar, part.offset, part.length)?;
                Ok(WindowPart { offset: part.window_offset, length: part.length, memory })
            })
            .collect::<Result<Vec<_>, StepError>>()?;
        Ok(self.window().map(&parts)?)
    }

    fn wire_vectors(&mut self) -> Result<(), StepError> {
        let connection = self.core.connection.get().ok_or(StepError::Missing("interrupts"))?;
        let grant = self.grant.as_ref().ok_or(StepError::Missing("VF"))?;
        let (_, fit) = self.plugin.as_ref().ok_or(StepError::Missing("plugin"))?;
        let vectors: Vec<_> = grant
            .acquired
            .vectors
            .plugin
            .iter()
            .zip(connection.first_extra..)
            .take(fit.vectors.into())
            .map(|(&vector, line)| (vector, connection.vectors.event(line)))
            .collect();
        Ok(self.vf.as_mut().ok_or(StepError::Missing("open VF"))?.wire(&vectors)?)
    }

    fn quiesce(&mut self) -> Result<(), StepError> {
        if !std::mem::take(&mut self.moved) {
            return Ok(());
        }
        Ok(self.hardware.pool.quiesce(self.lease()?)?)
    }

    fn close(&mut self) -> Result<(), StepError> {
        // A page that stays mapped would keep the VF open.
        let killed = self.window().kill();
        let vf = self.vf.take();
        make_way_during("vf-close", || drop(vf));
        self.plugin = None;
        self.core.lock().plugin = None;
        Ok(killed?)
    }

    fn release(&mut self) -> Result<(), StepError> {
        let Some(grant) = self.grant.take() else { return Ok(()) };
        let lease = grant.acquired.lease;
        self.moved = false;
        let released = self.hardware.pool.release(lease);
        let mut state = self.core.lock();
        state.lease = None;
        state.vf = None;
        if released.is_err() {
            state.release_pending = true;
            drop(state);
            self.unreleased.push(lease);
        }
        Ok(released?)
    }
}
