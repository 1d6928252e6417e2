//! Status and switches as text for people.

use std::fmt::Write;

use crate::api::{DeviceStatus, MigrationView, Mode, PathStatus, SwitchReport, VmState, VmStatus};
use crate::migration::Report;

/// The status of a VM, a few lines per device.
pub(super) fn status(status: &VmStatus) -> String {
    let state = match status.state {
        VmState::Running => "running",
        VmState::Paused => "paused",
        VmState::Stopped => "stopped",
        VmState::Incoming => "incoming",
    };
    let mut text = format!(
        "vm      {state}, {} vcpus, {} MiB, up {:.1} s\n",
        status.vcpus,
        status.memory_mib,
        status.uptime_ms as f64 / 1e3
    );
    let exits = status.exits;
    let kvm = exits.kvm.map_or("unknown".to_owned(), |count| count.to_string());
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        text,
        "exits   {kvm} in all; to the vmm {} (io {}, mmio {}, other {})",
        exits.userspace, exits.io, exits.mmio, exits.other
    );
    for device in &status.devices {
        describe(&mut text, device);
    }
    text
}

/// How far a move or a save is, and how the last one ended.
pub(super) fn migration(view: &MigrationView) -> String {
    let mut text = String::new();
    if let Some(progress) = &view.progress {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            text,
            "now     {} to {}, pass {}, {:.0} of {:.0} MB, {:.1} s so far",
            progress.phase,
            progress.to,
            progress.round,
            progress.done_bytes as f64 / 1e6,
            progress.round_bytes as f64 / 1e6,
            progress.elapsed_ms as f64 / 1e3
        );
    }
    if let Some(last) = &view.last {
        text += &report("last    to", last);
    }
    if let Some(error) = &view.last_error {
        let _ = writeln!(text, "last    failed: {error}");
    }
    if text.is_empty() {
        text += "the VM was not moved or saved yet\n";
    }
    text
}

/// What a move or a save was like, a few lines.
pub(super) fn report(what: &str, report: &Report) -> String {
    let stop = &report.stop;
    let mut text = format!(
        "{what} {}: {:.1} s, {:.0} MB, stopped for {:.1} ms\n",
        report.to,
        report.total_ms / 1e3,
        report.bytes as f64 / 1e6,
        report.downtime_ms
    );
    let steps = [
        ("hold", stop.hold_ms),
        ("memory", stop.memory_ms),
        ("verify", stop.verify_ms),
        ("state", stop.state_ms),
        ("restore", stop.restore_ms),
        ("start", stop.start_ms),
    ];
    let steps: Vec<_> = steps
        .iter()
        .filter(|(_, ms)| *ms > 0.0)
        .map(|(step, ms)| format!("{step} {ms:.1}"))
        .collect();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "stop    {} (ms)", steps.join(", "));
    let _ = writeln!(
        text,
        "memory  {} passes in {:.1} s, {} pages in the stop{}",
        report.rounds.len(),
        report.precopy_ms / 1e3,
        report.last_pages,
        if report.verified { ", compared and equal" } else { "" }
    );
    if report.brownout_ms > 0.0 {
        let _ =
            writeln!(text, "vf      {:.1} s without it before the stop", report.brownout_ms / 1e3);
    }
    if report.handed_over > 0 {
        let _ = writeln!(
            text,
            "frames  {} came here in the stop and were handed over",
            report.handed_over
        );
    }
    if let Some(lost) = report.frames_lost {
        let _ = writeln!(text, "lost    {lost} frames that there was no room for");
    }
    text
}

fn describe(text: &mut String, device: &DeviceStatus) {
    let mode = match device.mode {
        Mode::Emulated => "emulated",
        Mode::Vf => "vf",
    };
    let _ = write!(text, "\n{:<7} {}, mode {mode}", device.id, device.class);
    if device.state != mode {
        let _ = write!(text, " ({})", device.state);
    }
    if let Some(vf) = &device.vf {
        let _ = write!(text, ", VF {vf}");
    }
    if let Some(plugin) = &device.plugin {
        let _ = write!(text, ", plugin {} {}", plugin.name, plugin.version);
    }
    text.push('\n');
    path(text, "emulated", &device.emulated);
    if let Some(counters) = &device.vf_path {
        path(text, "vf", counters);
    }
    let _ = writeln!(
        text,
        "  exits     {} to the vmm, {} kicks, {} interrupts",
        device.exits, device.kicks, device.interrupts
    );
    let counts = device.switches;
    let _ = writeln!(
        text,
        "  switches  {} to a VF, {} back, {} failed or forced",
        counts.attach, counts.detach, counts.failed
    );
    if let Some(last) = &device.last_switch {
        let _ = write!(text, "  last      {}", steps(last));
    }
    if device.waits_for_vf {
        let _ = writeln!(text, "  waits     for a VF");
    }
    if let Some(error) = &device.last_error {
        let _ = writeln!(text, "  error     {error}");
    }
}

fn path(text: &mut String, name: &str, counters: &PathStatus) {
    for (direction, units, bytes, dropped) in [
        ("received", counters.received, counters.received_bytes, counters.received_dropped),
        ("sent", counters.sent, counters.sent_bytes, counters.sent_dropped),
    ] {
        let _ = writeln!(
            text,
            "  {name:<9} {direction:<8} {units} frames, {bytes} bytes, {dropped} dropped"
        );
    }
}

/// A switch that just ended.
pub(super) fn switch(id: &str, report: &SwitchReport) -> String {
    format!("{id}: {}", steps(report))
}

fn steps(report: &SwitchReport) -> String {
    let mut text = format!("{} took {:.1} ms", report.kind, report.total_ms);
    for (index, step) in report.steps.iter().enumerate() {
        let separator = if index == 0 { ": " } else { ", " };
        let _ = write!(text, "{separator}{} {:.1}", step.name, step.ms);
    }
    if let Some(failure) = &report.failure {
        let _ = write!(text, "; {failure}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ExitCounts, PluginInfo, StepTime};
    use crate::virtio::PathCounters;

    #[test]
    fn a_device_on_a_vf() {
        let mut device = DeviceStatus::emulated("net0", "net", PathCounters::default());
        device.mode = Mode::Vf;
        device.state = "active".into();
        device.vf = Some("0000:01:10.0".into());
        device.plugin = Some(PluginInfo { name: "igbvf".into(), version: "1.0".into() });
        device.last_switch = Some(SwitchReport {
            kind: "attach".into(),
            began_ms: 0,
            total_ms: 120.04,
            steps: vec![
                StepTime { name: "acquire".into(), ms: 100.0 },
                StepTime { name: "guest-load".into(), ms: 1.25 },
            ],
            failure: None,
        });
        let text = status(&VmStatus {
            state: VmState::Running,
            vcpus: 2,
            memory_mib: 512,
            uptime_ms: 1500,
            exits: ExitCounts::default(),
            devices: vec![device],
        });
        for line in [
            "vm      running, 2 vcpus, 512 MiB, up 1.5 s",
            "net0    net, mode vf (active), VF 0000:01:10.0, plugin igbvf 1.0",
            "  last      attach took 120.0 ms: acquire 100.0, guest-load 1.2",
        ] {
            assert!(text.lines().any(|known| known == line), "no {line:?} in\n{text}");
        }
    }
}
