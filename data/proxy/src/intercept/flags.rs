//! The command line of `weir-proxy intercept`.

use super::rules::{Network, PortRange, Rules};

/// Redirect connections of this host (or network namespace) through the proxy, or stop doing so.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  weir-proxy intercept --inbound-port 15006 --outbound-port 15001 --exclude-uid 1337
  weir-proxy intercept --outbound-port 15001 --exclude-uid 1337 --exclude-range 10.96.0.0/12 --dry-run
  weir-proxy intercept --remove")]
pub struct InterceptFlags {
    /// Connections that arrive from other hosts go to this port of the proxy
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), required_unless_present_any = ["outbound_port", "remove"])]
    pub inbound_port: Option<u16>,
    /// Connections that programs here open to other hosts go to this port of the proxy; needs --exclude-uid
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), requires = "exclude_uids")]
    pub outbound_port: Option<u16>,
    /// Only these inbound ports, e.g. 8080 or 9000-9100; without it all. May be repeated
    #[arg(long = "include-inbound", value_name = "PORTS", requires = "inbound_port")]
    pub include_inbound: Vec<PortRange>,
    /// Leave these inbound ports alone, e.g. 22; may be repeated
    #[arg(long = "exclude-inbound", value_name = "PORTS", requires = "inbound_port")]
    pub exclude_inbound: Vec<PortRange>,
    /// Leave outbound connections to these ports alone, e.g. 3306; may be repeated
    #[arg(long = "exclude-outbound", value_name = "PORTS", requires = "outbound_port")]
    pub exclude_outbound: Vec<PortRange>,
    /// Leave connections to these addresses alone, e.g. 10.96.0.0/12 or fd00::/8; may be repeated
    #[arg(long = "exclude-range", value_name = "CIDR", requires = "outbound_port")]
    pub exclude_ranges: Vec<Network>,
    /// Leave outbound connections of this user alone: the proxy's own user, or its connections would come back to it.
    /// May be repeated
    #[arg(long = "exclude-uid", value_name = "UID")]
    pub exclude_uids: Vec<u32>,
    /// Print the rules, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove the rules; without rules nothing happens
    #[arg(long, conflicts_with_all = ["inbound_port", "outbound_port", "exclude_uids"])]
    pub remove: bool,
}

impl InterceptFlags {
    pub(super) fn rules(&self) -> Rules {
        Rules {
            inbound_port: self.inbound_port,
            outbound_port: self.outbound_port,
            include_inbound: self.include_inbound.clone(),
            exclude_inbound: self.exclude_inbound.clone(),
            exclude_outbound: self.exclude_outbound.clone(),
            exclude_ranges: self.exclude_ranges.clone(),
            exclude_uids: self.exclude_uids.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: InterceptFlags,
    }

    fn parse(line: &str) -> Result<InterceptFlags, String> {
        let words = std::iter::once("intercept").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.flags).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_that_would_cut_the_proxy_off_from_the_world_is_refused() {
        let without_uid = parse("--outbound-port 15001").unwrap_err();
        assert!(without_uid.contains("--exclude-uid"), "{without_uid}");
        assert!(parse("--outbound-port 15001 --exclude-uid 1337").is_ok());
    }

    #[test]
    fn something_must_be_asked_for() {
        assert!(parse("").is_err());
        assert!(parse("--dry-run").is_err());
        assert!(parse("--remove").is_ok());
        assert!(parse("--remove --inbound-port 15006").is_err());
        assert!(parse("--inbound-port 0").is_err());
    }
}
