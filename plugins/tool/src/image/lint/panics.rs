//! No panic path: nothing in a guest's kernel could handle it. What survives of Rust's panic
//! machinery is found by its symbols, and who calls it by the calls.

use std::collections::BTreeSet;

use iced_x86::{FlowControl, Instruction};

use super::super::{ImageError, Symbol, Symbols};

/// Collects calls to panic functions.
pub(super) struct Paths<'a> {
    symbols: &'a Symbols,
    calls: BTreeSet<(String, String)>,
}

impl<'a> Paths<'a> {
    pub(super) fn new(symbols: &'a Symbols) -> Self {
        Self { symbols, calls: BTreeSet::new() }
    }

    /// Looks at one instruction.
    pub(super) fn see(&mut self, instruction: &Instruction) {
        let near = matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        if !near {
            return;
        }
        let Some((callee, 0)) = self.symbols.at(instruction.near_branch_target()) else { return };
        let Some((caller, _)) = self.symbols.at(instruction.ip()) else { return };
        if is_panic(callee) && !is_panic(caller) {
            self.calls.insert((caller.name.clone(), callee.name.clone()));
        }
    }

    /// The findings: each caller and callee, or the mere presence of the machinery.
    pub(super) fn finish(self) -> Vec<ImageError> {
        if self.calls.is_empty() {
            let present = self.symbols.iter().find(|symbol| is_panic(symbol));
            return present
                .map(|symbol| ImageError::PanicPath {
                    caller: "(not found)".to_owned(),
                    callee: symbol.name.clone(),
                })
                .into_iter()
                .collect();
        }
        self.calls
            .into_iter()
            .map(|(caller, callee)| ImageError::PanicPath { caller, callee })
            .collect()
    }
}

fn is_panic(symbol: &Symbol) -> bool {
    let name = symbol.name.as_str();
    name.starts_with("core::panicking::")
        || name.ends_with("rust_begin_unwind")
        || name.starts_with("core::option::unwrap_failed")
        || name.starts_with("core::option::expect_failed")
        || name.starts_with("core::result::unwrap_failed")
        || (name.starts_with("core::slice::index::") && name.contains("fail"))
        || (name.starts_with("core::str::") && name.contains("fail"))
}
