//! Completion indexes: sets of them as `0-2,5`, and where a pod carries its own. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(super) fn of_pod(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// Reads `0-2,5`; what cannot be read is left out.
pub(super) fn parse(text: &str) -> BTreeSet<i32> {
    let ranges = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
    });
    ranges.flatten().collect()
}

pub(super) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let parts: Vec<_> = ranges
        .into_iter()
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            // Two in a row are a list, as Kubernetes writes them.
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges_and_read_back() {
        for text in ["", "3", "0,1", "0-2,5", "0-4,6,7,9-11"] {
            assert_eq!(format(&parse(text)), text);
        }
    }
}
