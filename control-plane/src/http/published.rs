//! What receivers fetch: trust bundles, revocation lists, and public keys of signatures. A stable URL for each, small and public.

use axum::{
    extract::{Path, State},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use countersign_shared::{
    digest::{hex, sha256},
    name::DestinationName,
    signature::ed25519::public_to_text,
};

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
const TEXT: &str = "text/plain; charset=utf-8";
/// RFC 2585 section 4.2.
const CRL: &str = "application/pkix-crl";

/// A file of an authority: `agents.pem`, which receipts are verified with, `shared.pem`, `shared/{generation}.{form}`, `accounts/{account}.pem` or
/// `accounts/{account}/{generation}.{form}`.
struct File<'a> {
    owner: AuthorityOwner,
    /// A generation and the form of its file; `None`: all generations, in PEM.
    generation: Option<(u32, &'a str)>,
}

impl<'a> File<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let (owner, rest) = match path.strip_prefix("accounts/") {
            None => match path.strip_prefix("agents") {
                Some(rest) => (AuthorityOwner::Agents, rest),
                None => (AuthorityOwner::Shared, path.strip_prefix("shared")?),
            },
            Some(path) => {
                // Ids have neither.
                let (id, _) = path.split_at(path.find(['/', '.'])?);
                let name = format!("accounts/{id}").parse().ok()?;
                (AuthorityOwner::Account(name), &path[id.len()..])
            }
        };
        let generation = match rest {
            ".pem" => None,
            rest => {
                let (generation, form) = rest.strip_prefix('/')?.split_once('.')?;
                Some((generation.parse().ok()?, form))
            }
        };
        Some(Self { owner, generation })
    }
}

/// Under `/trust`.
pub(super) async fn trust(
    State(pages): State<Pages>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(file) = File::parse(&path) else {
        return missing();
    };
    let store = pages.store.as_ref();
    let page = match file.generation {
        None => trust_bundle(store, &file.owner).await,
        Some((generation, "crt")) => anchor(store, &file.owner, generation).await,
        Some(_) => Ok(None),
    };
    answer(page, &headers)
}

/// Under `/crl`.
pub(super) async fn crl(
    State(pages): State<Pages>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(file) = File::parse(&path) else {
        return missing();
    };
    let store = pages.store.as_ref();
    let page = match file.generation {
        None => lists(store, &file.owner).await,
        Some((generation, form)) => list(store, &file.owner, generation, form).await,
    };
    answer(page, &headers)
}

/// Under `/signing-keys`: the public keys of a destination's `v1a` signatures, newest first.
pub(super) async fn signing_keys(
    State(pages): State<Pages>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Ok(name) = path.parse::<DestinationName>() else {
        return missing();
    };
    let page = match pages.store.signing_secrets(&name).await {
        Ok(secrets) => {
            let lines = secrets
                .iter()
                .map(|it| public_to_text(&it.public_key) + "\n");
            Ok(Some((TEXT, lines.collect::<String>().into_bytes())))
        }
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    };
    answer(page, &headers)
}

/// What is served: its media type, and its bytes.
type Page = (&'static str, Vec<u8>);

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
    generation: u32,
) -> Result<Option<Page>, StoreError> {
    let generations = store.authorities(owner).await?.into_iter();
    let mut published = generations.filter(|it| it.state.is_published());
    let found = published.find(|it| it.generation == generation);
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
    generation: u32,
    form: &str,
) -> Result<Option<Page>, StoreError> {
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

    #[test]
    fn files_are_named_by_owner_and_generation() {
        let parsed = |path| {
            let file = File::parse(path)?;
            let generation = file
                .generation
                .map(|(number, form)| format!("{number} {form}"));
            Some((file.owner.to_string(), generation.unwrap_or_default()))
        };
        let file = |owner: &str, generation: &str| Some((owner.into(), generation.into()));
        assert_eq!(parsed("shared.pem"), file("shared", ""));
        assert_eq!(parsed("shared/2.crl"), file("shared", "2 crl"));
        assert_eq!(parsed("accounts/acme.pem"), file("accounts/acme", ""));
        assert_eq!(
            parsed("accounts/acme/12.pem"),
            file("accounts/acme", "12 pem")
        );
        for none in [
            "",
            "shared",
            "shared.crl",
            "sharedx.pem",
            "shared/x.pem",
            "accounts",
            "accounts/",
            "accounts/acme",
            "accounts/acme.crl",
            "accounts/ACME.pem",
            "accounts/acme/1",
            "accounts/acme/../1.pem",
            "accounts//1.pem",
            "root.pem",
        ] {
            assert_eq!(parsed(none), None, "{none}");
        }
    }

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
                kek_id: "kek".to_owned(),
            },
            authorities: generations.collect(),
            api_key: crate::auth::generate(crate::auth::KeyRequest::administrator(), at(1)).0,
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
        let retired = list(&store, &shared, 1, "crl").await.unwrap();
        assert_eq!(retired, Some((CRL, vec![1])));
        for (generation, form) in [(4, "crl"), (8, "crl"), (1, "der"), (1, "")] {
            let found = list(&store, &shared, generation, form).await.unwrap();
            assert_eq!(found, None, "{generation} {form}");
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
