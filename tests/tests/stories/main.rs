//! The stories, one module each; one binary, since linking is what costs.
//!
//! A story is a promise to the user, kept before real peers: real processes are spawned (`weir_testkit::Process`),
//! real sockets used, and nothing of the inside is looked at. Run one with `cargo xtask test --story NAME`.

mod app_release;
mod change_survives_kills;
mod checks_ask_prometheus;
mod cli_tells_the_truth;
mod configuration_canary;
mod control_plane_speaks_tls;
mod control_survives_kills;
mod data_plane_outlives_control_plane;
mod dependencies;
mod encrypted;
mod encryption_switches;
mod envoy_runs_from_weir;
mod envoy_speaks_tls;
mod fixed;
mod freeze_defers_an_app;
mod grpc_client_runs_from_weir;
mod house;
mod interception;
mod joined;
mod keys_stay_in_memory;
mod mesh;
mod netns;
mod proxy_beside_peers;
mod proxy_follows_hang_ups;
mod release_train;
mod rpc_peers_keep_their_words;
mod supervisor_keeps_its_word;
mod tls_beside_peers;
mod two_hosts;
mod up_shows_it;
mod upgrades_lose_nothing;
