use std::time::Duration;

use jiff::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;
use zeroize::Zeroizing;

use crate::signer::{Signer, certificates, end};
use crate::{Authority, IdentityError, Options, OwnSigner, leaf};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("within range")
}

fn start(path: Option<&std::path::Path>, now: Timestamp) -> Authority {
    Authority::start(Options::default(), None, path.map(Into::into), now).expect("it starts")
}

fn read<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let pem = Pem::iter_from_buffer(pem.as_bytes()).next().expect("a certificate").expect("well-formed");
    look(&pem.parse_x509().expect("well-formed"))
}

/// The root of the bundle that has signed a leaf, by position.
fn verifier(authority: &Authority, chain: &str) -> Option<usize> {
    let roots = certificates(&authority.bundle().roots).expect("PEM");
    roots
        .iter()
        .position(|root| read(root, |root| read(chain, |leaf| leaf.verify_signature(Some(root.public_key())).is_ok())))
}

#[test]
fn a_leaf_is_short_lived_and_says_who_it_is_and_nothing_else() {
    let authority = start(None, at(0));
    let leaf = authority.issue("order", "east", at(0)).expect("it signs").expect("at once");
    assert_eq!(leaf.identity, "spiffe://weir/app/order/unit/east");
    assert_eq!(leaf.not_after, at(24 * 3600));
    assert_eq!(end(&leaf.chain).expect("read"), leaf.not_after);
    read(&leaf.chain, |certificate| {
        let names =
            certificate.subject_alternative_name().expect("well-formed").expect("there").value.general_names.clone();
        assert_eq!(names, [GeneralName::URI("spiffe://weir/app/order/unit/east")]);
        assert!(!certificate.is_ca());
    });
    assert_eq!(verifier(&authority, &leaf.chain), Some(0));
    assert!(leaf.key.reveal().contains("PRIVATE KEY"));
}

#[test]
fn the_control_planes_own_certificate_is_for_its_names_and_comes_with_its_root() {
    let authority = start(None, at(0));
    let names = ["weir.example".to_owned(), "127.0.0.1".to_owned()];
    let leaf = authority.issue_server(&names, at(0)).expect("it signs");
    read(&leaf.chain, |certificate| {
        let names =
            certificate.subject_alternative_name().expect("well-formed").expect("there").value.general_names.clone();
        assert_eq!(names, [GeneralName::DNSName("weir.example"), GeneralName::IPAddress(&[127, 0, 0, 1])]);
        assert!(!certificate.is_ca());
    });
    assert_eq!(verifier(&authority, &leaf.chain), Some(0));
    assert_eq!(
        certificates(&leaf.chain).expect("PEM").last(),
        certificates(&authority.bundle().roots).expect("PEM").first()
    );
}

#[test]
fn an_instance_without_a_unit_has_the_default_one() {
    assert_eq!(Options::default().identity("order", ""), "spiffe://weir/app/order/unit/default");
}

#[test]
fn a_key_shows_nothing_of_itself() {
    let leaf = start(None, at(0)).issue("order", "", at(0)).expect("it signs").expect("at once");
    let shown = format!("{leaf:?}");
    assert!(shown.contains("[secret]") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn leaves_are_renewed_around_half_their_life() {
    let ttl = Duration::from_secs(1000);
    let renewals = [0.0, 0.5, 0.999].map(|random| leaf::renewal(ttl, random).as_secs());
    assert_eq!(renewals, [450, 500, 549]);
}

#[test]
fn after_a_restart_the_old_root_verifies_and_the_new_signer_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    let before = start(Some(&path), at(0));
    let leaf = before.issue("order", "", at(0)).expect("it signs").expect("at once");
    drop(before);

    let after = start(Some(&path), at(100));
    assert!(after.waits());
    assert!(after.issue("order", "", at(100)).expect("no error").is_none(), "nobody knows its root yet");
    assert_eq!(verifier(&after, &leaf.chain), Some(0));
    let changes = after.changes();
    after.roots_are_known(after.bundle().version - 1, at(101)).expect("no error");
    assert!(after.waits(), "that was another bundle");
    after.roots_are_known(after.bundle().version, at(101)).expect("it is kept");
    assert!(changes.has_changed().expect("it lives"));
    let next = after.issue("order", "", at(101)).expect("it signs").expect("now");
    assert_eq!(verifier(&after, &next.chain), Some(1));
}

#[test]
fn a_root_stays_until_its_last_leaf_has_run_out_however_often_it_is_restarted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    let day = 24 * 3600;
    let first = start(Some(&path), at(0)).bundle().roots;
    // It was killed right after its last leaf; others follow, which never come to sign.
    let second = start(Some(&path), at(10));
    assert!(second.bundle().roots.starts_with(&first));
    let third = start(Some(&path), at(day + 9));
    assert!(third.bundle().roots.starts_with(&first));
    third.turn(at(day + 11)).expect("kept");
    assert!(!third.bundle().roots.contains(&first));
    assert!(!start(Some(&path), at(day + 12)).bundle().roots.contains(&first));
}

