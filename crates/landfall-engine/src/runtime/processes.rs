//! What `/proc` says of processes: which are descendants of which, when they started, what they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Consumption;

/// Clock ticks in a second, as `/proc` counts them. Linux shows `USER_HZ` = 100 on every architecture that we run on
/// (`proc(5)`: `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: u64 = 100;

/// Of the flags of a process: it was forked and has not become another program since (`PF_FORKNOEXEC` of the kernel).
const FORKED: u64 = 0x40;

/// What we read of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    /// The process that began its session.
    pub(super) session: i32,
    /// It runs the program of the process that forked it, and may share all of its memory.
    pub(super) forked: bool,
    /// In ticks: in user and in kernel mode.
    pub(super) cpu: u64,
    /// In ticks since the machine started.
    pub(super) start: u64,
    /// It has ended and nobody has asked how.
    pub(super) zombie: bool,
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is a name in parentheses that may hold anything, so that fields are counted from the last `)`.
fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<_> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        forked: number(9)? & FORKED != 0,
        cpu: number(14)? + number(15)?,
        start: number(22)?,
        zombie: matches!(fields.first(), Some(&"Z" | &"X")),
    })
}

/// Whether the process that had this pid when it started at `ticks` still runs.
pub(super) fn is_alive(pid: i32, ticks: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.start == ticks && !stat.zombie)
}

/// All processes that come from `root`, without itself.
pub(super) fn descendants(root: i32) -> BTreeSet<i32> {
    let processes: BTreeMap<i32, Stat> = all().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    descendants_among([root], &processes)
}

/// Those of these processes that come from one of `roots`, without the roots themselves.
pub(super) fn descendants_among(
    roots: impl IntoIterator<Item = i32>,
    processes: &BTreeMap<i32, Stat>,
) -> BTreeSet<i32> {
    let children = children(processes);
    let mut found = BTreeSet::new();
    let mut next: Vec<i32> = roots.into_iter().collect();
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                next.push(*child);
            }
        }
    }
    found
}

fn children(processes: &BTreeMap<i32, Stat>) -> BTreeMap<i32, Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, stat) in processes {
        children.entry(stat.parent).or_default().push(*pid);
    }
    children
}

/// All processes that come from `root`, for whoever asks often: `strangers` are processes that do not, which are not asked
/// again. Those that turn out not to are added.
pub(super) fn family(root: i32, strangers: &mut BTreeSet<i32>) -> BTreeMap<i32, Stat> {
    let there: BTreeSet<i32> = all().collect();
    strangers.retain(|pid| there.contains(pid));
    let asked: BTreeMap<i32, Stat> = there.difference(strangers).filter_map(|pid| Some((*pid, stat(*pid)?))).collect();
    divide(root, asked, strangers)
}

/// Keeps what comes from `root`, and adds to `strangers` what surely does not: a process whose parent has gone since is
/// neither.
fn divide(root: i32, mut asked: BTreeMap<i32, Stat>, strangers: &mut BTreeSet<i32>) -> BTreeMap<i32, Stat> {
    let family = descendants_among([root], &asked);
    let children = children(&asked);
    // The first process, and one that entered the namespace of processes from outside, has 0 for its parent.
    let mut next: Vec<i32> = strangers.iter().copied().chain([0]).collect();
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if *child != root && !family.contains(child) && strangers.insert(*child) {
                next.push(*child);
            }
        }
    }
    asked.retain(|pid, _| family.contains(pid));
    asked
}

/// The mount namespace of a process.
pub(super) fn mount_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// All processes in the mount namespace with this name (`mnt:[4026531840]`); none when it is our own.
pub(super) fn in_namespace(name: &str) -> BTreeSet<i32> {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    if of("self").is_none_or(|own| own == Path::new(name)) {
        return BTreeSet::new();
    }
    all().filter(|pid| of(&pid.to_string()).is_some_and(|theirs| theirs == Path::new(name))).collect()
}

