//! What the settings say about a SQL Server.

use schemars::JsonSchema;
use serde::Deserialize;
use smartpulse_config::Secret;
use smartpulse_pipeline::error::{Error, Result};
use smartpulse_pipeline::registry::Check;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tiberius::{AuthMethod, EncryptionLevel};

/// What the server's administrators see in `sys.dm_exec_sessions`.
const APPLICATION_NAME: &str = "smartpulse";

/// The port that SQL Server Browser answers on: `tiberius` gives it for a named instance.
const BROWSER_PORT: &str = ":1434";

/// The most connections of a pool. A server has a few hundred workers for all its clients.
const POOL_MAX: u32 = 100;

/// A SQL Server database, version 2017 or later, or Azure SQL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SqlServerConfig {
    /// An ADO.NET connection string, such as `Server=tcp:db,1433;Database=smartpulse;User Id=app;Password=...`. Either this
    /// or `host` and its neighbours. It holds a password, so it comes from `${env:NAME}` or `${file:PATH}`.
    pub connection_string: Option<Secret>,
    /// The server's name or address.
    pub host: Option<String>,
    /// The server's TCP port. Default 1433. Named instances are not looked up: give their port.
    pub port: u16,
    /// The database. Default `smartpulse`.
    pub database: String,
    /// The SQL login.
    pub user: Option<String>,
    /// The login's password, from `${env:NAME}` or `${file:PATH}`.
    pub password: Option<Secret>,
    /// `true`: everything is encrypted, and a server that cannot is refused. `false`: only the login is, where the
    /// server can. Default `true`. With a connection string, `Encrypt` in it counts.
    pub encrypt: bool,
    /// A file with the certificates (PEM or DER) of authorities to trust beside those of the system.
    pub ca_file: Option<String>,
    /// The name that the server's certificate must have, when it is not `host`.
    pub certificate_host: Option<String>,
    /// Believes any certificate: whoever sits between here and the server can then read and change everything.
    /// Default `false`. Not together with `ca_file`.
    pub trust_server_certificate: bool,
    /// How long connecting may take, login included, in milliseconds. Default 5,000.
    #[schemars(range(min = 100, max = 120_000))]
    pub connect_timeout_ms: u64,
    /// How long one statement may take, in milliseconds. Default 5,000: a server that is silent for longer counts as
    /// away. A lock is waited for at most four fifths of it.
    #[schemars(range(min = 100, max = 600_000))]
    pub command_timeout_ms: u64,
    /// How many connections reads and writes have at most, 1 to 100. Default 10. Beside them capture has one
    /// per captured table and one more, and its ledger two.
    #[schemars(range(min = 1, max = 100))]
    pub pool_max: u32,
    /// The tables whose changes are captured, each with the section that its entities belong to. Each needs a primary
    /// key and a `VersionId`. Default `{Forecasts: forecast, ProductionUnits: unit}`.
    pub captured_tables: BTreeMap<String, String>,
}

impl Default for SqlServerConfig {
    fn default() -> Self {
        let captured = [("Forecasts", "forecast"), ("ProductionUnits", "unit")];
        Self {
            connection_string: None,
            host: None,
            port: 1433,
            database: "smartpulse".to_owned(),
            user: None,
            password: None,
            encrypt: true,
            ca_file: None,
            certificate_host: None,
            trust_server_certificate: false,
            connect_timeout_ms: 5_000,
            command_timeout_ms: 5_000,
            pool_max: 10,
            captured_tables: captured.map(|(table, section)| (table.to_owned(), section.to_owned())).into(),
        }
    }
}

impl SqlServerConfig {
    /// Settings that are this connection string alone, as tests have them.
    #[must_use]
    pub fn from_connection_string(text: impl Into<String>) -> Self {
        Self { connection_string: Some(Secret::new(text)), ..Self::default() }
    }

    /// What cannot work, with the field that it is about.
    pub(crate) fn check(&self, check: &mut Check<'_>) {
        if let Err(problem) = self.problems() {
            check.problem(problem.field, problem.text, problem.help.map(str::to_owned));
        }
    }

