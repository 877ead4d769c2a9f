//! A real Apache Pulsar broker for tests: never for production.
//!
//! [`Broker::shared`] starts one for the whole test binary when the first test asks, through `pulsar.sh` of this crate. The
//! script holds the other end of a pipe of ours and kills the broker when that closes, so the broker never
//! outlives the binary, not even one that is killed. Every test takes a namespace of its own ([`Broker::namespace`]).
//!
//! What held of the recipe, on Pulsar 4.0.8 with Java 17:
//! - The server distribution is served for some versions only (4.0.8 and 4.0.4, not 4.0.2): 245 MB, unpacked 253 MB.
//! - `standalone -nfw -nss` is up in 10 to 15 s on two idle cores, in 2 minutes beside eight builds; it takes 300 to 500 MB.
//!   `-XX:TieredStopAtLevel=1` halves the processor time of the start.
//! - `standalone.conf` does not end in a line break. Of a key that stands twice in it the broker takes the last, the bookie the first.
//! - Admin calls are answered before the bookie takes writes: ready is a broker in which a subscription was made.
//! - The bookie listens on all addresses whatever `bindAddress` says. `enableLocalTransport` together with
//!   `disableServerSocketBind` keeps it within the process; then every port is on loopback.
//! - Data survives a restart in the same folders; the bookie finds its number in its cookie.
//! - A token that is wrong is refused although `anonymousUserRole` lets clients without one in: one broker serves both.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

/// The token of a role that may do everything.
pub const ADMIN_TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.BkvJqi71HEAue3clx1mwax_u9EHhJCXbXF3tqFc89JE";

/// The token of a role that may do nothing.
pub const NOBODYS_TOKEN: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.jMx4NGwrNgC85USPXXmK7eXyRDjiZzhukn57TQ8dDK4";

/// How long one call of the admin interface may take. Unloading waits for the topic's ledgers to close.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a tool may take: it is a Java program that starts anew each time.
const TOOL_TIMEOUT: Duration = Duration::from_secs(120);

/// What starts a broker, and ends it with whoever asked.
const SCRIPT: &str = include_str!("../pulsar.sh");

/// A running broker.
pub struct Broker {
    home: PathBuf,
    /// `pulsar://127.0.0.1:port`.
    pub service_url: String,
    /// `pulsar+ssl://127.0.0.1:port`.
    pub tls_url: String,
    /// `http://127.0.0.1:port`.
    pub admin_url: String,
    /// The certificate to trust for `tls_url`.
    pub ca_file: PathBuf,
    control: Mutex<Control>,
    /// Held shared by tests that need the broker, and alone by one that takes it away.
    peace: RwLock<()>,
}

struct Control {
    _script: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Broker {
    /// The broker of this test binary; none on a machine that lacks what it needs, which is then said once.
    ///
    /// # Panics
    /// When it does not start, and with `CI=true` when something is missing.
    pub fn shared() -> Option<&'static Self> {
        static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
        let start = || match Self::start() {
            Ok(broker) => Some(broker),
            Err(reason) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no pulsar in CI: {reason}"),
            Err(reason) => {
                // Past the test harness, which shows nothing of tests that pass.
                let _ = writeln!(std::io::stderr(), "\nskipped: tests with Apache Pulsar: {}", reason.trim());
                None
            }
        };
        BROKER.get_or_init(start).as_ref()
    }

