//! Counters and gauges as Prometheus text (exposition format 0.0.4). Formats what the status
//! says; counts nothing itself.

use std::fmt::{Display, Write};

use crate::api::{DeviceStatus, Mode, PathStatus, VmState, VmStatus};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Formats `status`.
pub fn render(status: &VmStatus) -> String {
    let mut page = Page::default();
    let up = u64::from(status.state == VmState::Running);
    page.family("vmm_running", "gauge", "1 while vCPUs run guest code.");
    page.value("vmm_running", &[], up);
    page.family("vmm_vcpus", "gauge", "Number of vCPUs.");
    page.value("vmm_vcpus", &[], status.vcpus);
    page.family("vmm_memory_bytes", "gauge", "Guest RAM.");
    page.value("vmm_memory_bytes", &[], status.memory_mib << 20);
    page.family("vmm_uptime_seconds", "gauge", "Time since the VM was started.");
    page.value("vmm_uptime_seconds", &[], status.uptime_ms as f64 / 1e3);
    if let Some(exits) = status.exits.kvm {
        page.family("vmm_kvm_exits_total", "counter", "Exits that KVM took.");
        page.value("vmm_kvm_exits_total", &[], exits);
    }
    page.family("vmm_exits_total", "counter", "Exits that reached the VMM.");
    let exits = status.exits;
    for (reason, count) in [("io", exits.io), ("mmio", exits.mmio), ("other", exits.other)] {
        page.value("vmm_exits_total", &[("reason", reason)], count);
    }
    devices(&mut page, &status.devices);
    page.text
}

fn devices(page: &mut Page, devices: &[DeviceStatus]) {
    page.family("vmm_device_info", "gauge", "What drives the device; always 1.");
    for device in devices {
        let plugin = device.plugin.as_ref();
        let labels = [
            ("device", device.id.as_str()),
            ("class", &device.class),
            ("state", &device.state),
            ("plugin", plugin.map_or("", |plugin| &plugin.name)),
            ("plugin_version", plugin.map_or("", |plugin| &plugin.version)),
            ("vf", device.vf.as_deref().unwrap_or("")),
        ];
        page.value("vmm_device_info", &labels, 1);
    }
    page.family("vmm_device_on_vf", "gauge", "1 while a VF carries the device's traffic.");
    for device in devices {
        let on_vf = u64::from(device.mode == Mode::Vf);
        page.value("vmm_device_on_vf", &[("device", &device.id)], on_vf);
    }
    traffic(page, devices);
    let mut count = |name: &str, help: &str, count: fn(&DeviceStatus) -> u64| {
        page.family(name, "counter", help);
        for device in devices {
            page.value(name, &[("device", &device.id)], count(device));
        }
    };
    count("vmm_device_exits_total", "Accesses that reached the VMM.", |device| device.exits);
    count("vmm_device_kicks_total", "Doorbells of the emulated path.", |device| device.kicks);
    count("vmm_device_interrupts_total", "Interrupts of the emulated path.", |d| d.interrupts);
    switches(page, devices);
}

fn traffic(page: &mut Page, devices: &[DeviceStatus]) {
    let mut count = |name: &str, help: &str, count: fn(&PathStatus) -> (u64, u64)| {
        page.family(name, "counter", help);
        for device in devices {
            let paths = [("emulated", Some(&device.emulated)), ("vf", device.vf_path.as_ref())];
            for (path, counters) in paths {
                let Some(counters) = counters else { continue };
                let (received, sent) = count(counters);
                for (direction, value) in [("received", received), ("sent", sent)] {
                    let labels =
                        [("device", device.id.as_str()), ("path", path), ("direction", direction)];
                    page.value(name, &labels, value);
                }
            }
        }
    };
    count("vmm_device_units_total", "Frames or requests moved.", |p| (p.received, p.sent));
    count("vmm_device_bytes_total", "Bytes moved.", |p| (p.received_bytes, p.sent_bytes));
    count("vmm_device_dropped_total", "Frames or requests dropped.", |p| {
        (p.received_dropped, p.sent_dropped)
    });
}

fn switches(page: &mut Page, devices: &[DeviceStatus]) {
    page.family("vmm_device_switches_total", "counter", "Switches of the data path.");
    for device in devices {
        let counts = device.switches;
        for (kind, count) in
            [("attach", counts.attach), ("detach", counts.detach), ("failed", counts.failed)]
        {
            let labels = [("device", device.id.as_str()), ("kind", kind)];
            page.value("vmm_device_switches_total", &labels, count);
        }
    }
    let name = "vmm_device_last_switch_step_seconds";
    page.family(name, "gauge", "Duration of each step of the last switch.");
    for device in devices {
        let Some(switch) = &device.last_switch else { continue };
        for step in &switch.steps {
            let labels = [
                ("device", device.id.as_str()),
                ("kind", switch.kind.as_str()),
                ("step", step.name.as_str()),
            ];
            page.value(name, &labels, step.ms / 1e3);
        }
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", escape(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ExitCounts, PluginInfo};
    use crate::virtio::PathCounters;

    #[test]
    fn every_line_is_exposition_format() {
        let counters = PathCounters { received: 5, kicks: 7, ..PathCounters::default() };
        let mut device = DeviceStatus::emulated("net0", "net", counters);
        device.plugin = Some(PluginInfo { name: "a\"b\\c".into(), version: "1".into() });
        device.vf_path = Some(PathStatus { sent: 9, ..PathStatus::default() });
        let status = VmStatus {
            state: VmState::Running,
            vcpus: 2,
            memory_mib: 512,
            uptime_ms: 1500,
            exits: ExitCounts { kvm: Some(10), userspace: 3, io: 1, mmio: 2, other: 0 },
            devices: vec![device],
        };
        let text = render(&status);
        for line in [
            "vmm_running 1",
            "vmm_uptime_seconds 1.5",
            "vmm_kvm_exits_total 10",
            "vmm_exits_total{reason=\"mmio\"} 2",
            "vmm_device_units_total{device=\"net0\",path=\"emulated\",direction=\"received\"} 5",
            "vmm_device_units_total{device=\"net0\",path=\"vf\",direction=\"sent\"} 9",
            "vmm_device_kicks_total{device=\"net0\"} 7",
        ] {
            assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
        }
        assert!(text.contains(r#"plugin="a\"b\\c""#));
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        for sample in samples {
            let (_, value) = sample.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
        }
    }
}
