//! RabbitMQ: one node of a cluster whose members know each other by the names of their pods, and its tools.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Account, Found, exec, first_in, roots, setting, unpacked};
use crate::{Failure, address};

/// Where the pod has its volume, its certificate and its settings.
const DATA: &str = "/var/lib/rabbitmq/mnesia";
const IDENTITY: &str = "/etc/rabbitmq-tls";
const SETTINGS: &str = "/etc/landfall";

/// Where nodes listen for each other, as the rendered policies have it.
const NODES_PORT: u16 = 25672;

/// Where a node listens for clients that is told nothing else.
const PLAIN_PORT: u16 = 5672;

/// The file, below the home of the server, that says at which port its `epmd` listens.
const NAMES_PORT: &str = "epmd-port";

/// With this an operator calls the tools of a node, as a real image has them on its PATH: `rabbitmqctl` and its arguments.
pub(crate) const TOOL: &str = "/var/lib/rabbitmq/mnesia/tool";

/// Settings that only later versions know, with the first version that does: older ones refuse to start with them.
/// <https://www.rabbitmq.com/docs/vhosts#default-queue-type>
const LATER: &[(&str, (u32, u32))] = &[("default_queue_type", (3, 13))];

/// Not those on PATH, which on Debian change the user by themselves.
const PROGRAMS: &[&str] = &["/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server"];

/// Below the folder of unpacked packages: the programs of an Erlang that `tools/install-packages` has told its place.
const ERLANG: &str = "usr/lib/erlang/bin";

pub(super) fn find() -> Option<Found> {
    find_in(&roots(), unpacked().as_deref())
}

/// An unpacked one only with the Erlang beside it.
fn find_in(roots: &[PathBuf], unpacked: Option<&Path>) -> Option<Found> {
    let runs = |path: &Path| {
        let beside = unpacked.filter(|root| path.starts_with(root));
        beside.is_none_or(|root| root.join(ERLANG).join("erl").is_file())
    };
    let path = first_in(roots, PROGRAMS).filter(|path| runs(path))?;
    let version = version(&path)?;
    Some(Found { path, version: format!("RabbitMQ {version}") })
}

/// Where its script looks for `erl`: beside an unpacked one first.
fn path_for(program: &Path, unpacked: Option<&Path>) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    match unpacked.filter(|root| program.starts_with(root)) {
        Some(root) => format!("{}:{path}", root.join(ERLANG).display()),
        None => path,
    }
}

/// By the folder that it is installed in: to ask the program itself takes seconds.
fn version(path: &Path) -> Option<String> {
    let home = path.parent()?.parent()?;
    let installed = fs::read_dir(home.join("lib")).into_iter().flatten().flatten();
    let mut names = installed.filter_map(|entry| entry.file_name().into_string().ok());
    let versioned = names.find_map(|name| name.strip_prefix("rabbitmq_server-").map(ToOwned::to_owned));
    versioned.or_else(|| {
        let plugins = fs::read_dir(home.join("plugins")).ok()?.flatten();
        let mut names = plugins.filter_map(|entry| entry.file_name().into_string().ok());
        names.find_map(|name| Some(name.strip_prefix("rabbit-")?.trim_end_matches(".ez").to_owned()))
    })
}

