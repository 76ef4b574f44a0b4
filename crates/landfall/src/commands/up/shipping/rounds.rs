//! Which lines go to the store when: each container by itself, so that one whose log does not come, or is not taken, holds up no other,
//! and goes on from where it was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The time between two rounds.
pub(super) const ROUND: Duration = Duration::from_secs(2);

/// How long a log may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines go at once.
const AT_ONCE: usize = 2_000;

/// How many containers have their turn at a time.
const TURNS: usize = 8;

/// One line of a container.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) text: String,
    /// What Kubernetes knows of it.
    pub(super) about: Value,
}

/// A container that has written a log, or may have.
#[derive(Debug, Clone)]
pub(super) struct Container {
    pub(super) pod: Arc<Pod>,
    pub(super) name: String,
    /// How often it was started again.
    pub(super) restarts: i32,
}

/// The uid of the pod, and the name of the container.
type Key = (String, String);

/// Which log of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// What it has written since it was started the last time.
    Current,
    /// What it wrote before that.
    Previous,
}

/// Where lines come from, and where they go to.
pub(super) trait Ends {
    /// The containers that there are; nothing when the store is another one by now.
    async fn containers(&self) -> anyhow::Result<Option<Vec<Container>>>;

    /// The lines of a container from the second of this time on.
    async fn read(&self, container: &Container, log: Log, from: Option<Timestamp>) -> anyhow::Result<Vec<Line>>;

    /// Hands lines to the store, which has them then; but for those that it refuses, and always will, and why.
    async fn hand_over(&self, lines: &[Line]) -> anyhow::Result<Option<String>>;
}

/// How far a container is shipped.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The time of the last line that the store has, and how many lines of that time.
    last: Option<(Timestamp, usize)>,
    /// Up to which restart it has all.
    restarts: i32,
}

impl Progress {
    /// What is to follow of a log that was read from the second of the last line on.
    fn rest(&self, lines: Vec<Line>) -> Vec<Line> {
        let Some((last, count)) = self.last else { return lines };
        let mut same = 0;
        let is_new = |line: &Line| {
            same += usize::from(line.time == last);
            line.time > last || (line.time == last && same > count)
        };
        lines.into_iter().filter(is_new).collect()
    }

    fn advance(&mut self, lines: &[Line]) {
        for line in lines {
            self.last = match self.last {
                Some((last, count)) if last == line.time => Some((last, count + 1)),
                _ => Some((line.time, 1)),
            };
        }
    }
}

/// Ships until the store is another one. `trouble` says why lines wait, or were refused.
pub(super) async fn carry(ends: &impl Ends, trouble: &Mutex<Option<String>>) {
    let turns = Semaphore::new(TURNS);
    let mut progress: HashMap<Key, Progress> = HashMap::new();
    let mut busy: HashSet<Key> = HashSet::new();
    let (mut waiting, mut refused): (BTreeMap<Key, String>, Option<String>) = (BTreeMap::new(), None);
    let mut under_way = FuturesUnordered::new();
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut unseen = None;
        // What is under way stays there when the other arm is taken.
        tokio::select! {
            _ = rounds.tick() => match ends.containers().await {
                Ok(Some(containers)) => {
                    let keys: HashSet<Key> = containers.iter().map(Container::key).collect();
                    progress.retain(|key, _| keys.contains(key));
                    waiting.retain(|key, _| keys.contains(key));
                    for container in containers {
                        if busy.insert(container.key()) {
                            let progress = progress.get(&container.key()).copied().unwrap_or_default();
                            under_way.push(turn(ends, &turns, container, progress));
                        }
                    }
                }
                Ok(None) => return,
                Err(error) => unseen = Some(format!("{error:#}")),
            },
            Some(Turn { key, progress: now, ended }) = under_way.next(), if !under_way.is_empty() => {
                busy.remove(&key);
                progress.insert(key.clone(), now);
                waiting.remove(&key);
                match ended {
                    Ok(None) => {}
                    Ok(Some(refusal)) => drop(refused.get_or_insert(refusal)),
                    Err(error) => drop(waiting.insert(key, format!("{error:#}"))),
                }
            }
        }
        let told = unseen.or_else(|| waiting.values().next().cloned()).or_else(|| refused.clone());
        *trouble.lock().expect("nothing panics with it") = told;
    }
}

