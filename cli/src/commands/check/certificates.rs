//! Certificates and encryption.

use jiff::Timestamp;
use serde_json::Value;
use weir_model::Kind;

use super::looks::text;
use super::{Finding, Level};
use crate::client::Client;
use crate::commands::get;
use crate::failure::Failure;
use crate::target::called;

/// Instances that can do TLS have certificates, none is about to run out, and every Encryption is as wanted.
pub async fn look(client: &Client) -> Result<Vec<Finding>, Failure> {
    let instances = get::list(client, Kind::Instance, "", "").await?;
    let encryptions = get::list(client, Kind::Encryption, "", "").await?;
    let (now, capable) = (Timestamp::now(), |i: &&Value| takes_calls(i) && i.pointer("/status/tls").is_some());
    let serving = |i: &&Value| text(i, "/status/phase") == "Serving";
    let waiting: Vec<String> = instances
        .iter()
        .filter(|i| capable(i) && serving(i) && i.pointer("/status/tls/ready") != Some(&Value::Bool(true)))
        .map(called)
        .collect();
    let late: Vec<String> = instances.iter().filter(serving).filter_map(|i| late(i, now)).collect();
    let held: Vec<String> = encryptions.iter().filter_map(held).collect();
    let hint = "see the proxy's log, and whether it is connected: `weir proxies`";
    Ok(vec![
        Finding::none(Level::Warning, "every proxy that can do TLS has a certificate in use", &waiting, hint),
        Finding::none(Level::Error, "certificates are replaced in time", &late, hint),
        Finding::none(Level::Warning, "every Encryption is as wanted", &held, "see `weir explain encryption/NAME`"),
    ])
}

/// Behind a proxy without a program nobody is called by name: it answers with no certificate of its own, and only shows
/// one where it calls.
fn takes_calls(instance: &Value) -> bool {
    instance.pointer("/spec/appPort").and_then(Value::as_u64).is_some_and(|port| port > 0)
}

/// A certificate that has run out, or has lived for three quarters of its life: it should have been replaced at half.
fn late(instance: &Value, now: Timestamp) -> Option<String> {
    let second = |path| text(instance, path).parse::<Timestamp>().ok().map(Timestamp::as_second);
    let (since, end) = (second("/status/tls/since")?, second("/status/tls/notAfter")?);
    let left = end - now.as_second();
    if left > (end - since) / 4 {
        return None;
    }
    let told = if left <= 0 { "has run out".to_owned() } else { format!("runs out in {} min", left / 60) };
    Some(format!("{}: its certificate {told}", called(instance)))
}

fn held(encryption: &Value) -> Option<String> {
    let same = text(encryption, "/status/effectiveMode") == text(encryption, "/spec/mode");
    (!same).then(|| format!("{}: {}", called(encryption), text(encryption, "/status/message")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_proxy_without_a_program_needs_no_certificate_to_answer_with() {
        assert!(takes_calls(&json!({"spec": {"appPort": 9000}})));
        assert!(!takes_calls(&json!({"spec": {"appPort": 0}})) && !takes_calls(&json!({"spec": {}})));
    }

    #[test]
    fn a_certificate_is_late_after_three_quarters_of_its_life() {
        let at = |second: i64| Timestamp::from_second(second).expect("a moment");
        let instance = json!({"kind": "Instance", "metadata": {"name": "a"}, "status": {"tls": {
            "since": at(1000).to_string(), "notAfter": at(2000).to_string(),
        }}});
        assert_eq!(late(&instance, at(1749)), None);
        assert!(late(&instance, at(1750)).is_some_and(|told| told.ends_with("runs out in 4 min")));
        assert!(late(&instance, at(2000)).is_some_and(|told| told.ends_with("has run out")));
        assert_eq!(late(&json!({"status": {}}), at(5000)), None);
    }
}
