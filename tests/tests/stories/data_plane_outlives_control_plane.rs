//! The control plane is gone, and traffic does not notice: proxies run on with what they have. It comes back, and
//! empties nothing: the last known endpoints stand until the proxies have had time to register again.

use weir_testkit::{LONG, Weir, eventually, net};

use crate::joined::{Caller, join, join_calling};

#[test]
fn requests_go_on_through_a_kill_and_a_restart() {
    let mut weir = Weir::start();
    let (_stock, _front, mut caller) = mesh(&weir);
    caller.until_answered_by("stock-a");

    weir.kill();
    caller.times(200);
    weir.start_again();
    caller.times(200);

    wait_connected(&weir, "stock-a", &mut caller);
    wait_connected(&weir, "front-a", &mut caller);
    caller.times(200);
}

#[test]
fn changes_flow_again_after_the_restart() {
    let mut weir = Weir::start();
    let (stock, _front, mut caller) = mesh(&weir);
    caller.until_answered_by("stock-a");
    weir.kill();
    weir.start_again();

    let _another = join(&weir, "stock", "stock-b", "http_server.py");
    caller.until_answered_by("stock-b");
    stock.terminate();
    caller.until_only("stock-b");
}

/// `front` calls `stock` through both proxies; the caller stands where front's program would.
fn mesh(weir: &Weir) -> (weir_testkit::Process, weir_testkit::Process, Caller) {
    let listen = net::free_address();
    let stock = join(weir, "stock", "stock-a", "http_server.py");
    let front = join_calling(weir, "front", "front-a", "http_server.py", &[("stock", listen)]);
    (stock, front, Caller::new("stock", listen))
}

/// The proxy is back; requests go on while we wait.
fn wait_connected(weir: &Weir, instance: &str, caller: &mut Caller) {
    eventually(&format!("{instance} is connected again"), LONG, || {
        caller.times(1);
        let shown = weir.ok(&["proxies", "-o", "json"]);
        if shown.contains(instance) { Ok(()) } else { Err(shown) }
    });
}
