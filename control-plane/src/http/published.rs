//! What receivers fetch: trust bundles, and revocation lists. A stable URL for each, small and public.

use axum::{
    extract::{Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use countersign_shared::digest::{hex, sha256};

use super::{Pages, STORE_SILENT};
use crate::{
    ca::{crl_pem, pem},
    model::AuthorityOwner,
    store::{Store, StoreError},
};

/// A revocation counts from when receivers fetch the list: no cache keeps it for longer than this.
const CACHE: &str = "max-age=60";
/// RFC 2585 section 4.1.
const CERTIFICATE: &str = "application/pkix-cert";
const PEM: &str = "application/x-pem-file";
/// RFC 2585 section 4.2.
const CRL: &str = "application/pkix-crl";

/// `/trust/accounts/{account}.pem`
pub(super) async fn account_trust(
    State(pages): State<Pages>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(owner) = file.strip_suffix(".pem").and_then(account) else {
        return missing();
    };
    let page = trust_bundle(pages.store.as_ref(), &owner).await;
    answer(page, &headers)
}

/// `/trust/shared.pem`
pub(super) async fn shared_trust(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let page = trust_bundle(pages.store.as_ref(), &AuthorityOwner::Shared).await;
    answer(page, &headers)
}

/// `/trust/accounts/{account}/{generation}.crt`
pub(super) async fn account_anchor(
    State(pages): State<Pages>,
    Path((id, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(owner) = account(&id) else {
        return missing();
    };
    let page = anchor(pages.store.as_ref(), &owner, &file).await;
    answer(page, &headers)
}

/// `/trust/shared/{generation}.crt`
pub(super) async fn shared_anchor(
    State(pages): State<Pages>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let page = anchor(pages.store.as_ref(), &AuthorityOwner::Shared, &file).await;
    answer(page, &headers)
}

/// `/crl/accounts/{account}.pem`
pub(super) async fn account_lists(
    State(pages): State<Pages>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(owner) = file.strip_suffix(".pem").and_then(account) else {
        return missing();
    };
    let page = lists(pages.store.as_ref(), &owner).await;
    answer(page, &headers)
}

/// `/crl/shared.pem`
pub(super) async fn shared_lists(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let page = lists(pages.store.as_ref(), &AuthorityOwner::Shared).await;
    answer(page, &headers)
}

/// `/crl/accounts/{account}/{generation}.crl` and `.pem`
pub(super) async fn account_list(
    State(pages): State<Pages>,
    Path((id, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(owner) = account(&id) else {
        return missing();
    };
    let page = list(pages.store.as_ref(), &owner, &file).await;
    answer(page, &headers)
}

/// `/crl/shared/{generation}.crl` and `.pem`
pub(super) async fn shared_list(
    State(pages): State<Pages>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Response {
    let page = list(pages.store.as_ref(), &AuthorityOwner::Shared, &file).await;
    answer(page, &headers)
}

/// What is served: its media type, and its bytes.
type Page = (&'static str, Vec<u8>);

fn account(id: &str) -> Option<AuthorityOwner> {
    let name = format!("accounts/{id}").parse().ok()?;
    Some(AuthorityOwner::Account(name))
}

/// The trust anchors of all published generations, oldest first.
async fn trust_bundle(
    store: &dyn Store,
    owner: &AuthorityOwner,
) -> Result<Option<Page>, StoreError> {
    let generations = store.authorities(owner).await?;
    let published = generations.iter().filter(|it| it.state.is_published());
    let text: String = published.map(|it| pem(&it.anchor)).collect();
    Ok((!text.is_empty()).then(|| (PEM, text.into_bytes())))
}

/// The trust anchor of one generation, if it is published.
async fn anchor(
    store: &dyn Store,
    owner: &AuthorityOwner,
    file: &str,
) -> Result<Option<Page>, StoreError> {
    let generation = file.strip_suffix(".crt").and_then(|it| it.parse().ok());
    let generations = store.authorities(owner).await?.into_iter();
    let mut published = generations.filter(|it| it.state.is_published());
    let found = published.find(|it| Some(it.generation) == generation);
    Ok(found.map(|it| (CERTIFICATE, it.anchor)))
}

/// The lists of all generations whose anchors receivers may have installed: OpenSSL refuses the
/// certificates of a generation for which it has no list.
async fn lists(store: &dyn Store, owner: &AuthorityOwner) -> Result<Option<Page>, StoreError> {
    let generations = store.authorities(owner).await?;
    let wanted = |generation| {
        let mut all = generations.iter();
        all.any(|it| it.generation == generation && it.state.has_list_in_use())
    };
    let lists = store.crls(owner).await?;
    let lists = lists.iter().filter(|crl| wanted(crl.generation));
    let text: String = lists.map(|crl| crl_pem(&crl.der)).collect();
    Ok((!text.is_empty()).then(|| (PEM, text.into_bytes())))
}

async fn list(
    store: &dyn Store,
    owner: &AuthorityOwner,
    file: &str,
) -> Result<Option<Page>, StoreError> {
    let Some((generation, form)) = file.split_once('.') else {
        return Ok(None);
    };
    let Ok(generation) = generation.parse() else {
        return Ok(None);
    };
    let Some(crl) = store.crl(owner, generation).await? else {
        return Ok(None);
    };
    Ok(match form {
        "crl" => Some((CRL, crl.der)),
        "pem" => Some((PEM, crl_pem(&crl.der).into_bytes())),
        _ => None,
    })
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, "no such file\n").into_response()
}

fn answer(page: Result<Option<Page>, StoreError>, headers: &HeaderMap) -> Response {
    let (media_type, body) = match page {
        Ok(Some(page)) => page,
        Ok(None) => return missing(),
        Err(error) => {
            tracing::warn!(%error, "file for receivers not served");
            return (StatusCode::SERVICE_UNAVAILABLE, STORE_SILENT).into_response();
        }
    };
    let tag = format!("\"{}\"", hex(&sha256(&body)[..16]));
    let known = headers.get(IF_NONE_MATCH);
    let known = known.and_then(|known| known.to_str().ok());
    let described = [(ETAG, tag.as_str()), (CACHE_CONTROL, CACHE)];
    if known.is_some_and(|known| matches(known, &tag)) {
        return (StatusCode::NOT_MODIFIED, described).into_response();
    }
    (described, [(CONTENT_TYPE, media_type)], body).into_response()
}

/// Whether one of the tags that the client has is the present one (RFC 9110 section 13.1.2).
fn matches(known: &str, tag: &str) -> bool {
    let mut known = known.split(',').map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use countersign_shared::{tasks::Tasks, time::Timestamp};

    use super::*;
    use crate::{
        model::{Authority, AuthorityState, Crl, Sealed},
        store::{
            DataKey, Installation, InstallationStore as _, RevocationStore as _,
            sqlite::SqliteStore,
        },
    };

    const STATES: [AuthorityState; 7] = [
        AuthorityState::Retired,
        AuthorityState::Superseded,
        AuthorityState::Active,
        AuthorityState::Prepared,
        AuthorityState::Revoked,
        AuthorityState::Aborted,
        AuthorityState::Retiring,
    ];

    #[tokio::test]
    async fn all_that_receivers_may_have_installed_is_in_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _failures) = Tasks::new();
        let store = SqliteStore::open(&folder.path().join("store.sqlite"), &tasks).unwrap();
        let at = Timestamp::from_unix_seconds;
        let generations = (1..).zip(STATES).map(|(generation, state)| Authority {
            owner: AuthorityOwner::Shared,
            generation,
            anchor: vec![u8::try_from(generation).unwrap()],
            provenance: None,
            cross: None,
            state,
            sealed_key: Sealed(Vec::new()),
            not_before: at(1),
            not_after: at(2),
        });
        let installation = Installation {
            id: String::new(),
            kek_id: String::new(),
            data_key: DataKey {
                scope: "installation".to_owned(),
                wrapped: Vec::new(),
            },
            authorities: generations.collect(),
            api_key: crate::auth::generate("test", at(1)).0,
            created_at: at(1),
        };
        store.install(installation).await.unwrap();
        // The fourth generation's list has not been signed yet.
        for generation in [1, 2, 3, 5, 6, 7] {
            let crl = Crl {
                owner: AuthorityOwner::Shared,
                generation,
                number: 1,
                this_update: at(1),
                next_update: at(2),
                der: vec![u8::try_from(generation).unwrap()],
            };
            store.put_crl(crl, 0, at(9)).await.unwrap();
        }
        let shared = AuthorityOwner::Shared;
        let all = |form: fn(&[u8]) -> String, numbers: &[u8]| {
            let text: String = numbers.iter().map(|number| form(&[*number])).collect();
            Some((PEM, text.into_bytes()))
        };
        let anchors = trust_bundle(&store, &shared).await.unwrap();
        assert_eq!(anchors, all(pem, &[2, 3, 4, 7]));
        let found = lists(&store, &shared).await.unwrap();
        assert_eq!(found, all(crl_pem, &[2, 3, 5, 7]));
        // A receiver that is late still gets the list of one that was retired.
        let retired = list(&store, &shared, "1.crl").await.unwrap();
        assert_eq!(retired, Some((CRL, vec![1])));
        for missing in ["4.crl", "8.crl", "1.der", "1", "x.crl", ""] {
            let found = list(&store, &shared, missing).await.unwrap();
            assert_eq!(found, None, "{missing}");
        }
    }

    #[test]
    fn a_known_tag_is_not_sent_again() {
        for (known, expected) in [
            ("\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(matches(known, "\"a\""), expected, "{known}");
        }
    }

    #[test]
    fn files_have_the_type_of_what_is_in_them_and_a_tag() {
        let served = || answer(Ok(Some((CRL, vec![1, 2]))), &HeaderMap::new());
        let response = served();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], CRL);
        assert_eq!(response.headers()[CACHE_CONTROL], CACHE);
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, response.headers()[ETAG].clone());
        let unchanged = answer(Ok(Some((CRL, vec![1, 2]))), &again);
        assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
        let changed = answer(Ok(Some((CRL, vec![1, 3]))), &again);
        assert_eq!(changed.status(), StatusCode::OK);
        let none = answer(Ok(None), &again);
        assert_eq!(none.status(), StatusCode::NOT_FOUND);
        let silent = answer(Err(StoreError::Unavailable("disk".to_owned())), &again);
        assert_eq!(silent.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
