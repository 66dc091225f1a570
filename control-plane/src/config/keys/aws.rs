//! Settings of a key or secret at AWS.

use countersign_shared::config::Reader;

use super::service_url;
use crate::model::AwsName;

/// What is named, if any of its settings is there: name, region, endpoint.
pub(super) fn name(
    reader: &mut Reader,
    [name, region, endpoint]: [&'static str; 3],
) -> Option<AwsName> {
    let (given, place) = (reader.text(name), reader.text(region));
    let url = service_url(reader, endpoint);
    if given.is_none() && place.is_none() && url.is_none() {
        return None;
    }
    let given = reader.required(name, given.filter(|name| !name.is_empty()));
    Some(AwsName {
        name: given?,
        region: place,
        endpoint: url,
    })
}