/// What came of the turn of a container.
struct Turn {
    key: Key,
    progress: Progress,
    /// What the store refuses, or why the rest has to wait.
    ended: anyhow::Result<Option<String>>,
}

/// Ships what is new of a container, part by part.
async fn turn(ends: &impl Ends, turns: &Semaphore, container: Container, mut progress: Progress) -> Turn {
    let _turn = turns.acquire().await;
    let ended = ship(ends, &container, &mut progress).await;
    let ended = ended.with_context(|| format!("`{}` of pod `{}`", container.name, container.pod.name_any()));
    Turn { key: container.key(), progress, ended }
}

async fn ship(ends: &impl Ends, container: &Container, progress: &mut Progress) -> anyhow::Result<Option<String>> {
    let mut refused = None;
    let previous = (container.restarts > progress.restarts).then_some(Log::Previous);
    for log in previous.into_iter().chain([Log::Current]) {
        let from = progress.last.map(|(last, _)| last);
        let read = timeout(PATIENCE, ends.read(container, log, from)).await;
        let lines = progress.rest(read.context("its log does not come")??);
        for part in lines.chunks(AT_ONCE) {
            refused = refused.or(ends.hand_over(part).await?);
            progress.advance(part);
        }
        progress.restarts = container.restarts;
    }
    Ok(refused)
}

