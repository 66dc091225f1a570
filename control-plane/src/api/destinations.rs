//! DestinationService.

use std::{sync::Arc, time::Duration};

use countersign_proto::v1::{self, destination_service_server::DestinationService};
use countersign_shared::{
    name::{AccountName, DestinationName, split},
    signature::ed25519::public_to_text,
    wire::{duration_from_wire, timestamp_to_wire},
};
use prost::Message as _;
use tonic::{Code, Request, Response, Status};

use super::{
    delivery_policy::flow_to_wire,
    destination_config::{self as config, to_wire},
    page,
    rotation_wire::{self, operation_error},
    status,
    violations::{Violations, name},
};
use crate::{
    ca::ClientNames,
    destinations::{Destinations, ReceiverConfiguration, ServerKind, receiver_configuration},
    model::{AuthorityOwner, Destination, DestinationState, RequestKey, TrustModel},
    rotation::Rotations,
    signals::Flows,
};

/// How long older signing secrets are used unless told, and at most.
const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 3600);
const LONGEST_GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// DestinationService over [`Destinations`].
#[derive(Clone)]
pub struct DestinationApi {
    /// Makes and changes destinations.
    pub destinations: Destinations,
    /// Knows how client certificates are being replaced, and asks receivers.
    pub rotations: Rotations,
    /// Tells how deliveries flow.
    pub flows: Arc<Flows>,
}

#[tonic::async_trait]
impl DestinationService for DestinationApi {
    async fn create_destination(
        &self,
        request: Request<v1::CreateDestinationRequest>,
    ) -> Result<Response<v1::CreateDestinationResponse>, Status> {
        let request = request.into_inner();
        let wire = request.destination.unwrap_or_default();
        let mut violations = Violations::default();
        let account = violations.parse::<AccountName>("parent", &request.parent);
        let now = self.destinations.clock.now();
        let id = violations.id("destination_id", &request.destination_id, now);
        let config = config::new(&mut violations, &wire);
        violations.request_id(&request.request_id);
        let (account, id) = violations.finish(account.zip(id))?;
        let key = (!request.request_id.is_empty()).then(|| {
            let mut content = request.destination_id.clone().into_bytes();
            content.push(b'\n');
            content.extend(wire.encode_to_vec());
            let scope = format!("CreateDestination {account}");
            RequestKey::new(scope, request.request_id.clone(), &content)
        });
        let created = self
            .destinations
            .create(&account, &id, config, key)
            .await
            .map_err(status::ca)?;
        Ok(Response::new(v1::CreateDestinationResponse {
            destination: Some(to_wire(&created)),
        }))
    }

    async fn get_destination(
        &self,
        request: Request<v1::GetDestinationRequest>,
    ) -> Result<Response<v1::GetDestinationResponse>, Status> {
        let name: DestinationName = name("name", &request.into_inner().name)?;
        let found = self
            .destinations
            .store
            .destination(&name)
            .await
            .map_err(status::store)?;
        let agents = self
            .destinations
            .store
            .durable_agents(&name, found.generation)
            .await;
        let agents = agents.map_err(status::store)?;
        let view = self.destinations.store.rotation(&name).await;
        let view = view.map_err(status::store)?;
        let destination = v1::Destination {
            client_certificate_rotation: Some(rotation_wire::rotation(&view)),
            delivery_flow: Some(flow_to_wire(self.flows.of(found.key))),
            durable_agents: agents.iter().map(ToString::to_string).collect(),
            ..to_wire(&found)
        };
        Ok(Response::new(v1::GetDestinationResponse {
            destination: Some(destination),
        }))
    }

