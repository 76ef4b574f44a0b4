//! Quorum queues on as many members as they ask for.
//!
//! Queues are declared by the definitions that a node reads when it starts, while the first member is alone: it is their only member. When
//! all members of the cluster are ready, the queues are grown onto the others by the tools of one of them, in its pod.
//!
//! Queues are listed by `rabbitmqctl eval`, which asks the node of the pod alone: `list_queues` has every node send to the tool, and the
//! rendered policies open no port of it. Not handled: queues of other virtual hosts than `/`, and members that are too many.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::super::{Context, OperatorError};
use crate::servers::rabbitmq::TOOL;

const VHOST: &str = "/";

/// How many members a quorum queue has that asks for no number
/// (<https://www.rabbitmq.com/docs/quorum-queues#replication-factor>).
const USUAL_SIZE: u64 = 3;

/// Prints a line of JSON for each quorum queue, and then that it is done.
const LIST: &str = "lists:foreach(fun(Q) -> [{name, N}, {members, M}] = rabbit_amqqueue:info(Q, [name, members]), \
     io:format(\"~s~n\", [rabbit_json:encode(#{vhost => element(2, N), name => element(4, N), members => M})]) end, \
     [Q || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue]).";

/// What the last line says when all of them were told.
const DONE: &str = "ok";

/// A quorum queue that is there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Queue {
    vhost: String,
    name: String,
    /// The nodes that it has members on.
    members: BTreeSet<String>,
}

/// How many members each declared quorum queue is to have in a cluster of so many.
pub(super) fn wanted(declared: &[Value], replicas: u64) -> BTreeMap<String, u64> {
    let own = |queue: &&Value| queue["type"] == "quorum" && queue["vhost"].as_str().unwrap_or(VHOST) == VHOST;
    let size = |queue: &Value| {
        let asked = queue["arguments"]["x-quorum-initial-group-size"].as_u64().unwrap_or(USUAL_SIZE);
        Some((queue["name"].as_str()?.to_owned(), asked.min(replicas)))
    };
    declared.iter().filter(own).filter_map(size).collect()
}

/// Grows the queues from the pod of a member. What they still lack, in words.
pub(super) async fn spread(
    context: &Context,
    namespace: &str,
    pod: &str,
    wanted: &BTreeMap<String, u64>,
    nodes: &[String],
) -> Result<Vec<String>, OperatorError> {
    let found = list(context, namespace, pod).await?;
    let growth = growth(wanted, &found, nodes);
    if growth.is_empty() {
        return Ok(lacking(wanted, &found, nodes));
    }
    context.run_in(namespace, pod, "rabbitmq", &script(&growth)).await?;
    Ok(lacking(wanted, &list(context, namespace, pod).await?, nodes))
}

async fn list(context: &Context, namespace: &str, pod: &str) -> Result<Vec<Queue>, OperatorError> {
    let said = context.run_in(namespace, pod, "rabbitmq", &format!("{TOOL} rabbitmqctl eval '{LIST}'")).await?;
    read(&said).ok_or_else(|| OperatorError::Command { pod: pod.to_owned(), output: said })
}

/// `None` when not all were told.
fn read(said: &str) -> Option<Vec<Queue>> {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let (last, queues) = lines.split_last()?;
    let queues = queues.iter().filter(|line| line.starts_with('{'));
    (*last == DONE).then(|| queues.map(|line| serde_json::from_str(line)).collect::<Result<_, _>>().ok())?
}

fn find<'a>(queues: &'a [Queue], name: &str) -> Option<&'a Queue> {
    queues.iter().find(|queue| queue.vhost == VHOST && queue.name == name)
}

/// Onto which nodes which queues are to be grown. Those that ask for fewer than all begin at different ones.
fn growth<'a>(
    wanted: &'a BTreeMap<String, u64>,
    found: &[Queue],
    nodes: &'a [String],
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut growth: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (number, (name, size)) in wanted.iter().enumerate() {
        let Some(queue) = find(found, name) else { continue };
        let free = nodes.iter().filter(|node| !queue.members.contains(*node));
        let free: Vec<&str> = free.map(String::as_str).collect();
        let missing = usize::try_from(*size).unwrap_or(usize::MAX).saturating_sub(nodes.len() - free.len());
        let from = number.checked_rem(free.len()).unwrap_or(0);
        for node in free.iter().copied().cycle().skip(from).take(missing.min(free.len())) {
            growth.entry(node).or_default().insert(name);
        }
    }
    growth
}

/// Which queues have fewer members than they ask for.
fn lacking(wanted: &BTreeMap<String, u64>, found: &[Queue], nodes: &[String]) -> Vec<String> {
    let lacking = wanted.iter().filter_map(|(name, size)| {
        let Some(queue) = find(found, name) else { return Some(format!("the queue `{name}` is not there")) };
        let members = nodes.iter().filter(|node| queue.members.contains(*node)).count();
        let enough = u64::try_from(members).is_ok_and(|members| members >= *size);
        (!enough).then(|| format!("the queue `{name}` has {members} of {size} members"))
    });
    lacking.collect()
}

