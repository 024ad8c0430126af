//! The private listener: health, metrics, the API.
//!
//! In: requests on `admin.listen`, and on `api.listen` for the API alone. Out: what this node and,
//! through the control plane, its cluster know. Changes nothing by itself: writes go to the control
//! plane. Who may call is [`guard`]'s business; `/healthz` and `/readyz` are for everybody, because
//! orchestrators ask them without a token.

mod api;
mod audit;
pub mod guard;
mod listener;
pub mod problem;
pub mod routes;
pub mod view;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use prometheus::IntCounterVec;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    assemble::in_use,
    config::{Config, Tls},
    facts::Facts,
    inquiry::Inquiries,
    telemetry::Metrics,
    version::Versions,
    when::now_ms,
};
pub(crate) use api::{EventPage, EventSums};
use guard::{Caller, Door};
use problem::Problem;

/// The largest request body, in bytes. The API takes small JSON objects.
pub const MAX_BODY_BYTES: usize = 64 << 10;
/// How long the API waits for the control plane before it answers 503.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the listener shows.
#[derive(Clone)]
pub struct Shown {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// The control plane.
    pub client: cluster::Client,
    /// Gifts and events.
    pub events: events::Client,
    /// Where changes by the API are kept.
    pub audit: events::Recorder,
    /// Other nodes.
    pub inquiries: Inquiries,
    /// All metrics of the process.
    pub metrics: Metrics,
    /// `tidewater_refused_total`.
    pub refused: IntCounterVec,
    /// What the roles know.
    pub facts: Facts,
    /// Where publishers push, if this process has an RTMP listener.
    pub rtmp: Option<SocketAddr>,
    /// Where viewers connect, if this process has an edge.
    pub http: Option<SocketAddr>,
    /// Whether open doors are worth a warning: not under `dev`, which is open on purpose.
    pub warns: bool,
    /// Cancelled when the node begins to stop.
    pub stop: CancellationToken,
}

/// A running listener.
pub struct Listener {
    /// Where it listens, with the real port.
    pub address: SocketAddr,
    /// Dropped without [`Listener::closed`], it ends at once.
    task: AbortOnDropHandle<()>,
}

impl Listener {
    /// Opens `admin.listen`.
    ///
    /// # Errors
    /// If the address cannot be had; names the key to change.
    pub async fn admin(shown: Shown, closed: CancellationToken) -> anyhow::Result<Self> {
        let address = shown.config.borrow().admin.listen.clone();
        let socket =
            TcpListener::bind(&address).await.with_context(|| in_use("admin.listen", &address))?;
        let address = socket.local_addr()?;
        let serve = listener::serve(socket, None, router(shown, Door::Admin), closed);
        Ok(Self { address, task: AbortOnDropHandle::new(tokio::spawn(serve)) })
    }

    /// Opens `api.listen` where it is not off.
    ///
    /// # Errors
    /// If the address cannot be had or the certificate is none; names the key to change.
    pub async fn api(shown: Shown, closed: CancellationToken) -> anyhow::Result<Option<Self>> {
        let api = shown.config.borrow().api.clone();
        let Some(address) = api.listen else { return Ok(None) };
        let tls = api.tls.as_ref().map(acceptor).transpose()?;
        let socket =
            TcpListener::bind(address).await.with_context(|| in_use("api.listen", &address))?;
        let address = socket.local_addr()?;
        let serve = listener::serve(socket, tls, router(shown, Door::Api), closed);
        Ok(Some(Self { address, task: AbortOnDropHandle::new(tokio::spawn(serve)) }))
    }

    /// Waits until the requests in flight are answered, after its token was cancelled.
    pub async fn closed(self) {
        // An error is a panic, which has been reported where it happened.
        let _ = self.task.await;
    }
}

fn router(shown: Shown, door: Door) -> Router {
    let guarded = match door {
        Door::Admin => api::routes().route("/metrics", get(metrics)),
        Door::Api => api::routes(),
    };
    let guarded = guarded
        .fallback(|| async { Problem::not_found("there is no such resource here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this resource does not take that method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state((shown.clone(), door), guarded_by_rules));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback_service(guarded.with_state(shown.clone()))
        .with_state(shown)
}

async fn guarded_by_rules(
    State((shown, door)): State<(Shown, Door)>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let config = Arc::clone(&shown.config.borrow());
    let (bars, now_s) = (shown.client.bars(), now_ms() / 1000);
    let rules = (&config.admin, &*bars);
    let who = match guard::check(door, rules, caller, request.headers(), now_s) {
        Ok(who) => who,
        Err((reason, problem)) => {
            shown.refused.with_label_values(&["admin", reason]).inc();
            tracing::info!(peer = %caller.peer, reason, "admin call refused");
            return problem.into_response();
        }
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let needed = routes::needed(&method, &path);
    let mut response = if who.may(needed) {
        next.run(request).await
    } else {
        shown.refused.with_label_values(&["admin", "scope"]).inc();
        let what = format!("the token does not allow this: it lacks the scope {needed}");
        Problem::new(StatusCode::FORBIDDEN, what).into_response()
    };
    audit::record(&shown, &who, caller.peer.ip(), (&method, &path), &response);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}

async fn ready(State(shown): State<Shown>) -> Response {
    let mut not_ready = shown.facts.not_ready();
    if shown.stop.is_cancelled() {
        not_ready.push("shutting down".to_owned());
    }
    let warnings = match shown.warns {
        true => shown.config.borrow().open_doors().into_iter().map(open_door).collect(),
        false => Vec::new(),
    };
    let ready = not_ready.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(view::Ready { ready, not_ready, warnings })).into_response()
}

/// What an open door means, for `/readyz` and the log.
#[must_use]
pub fn open_door(door: &'static str) -> String {
    let meaning = match door {
        "auth.publish=open" => "anyone who reaches rtmp.listen may push",
        "auth.allow_guests=true" => "anyone who reaches http.listen may watch and open rooms",
        _ => "gifts are taken without a shop order",
    };
    format!("{door}: {meaning}")
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be rendered")
                .into_response()
        }
    }
}

/// `/api/v1/openapi.json`.
async fn openapi() -> Json<serde_json::Value> {
    Json(routes::document())
}

/// `/api/v1/version`.
async fn version() -> Json<Versions> {
    Json(Versions::of_this_build())
}

fn acceptor(tls: &Tls) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("api.tls.cert: cannot read {}", tls.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("api.tls.key: cannot read {}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("api.tls: the certificate and the key cannot be used")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests;
