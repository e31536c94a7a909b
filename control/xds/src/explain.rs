//! An Encryption in words: where it stands, who is in its way, and who speaks what to whom as proxies report it.

use std::collections::BTreeMap;

use weir_model::Encryption;
use weir_model::encryption::{EncryptionMode, InterfaceMode, Readiness};
use weir_store::observed::TimedWindow;

/// Most rows of who speaks to whom.
const MAX_ROWS: usize = 50;

/// Some sentences for a person. `latest`: the newest health window of each instance.
pub fn explain(encryption: &Encryption, latest: &BTreeMap<String, TimedWindow>) -> String {
    let (spec, status) = (&encryption.spec, &encryption.status);
    let mut lines = vec![format!(
        "Calls of {} are {}; wanted is {}. {}.",
        spec.app,
        status.effective_mode.name(),
        spec.mode.name(),
        capitalised(&status.message)
    )];
    let interface = |i: &InterfaceMode| format!("  {} and below: {}", i.path, i.mode.name());
    lines.extend(status.effective_interfaces.iter().map(interface));
    lines.extend(readiness("instances hold a certificate in use", &status.instances));
    lines.extend(readiness("callers speak TLS to those that take it", &status.callers));
    if status.effective_mode == EncryptionMode::Strict && !status.callers.not_ready.is_empty() {
        lines.push("Plaintext of those callers is refused and counted by the servers as plaintext_refused.".to_owned());
    }
    lines.extend(connections(&spec.app, latest));
    lines.join("\n")
}

fn readiness(what: &str, who: &Readiness) -> Vec<String> {
    let count = format!("{} of {} {what}.", who.ready, who.total);
    let not = who.not_ready.iter().map(|(name, why)| format!("  {name}: {why}"));
    let unnamed = who.total.saturating_sub(who.ready + who.not_ready.len());
    let more = (unnamed > 0).then(|| format!("  and {unnamed} more"));
    std::iter::once(count).chain(not).chain(more).collect()
}

/// Open connections by caller and instance, as both sides count them.
fn connections(app: &str, latest: &BTreeMap<String, TimedWindow>) -> Vec<String> {
    let row = |tls: u32, plain: u32, refused: u64| {
        let refused = if refused > 0 { format!(", {refused} refused in the last second") } else { String::new() };
        format!("{tls} TLS, {plain} plaintext{refused}")
    };
    let is_of_app = |cluster: &str| cluster.split('|').next() == Some(app);
    let identity = format!("/app/{app}/");
    let mut rows = Vec::new();
    for (name, timed) in latest {
        for peer in &timed.window.peers {
            let told = row(peer.tls, peer.plain, peer.refused);
            if !peer.inbound && (is_of_app(&peer.cluster) || peer.identity.contains(&identity)) {
                rows.push(format!("  {name} to {}: {told}", shown(&peer.identity, &peer.cluster)));
            }
        }
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let more = rows.len().saturating_sub(MAX_ROWS);
    rows.truncate(MAX_ROWS);
    rows.extend((more > 0).then(|| format!("  and {more} more")));
    std::iter::once("Connections open now:".to_owned()).chain(rows).collect()
}

fn shown<'a>(identity: &'a str, cluster: &'a str) -> &'a str {
    if identity.is_empty() { cluster } else { identity }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => "It has not been looked at yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use weir_model::encryption::EncryptionSpec;
    use weir_model::health::{HealthWindow, PeerConnections};

    use super::*;

    #[test]
    fn it_tells_who_is_in_the_way_and_who_speaks_what() {
        let mut encryption = Encryption::new(
            "order",
            EncryptionSpec { app: "order".into(), mode: EncryptionMode::Strict, interfaces: vec![] },
        );
        encryption.status.effective_mode = EncryptionMode::Permissive;
        encryption.status.message = "permissive until then, waits for old-1 (its proxy can't do TLS)".into();
        let not_ready = BTreeMap::from([("old-1".to_owned(), "its proxy can't do TLS".to_owned())]);
        encryption.status.callers = Readiness { total: 2, ready: 1, not_ready };
        let peer = |identity: &str, cluster: &str, tls, plain| PeerConnections {
            identity: identity.into(),
            cluster: cluster.into(),
            tls,
            plain,
            ..PeerConnections::default()
        };
        let window = |peers| TimedWindow {
            received: jiff::Timestamp::UNIX_EPOCH,
            proxy_version: String::new(),
            window: HealthWindow { peers, ..HealthWindow::default() },
        };
        let latest = BTreeMap::from([
            ("front-1".to_owned(), window(vec![peer("spiffe://weir/app/order/unit/east", "order", 3, 0)])),
            ("old-1".to_owned(), window(vec![peer("", "order|gray", 0, 2), peer("", "stock", 0, 9)])),
        ]);
        let told = explain(&encryption, &latest);
        for part in [
            "Calls of order are permissive; wanted is strict. Permissive until then, waits for old-1",
            "1 of 2 callers speak TLS",
            "  old-1: its proxy can't do TLS",
            "  front-1 to spiffe://weir/app/order/unit/east: 3 TLS, 0 plaintext",
            "  old-1 to order|gray: 0 TLS, 2 plaintext",
        ] {
            assert!(told.contains(part), "{part:?} in {told}");
        }
        assert!(!told.contains("stock"), "{told}");
    }
}
