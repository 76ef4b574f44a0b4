//! A process that writes is killed at a random point, again and again; whatever it was told is written must be there.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinSet;

use super::draft;
use crate::store::{Draft, Expect, Key, Store, Write};

const TEST: &str = "store::tests::crash::no_acknowledged_write_is_lost_when_the_process_is_killed";

/// The folder of the store, set for the process that will be killed.
const VICTIM: &str = "LANDFALL_STORE_VICTIM";

const WRITERS: usize = 8;

#[test]
fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(write_until_killed(Path::new(&folder)));
    }
    let seed = std::env::var("LANDFALL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let rounds: u32 = std::env::var("LANDFALL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(30);
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    // By writer: the last round that was acknowledged. It is carried on from kill to kill.
    let mut acknowledged: HashMap<usize, u64> = HashMap::new();
    for round in 0..rounds {
        kill_after(random.random_range(1..500), folder.path(), &mut acknowledged);
        let store = Store::open(Some(folder.path())).expect("the dead hold no lock");
        for (writer, acknowledged) in &mut acknowledged {
            let found = written(&store, *writer).unwrap_or_default();
            let message = format!("LANDFALL_SEED={seed} round {round} writer {writer}");
            assert!(found == *acknowledged || found == *acknowledged + 1, "{message}: {found}, not {acknowledged}");
            *acknowledged = found;
        }
    }
}

/// The number that a writer has written last. It writes it in two objects at once, and deletes a third each time.
fn written(store: &Store, writer: usize) -> Option<u64> {
    let read = |key: &Key| store.get(key).map(|record| record.value()["spec"].as_u64().expect("a number"));
    let [left, right] = pair(writer);
    let number = read(&left);
    assert_eq!(number, read(&right), "both are written or none");
    let passing = read(&passing(writer));
    assert_eq!(passing.is_some(), number.is_some_and(|number| number % 2 == 1), "{number:?} {passing:?}");
    number
}

fn pair(writer: usize) -> [Key; 2] {
    ["left", "right"].map(|side| Key::new(&side.into(), "default", &writer.to_string()))
}

fn passing(writer: usize) -> Key {
    Key::new(&"passing".into(), "default", &writer.to_string())
}

fn kill_after(lines: usize, folder: &Path, acknowledged: &mut HashMap<usize, u64>) {
    let mut victim = Command::new(std::env::current_exe().expect("the test knows itself"));
    victim.args([TEST, "--exact", "--nocapture"]).env(VICTIM, folder).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut victim = victim.spawn().expect("the test can be started again");
    let mut told = BufReader::new(victim.stdout.take().expect("stdout is piped")).lines();
    let mut take = |line: String| {
        let mut words = line.split(' ');
        if words.next() == Some("written") {
            let mut number = || words.next().and_then(|word| word.parse().ok()).expect("two numbers");
            let writer = usize::try_from(number()).expect("a small number");
            acknowledged.insert(writer, number());
        }
    };
    told.by_ref().take(lines).for_each(|line| take(line.expect("the victim writes text")));
    victim.kill().expect("the victim is alive until now");
    victim.wait().expect("the victim is a child");
    // What it had said before it died counts. Its last line may be cut.
    let rest: Vec<_> = told.map_while(Result::ok).collect();
    rest.into_iter().filter(|line| line.ends_with('.')).for_each(take);
}

async fn write_until_killed(folder: &Path) {
    let store = Store::open(Some(folder)).expect("the folder is free");
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut number = written(&store, writer).unwrap_or_default();
            loop {
                number += 1;
                let mut writes: Vec<_> = pair(writer).into_iter().map(|key| put(&store, key, number)).collect();
                let passing = passing(writer);
                writes.push(match store.get(&passing) {
                    None => put(&store, passing, number),
                    Some(record) => Write::Delete {
                        key: passing,
                        expect: Expect::Exactly(record.revision()),
                        last: Draft::of(&record),
                    },
                });
                store.commit(writes).await.expect("nobody else writes these");
                let mut stdout = std::io::stdout().lock();
                writeln!(stdout, "written {writer} {number} .").expect("the parent listens");
            }
        });
    }
    writers.join_all().await;
}

fn put(store: &Store, key: Key, number: u64) -> Write {
    let expect = store.get(&key).map_or(Expect::Absent, |record| Expect::Exactly(record.revision()));
    let draft = draft(&key, &json!(number));
    Write::Put { key, expect, draft }
}
