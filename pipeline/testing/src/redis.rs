//! A real Redis for tests, on a free port of this machine: never for production.
//!
//! A shell holds the other end of a pipe of ours and ends the server when that closes, so the server never outlives
//! the test, not even one that is killed. Nothing is kept on disk but by [`Data::Kept`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program; Debian's package `redis-server` has it.
const PROGRAM: &str = "redis-server";

/// Starts the server, tells its pid, and ends it when its input ends.
const SHELL: &str = r#""$@" >server.log 2>&1 & pid=$!; echo $pid; read -r end; kill -9 $pid 2>/dev/null; wait"#;

/// How long the server may take to answer: it takes some 10 ms on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How often a port is tried that somebody else took meanwhile.
const PORTS_MAX: usize = 5;

/// What becomes of the data in a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// The server is told to save it and to go.
    Kept,
    /// The server is killed, and comes back empty.
    Lost,
}

/// A running server.
pub struct RedisServer {
    folder: TempDir,
    arguments: Vec<String>,
    port: u16,
    running: Mutex<Option<Running>>,
}

struct Running {
    shell: Child,
    pid: u32,
}

impl RedisServer {
    /// Starts one. Where there is no Redis it says so, and gives none: the test is skipped.
    ///
    /// # Panics
    /// Where there is no Redis although `CI` is `true`, and when it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts one with further arguments, such as `["--requirepass", "x"]`.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Option<Self> {
        match Self::try_start(arguments) {
            Ok(server) => Some(server),
            Err(reason) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "not skipped: {reason}");
                eprintln!("skipped: {reason}");
                None
            }
        }
    }

    /// Starts one, or says why there is none.
    ///
    /// # Errors
    /// Where there is no Redis.
    ///
    /// # Panics
    /// When it does not start.
    pub fn try_start(arguments: &[&str]) -> Result<Self, String> {
        if let Err(error) = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status() {
            return Err(format!("`{PROGRAM}` cannot be run ({error}); `apt-get install {PROGRAM}` brings it"));
        }
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        for _ in 0..PORTS_MAX {
            let folder = tempfile::tempdir().expect("a folder for a server");
            let server = Self { folder, arguments: arguments.clone(), port: free_port(), running: Mutex::default() };
            if server.run() {
                return Ok(server);
            }
            eprintln!("a server did not start: {}", server.log());
        }
        panic!("{PROGRAM} does not start");
    }

    /// `redis://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that it runs in.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Kills it, as a crash would.
    pub fn kill(&self) {
        if let Some(mut running) = self.running().take() {
            // The shell kills the server and waits for it.
            drop(running.shell.stdin.take());
            let _ = running.shell.wait();
        }
    }

    /// Ends it, with its data or without.
    ///
    /// # Panics
    /// When it does not save.
    pub fn stop(&self, data: Data) {
        if data == Data::Kept {
            assert_eq!(self.say("SAVE"), "+OK\r\n", "{}", self.log());
        } else {
            let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        }
        self.kill();
    }

    /// Starts it again, on the same port.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        assert!(self.run(), "{}", self.log());
    }

    /// Stops it, and starts it again.
    ///
    /// # Panics
    /// When it does not.
    pub fn restart(&self, data: Data) {
        self.stop(data);
        self.start_again();
    }

    /// Stops it from doing anything, or lets it go on: it keeps its connections and does not answer.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let pid = self.running().as_ref().map(|running| running.pid.to_string()).expect("a running server");
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// Says a command over a connection of its own, and gives the first of the answer.
    ///
    /// # Panics
    /// When it is not there.
    pub fn say(&self, command: &str) -> String {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("a running server");
        connection.set_read_timeout(Some(START_PATIENCE)).expect("a time-out");
        connection.write_all(format!("{command}\r\n").as_bytes()).expect("a server that listens");
        let mut answer = vec![0; 64 << 10];
        let length = connection.read(&mut answer).expect("a server that answers");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    /// Says a command whose answer is one text, and gives that.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn text(&self, command: &str) -> String {
        let answer = self.say(command);
        let text = if answer.starts_with('$') { answer.lines().nth(1).unwrap_or_default() } else { answer[1..].trim() };
        text.to_owned()
    }

    /// True unless it was killed or stopped.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    fn run(&self) -> bool {
        let mut shell = Command::new("sh")
            .args(["-c", SHELL, "sh", PROGRAM, "--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dbfilename", "dump.rdb"])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            // A Ctrl-C is for whoever started it: who holds the pipe says when it ends.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut pid = String::new();
        let output = shell.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut pid).expect("the pid of the server");
        let pid = pid.trim().parse().expect("the pid of the server");
        *self.running() = Some(Running { shell, pid });
        let start = Instant::now();
        while start.elapsed() < START_PATIENCE {
            if self.answers() {
                return true;
            }
            if self.log().contains("Failed") || self.log().contains("Fatal") {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }

    /// True once it does more than listen.
    fn answers(&self) -> bool {
        let Ok(mut connection) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        let mut answer = [0; 64];
        let asked = connection
            .set_read_timeout(Some(Duration::from_secs(1)))
            .and_then(|()| connection.write_all(b"PING\r\n"))
            .and_then(|()| connection.read(&mut answer));
        matches!(asked, Ok(length) if answer[..length].starts_with(b"+PONG") || answer[..length].starts_with(b"-NOAUTH"))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on just now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
