//! The memory of containers that no control group holds: it is looked at, and who has more than its limit is killed, as the
//! kernel kills who is over the limit of its group.
//!
//! What counts is memory that no file stands behind, as the kernel could take back the rest: what several processes share
//! counts once. To look costs something, so a look that took long is followed by a longer pause.
//!
//! Not handled: what a container has between two looks, so that it may end before it is seen, and may take what others need;
//! the memory of the whole machine; files in a file system that lies in memory, unless a process has them mapped; memory that was
//! swapped out; and a process that leaves its parents, its session and its mounts, which is then nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Shim;
use crate::runtime::processes::{self, Stat};

/// How often is looked.
const EVERY: Duration = Duration::from_millis(500);

/// How many times as long as a look took is waited for the next: so it takes a twentieth of a processor at most.
const LEISURE: u32 = 20;

/// After how many looks all processes of the machine are asked anew whose they are, as numbers are given again.
const ANEW: u32 = 20;

/// A container with a limit, as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Watched {
    id: String,
    limit: u64,
    /// Its first process.
    first: i32,
    /// The commands that were begun beside it.
    commands: BTreeSet<i32>,
}

/// A container that has more than it may.
#[derive(Debug, PartialEq, Eq)]
struct Over {
    id: String,
    /// All of its processes, each with its start.
    processes: Vec<(i32, u64)>,
}

impl Shim {
    /// Looks until dropped; ends never.
    pub(super) async fn watch_memory(&self) {
        if self.setup.cgroups.hold() {
            return std::future::pending().await;
        }
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let mut changes = self.published.subscribe();
        let mut watcher = Watcher::default();
        let mut pause = EVERY;
        loop {
            let watched = self.watched();
            if watched.is_empty() {
                // We hold the sender ourselves.
                let _ = changes.changed().await;
                continue;
            }
            tokio::time::sleep(pause).await;
            // The containers may be others by now. What is read may have to wait for the process that it is about, while
            // this thread has children to reap.
            let watched = self.watched();
            let begun = Instant::now();
            let looked = tokio::task::spawn_blocking(move || {
                let over = watcher.look(own, &watched);
                (watcher, over)
            });
            let (back, over) = looked.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            watcher = back;
            pause = EVERY.max(begun.elapsed() * LEISURE);
            for over in over {
                self.kill_for_memory(&over);
            }
        }
    }

    fn watched(&self) -> Vec<Watched> {
        let live = self.live.borrow();
        let watched = live.iter().filter_map(|(id, live)| {
            let limit = live.spec.limits.memory_bytes?;
            Some(Watched { id: id.clone(), limit, first: live.pid, commands: live.commands.borrow().clone() })
        });
        watched.collect()
    }

    /// Kills all of a container. It is told how it ended when its first process is reaped.
    fn kill_for_memory(&self, over: &Over) {
        let Some(live) = self.live.borrow().get(&over.id).cloned() else { return };
        // The first process goes first, so that none of its own doing becomes its exit code.
        if processes::is_alive(live.pid, live.ticks) && kill(Pid::from_raw(live.pid), Signal::SIGKILL).is_ok() {
            live.out_of_memory.set(true);
        }
        let same = |(pid, start): &&(i32, u64)| processes::is_alive(*pid, *start);
        processes::kill_all(over.processes.iter().filter(same).map(|(pid, _)| *pid));
    }
}

/// What is remembered from look to look.
#[derive(Debug, Default)]
struct Watcher {
    /// Processes that do not come from this shim.
    strangers: BTreeSet<i32>,
    /// The processes of the last look, with their starts.
    known: BTreeMap<i32, u64>,
    looks: u32,
}

impl Watcher {
    fn look(&mut self, own: i32, containers: &[Watched]) -> Vec<Over> {
        self.looks += 1;
        if self.looks.is_multiple_of(ANEW) {
            self.strangers.clear();
        }
        let family = processes::family(own, &mut self.strangers);
        let ours = processes::mount_namespace(own);
        let mut over = Vec::new();
        for container in containers {
            // None when it has no mounts of its own.
            let mounts = processes::mount_namespace(container.first).filter(|theirs| Some(theirs) != ours.as_ref());
            let inside = |pid| mounts.is_some() && processes::mount_namespace(pid) == mounts;
            let members = members(own, container, &family, inside);
            let counted = self.counted(&members, &family);
            if memory(&counted, container.limit) > container.limit {
                let processes = members.iter().filter_map(|pid| Some((*pid, family.get(pid)?.start))).collect();
                over.push(Over { id: container.id.clone(), processes });
            }
        }
        self.known = family.into_iter().map(|(pid, stat)| (pid, stat.start)).collect();
        over
    }

    /// Those whose memory counts. What was forked since the last look does not yet: with `vfork` it has the very memory of its
    /// parent, which would count twice, until it becomes its own program a moment later.
    fn counted(&self, members: &BTreeSet<i32>, family: &BTreeMap<i32, Stat>) -> Vec<i32> {
        let counts =
            |pid: &&i32| family.get(pid).is_some_and(|stat| !stat.forked || self.known.get(pid) == Some(&stat.start));
        members.iter().filter(counts).copied().collect()
    }
}

