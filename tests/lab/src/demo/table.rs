//! The demo's table: one column per guest kernel.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Formats the reports side by side.
pub(crate) fn format(reports: &[Value]) -> String {
    let mut table = String::new();
    let mut row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>22}")).collect();
        writeln!(table, "{name:<54}{cells}").ok();
    };
    let each = |cell: &dyn Fn(&Value) -> String| reports.iter().map(cell).collect::<Vec<_>>();

    row("guest kernel", each(&|r| r["kernel"].as_str().unwrap_or("?").to_owned()));
    for name in ["cycles", "sent", "lost", "duplicated", "reordered"] {
        row(name, each(&|r| r[name].to_string()));
    }
    row("longest_gap_ms", each(&|r| number(&r["longest_gap_ms"], 1)));
    row(
        "TCP content intact (bytes)",
        each(&|r| format!("{} ({})", r["tcp_intact"], r["tcp_bytes"])),
    );
    let steps: BTreeSet<_> = reports
        .iter()
        .filter_map(|report| report["steps"].as_object())
        .flat_map(|steps| steps.keys().cloned())
        .collect();
    for step in &steps {
        row(
            &format!("{step} (median / worst ms)"),
            each(&|r| {
                let step = &r["steps"][step];
                format!("{} / {}", number(&step["median_ms"], 1), number(&step["worst_ms"], 1))
            }),
        );
    }
    for path in ["emulated", "vf"] {
        for (name, digits) in [
            ("frames_per_s", 0),
            ("gbit_per_s", 3),
            ("exits_per_frame", 4),
            ("userspace_exits_per_frame", 5),
        ] {
            row(
                &format!("{path}: {name} (send / receive)"),
                each(&|r| {
                    format!(
                        "{} / {}",
                        number(&r[path]["send"][name], digits),
                        number(&r[path]["receive"][name], digits)
                    )
                }),
            );
        }
    }
    table
}

fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_missing_figure_shows_as_a_dash_and_columns_line_up() {
        let report =
            json!({"kernel": "6.1", "steps": {"attach: x": {"median_ms": 1.0, "worst_ms": 2.0}}});
        let table = format(&[report.clone(), report]);
        assert!(table.contains("attach: x (median / worst ms)"));
        assert!(table.contains("- / -"));
        let widths: BTreeSet<_> = table.lines().map(str::len).collect();
        assert_eq!(widths.len(), 1, "{table}");
    }
}
