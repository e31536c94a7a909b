//! The rules themselves, as text for `nft -f -`. Pure.

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What is redirected and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Where connections from other hosts go; absent: they are left alone.
    pub inbound_port: Option<u16>,
    /// Where connections to other hosts go; absent: they are left alone.
    pub outbound_port: Option<u16>,
    /// Only these inbound ports; empty: all.
    pub include_inbound: Vec<PortRange>,
    /// Inbound ports left alone.
    pub exclude_inbound: Vec<PortRange>,
    /// Outbound ports left alone.
    pub exclude_outbound: Vec<PortRange>,
    /// Destinations left alone.
    pub exclude_ranges: Vec<Network>,
    /// Users whose outbound connections are left alone.
    pub exclude_uids: Vec<u32>,
}

/// Deleting a table that is not there is an error, so it is made first; both happen in one transaction.
const REMOVAL: &str = "table inet weir\ndelete table inet weir\n";

impl Rules {
    /// Removes all rules, whatever they are.
    pub fn removal() -> &'static str {
        REMOVAL
    }

    /// Replaces whatever rules there are by these, in one transaction.
    pub fn script(&self) -> String {
        let mut text = format!("{REMOVAL}table inet weir {{\n");
        if let Some(port) = self.inbound_port {
            chain(&mut text, "inbound", "prerouting priority dstnat", &self.inbound(port));
        }
        if let Some(port) = self.outbound_port {
            // The number of `dstnat`, which the hook `output` does not know by name in nftables before 1.0.8.
            chain(&mut text, "outbound", "output priority -100", &self.outbound(port));
        }
        text.push_str("}\n");
        text
    }

    /// One line for a person.
    pub fn summary(&self) -> String {
        let side = |name: &str, port: Option<u16>| port.map(|port| format!("{name} -> :{port}"));
        let sides: Vec<String> =
            [side("inbound", self.inbound_port), side("outbound", self.outbound_port)].into_iter().flatten().collect();
        format!("interception is on: {} (remove it with `weir-proxy intercept --remove`)", sides.join(", "))
    }

    fn inbound(&self, port: u16) -> Vec<String> {
        let mut rules = vec!["meta l4proto != tcp return".to_owned(), "iifname \"lo\" return".to_owned()];
        rules.extend(set("tcp dport", &self.exclude_inbound).map(|set| format!("{set} return")));
        let only = set("tcp dport", &self.include_inbound).unwrap_or_else(|| "meta l4proto tcp".to_owned());
        rules.push(format!("{only} redirect to :{port}"));
        rules
    }

    fn outbound(&self, port: u16) -> Vec<String> {
        let mut rules = vec!["meta l4proto != tcp return".to_owned()];
        rules.extend(set("meta skuid", &self.exclude_uids).map(|set| format!("{set} return")));
        // What stays on this host, by whatever address, never leaves through the proxy.
        rules.push("fib daddr type local return".to_owned());
        for family in [Family::V4, Family::V6] {
            let ranges: Vec<&Network> = self.exclude_ranges.iter().filter(|n| n.family() == family).collect();
            rules.extend(set(&format!("{family} daddr"), &ranges).map(|set| format!("{set} return")));
        }
        rules.extend(set("tcp dport", &self.exclude_outbound).map(|set| format!("{set} return")));
        rules.push(format!("meta l4proto tcp redirect to :{port}"));
        rules
    }
}

fn chain(text: &mut String, name: &str, hook: &str, rules: &[String]) {
    let _ = writeln!(text, "  chain {name} {{\n    type nat hook {hook}; policy accept;");
    for rule in rules {
        let _ = writeln!(text, "    {rule}");
    }
    text.push_str("  }\n");
}

/// An anonymous set, which nft compares at once; `None` if there is nothing in it.
fn set<T: fmt::Display>(key: &str, elements: &[T]) -> Option<String> {
    let list: Vec<String> = elements.iter().map(T::to_string).collect();
    (!list.is_empty()).then(|| format!("{key} {{ {} }}", list.join(", ")))
}

/// One port, or all from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(PortRange(first..=last)),
            _ => Err(format!("`{text}` is neither a port (1 to 65535) nor a range such as 9000-9100")),
        }
    }
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The version of IP, by nft's name for its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Network {
    /// Which version of IP it belongs to.
    pub fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a range such as 10.96.0.0/12 or fd00::/8");
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = if prefix.is_empty() { longest } else { prefix.parse().map_err(|_| wrong())? };
        if prefix > longest { Err(wrong()) } else { Ok(Network { address, prefix }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed<T: FromStr<Err = String>>(list: &[&str]) -> Vec<T> {
        list.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    #[test]
    fn everything_but_the_excluded_goes_through_the_proxy() {
        let rules = Rules {
            inbound_port: Some(15006),
            outbound_port: Some(15001),
            include_inbound: Vec::new(),
            exclude_inbound: parsed(&["22", "9000-9100"]),
            exclude_outbound: parsed(&["3306"]),
            exclude_ranges: parsed(&["10.96.0.0/12", "fd00::/8", "192.0.2.7"]),
            exclude_uids: vec![1337, 0],
        };
        let expected = r#"table inet weir
delete table inet weir
table inet weir {
  chain inbound {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto != tcp return
    iifname "lo" return
    tcp dport { 22, 9000-9100 } return
    meta l4proto tcp redirect to :15006
  }
  chain outbound {
    type nat hook output priority -100; policy accept;
    meta l4proto != tcp return
    meta skuid { 1337, 0 } return
    fib daddr type local return
    ip daddr { 10.96.0.0/12, 192.0.2.7/32 } return
    ip6 daddr { fd00::/8 } return
    tcp dport { 3306 } return
    meta l4proto tcp redirect to :15001
  }
}
"#;
        assert_eq!(rules.script(), expected);
    }

    #[test]
    fn only_the_included_ports_are_turned_round() {
        let rules = Rules { inbound_port: Some(15006), include_inbound: parsed(&["8080", "8443"]), ..Rules::default() };
        let script = rules.script();
        assert!(script.contains("tcp dport { 8080, 8443 } redirect to :15006"), "{script}");
        assert!(!script.contains("outbound"), "{script}");
    }

    #[test]
    fn what_is_no_port_and_no_range_is_refused() {
        for wrong in ["", "0", "65536", "9-8", "1-", "-1", "a", "1-2-3"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong:?}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "10.0.0.0/8; flush ruleset"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong:?}");
        }
    }
}