pub(super) fn become_server(found: &Found) -> Result<(), Failure> {
    let account = Account::of("rabbitmq")?;
    let data = Path::new(DATA);
    account.own(data)?;
    let home = data.join("home");
    account.folder(&home)?;
    account.file(&home.join(".erlang.cookie"), setting("RABBITMQ_COOKIE")?.as_bytes())?;
    // One that speaks without TLS has none.
    if Path::new(IDENTITY).exists() {
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            account.file(&home.join(file), &fs::read(Path::new(IDENTITY).join(file))?)?;
        }
    }
    let own = fs::read_to_string(Path::new(SETTINGS).join("rabbitmq.conf"))?;
    let mut configuration = String::new();
    for line in own.lines() {
        let key = line.split('=').next().unwrap_or_default().trim();
        match LATER.iter().find(|(later, since)| *later == key && is_before(&found.version, *since)) {
            Some((_, (major, minor))) => {
                tracing::warn!(setting = key, "left out: RabbitMQ knows it since {major}.{minor}");
            }
            None => configuration += &format!("{line}\n"),
        }
    }
    let shared = match address::shared() {
        Some(own) => {
            configuration = listening_at(own, &configuration);
            Some(SharedNetwork::new(own)?)
        }
        None => None,
    };
    account.file(&home.join("rabbitmq.conf"), configuration.as_bytes())?;
    account.file(&home.join("definitions.json"), &fs::read(Path::new(SETTINGS).join("definitions.json"))?)?;
    account.file(&home.join("enabled_plugins"), b"[].\n")?;
    write_tool()?;
    let mut server = account.command(&found.path);
    acquaint(&mut server, found, &home)?;
    if let Some(shared) = &shared {
        shared.prepare(&mut server);
        // A node looks whether it is free at every address, and refuses to start otherwise. It listens at the other.
        server.env("RABBITMQ_DIST_PORT", free_port()?.to_string());
        account.file(&home.join(NAMES_PORT), shared.names.to_string().as_bytes())?;
    }
    server
        .env("RABBITMQ_MNESIA_BASE", data.join("base"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("enabled_plugins"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", home.join("config"))
        .env("RABBITMQ_PID_FILE", home.join("pid"));
    Err(exec(server))
}

/// Tells a program of RabbitMQ which node is meant, and where its cookie and its Erlang are.
fn acquaint(program: &mut Command, found: &Found, home: &Path) -> Result<(), Failure> {
    program
        .current_dir(home)
        .env("HOME", home)
        .env("PATH", path_for(&found.path, unpacked().as_deref()))
        .env("RABBITMQ_NODENAME", format!("rabbit@{}", setting("LANDFALL_NODE_HOST")?))
        .env("RABBITMQ_USE_LONGNAME", "true");
    Ok(())
}

/// A node on the network of the machine, beside others of its kind.
struct SharedNetwork {
    own: Ipv4Addr,
    /// The port of this node's own `epmd`, which takes a loopback address beside the one that it is told. A name server for all of them
    /// would refuse every node but one, as they have one name on several hosts.
    names: u16,
}

impl SharedNetwork {
    fn new(own: Ipv4Addr) -> io::Result<Self> {
        Ok(Self { own, names: free_port()? })
    }

    /// Nodes find each other at one port without a name server (<https://www.erlang.org/doc/apps/erts/erl_cmd.html>,
    /// `-erl_epmd_port`), each at its own address.
    fn prepare(&self, program: &mut Command) {
        let [a, b, c, d] = self.own.octets();
        let arguments = format!("-kernel inet_dist_use_interface {{{a},{b},{c},{d}}} -erl_epmd_port {NODES_PORT}");
        program
            .env("ERL_EPMD_ADDRESS", self.own.to_string())
            .env("ERL_EPMD_PORT", self.names.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", &arguments)
            .env("RABBITMQ_CTL_ERL_ARGS", &arguments);
    }
}

/// A tool is a node for as long as it works. It takes an address that no pod has.
fn tool_address() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 200, high, low)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The settings with every listener at this address.
fn listening_at(own: Ipv4Addr, configuration: &str) -> String {
    let mut text = String::new();
    let mut declared = false;
    for line in configuration.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let (key, value) = (key.trim(), value.trim());
        declared |= key.starts_with("listeners.tcp");
        let is_listener = ["listeners.tcp.", "listeners.ssl."].iter().any(|listener| key.starts_with(listener));
        if is_listener && value.parse::<u16>().is_ok() {
            text += &format!("{key} = {own}:{value}\n");
        } else {
            text += &format!("{line}\n");
        }
    }
    if !declared {
        text += &format!("listeners.tcp.default = {own}:{PLAIN_PORT}\n");
    }
    text
}

/// Writes the way to the tools: this program again, whoever it was started as.
fn write_tool() -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    // The words before `server` are those with which the program becomes a stand-in.
    let words: Vec<String> = std::env::args().skip(1).take_while(|word| word != "server").collect();
    let script = format!("#!/bin/sh\nexec '{}' {} rabbitmq-tool \"$@\"\n", program.display(), words.join(" "));
    fs::write(TOOL, script)?;
    Ok(fs::set_permissions(TOOL, fs::Permissions::from_mode(0o755))?)
}

/// Becomes a tool of the node in this pod. It is beside the server, as those on PATH are wrapped in another change of the user.
pub(crate) fn become_tool(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let found = find().ok_or("the tools of RabbitMQ are missing")?;
    let account = Account::of("rabbitmq")?;
    let mut tool = account.command(&found.path.with_file_name(name));
    let home = Path::new(DATA).join("home");
    acquaint(&mut tool, &found, &home)?;
    if address::shared().is_some() {
        let names = fs::read_to_string(home.join(NAMES_PORT))?.trim().parse()?;
        SharedNetwork { own: tool_address(), names }.prepare(&mut tool);
    }
    tool.args(arguments);
    Err(exec(tool))
}

fn is_before(version: &str, since: (u32, u32)) -> bool {
    let numbers = version.trim_start_matches("RabbitMQ ");
    let mut numbers = numbers.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) < since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_left_out_before_the_version_that_knows_it() {
        assert!(is_before("RabbitMQ 3.10.8", (3, 13)));
        assert!(!is_before("RabbitMQ 3.13.0", (3, 13)));
        assert!(!is_before("RabbitMQ 4.2", (3, 13)));
    }

    #[test]
    fn listeners_get_the_address_of_the_pod_where_neighbours_have_the_others() {
        let check = |settings: &str, expected: &str| {
            assert_eq!(listening_at(Ipv4Addr::new(127, 64, 0, 7), settings), expected, "{settings}");
        };
        check("vm_memory = 1\n", "vm_memory = 1\nlisteners.tcp.default = 127.64.0.7:5672\n");
        check(
            "listeners.ssl.default = 5671\nlisteners.tcp = none\n",
            "listeners.ssl.default = 127.64.0.7:5671\nlisteners.tcp = none\n",
        );
        check("listeners.tcp.local = 127.0.0.1:5672\n", "listeners.tcp.local = 127.0.0.1:5672\n");
    }

    #[test]
    fn an_unpacked_one_is_found_with_the_erlang_beside_it_and_told_where_that_is() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = folder.path();
        let put = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("folders can be made");
            fs::write(path, "").expect("a file can be written");
        };
        put("usr/lib/rabbitmq/bin/rabbitmq-server");
        put("usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/plugins/rabbit-3.10.8/ebin/rabbit.app");
        let find = || find_in(&[root.to_owned()], Some(root));
        assert_eq!(find(), None, "there is no Erlang");
        put("usr/lib/erlang/bin/erl");
        let path = root.join("usr/lib/rabbitmq/bin/rabbitmq-server");
        assert_eq!(find(), Some(Found { path: path.clone(), version: "RabbitMQ 3.10.8".to_owned() }));
        let told = path_for(&path, Some(root));
        assert_eq!(told.split(':').next(), root.join("usr/lib/erlang/bin").to_str());
        assert_eq!(path_for(&path, None), std::env::var("PATH").unwrap_or_default(), "it is installed");
    }
}
