//! What `/proc` says of processes: which are descendants of which, when they started, what they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Consumption;

/// Clock ticks in a second, as `/proc` counts them. Linux shows `USER_HZ` = 100 on every architecture that we run on
/// (`proc(5)`: `sysconf(_SC_CLK_TCK)`).
const TICKS_PER_SECOND: u64 = 100;

/// What we read of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    /// In ticks: in user and in kernel mode.
    cpu: u64,
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
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in all() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                next.push(*child);
            }
        }
    }
    found
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

/// Memory that is the process's own: resident, without what it shares with files.
fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    Some((kibibytes("RssAnon:")? + kibibytes("RssShmem:").unwrap_or_default()) * 1024)
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
        let text = "42 (a) S (b) c) S 7 42 42 0 -1 4194560 1 0 0 0 11 22 0 0 20 0 1 0 9876 0 0";
        assert_eq!(parse(text), Some(Stat { parent: 7, cpu: 33, start: 9876, zombie: false }));
    }

    #[test]
    fn this_process_is_alive_only_with_its_own_start_time() {
        let pid = i32::try_from(std::process::id()).expect("a pid fits");
        let start = stat(pid).expect("this process runs").start;
        assert!(is_alive(pid, start));
        assert!(!is_alive(pid, start + 1));
    }
}
