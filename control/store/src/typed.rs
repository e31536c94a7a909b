//! Typed reading and writing through any store.

use weir_model::{Author, Key, Resource, Spec};

use crate::error::Result;
use crate::query::ListQuery;
use crate::{Error, Store};

/// The resource, if it is there.
pub async fn get<S: Spec>(store: &dyn Store, name: &str) -> Result<Option<Resource<S>>> {
    let object = store.get(&Key::new(S::KIND, name)).await?;
    Ok(object.map(Resource::try_from).transpose()?)
}

/// All resources of a kind, every page, and the resourceVersion to watch from (that of the first page).
pub async fn list<S: Spec>(store: &dyn Store) -> Result<(Vec<Resource<S>>, u64)> {
    let mut query = ListQuery::all(S::KIND);
    let mut items = Vec::new();
    let mut version = None;
    loop {
        let page = store.list(&query).await?;
        version.get_or_insert(page.resource_version);
        for object in page.items {
            items.push(Resource::try_from(object)?);
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok((items, version.unwrap_or_default())),
        }
    }
}

/// Creates a resource.
pub async fn create<S: Spec>(store: &dyn Store, resource: &Resource<S>, author: &Author) -> Result<Resource<S>> {
    Ok(store.create(resource.to_object(), author).await?.try_into()?)
}

/// Writes the spec of a resource that was read before.
pub async fn update<S: Spec>(store: &dyn Store, resource: &Resource<S>, author: &Author) -> Result<Resource<S>> {
    Ok(store.update(resource.to_object(), author).await?.try_into()?)
}

/// Writes the status of a resource that was read before.
pub async fn update_status<S: Spec>(store: &dyn Store, resource: &Resource<S>) -> Result<Resource<S>> {
    Ok(store.update_status(resource.to_object()).await?.try_into()?)
}

/// Tries to change a status until nobody interferes; `change` returns false to leave it as it is. `None`: not there.
///
/// # Errors
/// Those of the store, but [`Error::Conflict`] only after 16 tries.
pub async fn modify_status<S: Spec>(
    store: &dyn Store,
    name: &str,
    mut change: impl FnMut(&mut Resource<S>) -> bool,
) -> Result<Option<Resource<S>>> {
    let mut tries = 0;
    loop {
        let Some(mut resource) = get::<S>(store, name).await? else { return Ok(None) };
        if !change(&mut resource) {
            return Ok(Some(resource));
        }
        match update_status(store, &resource).await {
            Err(Error::Conflict { .. }) if tries < 16 => tries += 1,
            result => return result.map(Some),
        }
    }
}
