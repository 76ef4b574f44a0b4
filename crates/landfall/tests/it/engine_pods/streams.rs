//! Logs, commands, ports and figures of pods, with the clients and protocols that users have.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use landfall_testing::{Tool, require_or_skip};

use super::{FOREVER, PATIENCE, World, pod, spoken_to, told};
use crate::running_engine::POLL;

/// Which protocol kubectl speaks: it takes the older one when it is told to.
const WEB_SOCKET: &str = "true";
const SPDY: &str = "false";

#[test]
fn a_log_is_read_whole_in_part_and_as_it_grows() {
    let Some(world) = World::start() else { return };
    let script = "echo one; echo two; while [ ! -e /work/go ]; do sleep 0.05; done; echo three; sleep 0.1";
    world.apply(&(pod("talker", script, "") + "  restartPolicy: Never\n"));
    world.until("logs talker", "one\ntwo\n");

    let mut follower = world.command("logs -f talker").stdout(Stdio::piped()).spawn().expect("kubectl can be started");
    let mut lines = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
    let mut next = || lines.next().map(|line| line.expect("a log is text"));
    assert_eq!(next().as_deref(), Some("one"));
    assert_eq!(next().as_deref(), Some("two"));
    world.in_pod("talker", "touch /work/go");
    assert_eq!(next().as_deref(), Some("three"));
    assert_eq!(next(), None, "the log ends with its container");
    assert!(follower.wait().expect("a child can be waited for").success());

    assert_eq!(world.say("logs talker --tail=2"), "two\nthree\n");
    assert_eq!(world.say("logs talker --limit-bytes=5"), "one\nt");
    let stamped = world.say("logs talker --timestamps --tail=1");
    let (time, text) = stamped.split_once(' ').expect("a line has a time");
    assert!(time.parse::<k8s_openapi::jiff::Timestamp>().is_ok(), "{time}");
    assert_eq!(text, "three\n");
    // kubectl cuts the fractions of seconds off.
    let exactly = format!("get --raw /api/v1/namespaces/default/pods/talker/log?sinceTime={time}");
    assert_eq!(world.say(&exactly), "three\n");
    assert_eq!(world.say("logs talker --since=1h"), "one\ntwo\nthree\n");
    world.until("logs talker --since=1s", "");
}

#[test]
fn the_log_of_a_container_before_its_restart_is_kept() {
    let Some(world) = World::start() else { return };
    let script = "if [ -e /work/was ]; then echo second; while true; do sleep 0.1; done; fi; \
                  echo first; touch /work/was; exit 1";
    world.apply(&pod("again", script, ""));
    world.until("logs again", "second\n");
    assert_eq!(world.say("logs again --previous"), "first\n");
}

#[test]
fn a_command_has_its_input_its_outputs_and_its_exit_code() {
    let Some(world) = World::start() else { return };
    let Some(old) = require_or_skip("an old kubectl", Tool::OldKubectl.locate()) else { return };
    world.apply(&pod("idle", FOREVER, ""));
    world.until_ready("idle");
    for (kubectl, protocol) in [(&world.kubectl, WEB_SOCKET), (&old, WEB_SOCKET), (&old, SPDY)] {
        let command = |script: &str| {
            let mut command = world.command_of(kubectl, "exec -i idle -- sh -c");
            command.arg(script).env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", protocol);
            command
        };
        let output = spoken_to(command("cat; echo problem >&2; exit 3"), "hello\n");
        assert_eq!(
            told(&output),
            "exit 3\nstdout: hello\nstderr: problem\ncommand terminated with exit code 3",
            "{kubectl:?} {protocol}"
        );
        let output = spoken_to(command("head -c 3000000 /dev/zero"), "");
        assert_eq!(output.stdout.len(), 3_000_000, "{kubectl:?} {protocol}");
    }
}

/// A forwarded port; it ends when dropped.
struct Forwarded {
    kubectl: Child,
    port: u16,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        let _already_gone = self.kubectl.kill();
        let _reaped = self.kubectl.wait();
    }
}

impl Forwarded {
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("kubectl listens");
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("kubectl reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer is text");
        answer.split_once("\r\n\r\n").map_or_else(|| answer.clone(), |(_, body)| body.to_owned())
    }
}

#[test]
fn a_port_of_a_pod_is_reached_through_every_kubectl() {
    let Some(world) = World::start() else { return };
    let Some(old) = require_or_skip("an old kubectl", Tool::OldKubectl.locate()) else { return };
    let python = std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let Some(python) = require_or_skip("python3", python) else { return };
    let python = String::from_utf8(python.stdout).expect("paths of programs are text");
    let script = format!("cd /work; seq 100000 > numbers; exec {} -m http.server 8080", python.trim());
    world.apply(&pod("web", &script, "readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }"));
    world.until_ready("web");
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    for (kubectl, protocol) in [(&world.kubectl, WEB_SOCKET), (&old, WEB_SOCKET), (&old, SPDY)] {
        let mut kubectl = world
            .command_of(kubectl, "port-forward pod/web :8080")
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", protocol)
            .stdout(Stdio::piped())
            .spawn()
            .expect("kubectl can be started");
        let mut line = String::new();
        let stdout = kubectl.stdout.take().expect("it is piped");
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).expect("kubectl writes text");
        let port = line.split(' ').find_map(|word| word.strip_prefix("127.0.0.1:")?.parse().ok());
        let forwarded = Forwarded { kubectl, port: port.unwrap_or_else(|| panic!("no port in {line:?}")) };
        for _ in 0..3 {
            assert!(forwarded.get("/numbers") == numbers, "through {protocol}");
        }
    }
}

