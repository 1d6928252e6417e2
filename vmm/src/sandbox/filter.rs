//! A role's system calls as a program for the kernel.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::policy::{Limit, Role};

/// The programs of all roles.
pub(super) struct Filters(BTreeMap<Role, BpfProgram>);

impl Filters {
    /// Makes them; with `log`, what they forbid is carried out and logged by the kernel.
    pub(super) fn compile(log: bool) -> Result<Self, BackendError> {
        let programs = Role::ALL.map(|role| Ok((role, compile(role, log)?)));
        programs.into_iter().collect::<Result<_, _>>().map(Self)
    }

    /// Puts the calling thread under its role's.
    pub(super) fn apply(&self, role: Role) -> Result<(), seccompiler::Error> {
        // There is one for each role.
        self.0.get(&role).map_or(Ok(()), |program| apply_filter(program))
    }
}

fn compile(role: Role, log: bool) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in role.calls() {
        rules.entry(call).or_default();
    }
    for (call, limit) in role.limited() {
        rules.entry(call).or_default().push(rule(limit)?);
    }
    let forbidden = if log { SeccompAction::Log } else { SeccompAction::Trap };
    SeccompFilter::new(rules, forbidden, SeccompAction::Allow, TargetArch::x86_64)?.try_into()
}

fn rule(limit: Limit) -> Result<SeccompRule, BackendError> {
    let Limit { argument, mask, value } = limit;
    let operator = SeccompCmpOp::MaskedEq(mask);
    let length = SeccompCmpArgLen::Dword;
    SeccompRule::new(vec![SeccompCondition::new(argument, length, operator, value)?])
}
