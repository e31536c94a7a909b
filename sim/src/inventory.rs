//! A user's own inventory: what `weir simulate FILE` reads, as YAML or JSON.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::shape::{AppShape, Shape};

/// Most instances of an inventory.
pub const MAX_INSTANCES: usize = 100_000;

/// Apps, units and stacks with their weights.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    /// The canary unit; absent: the first that an app names.
    #[serde(default)]
    pub canary_unit: Option<String>,
    /// Apps.
    pub apps: Vec<InventoryApp>,
}

/// One app.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InventoryApp {
    /// Its name.
    pub name: String,
    /// Its technology stack.
    #[serde(default)]
    pub stack: String,
    /// Importance, 1 (most) to 4.
    #[serde(default = "least_important")]
    pub tier: u8,
    /// Instances by unit.
    pub units: std::collections::BTreeMap<String, usize>,
    /// Requests per second of one instance at the busiest hour; its traffic weight.
    pub requests_per_second: f64,
    /// Share of its requests that fail by themselves, in percent.
    #[serde(default = "usual_errors")]
    pub error_percent: f64,
}

fn least_important() -> u8 {
    3
}

fn usual_errors() -> f64 {
    0.3
}

impl Inventory {
    /// Reads YAML (of which JSON is a part).
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Inventory, String> {
        let inventory: Inventory = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        inventory.check()?;
        Ok(inventory)
    }

    fn check(&self) -> Result<(), String> {
        let instances = self.apps.iter().flat_map(|a| a.units.values()).try_fold(0_usize, |sum, n| sum.checked_add(*n));
        let names: BTreeSet<&str> = self.apps.iter().map(|a| a.name.as_str()).collect();
        match instances {
            Some(1..=MAX_INSTANCES) => {}
            _ => return Err(format!("apps: there must be 1 to {MAX_INSTANCES} instances in all")),
        }
        if names.len() < self.apps.len() {
            return Err("apps: two have the same name".into());
        }
        self.check_canary()?;
        self.apps.iter().try_for_each(InventoryApp::check)
    }

    fn check_canary(&self) -> Result<(), String> {
        let units: BTreeSet<&str> = self.apps.iter().flat_map(|a| a.units.keys()).map(String::as_str).collect();
        match &self.canary_unit {
            Some(unit) if !units.contains(unit.as_str()) => {
                let known = units.into_iter().take(20).collect::<Vec<_>>().join(", ");
                Err(format!("canaryUnit: no app has instances in {unit:?}; there are {known}"))
            }
            _ => Ok(()),
        }
    }

    /// The shape of the fleet.
    pub fn shape(&self) -> Shape {
        let mut units: Vec<String> = self.canary_unit.iter().cloned().collect();
        let mut stacks: Vec<String> = Vec::new();
        let apps = self.apps.iter().map(|app| app.shape(&mut units, &mut stacks)).collect();
        Shape { apps, units, stacks }
    }
}

impl InventoryApp {
    fn check(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("apps: {}: {what}", self.name));
        if self.name.is_empty() || self.name.len() > 200 {
            return wrong("name must have 1 to 200 characters");
        }
        if !(0.01..=1e6).contains(&self.requests_per_second) {
            return wrong("requestsPerSecond must be from 0.01 to 1000000");
        }
        if !(0.0..=50.0).contains(&self.error_percent) {
            return wrong("errorPercent must be from 0 to 50");
        }
        if !(1..=4).contains(&self.tier) {
            return wrong("tier must be from 1 to 4");
        }
        Ok(())
    }

    fn shape(&self, units: &mut Vec<String>, stacks: &mut Vec<String>) -> AppShape {
        AppShape {
            name: self.name.clone(),
            stack: number(stacks, &self.stack),
            tier: self.tier,
            rps: self.requests_per_second,
            base: self.error_percent / 100.0,
            places: self.units.iter().map(|(unit, count)| (number(units, unit), *count)).collect(),
        }
    }
}

/// The number of a name, which is added if it is new.
fn number(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_becomes_a_shape() {
        let text = "apps:\n- name: order\n  stack: java\n  requestsPerSecond: 20\n  units: {east: 3, west: 2}\n";
        let shape = Inventory::parse(text).unwrap().shape();
        assert_eq!((shape.instances(), shape.units.len()), (5, 2));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| Inventory::parse(text).unwrap_err();
        assert!(wrong("apps: []").contains("1 to 100000 instances"));
        let slow = "apps:\n- name: order\n  requestsPerSecond: 0\n  units: {east: 1}\n";
        assert!(wrong(slow).contains("order: requestsPerSecond"), "{}", wrong(slow));
        assert!(wrong("apps:\n- name: a\n  colour: red\n").contains("colour"));
    }
}