    fn problems(&self) -> Result<(), Problem> {
        if self.connection_string.is_some() {
            if let Some(field) = self.host.as_ref().map(|_| "host").or(self.user.as_ref().map(|_| "user")) {
                return Err(Problem::new(field, "cannot stand beside connection_string", "keep one of the two"));
            }
        } else if self.host.is_none() || self.user.is_none() || self.password.is_none() {
            let help = "give connection_string, or host, user and password";
            return Err(Problem::new("", "does not say how to reach the server", help));
        }
        if self.trust_server_certificate && self.ca_file.is_some() {
            let text = "cannot stand beside ca_file: one believes any certificate, the other checks it";
            return Err(Problem::new("trust_server_certificate", text, "remove trust_server_certificate"));
        }
        if !(1..=POOL_MAX).contains(&self.pool_max) {
            return Err(Problem::new("pool_max", format!("must be from 1 to {POOL_MAX}"), ""));
        }
        if let Some((table, _)) = self.captured_tables.iter().find(|(t, s)| !is_identifier(t) || !is_identifier(s)) {
            let text = format!("{table:?}: tables and sections are letters, digits and _ only, 128 at most");
            return Err(Problem::new("captured_tables", text, ""));
        }
        self.tds().map(|_| ())
    }

    /// How to connect.
    ///
    /// # Errors
    /// Fatal when the settings contradict each other.
    pub fn connect(&self) -> Result<Connect> {
        self.problems().and_then(|()| self.tds()).map_err(|problem| {
            let at = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
            Error::fatal(format!("the settings of the SQL Server resource cannot work: {at}{}", problem.text))
        })
    }

    fn tds(&self) -> Result<Connect, Problem> {
        let mut tds = match &self.connection_string {
            Some(text) => from_ado(text.expose())?,
            None => self.tds_of_fields(),
        };
        let bypassed = self.connection_string.as_ref().is_some_and(|text| ado_trusts(text.expose()));
        match &self.ca_file {
            // `tiberius` panics on this pair.
            Some(_) if bypassed => {
                let text = "cannot stand beside TrustServerCertificate=true in the connection string";
                return Err(Problem::new("ca_file", text, "remove one of the two"));
            }
            Some(file) => tds.trust_cert_ca(file),
            None if self.trust_server_certificate && !bypassed => {
                let own = self.connection_string.as_ref();
                if own.is_some_and(|text| ado(text.expose(), &["trustservercertificateca"]).is_some()) {
                    let text = "cannot stand beside TrustServerCertificateCA in the connection string";
                    return Err(Problem::new("trust_server_certificate", text, "remove one of the two"));
                }
                tds.trust_cert();
            }
            None => {}
        }
        if let Some(host) = &self.certificate_host {
            tds.hostname_in_certificate(host);
        }
        tds.application_name(APPLICATION_NAME);
        // A text with half a surrogate pair would end the whole result; so it only gets U+FFFD in its place.
        tds.lossy_utf16_decoding(true);
        // Our own time-outs bound the whole of connecting and the whole of a call.
        tds.handshake_timeout(None);
        tds.command_timeout(None);
        let address = tds.get_addr();
        if address.ends_with(BROWSER_PORT) {
            let help = "give the port of the instance: Server=tcp:HOST,PORT";
            return Err(Problem::new("connection_string", "names an instance, which is not looked up", help));
        }
        Ok(Connect {
            tds,
            address,
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            command_timeout: Duration::from_millis(self.command_timeout_ms),
        })
    }

    fn tds_of_fields(&self) -> tiberius::Config {
        let mut tds = tiberius::Config::new();
        tds.host(self.host.as_deref().unwrap_or("localhost"));
        tds.port(self.port);
        tds.database(&self.database);
        let password = self.password.as_ref().map_or("", Secret::expose);
        tds.authentication(AuthMethod::sql_server(self.user.as_deref().unwrap_or_default(), password));
        tds.encryption(if self.encrypt { EncryptionLevel::Required } else { EncryptionLevel::Off });
        tds
    }

    /// The section of a table's entities; the table's own name where the settings give none.
    #[must_use]
    pub fn section<'a>(&'a self, table: &'a str) -> &'a str {
        self.captured_tables.get(table).map_or(table, String::as_str)
    }
}

/// How to connect, worked out of the settings.
#[derive(Clone)]
pub struct Connect {
    tds: tiberius::Config,
    address: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
}

