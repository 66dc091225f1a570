//! Names of authorities: of an account's (`accounts/{account}/certificateAuthorities/{generation}`) and
//! of the shared one (`certificateAuthorities/{generation}`), whose parent is `shared`.

use countersign_shared::name::{AccountName, split};
use tonic::Status;

use super::violations::Violations;
use crate::model::AuthorityOwner;

/// The parent of the shared authority's generations.
const SHARED: &str = "shared";

/// The name of a generation. Authorities that are no resources have none.
pub(super) fn authority_name(owner: &AuthorityOwner, generation: u32) -> String {
    match owner {
        AuthorityOwner::Account(account) => {
            format!("{account}/certificateAuthorities/{generation}")
        }
        AuthorityOwner::Shared => format!("certificateAuthorities/{generation}"),
        AuthorityOwner::Root | AuthorityOwner::Agents | AuthorityOwner::Server => String::new(),
    }
}

/// Parses the name of a generation in the field `name`.
pub(super) fn parse_authority(text: &str) -> Result<(AuthorityOwner, u32), Status> {
    const ACCOUNTS: &str = "accounts/{account}/certificateAuthorities/{generation}";
    let parsed = match split::<1>(text, "certificateAuthorities/{generation}") {
        Ok([generation]) => number(generation).map(|number| (AuthorityOwner::Shared, number)),
        Err(_) => split::<2>(text, ACCOUNTS)
            .map_err(|error| error.to_string())
            .and_then(|[account, generation]| {
                let account = format!("accounts/{account}").parse::<AccountName>();
                let account = account.map_err(|error| error.to_string())?;
                Ok((AuthorityOwner::Account(account), number(generation)?))
            }),
    };
    let mut violations = Violations::default();
    let parsed = parsed
        .map_err(|problem| violations.add("name", problem))
        .ok();
    violations.finish(parsed)
}

/// Parses the parent of generations, in the field `parent`.
pub(super) fn parse_owner(violations: &mut Violations, text: &str) -> Option<AuthorityOwner> {
    if text == SHARED {
        return Some(AuthorityOwner::Shared);
    }
    violations
        .parse::<AccountName>("parent", text)
        .map(AuthorityOwner::Account)
}

/// A generation or a version.
pub(super) fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_kinds_are_read_as_they_are_written() {
        for text in [
            "accounts/acme/certificateAuthorities/2",
            "certificateAuthorities/1",
        ] {
            let (owner, generation) = parse_authority(text).unwrap();
            assert_eq!(authority_name(&owner, generation), text);
        }
        for bad in [
            "certificateAuthorities/x",
            "certificateAuthorities/",
            "certificateAuthorities/root-1",
            "accounts/acme/certificateAuthorities/-1",
            "accounts/Acme/certificateAuthorities/1",
            "shared/certificateAuthorities/1",
        ] {
            let refused = parse_authority(bad).unwrap_err();
            assert!(refused.message().contains("name"), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn the_parent_is_an_account_or_shared() {
        let mut violations = Violations::default();
        assert_eq!(
            parse_owner(&mut violations, "shared"),
            Some(AuthorityOwner::Shared)
        );
        assert!(parse_owner(&mut violations, "accounts/acme").is_some());
        assert!(violations.check().is_ok());
        let mut violations = Violations::default();
        assert_eq!(parse_owner(&mut violations, "root"), None);
        assert!(violations.check().is_err());
    }
}
