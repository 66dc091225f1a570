//! Whether a principal may make a call: the table, applied. A method that is not in it can't be called.

mod requests;
mod table;

use std::collections::HashMap;

use thiserror::Error;

use self::requests::Requests;
pub use self::table::{Needs, Rule, TABLE};
use super::{fields, principal::Principal};
use crate::model::{Role, Scope};

/// Why the table can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RulesError {
    /// The descriptors do not decode.
    #[error("the API's descriptors can't be read: {0}")]
    Descriptors(String),
    /// A rule is for a method that does not exist, or names a field that its request does not have.
    #[error("the rule for {0} does not fit the API: {1}")]
    Rule(&'static str, String),
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// None of the caller's roles may call it.
    #[error("{principal} may not call {method}: that needs the role {needed}")]
    Role {
        /// Who calls.
        principal: String,
        /// What.
        method: &'static str,
        /// The roles that may.
        needed: String,
    },
    /// It is not about an account that the caller may act for; whether there is one is not told.
    #[error("{0} may act for other accounts only")]
    Account(String),
    /// It is about what belongs to no account.
    #[error("{0} may act for some accounts only, and this is about all of them")]
    AllAccounts(String),
    /// The request is no message.
    #[error("the request can't be read: {0}")]
    Unreadable(String),
}

/// The fields of requests that say what a call is about.
const ABOUT: &[&str] = &[
    "parent",
    "name",
    "account.name",
    "destination",
    "destination.name",
    "agent",
    "region",
];
/// What is kept of them.
const MOST_NAMES: usize = 8;
const LONGEST_NAME: usize = 256;

/// A rule, ready to be applied.
#[derive(Debug)]
struct Prepared {
    rule: Rule,
    /// The fields of [`Needs::Account`], as paths of field numbers.
    paths: Vec<Vec<u32>>,
    /// The fields that say what a call is about, likewise.
    about: Vec<Vec<u32>>,
}

/// The table, ready to be asked by the path of a call.
#[derive(Debug)]
pub struct Rules(HashMap<String, Prepared>);

impl Rules {
    /// Of [`TABLE`].
    ///
    /// # Errors
    /// [`RulesError`] when it does not fit the API.
    pub fn new() -> Result<Self, RulesError> {
        let requests = Requests::of_the_api()?;
        let mut rules = HashMap::with_capacity(TABLE.len());
        for rule in TABLE {
            let wrong = |problem: String| RulesError::Rule(rule.method, problem);
            let request = requests.of(rule.method);
            let request = request.ok_or_else(|| wrong("there is no such method".to_owned()))?;
            let fields = match rule.needs {
                Needs::Account(fields) => fields,
                Needs::AllAccounts | Needs::Shown | Needs::EachMessage => &[],
            };
            let paths = fields.iter().map(|field| requests.path(request, field));
            let prepared = Prepared {
                rule: *rule,
                paths: paths.collect::<Result<_, _>>().map_err(wrong)?,
                about: ABOUT
                    .iter()
                    .filter_map(|field| requests.path(request, field).ok())
                    .collect(),
            };
            rules.insert(format!("/countersign.v1.{}", rule.method), prepared);
        }
        Ok(Self(rules))
    }

    /// The rule for a call's path, `/package.Service/Method`.
    pub fn get(&self, path: &str) -> Option<&Rule> {
        self.0.get(path).map(|prepared| &prepared.rule)
    }

    /// The names in `message`, the encoded request for what is at `path`: what the call is about.
    pub fn about(&self, path: &str, message: &[u8]) -> Vec<String> {
        let Some(prepared) = self.0.get(path) else {
            return Vec::new();
        };
        let named = prepared.about.iter();
        // A message that does not read is refused further on.
        let named = named.flat_map(|path| fields::texts(message, path).unwrap_or_default());
        let named = named.filter(|name| !name.is_empty()).take(MOST_NAMES);
        named
            .map(|name| name.chars().take(LONGEST_NAME).collect())
            .collect()
    }

    /// Whether `principal` may call what is at `path` at all, and whether it depends on the message,
    /// which [`Rules::judge_message`] then has to see.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn judge(&self, path: &str, principal: &Principal) -> Result<bool, Denied> {
        let Some(Prepared { rule, .. }) = self.0.get(path) else {
            return Err(Denied::AllAccounts(principal.name.clone()));
        };
        if !allows(rule, &principal.roles) {
            let mut needed = vec![Role::Administrator.as_str()];
            needed.extend(rule.roles.iter().map(|role| role.as_str()));
            return Err(Denied::Role {
                principal: principal.name.clone(),
                method: rule.method,
                needed: needed.join(" or "),
            });
        }
        match (rule.needs, &principal.scope) {
            (_, Scope::All) | (Needs::Shown | Needs::EachMessage, _) => Ok(false),
            (Needs::Account(_), _) => Ok(true),
            (Needs::AllAccounts, _) => Err(Denied::AllAccounts(principal.name.clone())),
        }
    }

    /// Whether `message`, the encoded request for what is at `path`, is about accounts that `principal`
    /// may act for.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn judge_message(
        &self,
        path: &str,
        principal: &Principal,
        message: &[u8],
    ) -> Result<(), Denied> {
        let denied = || Denied::Account(principal.name.clone());
        let prepared = self.0.get(path).ok_or_else(denied)?;
        let mut required = true;
        for path in &prepared.paths {
            let names = fields::texts(message, path);
            let names = names.map_err(|error| Denied::Unreadable(error.to_string()))?;
            // A field that is there and empty says as little as one that is not there.
            let mut names = names.into_iter().filter(|name| !name.is_empty()).peekable();
            if required && names.peek().is_none() {
                return Err(denied());
            }
            if !names.all(|name| principal.scope.covers(name)) {
                return Err(denied());
            }
            required = false;
        }
        match required {
            true => Err(denied()),
            false => Ok(()),
        }
    }
}

/// Whether one of these roles may call it.
fn allows(rule: &Rule, roles: &[Role]) -> bool {
    let may = |role: &Role| *role == Role::Administrator || rule.roles.contains(role);
    roles.iter().any(may)
}

#[cfg(test)]
mod tests;
