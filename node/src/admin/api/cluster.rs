//! `/api/v1/cluster`: the nodes, who leads, who votes.
//!
//! In: requests that the guard let through. Out: what the control plane says; changes go to its
//! leader. A backup is taken by the leader.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use wire::{
    NodeId,
    control::{ClusterStatus, Part},
    identity::enrol::{Fingerprint, JoinToken},
};

use super::{Answer, asked, json};
use crate::admin::{Shown, problem::Problem, view};

/// The routes, unguarded.
pub(super) fn routes() -> Router<Shown> {
    Router::new()
        .route("/api/v1/cluster", get(status))
        .route("/api/v1/cluster/leader", post(transfer_leader))
        .route("/api/v1/cluster/members", post(add_member))
        .route("/api/v1/cluster/backup", get(backup))
        .route("/api/v1/cluster/tokens", post(create_token))
        .route("/api/v1/cluster/nodes/{id}", delete(remove_node))
        .route("/api/v1/cluster/nodes/{id}/drain", post(drain).delete(undo_drain))
}

async fn status(State(shown): State<Shown>) -> Answer<Json<view::Cluster>> {
    Ok(Json(cluster_view(&asked(shown.client.status()).await?)))
}

async fn transfer_leader(
    State(shown): State<Shown>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<StatusCode> {
    let new: view::NewLeader = json(&headers, &body)?;
    let to = new.to.as_deref().map(node_id).transpose()?;
    asked(shown.client.transfer_leader(to.as_ref())).await?;
    tracing::info!(to = to.map(tracing::field::display), "leadership handed on by the operator");
    Ok(StatusCode::NO_CONTENT)
}

async fn add_member(
    State(shown): State<Shown>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let new: view::NewMember = json(&headers, &body)?;
    let id = node_id(&new.id)?;
    let mut addresses = tokio::net::lookup_host(&new.address)
        .await
        .map_err(|e| Problem::bad_request(format!("address {:?}: {e}", new.address)))?;
    let Some(address) = addresses.next() else {
        return Err(Problem::bad_request(format!("address {:?} has no address", new.address)));
    };
    let raft_id = asked(shown.client.add_member(&id, address)).await?;
    tracing::info!(node = %id, %address, raft_id, "control node admitted");
    let admitted = view::Admitted { id: id.to_string(), raft_id };
    Ok((StatusCode::CREATED, Json(admitted)).into_response())
}

/// A token with which one new node gets its certificate. It carries the fingerprint of the CA, so that
/// the new node knows whom to trust.
async fn create_token(
    State(shown): State<Shown>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let new: view::NewJoinToken = json(&headers, &body)?;
    let node = new.node.as_deref().map(node_id).transpose()?;
    let config = shown.config.borrow().clone();
    let Some(ca) = config.cluster.ca.clone() else {
        let why = "this cluster has no CA in files (cluster.ca); dev makes its certificates itself";
        return Err(Problem::new(StatusCode::CONFLICT, why.to_owned()));
    };
    let read = tokio::task::spawn_blocking(move || Fingerprint::of_file(&ca)).await;
    let ca = match read {
        Ok(Ok(ca)) => ca,
        Ok(Err(error)) => return Err(Problem::unavailable(format!("cluster.ca: {error}"))),
        Err(_) => return Err(Problem::unavailable("cluster.ca could not be read")),
    };
    let ttl = Duration::from_secs(u64::from(new.ttl_s));
    let ::cluster::NewKey { id, key } =
        asked(shown.client.create_join_token(node.as_ref(), ttl)).await?;
    let only = node.as_ref().map(tracing::field::display);
    tracing::info!(token = %id, node = only, ttl_s = new.ttl_s, "join token created");
    let token = JoinToken { id, secret: key, ca }.to_string();
    // Only a node that signs can say where: its own QUIC address, by TCP.
    let join = match &config.cluster.ca_key {
        Some(_) => {
            let nodes = shown.client.nodes();
            let row = nodes.borrow().get(shown.client.node()).map(|row| row.spec.addr);
            row.map(|address| address.to_string())
        }
        None => None,
    };
    let made = view::CreatedJoinToken { token, ttl_s: new.ttl_s, join };
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

async fn remove_node(State(shown): State<Shown>, Path(id): Path<String>) -> Answer<StatusCode> {
    let id = node_id(&id)?;
    asked(shown.client.remove_node(&id)).await?;
    tracing::info!(node = %id, "node removed");
    Ok(StatusCode::NO_CONTENT)
}

async fn drain(State(shown): State<Shown>, Path(id): Path<String>) -> Answer<StatusCode> {
    set_draining(&shown, &id, true).await
}

async fn undo_drain(State(shown): State<Shown>, Path(id): Path<String>) -> Answer<StatusCode> {
    set_draining(&shown, &id, false).await
}

async fn set_draining(shown: &Shown, id: &str, draining: bool) -> Answer<StatusCode> {
    let id = node_id(id)?;
    asked(shown.client.drain(&id, draining)).await?;
    tracing::info!(node = %id, draining, "drain set by the operator");
    Ok(StatusCode::NO_CONTENT)
}

/// The replicated state as a file for `cluster restore`, and in a header the log index it is of.
async fn backup(State(shown): State<Shown>) -> Answer<Response> {
    let status = asked(shown.client.status()).await?;
    let backup = shown.inquiries.backup(&status).await;
    let backup = backup.map_err(|error| Problem::unavailable(format!("no backup: {error}")))?;
    tracing::info!(revision = backup.revision, bytes = backup.bytes.len(), "backup taken");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (view::REVISION_HEADER, HeaderValue::from(backup.revision)),
    ];
    Ok((headers, backup.bytes).into_response())
}

fn cluster_view(status: &ClusterStatus) -> view::Cluster {
    let members = status.members.iter().map(|member| view::Member {
        id: member.node.to_string(),
        raft_id: member.raft_id,
        address: member.addr.to_string(),
        part: match member.part {
            Part::Voter => "voter",
            Part::Learner => "learner",
            Part::Joining => "joining",
        }
        .to_owned(),
    });
    let nodes = status.nodes.iter().map(|node| {
        let spec = &node.info.spec;
        view::Node {
            id: spec.id.to_string(),
            roles: spec.roles.names().map(str::to_owned).collect(),
            region: spec.region.to_string(),
            state: node.info.state.to_string(),
            address: spec.addr.to_string(),
            rooms: node.homes,
            viewers: node.load.map(|load| load.viewers),
            cpu_permille: node.load.map(|load| load.cpu_permille),
            egress_bps: node.load.map(|load| load.egress_bps),
            log: spec.versions.log,
            render: spec.versions.render,
        }
    });
    view::Cluster {
        cluster: status.cluster.to_string(),
        leader: status.leader.as_ref().map(ToString::to_string),
        term: status.term,
        revision: status.revision,
        members: members.collect(),
        nodes: nodes.collect(),
        rooms: status.rooms,
    }
}

pub(super) fn node_id(text: &str) -> Answer<NodeId> {
    NodeId::new(text).map_err(|e| Problem::bad_request(e.to_string()))
}
