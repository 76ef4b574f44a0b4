//! The first of many nodes with enough room, without looking at each.

use std::ops::Range;

use super::Amount;

/// A tree over nodes; each inner vertex knows the most free processor time and the most free memory below it.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstFit {
    /// A heap: the root at 1, the leaves from `leaves` on.
    most: Vec<Amount>,
    leaves: usize,
    nodes: usize,
}

impl FirstFit {
    pub(super) fn new(free: &[Amount]) -> Self {
        let leaves = free.len().next_power_of_two();
        let mut most = vec![Amount::default(); 2 * leaves];
        most[leaves..leaves + free.len()].copy_from_slice(free);
        let mut tree = Self { most, leaves, nodes: free.len() };
        for vertex in (1..leaves).rev() {
            tree.update(vertex);
        }
        tree
    }

    pub(super) fn len(&self) -> usize {
        self.nodes
    }

    pub(super) fn free(&self, node: usize) -> Amount {
        self.most[self.leaves + node]
    }

    pub(super) fn set(&mut self, node: usize, free: Amount) {
        let mut vertex = self.leaves + node;
        self.most[vertex] = free;
        while vertex > 1 {
            vertex /= 2;
            self.update(vertex);
        }
    }

    /// The first node from `start` on with room for `need` that is `allowed`.
    pub(super) fn find(&self, start: usize, need: Amount, allowed: &impl Fn(usize) -> bool) -> Option<usize> {
        if start >= self.nodes { None } else { self.descend(1, 0..self.leaves, &Wanted { start, need, allowed }) }
    }

    fn update(&mut self, vertex: usize) {
        self.most[vertex] = self.most[2 * vertex].most(self.most[2 * vertex + 1]);
    }

    fn descend(
        &self,
        vertex: usize,
        nodes: Range<usize>,
        wanted: &Wanted<'_, impl Fn(usize) -> bool>,
    ) -> Option<usize> {
        // The padding behind the last node has no room, but a pod may need none.
        let outside = nodes.end <= wanted.start || nodes.start >= self.nodes;
        if outside || !self.most[vertex].covers(wanted.need) {
            return None;
        }
        if vertex >= self.leaves {
            return (wanted.allowed)(nodes.start).then_some(nodes.start);
        }
        let middle = nodes.start.midpoint(nodes.end);
        let left = self.descend(2 * vertex, nodes.start..middle, wanted);
        left.or_else(|| self.descend(2 * vertex + 1, middle..nodes.end, wanted))
    }
}

struct Wanted<'a, F> {
    start: usize,
    need: Amount,
    allowed: &'a F,
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn amount() -> impl Strategy<Value = Amount> {
        (0..5u64, 0..5u64).prop_map(|(cpu, memory)| Amount::new(cpu, memory))
    }

    proptest! {
        #[test]
        fn it_finds_what_looking_at_each_node_finds(
            free in vec(amount(), 0..40),
            changes in vec((0..40usize, amount()), 0..20),
            need in amount(),
            skipped in vec(0..40usize, 0..10),
            start in 0..40usize,
        ) {
            let mut plain = free.clone();
            let mut tree = FirstFit::new(&free);
            for (node, amount) in changes {
                if node < plain.len() {
                    plain[node] = amount;
                    tree.set(node, amount);
                }
            }
            let allowed = |node: usize| !skipped.contains(&node);
            let expected = (start..plain.len()).find(|node| plain[*node].covers(need) && allowed(*node));
            prop_assert_eq!(tree.find(start, need, &allowed), expected);
        }
    }
}
