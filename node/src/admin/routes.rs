//! Every route of the API: what it is for, what it needs, what it takes and answers.
//!
//! In: nothing. Out: the scope that a request needs, and the OpenAPI document. A test holds the table against
//! the routers. What is not in it needs every scope there is.

use ::cluster::access::AdminScope;
use http::Method;
use serde_json::{Value, json};

/// One method of one path.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// What a token must allow.
    pub scope: AdminScope,
    /// What it does, one line.
    pub about: &'static str,
    /// The status of success.
    pub status: u16,
    /// The fields of the query.
    pub query: &'static [&'static str],
    /// The fields of the body: `name:type`, with `!` where it must be there; none without a body.
    pub body: &'static [&'static str],
}

use AdminScope::{Cluster, Keys, Moderate, Read, Rooms};

const PAGE: &[&str] = &["after", "limit"];

const fn get(path: &'static str, about: &'static str) -> Route {
    Route { method: "get", path, scope: Read, about, status: 200, query: &[], body: &[] }
}

const fn list(path: &'static str, about: &'static str) -> Route {
    Route { query: PAGE, ..get(path, about) }
}

const fn post(
    path: &'static str,
    scope: AdminScope,
    about: &'static str,
    (status, body): (u16, &'static [&'static str]),
) -> Route {
    Route { method: "post", path, scope, about, status, query: &[], body }
}

const fn delete(path: &'static str, scope: AdminScope, about: &'static str) -> Route {
    Route { method: "delete", path, scope, about, status: 204, query: &[], body: &[] }
}

/// All of them.
pub const ROUTES: &[Route] = &[
    get("/api/v1/version", "Which build this is, and which formats it speaks"),
    get("/api/v1/openapi.json", "This document"),
    list("/api/v1/rooms", "Active rooms, by name"),
    get("/api/v1/rooms/{app}/{name}", "One active room: its home, state, viewers and publisher"),
    Route {
        method: "put",
        scope: Rooms,
        body: &[
            "user:string",
            "name:string",
            "role:string",
            "ttl_s:integer",
            "push_ttl_s:integer",
            "open:boolean",
        ],
        ..get(
            "/api/v1/rooms/{app}/{name}",
            "Everything an app hands out for a room: where to push, watch and talk, with tokens",
        )
    },
    post(
        "/api/v1/rooms/{app}/{name}/place",
        Cluster,
        "Move a room to another origin; viewers go on",
        (200, &["to:string"]),
    ),
    get("/api/v1/rooms/{app}/{name}/push", "Whether pushes to a room are forbidden"),
    post(
        "/api/v1/rooms/{app}/{name}/push/stop",
        Rooms,
        "End a room's stream at once; it may come back",
        (204, &[]),
    ),
    post("/api/v1/rooms/{app}/{name}/kick", Rooms, "The same as push/stop", (204, &[])),
    post(
        "/api/v1/rooms/{app}/{name}/push/forbid",
        Rooms,
        "End a room's stream at once and let nobody push, for a time or for good",
        (200, &["seconds:integer", "until_unix_s:integer", "reason:string"]),
    ),
    post("/api/v1/rooms/{app}/{name}/push/resume", Rooms, "Let publishers push again", (204, &[])),
    list("/api/v1/forbidden", "Rooms that nobody may push to"),
    post(
        "/api/v1/rooms/{app}/{name}/messages",
        Rooms,
        "Say something in a room, or give a gift, in the name of a user",
        (
            200,
            &[
                "t:string!",
                "c:string",
                "u:object!",
                "x:string",
                "pts:integer",
                "g:string",
                "n:integer",
                "order:string",
            ],
        ),
    ),
    post(
        "/api/v1/rooms/{app}/{name}/moderation",
        Moderate,
        "Delete, mute, ban, pardon, kick, pin, set the room's mode",
        (204, &["action:string!"]),
    ),
    get("/api/v1/rooms/{app}/{name}/interaction", "What goes on among a room's members"),
    get("/api/v1/rooms/{app}/{name}/members", "Who is in a room"),
    Route {
        query: &["after", "limit", "room"],
        ..get("/api/v1/keys", "Publish keys, without their secrets")
    },
    post(
        "/api/v1/keys",
        Keys,
        "Make a publish key; its secret is in this answer only",
        (
            201,
            &[
                "room:string!",
                "from_unix_s:integer",
                "until_unix_s:integer",
                "once:boolean",
                "allow:array",
            ],
        ),
    ),
    delete("/api/v1/keys/{id}", Keys, "Revoke a publish key"),
    post(
        "/api/v1/keys/{id}/rotate",
        Keys,
        "Make a key in place of another, which still opens for overlap_s seconds",
        (201, &["overlap_s:integer"]),
    ),
    post(
        "/api/v1/tokens",
        Keys,
        "Sign a token for a publisher, viewer or member",
        (
            201,
            &[
                "room:string!",
                "role:string!",
                "user:string",
                "name:string",
                "expires_unix_s:integer!",
            ],
        ),
    ),
    list("/api/v1/revocations", "Tokens that were taken back"),
    post(
        "/api/v1/revocations",
        Keys,
        "Take back a token by its id, a user's tokens, or all of a room",
        (
            201,
            &[
                "token:string",
                "user:string",
                "room:string",
                "before_unix_s:integer",
                "until_unix_s:integer",
                "reason:string",
            ],
        ),
    ),
    Route {
        query: &["token", "user", "room"],
        ..delete("/api/v1/revocations", Keys, "Lift a revocation")
    },
    post(
        "/api/v1/admin-tokens",
        Cluster,
        "Sign a token for a caller of this API",
        (201, &["name:string!", "scopes:array!", "expires_unix_s:integer!"]),
    ),
    Route {
        query: &["after", "limit", "since", "until", "room"],
        ..get("/api/v1/events", "Gifts and events in the order of their times")
    },
    Route {
        query: &["since", "until", "room"],
        ..get("/api/v1/events/totals", "What gifts add up to")
    },
    get("/api/v1/cluster", "The nodes, who leads, who votes"),
    post("/api/v1/cluster/leader", Cluster, "Hand leadership on", (204, &["to:string"])),
    post(
        "/api/v1/cluster/members",
        Cluster,
        "Admit a control node to the voters",
        (201, &["id:string!", "address:string!"]),
    ),
    Route {
        scope: Cluster,
        ..get("/api/v1/cluster/backup", "The replicated state, as a file for cluster restore")
    },
    post(
        "/api/v1/cluster/tokens",
        Cluster,
        "A token with which one new node fetches its certificate",
        (201, &["node:string", "ttl_s:integer!"]),
    ),
    delete("/api/v1/cluster/nodes/{id}", Cluster, "Remove a node for good"),
    post(
        "/api/v1/cluster/nodes/{id}/drain",
        Cluster,
        "Move a node's rooms and viewers away",
        (204, &[]),
    ),
    delete("/api/v1/cluster/nodes/{id}/drain", Cluster, "Take a drained node back into service"),
];