/// What a process and its descendants use now. Time of descendants that have ended and were waited for is not counted.
pub(super) fn consumption(root: i32) -> Consumption {
    let mut used = Consumption::default();
    for pid in descendants(root).into_iter().chain([root]) {
        let Some(stat) = stat(pid) else { continue };
        used.cpu += Duration::from_millis(stat.cpu * 1000 / TICKS_PER_SECOND);
        used.memory_bytes += resident(pid).unwrap_or_default();
    }
    used
}

/// Memory that is the process's own: resident, without what it shares with files. Cheap, and what several processes share
/// counts for each of them.
pub(super) fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((kibibytes(&status, "RssAnon:")? + kibibytes(&status, "RssShmem:").unwrap_or_default()) * 1024)
}

/// The same, but of what several processes share each has its part: the sum over processes counts no page twice. It takes a
/// walk over the pages of the process, and the right to look at it.
pub(super) fn proportional(pid: i32) -> Option<u64> {
    shares(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

/// What `smaps_rollup` says of memory that no file stands behind. None: a kernel before 5.3, which does not tell it apart.
fn shares(rollup: &str) -> Option<u64> {
    Some((kibibytes(rollup, "Pss_Anon:")? + kibibytes(rollup, "Pss_Shmem:")?) * 1024)
}

/// The value in a line `Name:    12 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Kills; a process that is gone already is no error.
pub(super) fn kill_all(pids: impl IntoIterator<Item = i32>) {
    for pid in pids {
        // Gone, or not ours (it then is not of the container either).
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) S (b) c) S 7 42 43 0 -1 4194624 1 0 0 0 11 22 0 0 20 0 1 0 9876 0 0";
        let expected = Stat { parent: 7, session: 43, forked: true, cpu: 33, start: 9876, zombie: false };
        assert_eq!(parse(text), Some(expected));
    }

    fn process(parent: i32) -> Stat {
        Stat { parent, session: 0, forked: false, cpu: 0, start: 1, zombie: false }
    }

    #[test]
    fn who_comes_from_elsewhere_is_not_asked_again_and_who_has_lost_its_parent_is() {
        // 10 is ours, from 1 by 5; 12 is its grandchild. The parent of 20 has gone meanwhile.
        let asked = [(1, 0), (5, 1), (6, 1), (10, 5), (11, 10), (12, 11), (20, 19)];
        let asked: BTreeMap<i32, Stat> = asked.into_iter().map(|(pid, parent)| (pid, process(parent))).collect();
        let mut strangers = BTreeSet::new();
        let family = divide(10, asked, &mut strangers);
        assert_eq!(family.keys().copied().collect::<Vec<_>>(), [11, 12]);
        assert_eq!(strangers.into_iter().collect::<Vec<_>>(), [1, 5, 6]);
    }

    #[test]
    fn a_child_is_found_among_many_however_often_is_looked() {
        let own = i32::try_from(std::process::id()).expect("a pid fits");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("every system has sleep");
        let pid = i32::try_from(child.id()).expect("a pid fits");
        let mut strangers = BTreeSet::new();
        assert!(family(own, &mut strangers).contains_key(&pid));
        assert!(!strangers.is_empty(), "the first process is none of ours");
        assert!(family(own, &mut strangers).contains_key(&pid));
        child.kill().expect("it runs");
        child.wait().expect("it can be waited for");
    }

    #[test]
    fn memory_counts_without_the_pages_of_files() {
        let rollup = "00400000-7fff000 ---p 00000000 00:00 0  [rollup]\nRss:  99 kB\nPss:  70 kB\nPss_Dirty:  5 kB\n\
                      Pss_Anon:  12 kB\nPss_File:  50 kB\nPss_Shmem:  8 kB\n";
        assert_eq!(shares(rollup), Some(20 * 1024));
        assert_eq!(shares("Rss:  99 kB\nPss:  70 kB\n"), None);
        let own = i32::try_from(std::process::id()).expect("a pid fits");
        assert!(resident(own).is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn this_process_is_alive_only_with_its_own_start_time() {
        let pid = i32::try_from(std::process::id()).expect("a pid fits");
        let start = stat(pid).expect("this process runs").start;
        assert!(is_alive(pid, start));
        assert!(!is_alive(pid, start + 1));
    }
}
