//! Header mutations of the three levels (route, virtual host, table), in the order in which Envoy applies them.

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use weir_config::HeaderEdits;

use crate::convert::error::{ConvertError, Result, Under, refuse};

pub(super) fn request(table: &RouteConfiguration, host: &VirtualHost, route: &Route) -> Result<HeaderEdits> {
    let adds = [&route.request_headers_to_add, &host.request_headers_to_add, &table.request_headers_to_add];
    let removes = [&route.request_headers_to_remove, &host.request_headers_to_remove, &table.request_headers_to_remove];
    edits(ordered(table, adds), removes).under("request_headers_to_add")
}

pub(super) fn response(table: &RouteConfiguration, host: &VirtualHost, route: &Route) -> Result<HeaderEdits> {
    let adds = [&route.response_headers_to_add, &host.response_headers_to_add, &table.response_headers_to_add];
    let removes =
        [&route.response_headers_to_remove, &host.response_headers_to_remove, &table.response_headers_to_remove];
    edits(ordered(table, adds), removes).under("response_headers_to_add")
}

/// Route first, so that the table's word is the last, unless it asks for the reverse.
fn ordered<'a, T>(table: &RouteConfiguration, mut levels: [&'a Vec<T>; 3]) -> [&'a Vec<T>; 3] {
    if table.most_specific_header_mutations_wins {
        levels.reverse();
    }
    levels
}

fn edits(adds: [&Vec<HeaderValueOption>; 3], removes: [&Vec<String>; 3]) -> Result<HeaderEdits> {
    let mut edits = HeaderEdits::default();
    for option in adds.into_iter().flatten() {
        add(&mut edits, option)?;
    }
    edits.remove = removes.into_iter().flatten().cloned().collect();
    Ok(edits)
}

fn add(edits: &mut HeaderEdits, option: &HeaderValueOption) -> Result<()> {
    let header = option.header.as_ref().ok_or_else(|| ConvertError::here("has an entry without a header"))?;
    let value = literal(&header.value).under(&header.key)?;
    refuse(!header.raw_value.is_empty(), "raw_value")?;
    #[allow(deprecated)] // older control planes still use the field
    let overwrites = option.append.is_some_and(|append| !append.value);
    match HeaderAppendAction::try_from(option.append_action) {
        Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => edits.set.push((header.key.clone(), value)),
        Ok(HeaderAppendAction::AppendIfExistsOrAdd) if overwrites => edits.set.push((header.key.clone(), value)),
        Ok(HeaderAppendAction::AppendIfExistsOrAdd) => edits.add.push((header.key.clone(), value)),
        _ => return Err(ConvertError::unsupported(format!("{}.append_action", header.key))),
    }
    Ok(())
}

/// `%NAME%` asks for a value computed per request, which this proxy does not do; `%%` is a percent sign.
fn literal(value: &str) -> Result<String> {
    let text = value.replace("%%", "\0");
    if text.contains('%') {
        return Err(ConvertError::here(format!("`{value}` has a substitution, which is not supported by this proxy")));
    }
    Ok(text.replace('\0', "%"))
}
