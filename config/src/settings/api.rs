//! The settings of the HTTP API.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::secret::Secret;

/// The HTTP API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiSettings {
    /// Address and port to listen on; port 0 takes any free one. Default `127.0.0.1:8080`, which only this
    /// machine can reach.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub listen: SocketAddr,
    /// Longest request body, in bytes; longer ones get 413. Default 1,048,576.
    #[schemars(range(min = 1_024, max = 67_108_864))]
    pub body_bytes_max: usize,
    /// Longest a request may take, in milliseconds; then it gets 503. Default 10,000.
    #[schemars(range(min = 10, max = 600_000))]
    pub request_timeout_ms: u64,
    /// Longest a client may take to send its headers, in milliseconds; then the connection is closed.
    /// Default 10,000.
    #[schemars(range(min = 100, max = 60_000))]
    pub header_timeout_ms: u64,
    /// Requests served at the same time; the excess gets 503 with `Retry-After`. Default 512.
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrency_max: usize,
    /// `Cache-Control` of cacheable answers. Default `max-age=60, private`.
    #[schemars(length(min = 1, max = 200))]
    pub cache_control: String,
    /// Web origins whose pages may call, such as `https://app.example`; `*` for all. Default none.
    pub cors_origins: Vec<String>,
    /// How often one user may call.
    pub rate_limit: RateSettings,
    /// Streams of live changes.
    pub streams: StreamSettings,
    /// Whose bearer tokens are taken.
    pub auth: AuthSettings,
}

/// How often one user may call; beyond it, 429 with `Retry-After`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSettings {
    /// Requests a second, of one user on one instance. Default 0: no limit; staging and production 100.
    #[schemars(range(max = 1_000_000))]
    pub per_second: u32,
    /// Requests that may come at once after a pause. Default 200.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

/// Streams of live changes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Changes that a client can miss and still get one by one; beyond it, it gets whole documents. Fewer where they
    /// take more than 64 MiB of memory. Default 20,000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub retained: usize,
    /// Streams open at the same time; the excess gets 503 with `Retry-After`. Default 5,000.
    #[schemars(range(min = 1, max = 100_000))]
    pub clients_max: usize,
    /// Streams of one user open at the same time; the excess gets 429. Default 500.
    #[schemars(range(min = 1, max = 100_000))]
    pub user_clients_max: usize,
    /// How often a stream shows that it lives while nothing changes, in milliseconds. Default 15,000.
    #[schemars(range(min = 10, max = 600_000))]
    pub heartbeat_ms: u64,
    /// Name of this instance among those that share a bus: its own, and the same after a restart, such as the name of a
    /// pod in a StatefulSet. Part of a subscription that keeps, while the instance is away, what its clients miss.
    /// Default empty: the only instance on its bus, as on an embedded one.
    #[schemars(length(max = 64))]
    pub instance: String,
}

/// Whose bearer tokens (JWT) are taken, and what their claims mean.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// The `iss` that every token must have. Default `smartpulse`.
    #[schemars(length(min = 1, max = 500))]
    pub issuer: String,
    /// The `aud` that every token must have, alone or among others. Default `smartpulse`.
    #[schemars(length(min = 1, max = 500))]
    pub audience: String,
    /// The keys that tokens are signed with; several while keys change. Default `[{ kind: development }]`, which
    /// is refused outside the environment `development`.
    pub keys: Vec<AuthKey>,
    /// The claims that say who calls.
    pub claims: ClaimNames,
}

/// A key that tokens are signed with. Each has one algorithm: a token that names another is refused.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthKey {
    /// HS256 with a secret that everybody knows. For one machine and the environment `development` only.
    Development {},
    /// HS256.
    Hs256 {
        /// The shared secret: at least 32 bytes.
        secret: Secret,
        /// The `kid` of its tokens; without it, tokens of any `kid`.
        #[serde(default)]
        kid: Option<String>,
    },
    /// RS256: RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 {
        /// The public key as PEM.
        public_key: String,
        /// The `kid` of its tokens; without it, tokens of any `kid`.
        #[serde(default)]
        kid: Option<String>,
    },
    /// ES256: ECDSA on P-256 with SHA-256.
    Es256 {
        /// The public key as PEM.
        public_key: String,
        /// The `kid` of its tokens; without it, tokens of any `kid`.
        #[serde(default)]
        kid: Option<String>,
    },
    /// The RS256 and ES256 keys that an issuer publishes (RFC 7517). Fetched when they are first needed, every ten
    /// minutes, and, at most once a minute, when a token names a `kid` that is not among them. Needs a build with
    /// the feature `jwks`, which `full` includes.
    Jwks {
        /// Where: `https`, or `http` on a loopback address.
        url: String,
    },
}

/// The names of the claims that say who calls.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimNames {
    /// The user: a UUID. Default `sub`.
    #[schemars(length(min = 1, max = 200))]
    pub user: String,
    /// The role, or a list of which the highest counts: `viewer`, `editor` or `admin`. Default `role`.
    #[schemars(length(min = 1, max = 200))]
    pub role: String,
    /// The company, or a list of them: UUIDs. None for who sees nothing, unless it is an admin. Default `company`.
    #[schemars(length(min = 1, max = 200))]
    pub company: String,
}