    /// Starts one that ends when it is dropped, or says what is missing.
    ///
    /// # Errors
    /// On a machine that lacks what it needs.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Result<Self, String> {
        let script = |command: &str| {
            let mut bash = Command::new("bash");
            bash.args(["-c", SCRIPT, "pulsar.sh", command]);
            bash
        };
        let home = script("home").output().map_err(|e| format!("no bash: {e}"))?;
        if !home.status.success() {
            return Err(String::from_utf8_lossy(&home.stderr).into_owned());
        }
        let home = PathBuf::from(String::from_utf8_lossy(&home.stdout).trim());
        let mut serve = script("serve");
        // A Ctrl-C is for whoever started it: who holds the pipe says when it ends.
        serve.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = serve.spawn().map_err(|e| format!("no bash: {e}"))?;
        let (Some(commands), Some(answers)) = (script.stdin.take(), script.stdout.take()) else {
            unreachable!("both are piped")
        };
        let mut control = Control { _script: script, commands, answers: BufReader::new(answers) };
        let ready = control.answer("ready");
        let [service_url, tls_url, admin_url, ca_file] = ready.split(' ').collect::<Vec<_>>()[..] else {
            panic!("the broker says {ready:?}")
        };
        Ok(Self {
            home,
            service_url: service_url.to_owned(),
            tls_url: tls_url.to_owned(),
            admin_url: admin_url.to_owned(),
            ca_file: PathBuf::from(ca_file),
            control: Mutex::new(control),
            peace: RwLock::new(()),
        })
    }

    /// For a test that needs the broker to be there all the time.
    pub async fn in_peace(&self) -> RwLockReadGuard<'_, ()> {
        self.peace.read().await
    }

    /// For a test that stops or pauses the broker: no other runs meanwhile.
    pub async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.peace.write().await
    }

    /// A new namespace `(tenant, name)`.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub fn namespace(&self) -> (String, String) {
        let name = format!("test-{}", Uuid::new_v4());
        self.admin("PUT", &format!("namespaces/public/{name}"), "{}");
        ("public".to_owned(), name)
    }

    /// Moves a topic away from its broker and back: every client of it is cut off.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn unload(&self, namespace: &str, topic: &str) {
        self.admin("PUT", &format!("persistent/public/{namespace}/{}/unload", escape(topic)), "");
    }

    /// What the broker knows of a topic.
    ///
    /// # Panics
    /// When it does not know it.
    pub fn stats(&self, namespace: &str, topic: &str) -> Value {
        self.admin("GET", &format!("persistent/public/{namespace}/{}/stats", escape(topic)), "")
    }

    /// A call of the admin interface: its JSON, null where there is none.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(ADMIN_TIMEOUT)).build().into();
        let url = format!("{}/admin/v2/{path}", self.admin_url);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("Content-Type", "application/json")
            .body(body.to_owned())
            .unwrap();
        let mut answer = agent.run(request).unwrap_or_else(|error| panic!("{method} {url}: {error}"));
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap_or(Value::Null)
    }

    /// Runs a tool of the same distribution, such as the Java client, against this broker; what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn tool(&self, name: &str, arguments: &[&str]) -> String {
        // `timeout` ends it, and with it what it would leave behind.
        let mut tool = Command::new("timeout");
        tool.arg(TOOL_TIMEOUT.as_secs().to_string()).arg(self.home.join("bin").join(name)).stdin(Stdio::null());
        tool.env("PULSAR_MEM", "-Xmx256m -XX:TieredStopAtLevel=1").env("PULSAR_GC", "-XX:+UseSerialGC");
        match name {
            // It takes the address in front of what it is to do, and the others behind.
            "pulsar-client" => tool.args(["--url", &self.service_url]).args(arguments),
            _ => tool.args(&arguments[..1]).args(["-u", &self.service_url]).args(&arguments[1..]),
        };
        let output = tokio::task::spawn_blocking(move || tool.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} {arguments:?}: {}\n{text}\n{errors}", output.status);
        text
    }

    /// Kills the broker; what was published stays.
    pub fn stop(&self) {
        self.command("stop", "stopped");
    }

    /// Starts it again, where it was.
    pub fn restart(&self) {
        self.command("start", "ready");
    }

    /// Stops it in its tracks: connections stay open and nobody answers.
    pub fn pause(&self) {
        self.command("pause", "paused");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.command("resume", "resumed");
    }

    fn command(&self, command: &str, answer: &str) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(control.commands, "{command}").expect("the broker's script is gone");
        control.answer(answer);
    }
}

impl Control {
    /// What follows the expected word. The script bounds every wait.
    fn answer(&mut self, expected: &str) -> String {
        let (mut line, began) = (String::new(), Instant::now());
        self.answers.read_line(&mut line).expect("the broker's script is gone");
        match line.trim().strip_prefix(expected) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("the broker says {line:?} after {:?}, and not {expected:?}", began.elapsed()),
        }
    }
}

/// A topic in a path: `cdc:forecasts` is `cdc%3Aforecasts`.
fn escape(topic: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    topic.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
