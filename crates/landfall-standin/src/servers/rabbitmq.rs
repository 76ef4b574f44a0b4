//! RabbitMQ: one node of a cluster whose members know each other by the names of their pods.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Account, Found, exec, first_in, roots, setting, unpacked};
use crate::Failure;

/// Where the pod has its volume, its certificate and its settings.
const DATA: &str = "/var/lib/rabbitmq/mnesia";
const IDENTITY: &str = "/etc/rabbitmq-tls";
const SETTINGS: &str = "/etc/landfall";

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
    account.file(&home.join("rabbitmq.conf"), configuration.as_bytes())?;
    account.file(&home.join("definitions.json"), &fs::read(Path::new(SETTINGS).join("definitions.json"))?)?;
    account.file(&home.join("enabled_plugins"), b"[].\n")?;
    let mut server = account.command(&found.path);
    server
        .current_dir(&home)
        .env("HOME", &home)
        .env("PATH", path_for(&found.path, unpacked().as_deref()))
        .env("RABBITMQ_NODENAME", format!("rabbit@{}", setting("LANDFALL_NODE_HOST")?))
        .env("RABBITMQ_USE_LONGNAME", "true")
        .env("RABBITMQ_MNESIA_BASE", data.join("base"))
        .env("RABBITMQ_LOG_BASE", home.join("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("enabled_plugins"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", home.join("config"))
        .env("RABBITMQ_PID_FILE", home.join("pid"));
    Err(exec(server))
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