/// The processes of a container: what comes from its first process and from its commands, and what has left these and is known
/// by its session or its mounts (`inside`). `family` are the processes that come from this shim, `own`, to which those come that
/// are left.
fn members(own: i32, container: &Watched, family: &BTreeMap<i32, Stat>, inside: impl Fn(i32) -> bool) -> BTreeSet<i32> {
    let begins = |pid: i32| pid == container.first || container.commands.contains(&pid);
    let roots: BTreeSet<i32> = family
        .iter()
        .filter(|(pid, stat)| begins(**pid) || (stat.parent == own && (begins(stat.session) || inside(**pid))))
        .map(|(pid, _)| *pid)
        .collect();
    let mut members = processes::descendants_among(roots.iter().copied(), family);
    members.extend(roots);
    members
}

/// What these processes have together: exactly, when it may be more than the limit. The cheap figure counts shared memory for
/// each, and kernels since 6.2 may tell less of a process than it has; so it is believed where it is far below.
fn memory(pids: &[i32], limit: u64) -> u64 {
    let about: u64 = pids.iter().filter_map(|pid| processes::resident(*pid)).sum();
    if about <= limit / 2 {
        return about;
    }
    pids.iter().filter_map(|pid| processes::proportional(*pid).or_else(|| processes::resident(*pid))).sum()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn process(parent: i32, session: i32) -> Stat {
        Stat { parent, session, forked: false, cpu: 0, start: 1, zombie: false }
    }

    fn container(first: i32, commands: &[i32]) -> Watched {
        Watched { id: "c".to_owned(), limit: 0, first, commands: commands.iter().copied().collect() }
    }

    fn check(container: &Watched, inside: &[i32]) -> Vec<i32> {
        // The shim is 1. Containers: 10 with 11, and 20. A command, 30, with 31. Left alone: 40 in the session of 10 with 41, and
        // 50 in one of its own.
        let family =
            [(10, 1, 10), (11, 10, 10), (20, 1, 20), (30, 1, 30), (31, 30, 30), (40, 1, 10), (41, 40, 41), (50, 1, 50)];
        let family = family.into_iter().map(|(pid, parent, session)| (pid, process(parent, session))).collect();
        members(1, container, &family, |pid| inside.contains(&pid)).into_iter().collect()
    }

    #[test]
    fn processes_belong_to_the_container_that_they_come_from_or_whose_session_or_mounts_they_have() {
        assert_eq!(check(&container(10, &[]), &[]), [10, 11, 40, 41]);
        assert_eq!(check(&container(10, &[30]), &[]), [10, 11, 30, 31, 40, 41]);
        assert_eq!(check(&container(10, &[]), &[50]), [10, 11, 40, 41, 50]);
        assert_eq!(check(&container(20, &[]), &[]), [20]);
        assert_eq!(check(&container(99, &[]), &[]), Vec::<i32>::new());
    }

    #[test]
    fn what_was_just_forked_counts_from_the_next_look_on() {
        let forked = Stat { forked: true, ..process(10, 10) };
        let family = BTreeMap::from([(10, process(1, 10)), (11, forked)]);
        let members = BTreeSet::from([10, 11]);
        let counted = |known: &[(i32, u64)]| {
            let watcher = Watcher { known: known.iter().copied().collect(), ..Watcher::default() };
            watcher.counted(&members, &family)
        };
        assert_eq!(counted(&[]), [10]);
        assert_eq!(counted(&[(10, 1), (11, 1)]), [10, 11]);
        assert_eq!(counted(&[(11, 7)]), [10], "another process had this number");
    }

    /// A shell that has so many bytes in a variable, and says so.
    fn holder(bytes: usize) -> Child {
        let script = format!("x=`head -c {bytes} /dev/zero | tr '\\0' x`; echo y; read x");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("every system has a shell");
        child.stdout.as_mut().expect("it is piped").read_exact(&mut [0; 2]).expect("the shell says that it has them");
        child
    }

    #[test]
    fn only_the_container_that_has_more_than_its_limit_is_over_it() {
        const MIB: usize = 1024 * 1024;
        let own = i32::try_from(std::process::id()).expect("a pid fits");
        let mut children = [holder(40 * MIB), holder(MIB)];
        let watched: Vec<Watched> = children
            .iter()
            .zip(["large", "small"])
            .map(|(child, id)| Watched {
                id: id.to_owned(),
                limit: 20 * 1024 * 1024,
                first: i32::try_from(child.id()).expect("a pid fits"),
                commands: BTreeSet::new(),
            })
            .collect();
        let over = Watcher::default().look(own, &watched);
        let ids: Vec<&str> = over.iter().map(|over| over.id.as_str()).collect();
        assert_eq!(ids, ["large"]);
        assert_eq!(over[0].processes.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [watched[0].first]);
        for child in &mut children {
            child.stdin.take().expect("it is piped").write_all(b"\n").expect("the shell reads");
            child.wait().expect("a child can be waited for");
        }
    }
}
