//! A RabbitMQ node of our own: own name, free ports, own folders, own port mapper; several may run at once.

mod admin;
mod facts;
mod shared;

pub use facts::{Connection, Counters, Queue};
pub use shared::{Exclusive, exclusive, shared};

use crate::ports;
use admin::Admin;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A node needs 5 to 10 s; more when all cores are busy compiling.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The server's own start script. The one on the path of Debian changes to another user and to fixed folders.
const SERVERS: [&str; 2] =
    ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server"];

/// What a node can be given beyond the defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// AMQP port; a free one by default.
    pub port: Option<u16>,
    /// Lines for rabbitmq.conf.
    pub configuration: String,
    /// Whether connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// A running node; stopped, with all that belongs to it, when dropped and when the test process ends in any way.
#[derive(Debug)]
pub struct Rabbit {
    folder: PathBuf,
    port: u16,
    admin_port: u16,
    proxy_protocol: bool,
    cookie: String,
    admin: Mutex<Option<Admin>>,
    keeper: Mutex<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    shell: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Rabbit {
    /// Starts a node and waits until it takes connections.
    pub fn start() -> Rabbit {
        Rabbit::start_with(&Options::default())
    }

    /// As [`Rabbit::start`], with options.
    pub fn start_with(options: &Options) -> Rabbit {
        let server = SERVERS.iter().find(|s| Path::new(s).exists());
        let server = server.expect("RabbitMQ is not installed; `make deps` installs what the tests need");
        let folder =
            tempfile::Builder::new().prefix("warren-rabbit-").tempdir().expect("a temporary folder").keep();
        let port = options.port.unwrap_or_else(ports::free);
        let admin_port = ports::free();
        let cookie = format!("W{}N{admin_port}", std::process::id());
        let switch = if options.proxy_protocol { "proxy_protocol = true\n" } else { "" };
        write_files(&folder, admin_port, &cookie, &format!("{switch}{}", options.configuration));
        let keeper = Keeper::start(server, &folder, port);
        let (admin, keeper) = (Mutex::new(None), Mutex::new(keeper));
        let proxy_protocol = options.proxy_protocol;
        let rabbit = Rabbit { folder, port, admin_port, proxy_protocol, cookie, admin, keeper };
        rabbit.tell_keeper("start");
        rabbit.wait_ready();
        rabbit
    }

    /// Port for AMQP on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Address for AMQP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Evaluates Erlang expressions in the node: `"rabbit_nodes:cluster_name()."`. A binary comes back as its
    /// text, everything else as Erlang writes it.
    pub fn eval(&self, expressions: &str) -> String {
        let answer = self.try_eval(expressions);
        answer.unwrap_or_else(|e| panic!("RabbitMQ could not evaluate {expressions:?}: {e}"))
    }

    fn try_eval(&self, expressions: &str) -> Result<String, String> {
        let mut admin = self.admin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if admin.is_none() {
            *admin = Some(Admin::connect(self.admin_port, &self.cookie).map_err(|e| e.to_string())?);
        }
        let answer = admin.as_mut().map_or(Err("not connected".to_owned()), |a| a.eval(expressions));
        if answer.as_ref().is_err_and(|e| e.starts_with("the node does not answer")) {
            *admin = None;
        }
        answer
    }

    /// Stops the broker inside its virtual machine, as `rabbitmqctl stop_app` does: connections are closed with 320
    /// and the port is closed.
    pub fn stop_broker(&self) {
        self.eval("rabbit:stop().");
    }

    /// Starts the broker again after [`Rabbit::stop_broker`] and waits until it takes connections.
    pub fn start_broker(&self) {
        self.eval("rabbit:start().");
        self.wait_ready();
    }

    /// Kills the node as `kill -9` does: connections are reset without a word.
    pub fn kill(&self) {
        self.tell_keeper("kill");
    }

    /// Starts the node again after [`Rabbit::kill`], on the same port and with what it had on disk.
    pub fn restart(&self) {
        self.tell_keeper("start");
        self.wait_ready();
    }

    /// Stops the node's process where it is, so that its sockets stay open and nothing answers any more.
    pub fn freeze(&self) {
        self.tell_keeper("freeze");
        // The signal is sent; each thread stops when it is its turn, and may finish what it is at.
        std::thread::sleep(Duration::from_millis(300));
    }

    /// Lets the node's process go on after [`Rabbit::freeze`].
    pub fn thaw(&self) {
        self.tell_keeper("thaw");
    }

    fn tell_keeper(&self, command: &str) {
        let mut keeper = self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        keeper.tell(command);
    }

    fn wait_ready(&self) {
        let deadline = Instant::now() + READY_WITHIN;
        while !speaks_amqp(self.address(), self.proxy_protocol) || self.try_eval("ok.").is_err() {
            assert!(
                Instant::now() < deadline,
                "RabbitMQ did not start within {READY_WITHIN:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of everything that the node has written.
    pub fn log(&self) -> String {
        let mut text = String::new();
        for name in ["epmd.log", "stderr.log", "stdout.log", "rabbit.log"] {
            let log = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            text.push_str(&format!("--- {name}\n{}\n", tail.join("\n")));
        }
        text
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let keeper = self.keeper.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        keeper.commands = None; // the shell reads the end of its input and cleans up
        let _ = keeper.shell.wait();
    }
}

impl Keeper {
    fn start(server: &str, folder: &Path, port: u16) -> Keeper {
        let epmd_port = ports::free();
        let mut command = Command::new("sh");
        command.args(["-c", include_str!("rabbit/keeper.sh"), "keeper"]);
        command.arg(folder).arg(epmd_port.to_string()).arg(server);
        // A signal to the terminal's group must reach neither the shell nor the node: both end after us.
        command.process_group(0);
        set_environment(&mut command, folder, epmd_port, port);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().expect("sh starts");
        let commands = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("standard output is a pipe"));
        Keeper { shell, commands, answers }
    }

    fn tell(&mut self, command: &str) {
        let pipe = self.commands.as_mut().expect("open until the node is dropped");
        writeln!(pipe, "{command}").expect("the keeper reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the keeper answers");
        assert_eq!(answer, "ok\n", "the keeper of RabbitMQ did not carry out {command:?}");
    }
}

fn write_files(folder: &Path, admin_port: u16, cookie: &str, configuration: &str) {
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap_or_else(|e| panic!("writing {name}: {e}"));
    };
    // Statistics per channel and exchange are how a node tells which connections publish.
    let fixed =
        "collect_statistics = fine\ncollect_statistics_interval = 200\ndisk_free_limit.absolute = 10MB\n";
    write("rabbitmq.conf", &format!("{fixed}{configuration}\n"));
    write("enabled_plugins", "[].\n");
    write("admin.erl", &admin::server(admin_port, cookie));
    write(".erlang.cookie", cookie);
    fs::set_permissions(folder.join(".erlang.cookie"), fs::Permissions::from_mode(0o400)).expect("own file");
}

fn set_environment(command: &mut Command, folder: &Path, epmd_port: u16, port: u16) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["RABBITMQ", "ERL_", "NOTIFY_SOCKET"].iter().any(|p| text.starts_with(p)) {
            command.env_remove(&name);
        }
    }
    let dist_port = ports::free();
    let at = |name: &str| folder.join(name).into_os_string();
    command.env("HOME", folder).env("LC_ALL", "C.UTF-8").env("PATH", path_with_sbin());
    command.env("ERL_EPMD_PORT", epmd_port.to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command.env("RABBITMQ_NODENAME", format!("warren{port}@localhost"));
    command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1").env("RABBITMQ_NODE_PORT", port.to_string());
    command.env("RABBITMQ_DIST_PORT", dist_port.to_string());
    command.env("RABBITMQ_BASE", folder).env("RABBITMQ_MNESIA_BASE", at("data"));
    command.env("RABBITMQ_MNESIA_DIR", at("data/node")).env("RABBITMQ_LOG_BASE", folder);
    command.env("RABBITMQ_LOGS", at("rabbit.log")).env("RABBITMQ_PID_FILE", at("pid"));
    command.env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf")).env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
    command.env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"));
    // Busy waiting of idle schedulers would take the processor from what is measured; the port mapper is ours.
    let admin = folder.join("admin.erl");
    let arguments = format!(
        "+sbwt none +sbwtdcpu none +sbwtdio none -start_epmd false -eval spawn(fun()->file:eval(\"{}\")end)",
        admin.display()
    );
    command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments);
    // Makes the start script become the Erlang machine, so that the process we stop is that one.
    command.env("detached", "1");
}

/// `epmd` and `erl` are looked for on the path, which cron and CI runners may give without the sbin folders.
fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", std::env::var("PATH").unwrap_or_default())
}

/// Whether a connect is answered with connection.start.
fn speaks_amqp(address: SocketAddr, proxy_protocol: bool) -> bool {
    let ask = || -> std::io::Result<[u8; 11]> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        if proxy_protocol {
            // It takes no others: see docs/broker-facts.md.
            stream.write_all(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n")?;
        }
        stream.write_all(&warren_wire::frame::PROTOCOL_HEADER)?;
        let mut answer = [0; 11];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|a| a[0] == 1 && a[7..11] == [0, 10, 0, 10])
}
