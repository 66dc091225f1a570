//! What is asked of an API that has nothing yet, and of one that has an earlier run's resources.

use std::sync::{Arc, Mutex};

use prost::Message;

use super::*;
use crate::api_client::testing::{Answer, Call, Server};

/// An administrator at a server that answers as `handler` says, and the methods called.
async fn administrator(
    handler: impl Fn(&str, Call) -> Answer + Send + Sync + 'static,
) -> (Administrator, Server, Arc<Mutex<Vec<String>>>) {
    let called = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&called);
    let server = Server::start(move |call| {
        assert_eq!(call.authorization, "Bearer csk_test");
        log.lock().unwrap().push(call.method.clone());
        let method = call.method.clone();
        handler(&method, call)
    })
    .await;
    let key = SecretText::from("csk_test\n".to_owned());
    let client = ApiClient::connect(server.address, &server.ca_pem, &key).await;
    (Administrator::new(client.unwrap()), server, called)
}

fn read<T: Message + Default>(call: Call) -> T {
    T::decode(call.message).unwrap()
}

fn taken() -> Answer {
    Err((Code::AlreadyExists, "taken"))
}

#[tokio::test]
async fn an_account_is_made_or_taken_over() {
    let (administrator, server, _) = administrator(|method, call| {
        assert_eq!(method, "AccountService/CreateAccount");
        let request: v1::CreateAccountRequest = read(call);
        let name = format!("accounts/{}", request.account_id);
        let account = Some(v1::Account {
            name,
            ..v1::Account::default()
        });
        Ok(v1::CreateAccountResponse { account }.encode_to_vec())
    })
    .await;
    let (account, origin) = administrator
        .account("demo", "Demonstration")
        .await
        .unwrap();
    assert_eq!(
        (account.name.as_str(), origin),
        ("accounts/demo", Origin::New)
    );
    server.stop().await;
}

#[tokio::test]
async fn an_earlier_account_is_taken_over() {
    let (administrator, server, called) = administrator(|method, call| match method {
        "AccountService/CreateAccount" => taken(),
        _ => {
            let name = read::<v1::GetAccountRequest>(call).name;
            let account = Some(v1::Account {
                name,
                ..v1::Account::default()
            });
            Ok(v1::GetAccountResponse { account }.encode_to_vec())
        }
    })
    .await;
    let (account, origin) = administrator
        .account("demo", "Demonstration")
        .await
        .unwrap();
    assert_eq!(
        (account.name.as_str(), origin),
        ("accounts/demo", Origin::Earlier)
    );
    assert_eq!(called.lock().unwrap().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn an_earlier_destination_is_moved_and_enabled() {
    let (administrator, server, called) = administrator(|method, call| match method {
        "DestinationService/CreateDestination" => taken(),
        "DestinationService/UpdateDestination" => {
            let request: v1::UpdateDestinationRequest = read(call);
            assert_eq!(request.update_mask.unwrap().paths, ["url", "server_ca_pem"]);
            let mut destination = request.destination.unwrap();
            assert_eq!(destination.name, "accounts/demo/destinations/orders");
            assert_eq!(destination.url, "https://127.0.0.1:1/webhooks");
            assert_eq!(destination.server_ca_pem, "PEM");
            destination.state = v1::DestinationState::Disabled.into();
            let destination = Some(destination);
            Ok(v1::UpdateDestinationResponse { destination }.encode_to_vec())
        }
        _ => {
            let name = read::<v1::EnableDestinationRequest>(call).name;
            let state = v1::DestinationState::Enabled.into();
            let destination = Some(v1::Destination {
                name,
                state,
                ..v1::Destination::default()
            });
            Ok(v1::EnableDestinationResponse { destination }.encode_to_vec())
        }
    })
    .await;
    let wanted = v1::Destination {
        url: "https://127.0.0.1:1/webhooks".to_owned(),
        server_ca_pem: "PEM".to_owned(),
        ..v1::Destination::default()
    };
    let (destination, origin) = administrator
        .destination("accounts/demo", "orders", wanted)
        .await
        .unwrap();
    assert_eq!(origin, Origin::Earlier);
    assert_eq!(destination.state, i32::from(v1::DestinationState::Enabled));
    assert_eq!(
        called.lock().unwrap().last().unwrap(),
        "DestinationService/EnableDestination"
    );
    server.stop().await;
}

#[tokio::test]
async fn no_agent_is_no_error_and_other_refusals_are_told() {
    let (administrator, server, _) = administrator(|method, _| match method {
        "AgentAdministrationService/GetAgent" => Err((Code::NotFound, "none")),
        _ => Err((Code::InvalidArgument, "payload: too long")),
    })
    .await;
    assert_eq!(administrator.agent("agents/a").await.unwrap(), None);
    let event = Event {
        kind: "k",
        payload: b"p",
    };
    let error = administrator
        .submit("accounts/a/destinations/b", event)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "SubmitDelivery failed with InvalidArgument: payload: too long"
    );
    server.stop().await;
}

#[tokio::test]
async fn an_answer_without_its_content_is_an_error() {
    let (administrator, server, _) =
        administrator(|_, _| Ok(v1::CreateAccountResponse::default().encode_to_vec())).await;
    let error = administrator
        .account("demo", "Demonstration")
        .await
        .unwrap_err();
    assert!(
        matches!(error, ApiError::Incomplete("CreateAccount")),
        "{error}"
    );
    server.stop().await;
}
