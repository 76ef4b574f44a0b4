//! Apache Kafka: one node that is broker and controller, from the jars of `tools/install-kafka` in a Java of this machine.
//!
//! The jars and the Java come as arguments, as a pod knows nothing of the home folder that they are found from.

pub(crate) mod admin;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Account, Found, exec, roots, setting, tools};
use crate::Failure;

/// Where the pod has its volume, its certificate and its settings.
const DATA: &str = "/var/lib/kafka/data";
pub(crate) const IDENTITY: &str = "/tls";
const SETTINGS: &str = "/etc/landfall/server.properties";

/// The tool with which an operator asks this node for topics and users, as a real image has its scripts.
pub(crate) const ADMIN: &str = "/var/lib/kafka/data/admin";

/// Where `tools/install-kafka` puts it, below the folder of tools: the name with the version after it.
const INSTALLED: &str = "kafka-";

/// The oldest Java that runs Kafka 4: <https://kafka.apache.org/41/operations/java-version/>.
const OLDEST_JAVA: u32 = 17;

/// A small node that starts soon: the simpler compiler alone, one thread for the garbage, and nothing learned about names
/// for longer than pods keep their addresses.
const JAVA_OPTIONS: &[&str] = &[
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xshare:auto",
    "-Dsun.net.inetaddr.ttl=2",
    "-Dsun.net.inetaddr.negative.ttl=0",
    "-Djava.awt.headless=true",
    "-Dlog4j2.StatusLogger.level=OFF",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    // These print every setting of every part, some of them several times.
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients=warn",
    // A probe that connects and says nothing is no failed handshake.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.network.Selector=warn",
];

/// What a node needs less of when a machine is the whole cluster. What the architecture declares stands after it and is
/// what counts.
const SMALL: &str = "num.network.threads=2\nnum.io.threads=4\nnum.recovery.threads.per.data.dir=2\n\
     log.cleaner.dedupe.buffer.size=8388608\noffsets.topic.num.partitions=6\ntransaction.state.log.num.partitions=6\n\
     share.coordinator.state.topic.num.partitions=6\ngroup.initial.rebalance.delay.ms=0\n";

/// How long a group waits for members that were killed with the platform: as long as their messages, when it comes back. 45 s are
/// Kafka's own, which is longer than flows may take.
const GROUPS: &str = "group.consumer.min.session.timeout.ms=15000\ngroup.consumer.session.timeout.ms=15000\n";

/// The newest Kafka that is installed, if there is a Java for it. The path is the folder of its jars.
pub(super) fn find() -> Option<Found> {
    let java = java()?;
    let folders = fs::read_dir(tools()?).ok()?.flatten();
    let versions = folders.filter_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix(INSTALLED)?.to_owned();
        let numbers: Vec<u32> = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some((numbers, version, entry.path().join("libs"))).filter(|(_, _, libs)| libs.is_dir())
    });
    let (_, version, path) = versions.max()?;
    Some(Found { path, version: format!("Kafka {version}, Java {}", version_of(&java)?) })
}

/// What the stand-in has to be told: the jars and the Java.
pub(super) fn arguments(found: &Found) -> Vec<String> {
    let java = java().unwrap_or_default();
    vec![found.path.display().to_string(), java.display().to_string()]
}

/// The one that is named, the one on PATH, or the newest of a package.
fn java() -> Option<PathBuf> {
    let named = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("java"));
    let mut all = named.into_iter().chain(on_path).chain(of_packages(&roots()));
    all.find_map(|java| new_enough(&java).map(|(_, java)| java))
}

/// Its version and its real place, if it can run Kafka.
fn new_enough(java: &Path) -> Option<(u32, PathBuf)> {
    let java = java.canonicalize().ok()?;
    version_of(&java).filter(|version| *version >= OLDEST_JAVA).map(|version| (version, java))
}

/// The newest Java below each root. An unpacked one has its folder only: the link in `/usr/bin` is made when it is installed.
fn of_packages(roots: &[PathBuf]) -> Vec<PathBuf> {
    let newest = |root: &PathBuf| {
        let folders = fs::read_dir(root.join("usr/lib/jvm")).into_iter().flatten().flatten();
        folders.filter_map(|folder| new_enough(&folder.path().join("bin/java"))).max().map(|(_, java)| java)
    };
    roots.iter().filter_map(newest).collect()
}

/// By the file that stands beside it: to ask the program itself takes most of a second.
fn version_of(java: &Path) -> Option<u32> {
    let release = fs::read_to_string(java.parent()?.parent()?.join("release")).ok()?;
    let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    version.trim_matches('"').split(['.', '-', '+']).next()?.parse().ok()
}