impl Container {
    fn key(&self) -> Key {
        (self.pod.uid().unwrap_or_default(), self.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A few containers, and a store.
    #[derive(Default)]
    struct Script {
        /// By the name of the container, before its last restart and after it.
        logs: RefCell<BTreeMap<&'static str, [Vec<Line>; 2]>>,
        restarts: Cell<i32>,
        /// The container whose log does not come.
        silent: Cell<Option<&'static str>>,
        /// The line that the store does not take.
        unwanted: RefCell<Option<String>>,
        /// The line that it refuses for ever.
        invalid: RefCell<Option<String>>,
        store: RefCell<Vec<String>>,
    }

    impl Script {
        /// Has a container write numbered lines, of which several are written at once.
        fn write(&self, name: &'static str, numbers: std::ops::Range<usize>) {
            let line = |number: usize| Line {
                time: Timestamp::from_nanosecond(i128::try_from(number / 3).expect("it is small")).expect("a time"),
                text: format!("{name} {number}"),
                about: Value::Null,
            };
            self.logs.borrow_mut().entry(name).or_default()[1].extend(numbers.map(line));
        }

        fn restart(&self, name: &'static str) {
            self.restarts.set(1);
            let mut logs = self.logs.borrow_mut();
            let [previous, current] = logs.entry(name).or_default();
            *previous = std::mem::take(current);
        }

        /// Ships for so long; what waits then, and what has arrived of a container meanwhile.
        async fn carried(&self, time: Duration, name: &str) -> (Option<String>, Vec<String>) {
            let trouble = Mutex::default();
            drop(timeout(time, carry(self, &trouble)).await);
            (trouble.into_inner().expect("nothing panics with it"), self.of(name))
        }

        fn of(&self, name: &str) -> Vec<String> {
            self.store.borrow().iter().filter(|line| line.starts_with(name)).cloned().collect()
        }
    }

    impl Ends for Script {
        async fn containers(&self) -> anyhow::Result<Option<Vec<Container>>> {
            let container = |name: &&'static str| Container {
                pod: Arc::new(Pod::default()),
                name: (*name).to_owned(),
                restarts: self.restarts.get(),
            };
            Ok(Some(self.logs.borrow().keys().map(container).collect()))
        }

        async fn read(&self, container: &Container, log: Log, from: Option<Timestamp>) -> anyhow::Result<Vec<Line>> {
            if self.silent.get() == Some(container.name.as_str()) {
                std::future::pending::<()>().await;
            }
            let logs = self.logs.borrow();
            let lines = &logs[container.name.as_str()][usize::from(log == Log::Current)];
            // Some that were shipped come once more.
            Ok(lines.iter().filter(|line| from.is_none_or(|from| line.time >= from)).cloned().collect())
        }

        async fn hand_over(&self, lines: &[Line]) -> anyhow::Result<Option<String>> {
            let has =
                |text: &RefCell<Option<String>>| lines.iter().any(|line| Some(&line.text) == text.borrow().as_ref());
            anyhow::ensure!(!has(&self.unwanted), "the store does not take it");
            let refused = has(&self.invalid).then(|| "a line is invalid".to_owned());
            let taken = lines.iter().filter(|line| Some(&line.text) != self.invalid.borrow().as_ref());
            self.store.borrow_mut().extend(taken.map(|line| line.text.clone()));
            Ok(refused)
        }
    }

    fn numbered(name: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| format!("{name} {number}")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_log_does_not_come_holds_up_nobody() {
        let script = Script::default();
        script.write("silent", 0..4);
        script.write("web", 0..4);
        script.silent.set(Some("silent"));
        let (_, web) = script.carried(ROUND, "web").await;
        assert_eq!(web, numbered("web", 0..4), "in the first round");
        let script = Script { silent: Cell::new(Some("silent")), ..Script::default() };
        script.write("silent", 0..4);
        let (trouble, arrived) = script.carried(PATIENCE + ROUND / 2, "silent").await;
        assert_eq!(trouble.as_deref(), Some("`silent` of pod ``: its log does not come: deadline has elapsed"));
        assert_eq!(arrived, [""; 0]);
        script.silent.set(None);
        let (trouble, arrived) = script.carried(ROUND, "silent").await;
        assert_eq!((trouble, arrived), (None, numbered("silent", 0..4)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_the_store_does_not_take_goes_on_from_where_it_was() {
        let script = Script::default();
        let all = 0..2 * AT_ONCE + 7;
        script.write("mail", all.clone());
        script.write("web", 0..4);
        // In the second part, whose first lines have the time of the last ones before.
        *script.unwanted.borrow_mut() = Some(format!("mail {}", AT_ONCE + 1));
        let trouble = Mutex::default();
        let carrying = carry(&script, &trouble);
        let watching = async {
            tokio::time::sleep(3 * ROUND).await;
            assert_eq!(script.of("web"), numbered("web", 0..4));
            assert_eq!(script.of("mail"), numbered("mail", 0..AT_ONCE));
            assert_eq!(
                trouble.lock().expect("it is free").as_deref(),
                Some("`mail` of pod ``: the store does not take it")
            );
            *script.unwanted.borrow_mut() = None;
            tokio::time::sleep(3 * ROUND).await;
        };
        tokio::select! {
            () = carrying => panic!("the store is the same"),
            () = watching => {}
        }
        assert!(script.of("mail") == numbered("mail", all), "each line is there once, in its order");
        assert_eq!(*trouble.lock().expect("it is free"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_container_wrote_before_it_failed_is_shipped_when_it_runs_again() {
        let script = Script::default();
        script.write("web", 0..4);
        let trouble = Mutex::default();
        let watching = async {
            tokio::time::sleep(ROUND / 2).await;
            script.write("web", 4..9);
            script.restart("web");
            script.write("web", 9..12);
            tokio::time::sleep(2 * ROUND).await;
        };
        tokio::select! {
            () = carry(&script, &trouble) => panic!("the store is the same"),
            () = watching => {}
        }
        assert_eq!(script.of("web"), numbered("web", 0..12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_refused_for_ever_is_told_and_holds_up_no_other() {
        let script = Script::default();
        script.write("web", 0..3);
        *script.invalid.borrow_mut() = Some("web 1".to_owned());
        let (trouble, arrived) = script.carried(5 * ROUND, "web").await;
        assert_eq!((trouble.as_deref(), arrived), (Some("a line is invalid"), vec!["web 0".into(), "web 2".into()]));
    }
}
