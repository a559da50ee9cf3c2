//! Which sequences hold which beginnings: a radix tree over blocks of tokens.
//!
//! A path from the root is a beginning of a text, cut into whole blocks. Each node knows the sequences whose cache begins
//! so; a node that no sequence holds is gone.

use super::Sequence;
use crate::sampler::Token;
use std::collections::{BTreeMap, BTreeSet};

type Node = usize;
/// Where every path begins; it is never freed.
const ROOT: Node = 0;

#[derive(Clone, Debug, Default)]
struct Block {
    parent: Node,
    tokens: Box<[Token]>,
    children: BTreeMap<Box<[Token]>, Node>,
    holders: BTreeSet<Sequence>,
}

/// The tree, and how far along it each sequence has come.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    block: usize,
    nodes: Vec<Block>,
    free: Vec<Node>,
    /// The last whole block of each sequence, and how many there are.
    tips: Vec<(Node, usize)>,
}

impl Tree {
    /// An empty tree over blocks of `block` tokens for `sequences` sequences.
    pub(super) fn new(block: usize, sequences: usize) -> Self {
        Self { block: block.max(1), nodes: vec![Block::default()], free: Vec::new(), tips: vec![(ROOT, 0); sequences] }
    }

    /// The longest beginning of `tokens` that anybody holds in whole blocks: how many, and who. None where no block
    /// matches.
    pub(super) fn find(&self, tokens: &[Token]) -> Option<(usize, &BTreeSet<Sequence>)> {
        let (mut node, mut blocks) = (ROOT, 0);
        for block in tokens.chunks_exact(self.block) {
            match self.nodes.get(node).and_then(|at| at.children.get(block)) {
                Some(next) => (node, blocks) = (*next, blocks + 1),
                None => break,
            }
        }
        self.nodes.get(node).filter(|_| blocks > 0).map(|found| (blocks, &found.holders))
    }

    /// A sequence now holds `tokens`, which begin with all that it held before.
    pub(super) fn extend(&mut self, sequence: Sequence, tokens: &[Token]) {
        let (mut node, mut blocks) = self.tip(sequence);
        for block in tokens.chunks_exact(self.block).skip(blocks) {
            node = self.child(node, block);
            if let Some(at) = self.nodes.get_mut(node) {
                at.holders.insert(sequence);
            }
            blocks += 1;
        }
        self.set_tip(sequence, (node, blocks));
    }

    /// A sequence holds no more than its first `tokens` tokens.
    pub(super) fn truncate(&mut self, sequence: Sequence, tokens: usize) {
        let (mut node, mut blocks) = self.tip(sequence);
        while blocks > tokens / self.block {
            let Some(at) = self.nodes.get_mut(node) else { break };
            at.holders.remove(&sequence);
            let (parent, gone) = (at.parent, at.holders.is_empty());
            // A child's holders hold its parent too, so whoever held this one last has already left its children.
            if gone {
                self.remove(node);
            }
            node = parent;
            blocks -= 1;
        }
        self.set_tip(sequence, (node, blocks));
    }

    fn tip(&self, sequence: Sequence) -> (Node, usize) {
        self.tips.get(sequence).copied().unwrap_or((ROOT, 0))
    }

    fn set_tip(&mut self, sequence: Sequence, tip: (Node, usize)) {
        if let Some(at) = self.tips.get_mut(sequence) {
            *at = tip;
        }
    }

    fn child(&mut self, parent: Node, block: &[Token]) -> Node {
        if let Some(known) = self.nodes.get(parent).and_then(|at| at.children.get(block)) {
            return *known;
        }
        let new = Block { parent, tokens: block.into(), ..Block::default() };
        let node = self.free.pop().unwrap_or(self.nodes.len());
        match self.nodes.get_mut(node) {
            Some(place) => *place = new,
            None => self.nodes.push(new),
        }
        if let Some(at) = self.nodes.get_mut(parent) {
            at.children.insert(block.into(), node);
        }
        node
    }

    fn remove(&mut self, node: Node) {
        let Some(gone) = self.nodes.get_mut(node).map(std::mem::take) else { return };
        if let Some(parent) = self.nodes.get_mut(gone.parent) {
            parent.children.remove(&gone.tokens);
        }
        self.free.push(node);
    }

    /// Nodes in use, for tests.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.nodes.len() - self.free.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(tree: &Tree, tokens: &[Token]) -> Vec<Sequence> {
        tree.find(tokens).map(|(_, holders)| holders.iter().copied().collect()).unwrap_or_default()
    }

    #[test]
    fn the_longest_common_beginning_is_found() {
        let mut tree = Tree::new(2, 3);
        tree.extend(0, &[1, 2, 3, 4, 5]);
        tree.extend(1, &[1, 2, 9, 9]);
        assert_eq!(holders(&tree, &[1, 2, 3, 4, 7]), [0]);
        assert_eq!(holders(&tree, &[1, 2, 7, 7]), [0, 1]);
        assert!(holders(&tree, &[2, 1]).is_empty());
        assert!(holders(&tree, &[1]).is_empty());
        assert_eq!(tree.blocks(), 3);
    }

    #[test]
    fn a_block_goes_with_its_last_holder() {
        let mut tree = Tree::new(2, 2);
        tree.extend(0, &[1, 2, 3, 4]);
        tree.extend(1, &[1, 2, 3, 4, 5, 6]);
        tree.truncate(1, 5);
        assert_eq!(holders(&tree, &[1, 2, 3, 4, 5, 6]), [0, 1]);
        tree.truncate(0, 3);
        assert_eq!(holders(&tree, &[1, 2, 3, 4]), [1]);
        tree.truncate(1, 0);
        assert_eq!((holders(&tree, &[1, 2]), tree.blocks()), (vec![0], 1));
        tree.truncate(0, 0);
        assert_eq!(tree.blocks(), 0);
        tree.extend(0, &[7, 8]);
        assert_eq!((holders(&tree, &[7, 8]), tree.nodes.len()), (vec![0], 4));
    }
}
