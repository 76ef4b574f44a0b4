//! Where a message stands in its trace, as W3C's Trace Context writes it: `00-<trace>-<span>-01`.

mod export;

pub(crate) use self::export::{Exporter, Finished, Kind};

/// The name of the header.
pub(crate) const TRACE_HEADER: &str = "traceparent";

/// The attribute of a span that names the flow whose message it dealt with.
pub(crate) const FLOW: &str = "landfall.flow";

/// One piece of work in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    trace: u128,
    own: u64,
    parent: Option<u64>,
}

impl Span {
    /// A new piece of work: in the trace of its parent, or in a trace of its own where nothing readable is given.
    pub(crate) fn within(parent: Option<&str>) -> Self {
        let own = rand::random_range(1..=u64::MAX);
        match parent.and_then(parse) {
            Some((trace, parent)) => Self { trace, own, parent: Some(parent) },
            None => Self { trace: rand::random_range(1..=u128::MAX), own, parent: None },
        }
    }

    /// What those are told to whom the work is passed on. All traces are recorded.
    pub(crate) fn header(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace, self.own)
    }

    pub(crate) fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    pub(crate) fn span_id(&self) -> String {
        format!("{:016x}", self.own)
    }

    pub(crate) fn parent_id(&self) -> String {
        self.parent.map(|parent| format!("{parent:016x}")).unwrap_or_default()
    }
}

/// The trace and the span of the one who sent it. Later versions may have more fields (section 3.2.4).
fn parse(header: &str) -> Option<(u128, u64)> {
    let mut fields = header.split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let readable = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !readable || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
    (trace != 0 && span != 0).then_some((trace, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_stays_in_the_trace_of_its_parent() {
        let first = Span::within(None);
        let second = Span::within(Some(&first.header()));
        assert_eq!((second.trace_id(), second.parent_id()), (first.trace_id(), first.span_id()));
        assert_ne!(second.span_id(), first.span_id());
    }

    #[test]
    fn what_is_no_traceparent_begins_a_new_trace() {
        let example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(Span::within(Some(example)).trace_id(), "0af7651916cd43dd8448eb211c80319c");
        for wrong in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(Span::within(Some(wrong)).parent_id(), "", "{wrong}");
        }
    }
}