#[test]
fn top_shows_what_pods_and_nodes_use() {
    let Some(world) = World::start() else { return };
    world.apply(&pod("busy", "while true; do :; done", ""));
    // `busy 700m 1Mi`: much less where others want the processors too, but what waits takes nothing at all.
    let millicores = |line: &str, place: usize| -> u64 {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(place).and_then(|word| word.strip_suffix('m')?.parse().ok()).unwrap_or_default()
    };
    world.until_it("top pod busy --no-headers", |said| millicores(said, 1) > 2, "a busy pod");
    world.until_it(
        "top node --no-headers",
        |said| said.lines().count() == 3 && said.lines().any(|line| millicores(line, 1) > 2),
        "three nodes, one of them busy",
    );
}

/// Says what it hears, and ends when it hears no more.
fn listener(name: &str, more: &str) -> String {
    let script = "echo ready; while read line; do echo heard $line; done; echo over";
    pod(name, script, &format!("stdin: true\nstdinOnce: true\n{more}")) + "  restartPolicy: Never\n"
}

#[test]
fn a_client_is_attached_to_the_process_of_a_container() {
    let Some(world) = World::start() else { return };
    let Some(old) = require_or_skip("an old kubectl", Tool::OldKubectl.locate()) else { return };
    let clients = [("web-socket", &world.kubectl, WEB_SOCKET), ("older", &old, WEB_SOCKET), ("spdy", &old, SPDY)];
    for (name, kubectl, protocol) in clients {
        world.apply(&listener(name, ""));
        world.until(&format!("logs {name}"), "ready\n");
        let mut command = world.command_of(kubectl, &format!("attach -i {name}"));
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", protocol);
        let output = spoken_to(command, "one\ntwo\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "heard one\nheard two\nover\n", "{}", told(&output));
        world.until(&format!("get pod {name} -o jsonpath={{.status.phase}}"), "Succeeded");
        assert_eq!(world.say(&format!("logs {name}")), "ready\nheard one\nheard two\nover\n");
    }
}

#[test]
fn a_container_that_asks_for_a_terminal_has_one() {
    let Some(world) = World::start() else { return };
    let script = "test -t 0 && test -t 1 && echo a terminal; stty size; exec sleep 60";
    world.apply(&pod("screen", script, "stdin: true\ntty: true"));
    world.until_it("logs screen", |said| said.lines().count() == 2, "two lines");
    assert_eq!(world.say("logs screen"), "a terminal\r\n0 0\r\n");
}

/// A client of which the first line was heard, and which is gone without a word when dropped.
struct Client {
    kubectl: Child,
    said: String,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut kubectl = spawned.expect("kubectl can be started");
        let mut said = String::new();
        let stdout = kubectl.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut said).expect("kubectl writes text");
        Self { kubectl, said }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _already_gone = self.kubectl.kill();
        let _reaped = self.kubectl.wait();
    }
}

#[track_caller]
fn eventually(what: &str, fits: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fits() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(POLL);
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    const TIMES: usize = 4;
    let Some(world) = World::start() else { return };
    world.apply(&pod("idle", FOREVER, ""));
    world.until_ready("idle");
    let before = world.engine.open_files();

    // In the middle of a watch.
    let watches = [(); TIMES].map(|()| Client::start(world.command("get pods --watch -o name")));
    assert!(watches.iter().all(|client| client.said == "pod/idle\n"));
    drop(watches);

    // In the middle of a command that says nothing any more.
    let commands = [(); TIMES].map(|()| {
        let mut command = world.command("exec idle -- sh -c");
        command.arg("echo $$; exec sleep 1000");
        Client::start(command)
    });
    let pids = commands.each_ref().map(|client| client.said.trim().to_owned());
    assert!(pids.iter().all(|pid| Path::new("/proc").join(pid).exists()), "{pids:?}");
    drop(commands);
    eventually("the commands have ended", || pids.iter().all(|pid| !Path::new("/proc").join(pid).exists()));

    // In the middle of a body. `Starting to serve on 127.0.0.1:43210`.
    let bodies = [(); TIMES].map(|()| {
        let proxy = Client::start(world.command("proxy --port=0"));
        let address = proxy.said.split_whitespace().last().expect("it says where it listens").to_owned();
        let mut connection = TcpStream::connect(address).expect("the proxy listens");
        let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: localhost\r\n\
                    Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
        connection.write_all(head.as_bytes()).expect("the proxy reads");
        connection.write_all(&vec![b' '; 500_000]).expect("the proxy reads");
        (proxy, connection)
    });
    drop(bodies);

    // What else goes on in the engine may have opened one or two.
    let left = || world.engine.open_files().saturating_sub(before);
    eventually("connections are closed", || left() < TIMES);
    assert_eq!(world.say("get pods -o name"), "pod/idle\n");
}
