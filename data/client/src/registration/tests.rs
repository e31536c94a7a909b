use weir_proto::control::{Refused, Unpublished};

use super::*;
use crate::fixtures::{FakeControlPlane, soon};

fn client(control: &FakeControlPlane) -> (Registration, watch::Sender<Hello>) {
    let (hello, hellos) = watch::channel(Hello { instance: "order-1".into(), ..Default::default() });
    let token = Token::new("secret", "test").unwrap();
    let options =
        RegistrationOptions { address: control.address.clone(), token, trust: None, tls: watch::channel(None).1 };
    let mut sequence = 0;
    let health = move || {
        sequence += 1;
        Health { sequence, ..Default::default() }
    };
    (Registration::spawn(options, hellos, health), hello)
}

async fn until(status: &mut watch::Receiver<RegistrationStatus>, holds: impl Fn(&RegistrationStatus) -> bool) {
    soon("the status", status.wait_for(|status| holds(status))).await.unwrap();
}

const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn hello_comes_first_and_health_follows() {
    let mut control = FakeControlPlane::start().await;
    let (registration, _hello) = client(&control);
    let mut peer = control.control().await;
    assert_eq!(peer.authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(peer.hello().await.instance, "order-1");
    peer.welcome().await;
    until(&mut registration.status(), |status| status.is_welcome && status.control_plane_version == "9").await;
    for wanted in 1..=2 {
        assert_eq!(peer.health().await.sequence, wanted);
    }
}

#[tokio::test]
async fn goodbye_waits_until_callers_know() {
    let mut control = FakeControlPlane::start().await;
    let (registration, _hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    let server = async {
        assert_eq!(peer.goodbye().await, "stopping");
        peer.say(CommandKind::Unpublished(Unpublished { detail: "3 callers".into() })).await;
    };
    let (parting, ()) = tokio::join!(registration.goodbye("stopping", PATIENCE), server);
    assert_eq!(parting, Parting::Unpublished("3 callers".into()));
}

#[tokio::test]
async fn goodbye_is_said_again_after_a_restart_of_the_control_plane() {
    let mut control = FakeControlPlane::start().await;
    let (registration, _hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    let server = async {
        peer.goodbye().await;
        drop(peer);
        let mut peer = control.control().await;
        peer.hello().await;
        assert_eq!(peer.goodbye().await, "stopping");
        peer.say(CommandKind::Unpublished(Unpublished::default())).await;
        peer
    };
    let (parting, _peer) = tokio::join!(registration.goodbye("stopping", PATIENCE), server);
    assert_eq!(parting, Parting::Unpublished(String::new()));
}

#[tokio::test]
async fn who_has_left_says_so_on_every_later_stream() {
    let mut control = FakeControlPlane::start().await;
    let (registration, hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    let server = async {
        peer.goodbye().await;
        peer.say(CommandKind::Unpublished(Unpublished::default())).await;
        peer
    };
    let (_, peer) = tokio::join!(registration.goodbye("stopping", PATIENCE), server);
    drop(peer);
    let mut peer = control.control().await;
    assert_eq!(peer.hello().await.leaving, "stopping");
    assert_eq!(peer.goodbye().await, "stopping");
    hello.send_modify(|hello| hello.app_version = "2".into());
    let mut peer = control.control().await;
    peer.hello().await;
    assert_eq!(peer.goodbye().await, "stopping");
}

#[tokio::test]
async fn goodbye_does_not_wait_for_ever() {
    let mut control = FakeControlPlane::start().await;
    let (registration, _hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    peer.welcome().await;
    until(&mut registration.status(), |status| status.is_welcome).await;
    let parting = registration.goodbye("stopping", Duration::from_millis(50)).await;
    assert_eq!(parting, Parting::TimedOut("callers have not all acknowledged".into()));
}

#[tokio::test]
async fn a_refusal_is_told_and_tried_again() {
    let mut control = FakeControlPlane::start().await;
    let (registration, _hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    peer.say(CommandKind::Refused(Refused { reason: "unknown app".into() })).await;
    until(&mut registration.status(), |status| status.last_error == "refused: unknown app").await;
    control.control().await.hello().await;
}

#[tokio::test]
async fn another_hello_opens_another_stream() {
    let mut control = FakeControlPlane::start().await;
    let (_registration, hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    hello.send_modify(|hello| hello.app_version = "2".into());
    assert_eq!(control.control().await.hello().await.app_version, "2");
}

#[tokio::test]
async fn commands_of_a_later_version_are_passed_over() {
    let mut control = FakeControlPlane::start().await;
    let (registration, _hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    // A command in a field that this version does not know reads as none.
    peer.send(Command { command: None }).await;
    peer.welcome().await;
    until(&mut registration.status(), |status| status.is_welcome).await;
    peer.health().await;
}

#[tokio::test]
async fn a_closed_registration_ends_its_stream_in_order() {
    let mut control = FakeControlPlane::start().await;
    let (registration, _hello) = client(&control);
    let mut peer = control.control().await;
    peer.hello().await;
    peer.welcome().await;
    until(&mut registration.status(), |status| status.is_welcome).await;
    let server = async {
        peer.ended().await;
        drop(peer);
    };
    soon("the end", async { tokio::join!(registration.close(), server) }).await;
}
