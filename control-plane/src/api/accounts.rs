//! AccountService.

use countersign_proto::v1::{self, account_service_server::AccountService};
use countersign_shared::{
    name::{AccountName, Id},
    wire::timestamp_to_wire,
};
use tonic::{Request, Response, Status};

use super::{
    authenticate, page, status,
    violations::{Violations, name},
};
use crate::{
    accounts::Accounts,
    model::{Account, Page, RequestKey, Scope},
    store::StoreError,
};

/// AccountService over [`Accounts`].
#[derive(Clone)]
pub struct AccountApi(pub Accounts);

const FIELDS: &[&str] = &["display_name"];

#[tonic::async_trait]
impl AccountService for AccountApi {
    async fn create_account(
        &self,
        request: Request<v1::CreateAccountRequest>,
    ) -> Result<Response<v1::CreateAccountResponse>, Status> {
        let request = request.into_inner();
        let display_name = request.account.unwrap_or_default().display_name;
        let mut violations = Violations::default();
        let id: Option<Id> = violations.id("account_id", &request.account_id, self.0.clock.now());
        violations.display_name("account.display_name", &display_name);
        violations.request_id(&request.request_id);
        let id = violations.finish(id)?;
        let key = (!request.request_id.is_empty()).then(|| {
            let content = format!("{}\n{display_name}", request.account_id);
            let scope = "CreateAccount".to_owned();
            RequestKey::new(scope, request.request_id.clone(), content.as_bytes())
        });
        let created = self
            .0
            .create(id.into(), display_name, key)
            .await
            .map_err(status::ca)?;
        Ok(Response::new(v1::CreateAccountResponse {
            account: Some(to_wire(&created)),
        }))
    }

    async fn get_account(
        &self,
        request: Request<v1::GetAccountRequest>,
    ) -> Result<Response<v1::GetAccountResponse>, Status> {
        let name: AccountName = name("name", &request.into_inner().name)?;
        let account = self.0.store.account(&name).await.map_err(status::store)?;
        Ok(Response::new(v1::GetAccountResponse {
            account: Some(to_wire(&account)),
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<v1::ListAccountsRequest>,
    ) -> Result<Response<v1::ListAccountsResponse>, Status> {
        let caller = authenticate::principal(&request)?;
        let request = request.into_inner();
        let mut violations = Violations::default();
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, "accounts", &request.page_token);
        violations.check()?;
        let found = match &caller.scope {
            Scope::All => self.0.store.accounts(&after, size).await,
            Scope::Accounts(names) => self.some_of(names, &after, size).await,
        };
        let found = found.map_err(status::store)?;
        Ok(Response::new(v1::ListAccountsResponse {
            next_page_token: page::token(&found, "accounts", |item| item.name.id().to_string()),
            accounts: found.items.iter().map(to_wire).collect(),
        }))
    }

    async fn update_account(
        &self,
        request: Request<v1::UpdateAccountRequest>,
    ) -> Result<Response<v1::UpdateAccountResponse>, Status> {
        let request = request.into_inner();
        let account = request.account.unwrap_or_default();
        let mut violations = Violations::default();
        let name = violations.parse::<AccountName>("account.name", &account.name);
        let fields = violations.mask(request.update_mask.as_ref(), FIELDS, |_| {
            !account.display_name.is_empty()
        });
        violations.display_name("account.display_name", &account.display_name);
        let revision = Violations::etag(&account.etag);
        let name = violations.finish(name)?;
        let changed = if fields.is_empty() {
            self.0.store.account(&name).await
        } else {
            let now = self.0.clock.now();
            self.0
                .store
                .update_account(&name, account.display_name, revision, now)
                .await
        };
        Ok(Response::new(v1::UpdateAccountResponse {
            account: Some(to_wire(&changed.map_err(status::store)?)),
        }))
    }

    async fn delete_account(
        &self,
        request: Request<v1::DeleteAccountRequest>,
    ) -> Result<Response<v1::DeleteAccountResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let name = violations.parse::<AccountName>("name", &request.name);
        let revision = Violations::etag(&request.etag);
        let name = violations.finish(name)?;
        let deleted = self.0.delete(&name, revision, request.force).await;
        deleted.map_err(status::store)?;
        Ok(Response::new(v1::DeleteAccountResponse {}))
    }
}

impl AccountApi {
    /// Those of `names` that exist, with ids after `after`.
    async fn some_of(
        &self,
        names: &[AccountName],
        after: &str,
        size: usize,
    ) -> Result<Page<Account>, StoreError> {
        let mut names = names.to_vec();
        names.sort();
        names.retain(|name| name.id().as_str() > after);
        let mut found = Vec::new();
        for name in names {
            match self.0.store.account(&name).await {
                Ok(account) => found.push(account),
                // A key may name accounts that are yet to come.
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            if found.len() > size {
                break;
            }
        }
        Ok(Page::cut(found, size))
    }
}

fn to_wire(account: &Account) -> v1::Account {
    v1::Account {
        name: account.name.to_string(),
        display_name: account.display_name.clone(),
        create_time: Some(timestamp_to_wire(account.created_at)),
        update_time: Some(timestamp_to_wire(account.updated_at)),
        etag: account.revision.to_string(),
    }
}