    async fn list_destinations(
        &self,
        request: Request<v1::ListDestinationsRequest>,
    ) -> Result<Response<v1::ListDestinationsResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let account = violations.parse::<AccountName>("parent", &request.parent);
        let size = page::size(&mut violations, request.page_size);
        let after = page::after(&mut violations, "destinations", &request.page_token);
        let account = violations.finish(account)?;
        let found = self
            .destinations
            .store
            .destinations(&account, &after, size)
            .await;
        let found = found.map_err(status::store)?;
        let last = |item: &Destination| item.name.destination().to_owned();
        Ok(Response::new(v1::ListDestinationsResponse {
            next_page_token: page::token(&found, "destinations", last),
            destinations: found.items.iter().map(to_wire).collect(),
        }))
    }

    async fn update_destination(
        &self,
        request: Request<v1::UpdateDestinationRequest>,
    ) -> Result<Response<v1::UpdateDestinationResponse>, Status> {
        let request = request.into_inner();
        let wire = request.destination.unwrap_or_default();
        let mut violations = Violations::default();
        let name = violations.parse::<DestinationName>("destination.name", &wire.name);
        let mask = request.update_mask.as_ref();
        let fields = violations.mask(mask, config::FIELDS, |field| config::is_set(&wire, field));
        let revision = Violations::etag(&wire.etag);
        let name = violations.finish(name)?;
        let old = self
            .destinations
            .store
            .destination(&name)
            .await
            .map_err(status::store)?;
        let mut config = old.config.clone();
        let mut violations = Violations::default();
        for field in &fields {
            config::apply(&mut violations, &mut config, &wire, field);
        }
        violations.check()?;
        let changed = if fields.is_empty() {
            old
        } else {
            let revision = revision.or(Some(old.revision));
            self.destinations
                .update(&name, config, revision)
                .await
                .map_err(status::store)?
        };
        Ok(Response::new(v1::UpdateDestinationResponse {
            destination: Some(to_wire(&changed)),
        }))
    }

    async fn delete_destination(
        &self,
        request: Request<v1::DeleteDestinationRequest>,
    ) -> Result<Response<v1::DeleteDestinationResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let name = violations.parse::<DestinationName>("name", &request.name);
        let revision = Violations::etag(&request.etag);
        let name = violations.finish(name)?;
        let deleted = self
            .destinations
            .delete(&name, revision, request.force)
            .await;
        deleted.map_err(status::store)?;
        Ok(Response::new(v1::DeleteDestinationResponse {}))
    }

    async fn enable_destination(
        &self,
        request: Request<v1::EnableDestinationRequest>,
    ) -> Result<Response<v1::EnableDestinationResponse>, Status> {
        let name = request.into_inner().name;
        let destination = Some(self.set_state(&name, DestinationState::Enabled).await?);
        Ok(Response::new(v1::EnableDestinationResponse { destination }))
    }

    async fn disable_destination(
        &self,
        request: Request<v1::DisableDestinationRequest>,
    ) -> Result<Response<v1::DisableDestinationResponse>, Status> {
        let name = request.into_inner().name;
        let destination = Some(self.set_state(&name, DestinationState::Disabled).await?);
        Ok(Response::new(v1::DisableDestinationResponse {
            destination,
        }))
    }

    async fn rotate_signing_secret(
        &self,
        request: Request<v1::RotateSigningSecretRequest>,
    ) -> Result<Response<v1::RotateSigningSecretResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let name = violations.parse::<DestinationName>("name", &request.name);
        let grace = request
            .grace_period
            .map_or(Some(DEFAULT_GRACE), duration_from_wire);
        let grace = grace.filter(|grace| *grace <= LONGEST_GRACE);
        if grace.is_none() {
            violations.add("grace_period", "must be from 0 to 30 days");
        }
        let (name, grace) = violations.finish(name.zip(grace))?;
        let (version, at) = self
            .destinations
            .rotate_secret(&name, grace)
            .await
            .map_err(status::ca)?;
        Ok(Response::new(v1::RotateSigningSecretResponse {
            name: format!("{name}/signingSecrets/{version}"),
            older_expire_time: Some(timestamp_to_wire(at)),
        }))
    }

    async fn get_receiver_configuration(
        &self,
        request: Request<v1::GetReceiverConfigurationRequest>,
    ) -> Result<Response<v1::GetReceiverConfigurationResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let name = violations.parse::<DestinationName>("name", &request.name);
        let kind = server_kind(&mut violations, request.server_kind);
        let (name, kind) = violations.finish(name.zip(kind))?;
        let (configuration, names) = self.configuration(&name, kind).await?;
        Ok(Response::new(v1::GetReceiverConfigurationResponse {
            configuration: configuration.text,
            trust_anchor_pem: configuration.trust_anchor_pem,
            trust_anchor_file: configuration.trust_anchor_file,
            steps: configuration.steps,
            expected_common_name: names.common_name,
            expected_uri: names.uri,
            trust_bundle_path: configuration.trust_bundle_path,
            revocation_lists_path: configuration.revocation_lists_path,
        }))
    }

    async fn probe_destination(
        &self,
        request: Request<v1::ProbeDestinationRequest>,
    ) -> Result<Response<v1::ProbeDestinationResponse>, Status> {
        let request = request.into_inner();
        let mut violations = Violations::default();
        let name = violations.parse::<DestinationName>("name", &request.name);
        let presentation = rotation_wire::presentation(&mut violations, request.presentation);
        let version = u32::try_from(request.client_certificate_version).ok();
        if version.is_none() {
            violations.add("client_certificate_version", "must not be negative");
        }
        let ((name, presentation), version) =
            violations.finish(name.zip(presentation).zip(version))?;
        let probed = self.rotations.probe_by_hand(&name, version, presentation);
        let probed = probed.await.map_err(operation_error)?;
        Ok(Response::new(rotation_wire::probed(&probed)))
    }

    async fn reveal_signing_secret(
        &self,
        request: Request<v1::RevealSigningSecretRequest>,
    ) -> Result<Response<v1::RevealSigningSecretResponse>, Status> {
        let text = request.into_inner().name;
        let (name, version) = secret_name(&text)?;
        let (secret, signing_secret) = self
            .destinations
            .reveal_secret(&name, version)
            .await
            .map_err(status::ca)?;
        Ok(Response::new(v1::RevealSigningSecretResponse {
            name: format!("{name}/signingSecrets/{}", secret.version),
            signing_secret: signing_secret.expose().to_owned(),
            create_time: Some(timestamp_to_wire(secret.created_at)),
        }))
    }

    async fn list_signing_public_keys(
        &self,
        request: Request<v1::ListSigningPublicKeysRequest>,
    ) -> Result<Response<v1::ListSigningPublicKeysResponse>, Status> {
        let name: DestinationName = name("name", &request.into_inner().name)?;
        let secrets = self.destinations.store.signing_secrets(&name).await;
        let keys = secrets.map_err(status::store)?;
        let keys = keys.iter().map(|secret| v1::SigningPublicKey {
            name: format!("{name}/signingSecrets/{}", secret.version),
            public_key: public_to_text(&secret.public_key),
            create_time: Some(timestamp_to_wire(secret.created_at)),
            expire_time: secret.expires_at.map(timestamp_to_wire),
        });
        Ok(Response::new(v1::ListSigningPublicKeysResponse {
            public_keys: keys.collect(),
        }))
    }
}