/// What a request needs. Looking needs [`AdminScope::Read`] where the table says no more; anything else that
/// is not in it needs [`AdminScope::Cluster`].
#[must_use]
pub fn needed(method: &Method, path: &str) -> AdminScope {
    let wanted =
        if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let listed = ROUTES.iter().find(|route| route.method == wanted && matches(route.path, path));
    match listed {
        Some(route) => route.scope,
        None if path == "/metrics" => Read,
        None => Cluster,
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut parts, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (parts.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(given)) if part.starts_with('{') && !given.is_empty() => {}
            (Some(part), Some(given)) if part == given => {}
            _ => return false,
        }
    }
}

/// The document (OpenAPI 3.1).
#[must_use]
pub fn document() -> Value {
    let mut paths = serde_json::Map::new();
    for route in ROUTES {
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[route.method] = operation(route);
    }
    let problem = json!({
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What was wrong and what to do"},
        },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidewater",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Rooms, pushes, keys, tokens and the cluster. Served at admin.listen, and at api.listen for back-ends.",
        },
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route) -> Value {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({"type": "string"});
    let in_path =
        names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": text}));
    let in_query = route.query.iter().map(|name| {
        let schema = match *name {
            "limit" => json!({"type": "integer", "minimum": 1, "maximum": wire::control::MAX_PAGE}),
            _ => text.clone(),
        };
        json!({"name": name, "in": "query", "schema": schema})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let problem = json!({
        "description": "Why not",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    let mut success = json!({"description": "Done"});
    if route.status != 204 {
        let kind = match route.path {
            "/api/v1/cluster/backup" => "application/octet-stream",
            _ => "application/json",
        };
        success["content"] = json!({kind: {}});
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.about,
        "description": format!("Needs the scope {}.", route.scope),
        "parameters": parameters,
        "responses": {route.status.to_string(): success, "default": problem},
    });
    if !route.body.is_empty() {
        let required: Vec<&str> = route
            .body
            .iter()
            .filter_map(|field| field.strip_suffix('!')?.split(':').next())
            .collect();
        let fields = route.body.iter().filter_map(|field| {
            let (name, kind) = field.trim_end_matches('!').split_once(':')?;
            let schema = match kind {
                "array" => json!({"type": "array", "items": {"type": "string"}}),
                kind => json!({"type": kind}),
            };
            Some((name.to_owned(), schema))
        });
        let properties: serde_json::Map<String, Value> = fields.collect();
        let schema = json!({"type": "object", "required": required, "properties": properties});
        operation["requestBody"] = json!({
            "required": !required.is_empty(),
            "content": {"application/json": {"schema": schema}},
        });
    }
    operation
}

/// The method and the words of the path.
fn operation_id(route: &Route) -> String {
    let words = route.path.trim_start_matches("/api/v1/").split(['/', '-', '.']);
    let words = words.map(|word| word.trim_matches(['{', '}']));
    std::iter::once(route.method).chain(words).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The routes of the routers, by their source: `.route("PATH", get(…).post(…))`.
    fn routed(source: &str) -> BTreeSet<(String, String)> {
        let code = source.split("#[cfg(test)]").next().unwrap();
        let mut found = BTreeSet::new();
        for call in code.split(".route(").skip(1) {
            let path = call.split('"').nth(1).unwrap();
            let mut depth = 1;
            let end = call.find(|c| {
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                depth == 0
            });
            let call = &call[..end.unwrap()];
            for method in ["get", "put", "post", "delete"] {
                if call.contains(&format!("{method}(")) {
                    found.insert((path.to_owned(), method.to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn the_table_is_true_to_the_routers() {
        let mut there = BTreeSet::new();
        let api = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/api");
        let files = std::fs::read_dir(&api).unwrap().map(|entry| entry.unwrap().path());
        for file in files.chain([api.with_extension("rs")]) {
            there.extend(routed(&std::fs::read_to_string(file).unwrap()));
        }
        let listed: BTreeSet<_> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_owned())).collect();
        assert!(there.len() > 20, "the walk found only {}", there.len());
        assert_eq!(listed.len(), ROUTES.len(), "one stands twice");
        let missing: Vec<_> = there.difference(&listed).collect();
        let unknown: Vec<_> = listed.difference(&there).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "lacks {missing:?}, invents {unknown:?}");
    }

    #[test]
    fn requests_need_their_scope_and_what_is_unknown_needs_the_highest() {
        for (method, path, scope) in [
            (Method::GET, "/api/v1/rooms", Read),
            (Method::HEAD, "/api/v1/rooms", Read),
            (Method::PUT, "/api/v1/rooms/live/c", Rooms),
            (Method::POST, "/api/v1/rooms/live/c/push/forbid", Rooms),
            (Method::POST, "/api/v1/rooms/live/c/moderation", Moderate),
            (Method::DELETE, "/api/v1/keys/0123", Keys),
            (Method::GET, "/api/v1/cluster/backup", Cluster),
            (Method::GET, "/metrics", Read),
            (Method::GET, "/api/v1/rooms//c", Cluster),
            (Method::PATCH, "/api/v1/rooms", Cluster),
            (Method::POST, "/api/v1/new", Cluster),
        ] {
            assert_eq!(needed(&method, path), scope, "{method} {path}");
        }
    }

    #[test]
    fn the_document_names_every_operation_once() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let operations: Vec<_> =
            paths.values().flat_map(|path| path.as_object().unwrap().values()).collect();
        let ids: BTreeSet<_> =
            operations.iter().map(|o| o["operationId"].as_str().unwrap()).collect();
        assert_eq!((operations.len(), ids.len()), (ROUTES.len(), ROUTES.len()));
        let body = &paths["/api/v1/keys"]["post"]["requestBody"];
        assert_eq!(body["content"]["application/json"]["schema"]["required"], json!(["room"]));
        assert_eq!(paths["/api/v1/rooms/{app}/{name}"]["get"]["parameters"][1]["name"], "name");
    }
}
