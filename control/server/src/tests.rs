//! The whole control plane in one process: starts, restarts, refusals.

use std::path::Path;

use jiff::Timestamp;
use weir_api::login::Logins;
use weir_model::token::TokenRole;

use super::*;

const CHOSEN: &str = "chosen-by-the-administrator";

fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        api: "127.0.0.1:0".parse().unwrap(),
        xds: "127.0.0.1:0".parse().unwrap(),
        storage: Storage::Sqlite,
        admin_token: None,
        may_mint_admin: true,
        insecure_loopback: false,
        supervisor: None,
        stop_instances: false,
        identity: Default::default(),
        authority: None,
        tls: Tls::Off,
    }
}

async fn role_of(server: &Server, token: &str) -> Option<TokenRole> {
    let logins = Logins::new(server.opened.store.clone());
    logins.authenticate(token, Timestamp::now()).await.unwrap().map(|login| login.role)
}

#[tokio::test]
async fn the_first_token_is_made_once_and_survives() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(config(folder.path())).await.unwrap();
    let token = server.first_admin_token().unwrap().to_owned();
    assert_eq!(role_of(&server, &token).await, Some(TokenRole::Admin));
    server.stop().await;

    let server = Server::start(config(folder.path())).await.unwrap();
    assert_eq!(server.first_admin_token(), None, "it is shown once");
    assert_eq!(role_of(&server, &token).await, Some(TokenRole::Admin));
    server.stop().await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!found, "no file holds the token");
    }
}

#[tokio::test]
async fn a_chosen_token_replaces_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let first = Server::start(config(folder.path())).await.unwrap();
    let old = first.first_admin_token().unwrap().to_owned();
    first.stop().await;
    let chosen = Config { admin_token: Some(CHOSEN.into()), ..config(folder.path()) };
    let server = Server::start(chosen).await.unwrap();
    assert_eq!(role_of(&server, CHOSEN).await, Some(TokenRole::Admin));
    assert_eq!(role_of(&server, &old).await, None);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = async |config: Config| Server::start(config).await.err().expect("does not start").to_string();
    let told = refused(Config { may_mint_admin: false, ..config(folder.path()) }).await;
    assert!(told.contains("--admin-token-stdin"), "{told}");
    let told = refused(Config { admin_token: Some("short".into()), ..config(folder.path()) }).await;
    assert!(told.contains("16 to 512 visible ASCII"), "{told}");

    let server = Server::start(config(folder.path())).await.unwrap();
    let told = refused(config(folder.path())).await;
    assert!(told.contains("--data") && told.contains(&std::process::id().to_string()), "{told}");
    let other = tempfile::tempdir().unwrap();
    let told = refused(Config { api: server.api(), ..config(other.path()) }).await;
    assert!(told.contains("--api"), "{told}");
}

#[tokio::test]
async fn a_memory_store_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("none");
    let server = Server::start(Config { storage: Storage::Memory, ..config(&data) }).await.unwrap();
    server.stop().await;
    assert!(!data.exists());
}