/// Becomes the node. Returns only when that fails.
pub(super) fn become_server(arguments: &[&str]) -> Result<(), Failure> {
    let [jars, java] = arguments else { return Err("the jars of Kafka and a Java are to be named".into()) };
    let account = Account::of("kafka")?;
    let data = Path::new(DATA);
    account.own(data)?;
    let jars = jars_for(&account, Path::new(jars), data)?;
    let identity = |file: &str| Ok::<_, Failure>(fs::read(Path::new(IDENTITY).join(file))?);
    // One file with both, as Kafka reads PEM.
    account.file(&data.join("identity.pem"), &[identity("tls.key")?, identity("tls.crt")?].concat())?;
    account.file(&data.join("ca.pem"), &identity("ca.crt")?)?;
    write_admin(data)?;
    let log = data.join("kafka-log0");
    account.folder(&log)?;
    let properties = data.join("server.properties");
    let settings = fs::read_to_string(SETTINGS)?;
    account.file(&properties, configuration(&settings, &setting("POD_NAME")?, &log)?.as_bytes())?;
    let program = |class: &str| {
        let mut command = account.command(Path::new(java));
        command.args(JAVA_OPTIONS).arg("-cp").arg(format!("{}/*", jars.display())).arg(class).current_dir(data);
        command
    };
    if !log.join("meta.properties").exists() {
        format(program("kafka.tools.StorageTool"), &properties)?;
    }
    let mut server = program("kafka.Kafka");
    server.arg(&properties);
    Err(exec(server))
}

/// The jars where the account can read them: a home folder may be closed to others, and then they are copied.
fn jars_for(account: &Account, jars: &Path, data: &Path) -> Result<PathBuf, Failure> {
    let open = |path: &Path| fs::metadata(path).is_ok_and(|of| of.permissions().mode() & 0o001 != 0);
    if account.0.is_none() || jars.ancestors().all(open) {
        return Ok(jars.to_owned());
    }
    let copies = data.join("libs");
    account.folder(&copies)?;
    for jar in fs::read_dir(jars)? {
        let jar = jar?;
        let copy = copies.join(jar.file_name());
        if fs::metadata(&copy).map(|copy| copy.len()).ok() != Some(jar.metadata()?.len()) {
            fs::copy(jar.path(), &copy)?;
            account.own(&copy)?;
        }
    }
    Ok(copies)
}

/// Writes the tool: this program again, whoever it was started as.
fn write_admin(data: &Path) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    // The words before `server` are those with which the program becomes a stand-in.
    let words: Vec<String> = std::env::args().skip(1).take_while(|word| word != "server").collect();
    let script = format!("#!/bin/sh\nexec '{}' {} kafka-admin\n", program.display(), words.join(" "));
    let file = data.join("admin");
    fs::write(&file, script)?;
    Ok(fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?)
}

/// The settings of this node: what all of them have, with this one's number, name and zone in it.
fn configuration(settings: &str, pod: &str, log: &Path) -> Result<String, Failure> {
    let number = pod.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
    let number = number.ok_or_else(|| format!("the pod `{pod}` has no number"))?;
    let zone = std::env::var("KAFKA_RACK").unwrap_or_default();
    let mut lines = format!(
        "{SMALL}{GROUPS}node.id={number}\nlog.dirs={}\nssl.keystore.type=PEM\nssl.keystore.location={DATA}/identity.pem\n\
         ssl.truststore.type=PEM\nssl.truststore.location={DATA}/ca.pem\n",
        log.display()
    );
    for line in settings.lines() {
        let line = match crate::address::shared().filter(|_| line.starts_with("listeners=")) {
            Some(address) => line.replace("0.0.0.0", &address.to_string()),
            None => line.to_owned(),
        };
        // A node without a zone has no rack.
        if !(line.contains("${RACK}") && zone.is_empty()) {
            lines += &format!("{}\n", line.replace("${POD}", pod).replace("${RACK}", &zone));
        }
    }
    Ok(lines)
}

fn format(mut tool: Command, properties: &Path) -> Result<(), Failure> {
    let cluster = setting("KAFKA_CLUSTER_ID")?;
    tool.args(["format", "--ignore-formatted", "--cluster-id", &cluster, "--config"]).arg(properties);
    let output = tool.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("the storage could not be formatted, {}: {said}", output.status).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_number_of_its_pod() {
        let settings = "advertised.listeners=TLS-9093://${POD}.kafka-brokers:9093\nbroker.rack=${RACK}\n";
        let text = configuration(settings, "shop-kafka-2", Path::new("/log")).expect("the pod has a number");
        assert!(
            text.contains("\nnode.id=2\n") && text.contains("TLS-9093://shop-kafka-2.kafka-brokers:9093"),
            "{text}"
        );
        assert!(!text.contains("broker.rack"), "there is no zone: {text}");
        assert!(configuration(settings, "shop", Path::new("/log")).is_err());
    }
    #[test]
    fn the_newest_java_of_unpacked_packages_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // The root itself may be behind a link.
        let root = folder.path().canonicalize().expect("it is there");
        let unpack = |version: &str| {
            let home = root.join(format!("usr/lib/jvm/java-{version}-openjdk"));
            fs::create_dir_all(home.join("bin")).expect("folders can be made");
            fs::write(home.join("bin/java"), "").expect("a file can be written");
            fs::write(home.join("release"), format!("JAVA_VERSION=\"{version}.0.2\"\n"))
                .expect("a file can be written");
            home.join("bin/java")
        };
        unpack("11");
        assert_eq!(of_packages(std::slice::from_ref(&root)), Vec::<PathBuf>::new(), "it is too old");
        unpack("17");
        let newest = unpack("21");
        assert_eq!(of_packages(&[root]), [newest]);
    }
}