impl Connect {
    pub(crate) fn tds(&self) -> tiberius::Config {
        self.tds.clone()
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// How long the server waits for a lock: less than we wait for the server, so that the server can say so.
    pub(crate) fn lock_timeout(&self) -> Duration {
        self.command_timeout * 4 / 5
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Problem {
    field: &'static str,
    text: String,
    help: Option<&'static str>,
}

impl Problem {
    fn new(field: &'static str, text: impl Into<String>, help: &'static str) -> Self {
        Self { field, text: text.into(), help: (!help.is_empty()).then_some(help) }
    }
}

/// True for `^[A-Za-z_][A-Za-z0-9_]{0,127}$`, which names in YAML must match.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 128
}

fn from_ado(text: &str) -> Result<tiberius::Config, Problem> {
    // The reasons that `tiberius` gives name keys and never values.
    let refused = |error| Problem::new("connection_string", format!("cannot be read: {error}"), "");
    let tds = tiberius::Config::from_ado_string(text).map_err(refused)?;
    if ado(text, &["database", "initial catalog", "databasename"]).is_none() {
        let help = "add Database=NAME; without it the login's default is used, often master";
        return Err(Problem::new("connection_string", "names no database", help));
    }
    Ok(tds)
}

/// The value of a key of a connection string, whichever of its names it goes by. Only good for plain values.
fn ado<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    text.split(';').filter_map(|pair| pair.split_once('=')).find_map(|(name, value)| {
        let name = name.trim().to_ascii_lowercase();
        names.contains(&name.as_str()).then(|| value.trim())
    })
}

fn ado_trusts(text: &str) -> bool {
    ado(text, &["trustservercertificate"])
        .is_some_and(|v| ["true", "yes", "1"].iter().any(|yes| v.eq_ignore_ascii_case(yes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADO: &str = "Server=tcp:db.example,1444;Database=smartpulse;User Id=app;Password=x";

    fn fields() -> SqlServerConfig {
        SqlServerConfig {
            host: Some("db.example".into()),
            user: Some("app".into()),
            password: Some(Secret::new("hush")),
            ..SqlServerConfig::default()
        }
    }

    fn refused(config: &SqlServerConfig, part: &str) {
        let text = config.connect().unwrap_err().chain();
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn a_server_is_named_by_fields_or_by_a_connection_string() {
        assert_eq!(fields().connect().unwrap().address(), "db.example:1433");
        assert_eq!(SqlServerConfig::from_connection_string(ADO).connect().unwrap().address(), "db.example:1444");
        refused(&SqlServerConfig::default(), "does not say how to reach");
        refused(&SqlServerConfig { host: Some("x".into()), ..SqlServerConfig::from_connection_string(ADO) }, "host");
        refused(&SqlServerConfig::from_connection_string("Server=db;User Id=a;Password=b"), "no database");
        refused(&SqlServerConfig::from_connection_string(ADO.replace(",1444", "\\SQLEXPRESS")), "instance");
    }

    #[test]
    fn believing_any_certificate_and_checking_it_is_refused_and_does_not_panic() {
        let ca = |config: SqlServerConfig| SqlServerConfig { ca_file: Some("/ca.pem".into()), ..config };
        refused(&ca(SqlServerConfig { trust_server_certificate: true, ..fields() }), "believes any");
        let trusting = SqlServerConfig::from_connection_string(format!("{ADO};TrustServerCertificate=Yes"));
        refused(&ca(trusting.clone()), "TrustServerCertificate=true");
        assert!(trusting.connect().is_ok());
        assert!(SqlServerConfig { trust_server_certificate: true, ..trusting }.connect().is_ok());
        let checking = SqlServerConfig::from_connection_string(format!("{ADO};TrustServerCertificateCA=/ca.pem"));
        refused(&SqlServerConfig { trust_server_certificate: true, ..checking }, "TrustServerCertificateCA");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let config =
            SqlServerConfig::from_connection_string("Server=db;Database=x;User Id=a;Password=hush;Encrypt=maybe");
        let shown = format!("{config:?} {:?} {:?}", fields(), fields().connect().unwrap());
        assert!(!shown.contains("hush"), "{shown}");
        let error = config.connect().unwrap_err().chain();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn a_lock_is_given_up_before_the_server_is() {
        let connect = fields().connect().unwrap();
        assert!(connect.lock_timeout() < connect.command_timeout);
    }
}
