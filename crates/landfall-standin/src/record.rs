//! What a stand-in remembers of messages: which it has dealt with, and which have arrived at an end of their flow.
//!
//! A service keeps it in a file, one line for each message, so that a process that is killed and starts again knows what the
//! one before it has done, and so that nothing that has arrived is forgotten with a pod that is gone.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::behaviour::{Arrival, FlowPart, Message};

/// How many messages are remembered, for each purpose: hours of a flow of ten a second.
const KEPT: usize = 200_000;

/// A message at one step of its flow.
type Key = (String, u32, u64);

/// The arrivals of each flow, oldest first.
pub(crate) type Arrivals = BTreeMap<String, VecDeque<Arrival>>;

#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    done: HashSet<Key>,
    /// The same, oldest first.
    order: VecDeque<Key>,
    arrivals: Arrivals,
    suppressed: BTreeMap<String, u64>,
    file: Option<File>,
}

/// A message that was dealt with, as a line in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    flow: String,
    hop: u32,
    id: u64,
    /// After how many microseconds, if the flow ends there.
    after_us: Option<u64>,
    /// The consuming edge that has brought it, where a program says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    edge: Option<String>,
}

impl Record {
    /// One that goes on from what is in the file, and writes to it.
    pub(crate) fn kept_in(path: &Path) -> io::Result<Self> {
        let mut inner = Inner::default();
        let mut entries = read(path)?;
        entries.drain(..entries.len().saturating_sub(KEPT));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Written anew, as it would grow with every run and its last line may be broken off.
        let mut lines = Vec::new();
        for entry in &entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        let new = path.with_extension("new");
        fs::write(&new, lines)?;
        fs::rename(&new, path)?;
        for entry in entries {
            inner.take(entry);
        }
        inner.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        Ok(Self(Mutex::new(inner)))
    }

    /// Whether the message was dealt with before; if so, that is counted.
    pub(crate) fn knows(&self, flow: &str, message: &Message) -> bool {
        let mut inner = self.lock();
        let known = inner.done.contains(&(flow.to_owned(), message.hop, message.id));
        if known {
            *inner.suppressed.entry(flow.to_owned()).or_default() += 1;
        }
        known
    }

    /// Remembers that the message was dealt with, and if its flow ends here, after how many microseconds.
    pub(crate) fn deal(&self, flow: &str, message: &Message, after_us: Option<u64>) -> io::Result<()> {
        let entry = Entry { flow: flow.to_owned(), hop: message.hop, id: message.id, after_us, edge: None };
        let mut inner = self.lock();
        if let Some(file) = &mut inner.file {
            // In one piece: a process may be killed at any time.
            file.write_all(format!("{}\n", serde_json::to_string(&entry)?).as_bytes())?;
        }
        inner.take(entry);
        Ok(())
    }

    /// The arrivals by flow, and what was suppressed.
    pub(crate) fn told(&self) -> (Arrivals, BTreeMap<String, u64>) {
        let inner = self.lock();
        (inner.arrivals.clone(), inner.suppressed.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics while it remembers")
    }
}

impl Inner {
    fn take(&mut self, entry: Entry) {
        let Entry { flow, hop, id, after_us, .. } = entry;
        if let Some(after_us) = after_us {
            let arrivals = self.arrivals.entry(flow.clone()).or_default();
            if arrivals.len() == KEPT {
                arrivals.pop_front();
            }
            arrivals.push_back(Arrival { id, hop, after_us });
        }
        let key = (flow, hop, id);
        if self.done.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.done.remove(&oldest);
        }
    }
}

/// What has arrived, as the file of a service says that runs no more or is a program. There is nothing in one that is not
/// there. `flows` are the parts that the service has in them.
pub fn arrivals(path: &Path, flows: &BTreeMap<String, FlowPart>) -> io::Result<Arrivals> {
    let mut inner = Inner::default();
    for mut entry in read(path)? {
        if let Some(part) = flows.get(&entry.flow) {
            entry.hop = part.stage_of(entry.hop, entry.edge.as_deref());
        }
        inner.take(entry);
    }
    Ok(inner.arrivals)
}

fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    // The last line may have been broken off.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Told;

    #[test]
    fn a_message_is_known_at_the_step_where_it_was_dealt_with() {
        let record = Record::default();
        let message = |hop| Message { id: 7, hop, ..Message::default() };
        assert!(!record.knows("order", &message(1)));
        record.deal("order", &message(1), None).expect("it is in memory");
        assert!(record.knows("order", &message(1)));
        assert!(!record.knows("order", &message(2)), "it comes back at a later step");
        assert_eq!(record.told().1, BTreeMap::from([("order".to_owned(), 1)]));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let record = Record::default();
        for id in 0..=KEPT as u64 {
            let message = Message { id, ..Message::default() };
            record.deal("order", &message, None).expect("it is in memory");
        }
        assert!(!record.knows("order", &Message { id: 0, ..Message::default() }));
        assert!(record.knows("order", &Message { id: 1, ..Message::default() }));
    }

    #[test]
    fn who_starts_again_knows_what_was_done_before() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("web/web-1");
        let open = || Record::kept_in(&file).expect("it can be written");
        let message = |id| Message { id, hop: 2, ..Message::default() };
        open().deal("order", &message(7), Some(1500)).expect("it can be written");
        fs::OpenOptions::new()
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(b"{\"flow\":\"order\",\"ho"))
            .expect("a line can be broken off");
        let again = open();
        assert!(again.knows("order", &message(7)));
        assert!(!again.knows("order", &message(8)));
        let arrived = VecDeque::from([Arrival { id: 7, hop: 2, after_us: 1500 }]);
        assert_eq!(again.told().0, BTreeMap::from([("order".to_owned(), arrived.clone())]));
        assert_eq!(arrivals(&file, &BTreeMap::new()).expect("it can be read")["order"], arrived);
        assert!(arrivals(&folder.path().join("none"), &BTreeMap::new()).expect("none is nothing").is_empty());
    }

    #[test]
    fn what_a_program_says_leads_to_the_stage_by_the_edge_that_brought_it() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join("mail-1");
        let lines = [
            r#"{"flow":"order","hop":1,"id":7,"after_us":10}"#,
            r#"{"flow":"order","hop":1,"id":7,"after_us":20,"edge":"mail consume events/sent"}"#,
            r#"{"flow":"other","hop":1,"id":7,"after_us":30}"#,
        ];
        fs::write(&file, lines.join("\n")).expect("it can be written");
        let told = |edge: Option<&str>, stage| Told { hop: 1, edge: edge.map(ToOwned::to_owned), stage };
        let told = vec![told(None, 2), told(Some("mail consume events/sent"), 5)];
        let flows = BTreeMap::from([("order".to_owned(), FlowPart { told, ..FlowPart::default() })]);
        let arrivals = arrivals(&file, &flows).expect("it can be read");
        let hops = |flow: &str| arrivals[flow].iter().map(|arrival| arrival.hop).collect::<Vec<_>>();
        assert_eq!((hops("order"), hops("other")), (vec![2, 5], vec![1]));
    }
}
