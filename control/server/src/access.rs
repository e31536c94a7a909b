//! Who may log in at the start, and who may join as a proxy.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tonic::Status;
use weir_api::login::{self, Logins};
use weir_model::instance::{InstanceSpec, ManagedBy};
use weir_model::token::{Joiner, TokenRole};
use weir_model::{Author, Instance, Key, Kind, Token, TokenSpec};
use weir_store::{Error, Result, SharedStore, typed};

use crate::config::Config;
use crate::error::StartError;

/// Name of the first administrator's Token.
const ADMIN: &str = "admin";
/// Names of the Tokens that local instances join with begin so.
const INSTANCES: &str = "local-instances-";
/// Shortest token that a person may choose.
const MIN_TOKEN: usize = 16;

fn author() -> Author {
    Author::new("controller/server", "start of the control plane")
}

/// Sees to an administrator: the one with the given token, or at the very first start one with a fresh token, which is
/// returned to be shown once.
pub(crate) async fn settle_admin(
    store: &SharedStore,
    config: &Config,
) -> std::result::Result<Option<String>, StartError> {
    if let Some(token) = &config.admin_token {
        let length = MIN_TOKEN..=login::MAX_TOKEN;
        if !length.contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let message = format!("must have {MIN_TOKEN} to {} visible ASCII characters", login::MAX_TOKEN);
            return Err(StartError::Token(message));
        }
        put(store, ADMIN, "user/admin", TokenRole::Admin, token).await?;
        return Ok(None);
    }
    let (tokens, _): (Vec<Token>, _) = typed::list::<TokenSpec>(&**store).await?;
    if config.insecure_loopback || tokens.iter().any(|token| token.spec.role == TokenRole::Admin) {
        return Ok(None);
    }
    if !config.may_mint_admin {
        return Err(StartError::NoAdmin);
    }
    let token = mint()?;
    put(store, ADMIN, "user/admin", TokenRole::Admin, &token).await?;
    Ok(Some(token))
}

fn mint() -> std::result::Result<String, StartError> {
    login::mint().map_err(|source| StartError::Data { what: "the system's randomness".into(), source })
}

/// Stores a token's record, or brings the one of this name up to date.
async fn put(store: &SharedStore, name: &str, actor: &str, role: TokenRole, token: &str) -> Result<()> {
    let spec =
        TokenSpec { actor: actor.to_owned(), sha256: login::hash(token), role, apps: Vec::new(), expires_at: None };
    match typed::get::<TokenSpec>(&**store, name).await? {
        Some(mut stored) => {
            stored.spec = spec;
            typed::update(&**store, &stored, &author()).await.map(drop)
        }
        None => typed::create(&**store, &Token::new(name, spec), &author()).await.map(drop),
    }
}

/// A token that this process's local instances join with. It is nowhere but in their environment, so each start makes
/// a new one; those of former starts stay for the instances that run on.
pub(crate) async fn instance_token(store: &SharedStore) -> std::result::Result<String, StartError> {
    forget_useless(store).await?;
    let token = mint()?;
    let name = format!("{INSTANCES}{}", &login::hash(&token)[..12]);
    put(store, &name, "proxy/local", TokenRole::Proxy, &token).await?;
    Ok(token)
}

async fn forget_useless(store: &SharedStore) -> Result<()> {
    let (tokens, _): (Vec<Token>, _) = typed::list::<TokenSpec>(&**store).await?;
    let (instances, _): (Vec<Instance>, _) = typed::list::<InstanceSpec>(&**store).await?;
    let managed = instances.iter().filter(|i| i.spec.managed_by == ManagedBy::Weir);
    let oldest = managed.filter_map(|i| i.metadata.created_at).min();
    for name in useless(&tokens, oldest) {
        match store.delete(&Key::new(Kind::Token, name), None, &author()).await {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Instance tokens that no instance can have: an instance has the newest there was when it was started, or a later one
/// if it was started anew; so all before the one that the oldest instance began with.
fn useless(tokens: &[Token], oldest_instance: Option<Timestamp>) -> Vec<String> {
    let mut ours: Vec<&Token> = tokens.iter().filter(|t| t.name().starts_with(INSTANCES)).collect();
    ours.sort_by_key(|token| token.metadata.created_at);
    let begun = |token: &&&Token| oldest_instance.is_some_and(|oldest| token.metadata.created_at <= Some(oldest));
    let keep_from = match oldest_instance {
        Some(_) => ours.iter().filter(begun).count().saturating_sub(1),
        None => ours.len(),
    };
    ours[..keep_from].iter().map(|token| token.name().to_owned()).collect()
}

/// Decides about the bearer token of a gRPC stream, for the registry and xDS alike.
pub(crate) type Authenticate =
    Arc<dyn Fn(Option<String>) -> BoxFuture<'static, std::result::Result<Joiner, Status>> + Send + Sync>;

/// Proxies join with a token of the role Proxy or Admin; without one only on an insecure loopback.
pub(crate) fn authenticate(logins: Arc<Logins>, config: &Config) -> Authenticate {
    let anonymous = config.insecure_loopback && config.xds.ip().is_loopback();
    Arc::new(move |token| {
        let logins = logins.clone();
        async move {
            match token {
                Some(token) => joined(&logins, &token).await,
                None if anonymous => Ok(Joiner::of_any_app("proxy/loopback")),
                None => Err(Status::unauthenticated(
                    "a token is needed: make one with `weir token create NAME --role proxy`",
                )),
            }
        }
        .boxed()
    })
}

async fn joined(logins: &Logins, token: &str) -> std::result::Result<Joiner, Status> {
    let unavailable = |error: Error| Status::unavailable(error.to_string());
    let login = logins.authenticate(token, Timestamp::now()).await.map_err(unavailable)?;
    let refused = |why: String| Err(Status::unauthenticated(why));
    match login {
        Some(login) if matches!(login.role, TokenRole::Admin | TokenRole::Proxy) => {
            Ok(Joiner { actor: login.actor, apps: login.apps })
        }
        Some(login) => {
            let (actor, role) = (login.actor, login.role);
            refused(format!("{actor} has the role {role:?}, with which nobody joins; use a token of the role proxy"))
        }
        None => refused("the token is not known, revoked or expired".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u32, second: i64) -> Token {
        let spec = TokenSpec {
            actor: "proxy/local".into(),
            sha256: "0".repeat(64),
            role: TokenRole::Proxy,
            apps: vec![],
            expires_at: None,
        };
        let mut token = Token::new(format!("{INSTANCES}{n}"), spec);
        token.metadata.created_at = Some(Timestamp::from_second(second).unwrap());
        token
    }

    #[test]
    fn tokens_that_an_instance_may_have_are_kept() {
        let tokens: Vec<Token> = (1..=4).map(|n| token(n, i64::from(n) * 10)).collect();
        let at = |second: i64| useless(&tokens, Some(Timestamp::from_second(second).unwrap()));
        let name = |n: u32| format!("{INSTANCES}{n}");
        assert_eq!(at(5), [] as [String; 0]);
        assert_eq!(at(25), [name(1)]);
        assert_eq!(at(99), [name(1), name(2), name(3)]);
        assert_eq!(useless(&tokens, None).len(), 4);
    }
}
