//! Spans, of which the newest are kept, and what follows from them: how long operations take, and who causes what in whom.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::SinkSeen;
use crate::trace::FLOW;

/// How many are kept. The oldest go first.
const MOST: usize = 200_000;

/// A piece of work.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Span {
    /// The trace and the ids of spans in hexadecimal digits; the parent's is empty where there is none.
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) service: String,
    pub(super) name: String,
    /// As OTLP counts: 2 is a server, 3 a client, 4 a producer, 5 a consumer.
    pub(super) kind: i32,
    /// In nanoseconds since 1970.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) failed: bool,
    pub(super) attributes: Map<String, Value>,
}

/// An operation of a service, as its spans name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationSeen {
    /// The service.
    pub service: String,
    /// The name of its spans.
    pub name: String,
    /// How many there were.
    pub count: usize,
    /// How many of them failed.
    pub failed: usize,
    /// Half of them took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: u64,
}

/// A service that has caused work in another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSeen {
    /// Who has caused it.
    pub parent: String,
    /// Who has done it.
    pub child: String,
    /// How often.
    pub count: usize,
}

/// A trace of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSeen {
    /// The flow.
    pub flow: String,
    /// The trace, in hexadecimal digits.
    pub trace: String,
    /// The services that took part in it.
    pub services: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct Spans {
    kept: VecDeque<Span>,
    taken: u64,
}

impl Spans {
    pub(super) fn add(&mut self, span: Span) {
        self.taken += 1;
        if self.kept.len() == MOST {
            self.kept.pop_front();
        }
        self.kept.push_back(span);
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Span> {
        self.kept.iter()
    }

    /// What is told of them all.
    pub(super) fn seen(&self, lines: u64) -> SinkSeen {
        let mut operations: BTreeMap<(&str, &str), (usize, Vec<u64>)> = BTreeMap::new();
        let mut traces: BTreeMap<&str, (Option<&str>, BTreeSet<&str>)> = BTreeMap::new();
        for span in &self.kept {
            let (failed, times) = operations.entry((&span.service, &span.name)).or_default();
            *failed += usize::from(span.failed);
            times.push(span.end.saturating_sub(span.start) / 1000);
            let (flow, services) = traces.entry(&span.trace).or_default();
            services.insert(&span.service);
            *flow = flow.or_else(|| span.attributes.get(FLOW)?.as_str());
        }
        let operations = operations.into_iter().map(|((service, name), (failed, mut times))| {
            times.sort_unstable();
            // The least value that so many of a hundred are not above.
            let quantile = |percent: usize| times[(times.len() * percent).div_ceil(100).saturating_sub(1)];
            let (service, name) = (service.to_owned(), name.to_owned());
            OperationSeen { service, name, count: times.len(), failed, p50_us: quantile(50), p99_us: quantile(99) }
        });
        let mut flows: BTreeMap<&str, (&str, &BTreeSet<&str>)> = BTreeMap::new();
        for (trace, (flow, services)) in &traces {
            let Some(flow) = flow else { continue };
            let best = flows.entry(flow).or_insert((trace, services));
            if services.len() > best.1.len() {
                *best = (trace, services);
            }
        }
        let flows = flows.into_iter().map(|(flow, (trace, services))| TraceSeen {
            flow: flow.to_owned(),
            trace: trace.to_owned(),
            services: services.iter().map(|service| (*service).to_owned()).collect(),
        });
        SinkSeen {
            lines,
            spans: self.taken,
            traces: traces.len(),
            operations: operations.collect(),
            calls: self.calls(),
            flows: flows.collect(),
            alerts: Vec::new(),
        }
    }

    /// Who has caused work in whom: the service of a span whose parent is a span of another service.
    pub(super) fn calls(&self) -> Vec<CallSeen> {
        let services: HashMap<(&str, &str), &str> =
            self.kept.iter().map(|span| ((span.trace.as_str(), span.id.as_str()), span.service.as_str())).collect();
        let mut calls: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for span in self.kept.iter().filter(|span| !span.parent.is_empty()) {
            let parent = services.get(&(span.trace.as_str(), span.parent.as_str()));
            if let Some(parent) = parent.filter(|parent| **parent != span.service) {
                *calls.entry((parent, &span.service)).or_default() += 1;
            }
        }
        let call = |((parent, child), count): ((&str, &str), usize)| CallSeen {
            parent: parent.to_owned(),
            child: child.to_owned(),
            count,
        };
        calls.into_iter().map(call).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: &str, id: &str, parent: &str, service: &str, microseconds: u64) -> Span {
        let attributes = Map::from_iter([(FLOW.to_owned(), Value::from("order"))]);
        let (trace, id, parent, service) = (trace.to_owned(), id.to_owned(), parent.to_owned(), service.to_owned());
        let (name, end) = ("work".to_owned(), microseconds * 1000);
        Span { trace, id, parent, service, name, end, attributes, ..Span::default() }
    }

    #[test]
    fn calls_and_times_follow_from_spans() {
        let mut spans = Spans::default();
        spans.add(span("1", "a", "", "web", 10));
        // Its parent has the same id in another trace, and is none of its.
        spans.add(span("2", "b", "a", "stock", 20));
        spans.add(span("1", "b", "a", "stock", 30));
        spans.add(span("1", "c", "b", "stock", 40));
        let seen = spans.seen(7);
        let call = |parent: &str, child: &str| CallSeen { parent: parent.into(), child: child.into(), count: 1 };
        assert_eq!(seen.calls, [call("web", "stock")]);
        assert_eq!((seen.lines, seen.spans, seen.traces), (7, 4, 2));
        let times: Vec<_> = seen.operations.iter().map(|one| (one.service.as_str(), one.p50_us, one.p99_us)).collect();
        assert_eq!(times, [("stock", 30, 40), ("web", 10, 10)]);
        let services = BTreeSet::from(["stock".to_owned(), "web".to_owned()]);
        assert_eq!(seen.flows, [TraceSeen { flow: "order".into(), trace: "1".into(), services }]);
    }
}
