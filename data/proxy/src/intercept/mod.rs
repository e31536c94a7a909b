//! `weir-proxy intercept`: sends the traffic of programs that know nothing of Weir through the proxy.
//!
//! The kernel does it: rules in a table of our own (`inet weir`) turn connections round to the proxy's ports, which then
//! asks the kernel where each was going (`SO_ORIGINAL_DST`). All rules go in with one transaction, so they are there
//! whole or not at all; setting them again replaces them, removing them again changes nothing. Other tables are not
//! touched.

mod flags;
mod rules;

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

pub use flags::InterceptFlags;
pub use rules::{Family, Network, PortRange, Rules};

/// The program that talks to the kernel; its syntax is `nft(8)`.
const NFT: &str = "nft";

/// Why the rules could not be set or removed.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// nft is not there.
    #[error("cannot run `{NFT}`: {0}; install the package nftables, or print the rules with --dry-run")]
    Missing(io::Error),
    /// nft said no.
    #[error("{NFT} refused the rules: {0}{1}")]
    Refused(String, &'static str),
}

/// Sets or removes the rules, or only prints what would be done.
///
/// # Errors
/// nft is missing, or the kernel did not take the rules: then nothing has changed.
pub fn run(flags: &InterceptFlags) -> Result<(), InterceptError> {
    let rules = flags.rules();
    let script = if flags.remove { Rules::removal().to_owned() } else { rules.script() };
    if flags.dry_run {
        print!("{script}");
        return Ok(());
    }
    apply(&script)?;
    println!("{}", if flags.remove { "interception is off".to_owned() } else { rules.summary() });
    Ok(())
}

fn apply(script: &str) -> Result<(), InterceptError> {
    let output = feed(script).map_err(InterceptError::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let hint = if said.contains("not permitted") { "; it needs root or CAP_NET_ADMIN" } else { "" };
    Err(InterceptError::Refused(said, hint))
}

fn feed(script: &str) -> io::Result<Output> {
    let mut nft = Command::new(NFT);
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = nft.spawn()?;
    let mut input = child.stdin.take().expect("stdin is a pipe");
    // nft may end before it has read all of it; then its own message says why.
    let _ = input.write_all(script.as_bytes());
    drop(input);
    child.wait_with_output()
}
