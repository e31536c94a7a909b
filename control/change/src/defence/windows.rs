//! Which windows hold for a change: those that people wrote, and those of apps that have no error budget to risk.
//!
//! An app that has spent its budget, or burns it at paging speed, is held as a protection window without a known end would
//! hold it: the others go on, and it catches up. A roll-back passes through.

use weir_model::{ChangeSpec, FreezeSpec};

use crate::world::SloFact;

/// The windows that hold for a change of this spec.
pub fn windows<'a>(
    spec: &ChangeSpec,
    freezes: impl Iterator<Item = &'a FreezeSpec>,
    slos: &[SloFact],
) -> Vec<FreezeSpec> {
    let skips = |code: &str| spec.skip_checks.contains_key(code);
    // Who skips windows does not mean the red button, which holds roll-backs too.
    let mut windows: Vec<FreezeSpec> = freezes.filter(|f| !skips("W-WINDOW") || f.roll_backs_too).cloned().collect();
    for slo in slos {
        let spent = slo.spent().filter(|_| !skips("S-BUDGET")).map(|words| format!("S-BUDGET: {words}"));
        let burns = slo.burning().filter(|_| !skips("S-BURN")).map(|words| format!("S-BURN: {words}"));
        if let Some(reason) = spent.or(burns) {
            windows.push(FreezeSpec { apps: vec![slo.app.to_string()], reason, ..FreezeSpec::default() });
        }
    }
    windows
}
