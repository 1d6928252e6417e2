//! The frames-per-second timeline over the switches, as SVG.

use anyhow::{Context, Result};
use plotters::prelude::*;
use serde_json::Value;
use std::path::Path;

const EMULATED: RGBColor = RGBColor(235, 235, 235);
const ON_VF: RGBColor = RGBColor(214, 232, 214);
const INCOMING: RGBColor = RGBColor(31, 95, 160);
const OUTGOING: RGBColor = RGBColor(190, 90, 30);

/// Draws one panel per kernel report.
pub(crate) fn draw(reports: &[Value], path: &Path) -> Result<()> {
    let area = SVGBackend::new(path, (1200, 340 * reports.len().max(1) as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    for (report, panel) in reports.iter().zip(area.split_evenly((reports.len().max(1), 1))) {
        draw_panel(report, &panel)?;
    }
    area.present().with_context(|| format!("cannot write {}", path.display()))
}

/// One stream's arrivals as (seconds, frames per second).
fn rate(report: &Value, end: &str, origin: f64) -> Vec<(f64, f64)> {
    let stream = &report["traffic"][end];
    let bin = stream["bin_ms"].as_f64().unwrap_or(50.0) / 1e3;
    let offset = stream["started_at"].as_f64().unwrap_or(origin) - origin;
    let bins = stream["timeline"].as_array().cloned().unwrap_or_default();
    bins.iter()
        .enumerate()
        .map(|(at, count)| (offset + at as f64 * bin, count.as_f64().unwrap_or(0.0) / bin))
        .collect()
}

fn draw_panel(
    report: &Value,
    panel: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<()> {
    let origin = report["traffic"]["outside"]["started_at"].as_f64().unwrap_or(0.0);
    let (incoming, outgoing) = (rate(report, "guest", origin), rate(report, "outside", origin));
    let end = outgoing.last().map_or(1.0, |last| last.0).max(1.0);
    let top = incoming.iter().chain(&outgoing).map(|point| point.1).fold(100.0, f64::max) * 1.1;
    let title = format!(
        "guest kernel {}: {} cycles, {} frames, {} lost, {} duplicated, {} reordered, longest gap {:.1} ms",
        report["kernel"].as_str().unwrap_or("?"),
        report["cycles"],
        report["sent"],
        report["lost"],
        report["duplicated"],
        report["reordered"],
        report["longest_gap_ms"].as_f64().unwrap_or(f64::NAN),
    );
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    for (from, to, on_vf) in bands(report, origin, end) {
        let colour = if on_vf { ON_VF } else { EMULATED };
        chart.draw_series([Rectangle::new([(from, 0.0), (to, top)], colour.filled())])?;
    }
    chart.configure_mesh().disable_mesh().x_desc("seconds").y_desc("frames per second").draw()?;
    chart
        .draw_series(LineSeries::new(incoming, INCOMING.stroke_width(1)))?
        .label("into the guest")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], INCOMING));
    chart
        .draw_series(LineSeries::new(outgoing, OUTGOING.stroke_width(1)))?
        .label("out of the guest")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], OUTGOING));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

/// Time spans and whether the NIC was on the VF in them.
fn bands(report: &Value, origin: f64, end: f64) -> Vec<(f64, f64, bool)> {
    let mut bands = Vec::new();
    let (mut since, mut on_vf) = (0.0, false);
    for switch in report["switches"].as_array().into_iter().flatten() {
        let at = switch["ended_at"].as_f64().unwrap_or(origin) - origin;
        bands.push((since, at, on_vf));
        since = at;
        on_vf = switch["kind"] == "attach";
    }
    bands.push((since, end, on_vf));
    bands
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn panel_shows_each_report_and_every_band() {
        let report = json!({
            "kernel": "6.12", "cycles": 1, "sent": 10, "lost": 0, "duplicated": 0, "reordered": 0,
            "longest_gap_ms": 3.5,
            "switches": [
                {"kind": "attach", "began_at": 100.5, "ended_at": 101.0},
                {"kind": "detach", "began_at": 102.5, "ended_at": 103.0}],
            "traffic": {
                "guest": {"started_at": 100.0, "bin_ms": 1000, "timeline": [900, 1000, 1100]},
                "outside": {"started_at": 100.0, "bin_ms": 1000, "timeline": [1000, 1000, 1000, 5]}}
        });
        assert_eq!(
            bands(&report, 100.0, 4.0),
            [(0.0, 1.0, false), (1.0, 3.0, true), (3.0, 4.0, false)]
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        draw(&[report.clone(), report], file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.matches("guest kernel 6.12").count(), 2);
    }
}