impl DestinationApi {
    async fn configuration(
        &self,
        name: &DestinationName,
        kind: ServerKind,
    ) -> Result<(ReceiverConfiguration, ClientNames), Status> {
        let store = &self.destinations.store;
        let found = store.destination(name).await.map_err(status::store)?;
        let trust_model = found.config.trust_model;
        let owner = match trust_model {
            TrustModel::Dedicated => AuthorityOwner::Account(name.account_name()),
            TrustModel::Shared => AuthorityOwner::Shared,
            TrustModel::Customer => {
                let text = "the receiver's own CA signs this client certificate: its server is \
                            configured with that CA, not with one of ours";
                return Err(status::status(
                    Code::FailedPrecondition,
                    "CUSTOMER_TRUST_MODEL",
                    text,
                ));
            }
        };
        let authorities = store.authorities(&owner).await.map_err(status::store)?;
        let published = authorities.into_iter().filter(|it| it.state.is_published());
        let anchors: Vec<_> = published.map(|it| it.anchor).collect();
        let names = self.destinations.issuing.names(name, trust_model);
        let made = receiver_configuration(kind, name, &names, &anchors);
        Ok((made.map_err(status::receiver_configuration)?, names))
    }

    async fn set_state(
        &self,
        text: &str,
        state: DestinationState,
    ) -> Result<v1::Destination, Status> {
        let name: DestinationName = name("name", text)?;
        let changed = self
            .destinations
            .set_state(&name, state)
            .await
            .map_err(status::store)?;
        Ok(to_wire(&changed))
    }
}

fn server_kind(violations: &mut Violations, wire: i32) -> Option<ServerKind> {
    let kind = match v1::ServerKind::try_from(wire) {
        Ok(v1::ServerKind::Nginx) => ServerKind::Nginx,
        Ok(v1::ServerKind::Haproxy) => ServerKind::HaProxy,
        Ok(v1::ServerKind::Apache) => ServerKind::Apache,
        Ok(v1::ServerKind::Caddy) => ServerKind::Caddy,
        Ok(v1::ServerKind::Envoy) => ServerKind::Envoy,
        Ok(v1::ServerKind::AwsAlb) => ServerKind::AwsAlb,
        Ok(v1::ServerKind::GoogleCloud) => ServerKind::GoogleCloud,
        Ok(v1::ServerKind::Cloudflare) => ServerKind::Cloudflare,
        Ok(v1::ServerKind::Unspecified) => {
            violations.add(
                "server_kind",
                "is required: say what ends TLS at the receiver",
            );
            return None;
        }
        Err(_) => {
            violations.add("server_kind", "is not a known kind of server");
            return None;
        }
    };
    Some(kind)
}

/// `…/signingSecrets/{version}`; `-` is the newest.
fn secret_name(text: &str) -> Result<(DestinationName, Option<u32>), Status> {
    const PATTERN: &str = "accounts/{account}/destinations/{destination}/signingSecrets/{version}";
    let mut violations = Violations::default();
    let parsed = split::<3>(text, PATTERN).map_err(|error| error.to_string());
    let parsed = parsed.and_then(|[account, destination, version]| {
        let name = format!("accounts/{account}/destinations/{destination}");
        let name = name
            .parse::<DestinationName>()
            .map_err(|error| error.to_string())?;
        match version {
            "-" => Ok((name, None)),
            number => match number.parse() {
                Ok(number) => Ok((name, Some(number))),
                Err(_) => Err(format!("'{number}' is neither a version number nor '-'")),
            },
        }
    });
    let parsed = parsed
        .map_err(|problem| violations.add("name", problem))
        .ok();
    violations.finish(parsed)
}