#[test]
fn no_key_is_in_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    start(Some(&path), at(0));
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("KEY---"), "{text}");
}

#[test]
fn a_signer_is_replaced_at_half_its_life_and_its_root_is_told_first() {
    let authority = start(None, at(0));
    let half = 45 * 24 * 3600;
    authority.turn(at(half - 1)).expect("nothing to do");
    assert!(!authority.waits());
    authority.turn(at(half)).expect("made");
    assert!(authority.waits());
    let old = authority.issue("order", "", at(half)).expect("it signs").expect("by the old one");
    assert_eq!((verifier(&authority, &old.chain), authority.bundle().version), (Some(0), 2));
    authority.turn(at(half + 1)).expect("nothing more");
    assert_eq!(authority.bundle().version, 2);
    authority.roots_are_known(2, at(half + 60)).expect("kept");
    let new = authority.issue("order", "", at(half + 60)).expect("it signs").expect("by the new one");
    assert_eq!(verifier(&authority, &new.chain), Some(1));
    authority.turn(at(half + 61 + 24 * 3600)).expect("kept");
    assert_eq!(verifier(&authority, &old.chain), None, "its leaves have run out");
    assert_eq!(verifier(&authority, &new.chain), Some(0));
}

#[test]
fn an_operators_own_signer_signs_at_once_and_again_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    let (own, _) = own();
    let start = |now| Authority::start(Options::default(), Some(&own), Some(path.clone()), now).expect("it starts");
    let (first, second) = (start(at(0)), start(at(10)));
    assert!(!first.waits() && !second.waits());
    assert_eq!(first.bundle().roots, second.bundle().roots);
    let leaf = second.issue("order", "", at(10)).expect("it signs").expect("at once");
    assert_eq!(verifier(&first, &leaf.chain), Some(0));
}

#[test]
fn what_is_given_is_checked() {
    let (own, other) = (own().0, own().0);
    let wrong_key = OwnSigner { certificates: own.certificates.clone(), key: other.key };
    let why = |own: &OwnSigner, now| match Authority::start(Options::default(), Some(own), None, now) {
        Err(IdentityError::Given(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(&wrong_key, at(0)).contains("not that of the first certificate"));
    assert!(why(&own, at(400 * 24 * 3600)).contains("ran out"));
    let leaf = start(None, at(0)).issue("a", "", at(0)).expect("it signs").expect("at once");
    let no_authority = OwnSigner { certificates: leaf.chain, key: Zeroizing::new(leaf.key.reveal().to_owned()) };
    assert!(why(&no_authority, at(0)).contains("CA:TRUE"));
    let empty = OwnSigner { certificates: String::new(), key: own.key };
    assert!(why(&empty, at(0)).contains("no certificate"));
}

#[test]
fn options_have_bounds() {
    let wrong = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        options.validate().expect_err("out of bounds").to_string()
    };
    assert!(wrong(|o| o.trust_domain = "Example.org".into()).contains("Example.org"));
    assert!(wrong(|o| o.trust_domain.clear()).contains("1 to 255"));
    assert!(wrong(|o| o.leaf_ttl = Duration::from_secs(1)).contains("at least 10 s"));
    assert!(wrong(|o| o.leaf_ttl = o.signer_ttl).contains("quarter"));
}

fn own() -> (OwnSigner, Timestamp) {
    let life = Duration::from_secs(365 * 24 * 3600);
    let signer = Signer::make("example.org", life, at(0)).expect("made");
    let key = Zeroizing::new(signer.issuer.key().serialize_pem());
    (OwnSigner { certificates: signer.root, key }, signer.not_after)
}