/// One after the other: a queue takes one new member at a time.
fn script(growth: &BTreeMap<&str, BTreeSet<&str>>) -> String {
    let line = |(node, queues): (&&str, &BTreeSet<&str>)| {
        let names: Vec<String> = queues.iter().map(|name| literal(name)).collect();
        let pattern = quoted(&format!("^({})$", names.join("|")));
        format!(
            "{TOOL} rabbitmq-queues grow {} all --vhost-pattern '^{VHOST}$' --queue-pattern {pattern}\n",
            quoted(node)
        )
    };
    growth.iter().map(line).collect()
}

/// A pattern that fits this name alone.
fn literal(name: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_/: ".contains(letter);
    name.chars().map(|letter| if plain(letter) { letter.to_string() } else { format!("\\{letter}") }).collect()
}

/// A word of a script.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn queue(name: &str, members: &[&str]) -> Queue {
        let members = members.iter().map(|node| (*node).to_owned()).collect();
        Queue { vhost: VHOST.to_owned(), name: name.to_owned(), members }
    }

    fn nodes(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("rabbit@{number}")).collect()
    }

    #[test]
    fn a_queue_asks_for_as_many_members_as_declared_and_there_can_be() {
        let declared = [
            json!({ "name": "usual", "type": "quorum", "vhost": "/" }),
            json!({ "name": "many", "type": "quorum", "arguments": { "x-quorum-initial-group-size": 7 } }),
            json!({ "name": "one", "type": "quorum", "arguments": { "x-quorum-initial-group-size": 1 } }),
            json!({ "name": "classic", "type": "classic" }),
            json!({ "name": "elsewhere", "type": "quorum", "vhost": "other" }),
        ];
        let expected = [("many", 5), ("one", 1), ("usual", 3)].map(|(name, size)| (name.to_owned(), size));
        assert_eq!(wanted(&declared, 5), BTreeMap::from(expected));
    }

    #[test]
    fn queues_grow_onto_the_nodes_that_have_no_member() {
        let wanted = BTreeMap::from([("a.b".to_owned(), 3), ("c".to_owned(), 3), ("d".to_owned(), 3)]);
        let found = [queue("a.b", &["rabbit@0"]), queue("c", &["rabbit@1", "rabbit@0"]), queue("elsewhere", &[])];
        let nodes = nodes(3);
        let growth = growth(&wanted, &found, &nodes);
        let expected = [("rabbit@1", BTreeSet::from(["a.b"])), ("rabbit@2", BTreeSet::from(["a.b", "c"]))];
        assert_eq!(growth, BTreeMap::from(expected));
        let tool = "/var/lib/rabbitmq/mnesia/tool rabbitmq-queues grow";
        let expected = format!(
            "{tool} 'rabbit@1' all --vhost-pattern '^/$' --queue-pattern '^(a\\.b)$'\n\
             {tool} 'rabbit@2' all --vhost-pattern '^/$' --queue-pattern '^(a\\.b|c)$'\n"
        );
        assert_eq!(script(&growth), expected);
        let expected =
            ["the queue `a.b` has 1 of 3 members", "the queue `c` has 2 of 3 members", "the queue `d` is not there"];
        assert_eq!(lacking(&wanted, &found, &nodes), expected);
    }

    #[test]
    fn a_queue_that_asks_for_fewer_than_all_is_grown_no_further() {
        let wanted = BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 3), ("c".to_owned(), 1)]);
        let found = [queue("a", &["rabbit@0"]), queue("b", &["rabbit@0"]), queue("c", &["rabbit@0"])];
        let nodes = nodes(5);
        let growth = growth(&wanted, &found, &nodes);
        let of =
            |name: &str| growth.iter().filter(|(_, queues)| queues.contains(name)).map(|(node, _)| *node).collect();
        let (a, b, c): (Vec<&str>, Vec<&str>, Vec<&str>) = (of("a"), of("b"), of("c"));
        assert_eq!((a, b, c), (vec!["rabbit@1", "rabbit@2"], vec!["rabbit@2", "rabbit@3"], vec![]));
        let grown = [
            queue("a", &["rabbit@0", "rabbit@1", "rabbit@2"]),
            queue("b", &["rabbit@0", "rabbit@2", "rabbit@3"]),
            queue("c", &["rabbit@0"]),
        ];
        assert_eq!(self::growth(&wanted, &grown, &nodes), BTreeMap::new());
        assert_eq!(lacking(&wanted, &grown, &nodes), [""; 0]);
    }

    #[test]
    fn what_the_tool_says_is_read_when_it_is_whole() {
        let said = "{\"members\":[\"rabbit@1\",\"rabbit@0\"],\"name\":\"a.b\",\"vhost\":\"/\"}\nok\n";
        assert_eq!(read(said), Some(vec![queue("a.b", &["rabbit@0", "rabbit@1"])]));
        assert_eq!(read("ok\n"), Some(Vec::new()));
        assert_eq!(read("{\"members\":[],\"name\":\"a\",\"vhost\":\"/\"}\n"), None);
        assert_eq!(read("{\"members\":[],\"name\":7,\"vhost\":\"/\"}\nok\n"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn names_are_taken_as_they_stand() {
        assert_eq!(literal("a.b*(c)"), r"a\.b\*\(c\)");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
