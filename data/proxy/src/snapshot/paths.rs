//! Candidate routes for a path, without looking at every route.
//!
//! Routes are tried in the order of the configuration. A radix tree over all literal paths yields, along one walk, the
//! lists of routes whose path condition holds; the smallest index among them whose other conditions hold too is the
//! first route that matches. Only regular expressions are tried one by one.

use weir_config::PathMatch;

/// Literal paths of one virtual host.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
    /// Routes with a regular expression, in order.
    regexes: Vec<u32>,
}

#[derive(Debug, Default)]
struct Node {
    label: Box<[u8]>,
    exact: Vec<u32>,
    prefix: Vec<u32>,
    segments: Vec<u32>,
    children: Vec<(u8, u32)>,
}

impl Paths {
    /// Builds the tree from the routes' path conditions, in order.
    pub(super) fn new<'a>(paths: impl Iterator<Item = &'a PathMatch>) -> Self {
        let mut tree = Paths { nodes: vec![Node::default()], regexes: Vec::new() };
        for (route, path) in (0..).zip(paths) {
            match path {
                PathMatch::Exact(path) => tree.node(path.as_bytes()).exact.push(route),
                PathMatch::Prefix(path) => tree.node(path.as_bytes()).prefix.push(route),
                PathMatch::Segments(path) => tree.node(path.trim_end_matches('/').as_bytes()).segments.push(route),
                PathMatch::Regex(_) => tree.regexes.push(route),
            }
        }
        tree
    }

    /// The first route (smallest index) for the path that also `holds`.
    pub(super) fn first(&self, path: &[u8], holds: impl Fn(u32) -> bool) -> Option<u32> {
        let mut best = None;
        let mut try_all = |routes: &[u32]| {
            let better = routes.iter().take_while(|route| best.is_none_or(|best| **route < best));
            if let Some(&route) = { better }.find(|route| holds(**route)) {
                best = Some(route);
            }
        };
        let (mut node, mut at) = (&self.nodes[0], 0);
        loop {
            try_all(&node.prefix);
            if at == path.len() || path[at] == b'/' {
                try_all(&node.segments);
            }
            if at == path.len() {
                try_all(&node.exact);
                break;
            }
            let Some(child) = self.child(node, path[at]) else { break };
            if !path[at..].starts_with(&child.label) {
                break;
            }
            at += child.label.len();
            node = child;
        }
        try_all(&self.regexes);
        best
    }

    fn child(&self, node: &Node, byte: u8) -> Option<&Node> {
        node.children.iter().find(|(first, _)| *first == byte).map(|&(_, child)| &self.nodes[child as usize])
    }

    /// The node of a path, made if it is not there.
    fn node(&mut self, path: &[u8]) -> &mut Node {
        let (mut current, mut rest) = (0, path);
        while !rest.is_empty() {
            let position = self.nodes[current].children.iter().position(|(first, _)| *first == rest[0]);
            let Some(position) = position else {
                current = self.add_child(current, rest);
                break;
            };
            let child = self.nodes[current].children[position].1 as usize;
            let common = common_prefix(&self.nodes[child].label, rest);
            current =
                if common < self.nodes[child].label.len() { self.split(current, position, common) } else { child };
            rest = &rest[common..];
        }
        &mut self.nodes[current]
    }

    fn add_child(&mut self, parent: usize, label: &[u8]) -> usize {
        let child = self.nodes.len();
        self.nodes.push(Node { label: label.into(), ..Node::default() });
        self.nodes[parent].children.push((label[0], child as u32));
        child
    }

    /// Puts a node between a parent and its child, after `common` bytes of the child's label.
    fn split(&mut self, parent: usize, position: usize, common: usize) -> usize {
        let child = self.nodes[parent].children[position].1;
        let label = std::mem::take(&mut self.nodes[child as usize].label);
        let (head, tail) = label.split_at(common);
        let middle = self.nodes.len();
        self.nodes.push(Node { label: head.into(), children: vec![(tail[0], child)], ..Node::default() });
        self.nodes[child as usize].label = tail.into();
        self.nodes[parent].children[position].1 = middle as u32;
        middle
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(condition: &PathMatch, path: &str) -> bool {
        match condition {
            PathMatch::Exact(exact) => path == exact,
            PathMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
            PathMatch::Segments(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathMatch::Regex(_) => true,
        }
    }

    #[test]
    fn segments_end_at_slashes() {
        let routes = [PathMatch::Segments("/a/".into()), PathMatch::Segments("/".into())];
        let paths = Paths::new(routes.iter());
        let first = |path: &str| paths.first(path.as_bytes(), |_| true);
        assert_eq!([first("/a"), first("/a/b"), first("/ab")], [Some(0), Some(0), Some(1)]);
    }

    fn condition() -> impl Strategy<Value = PathMatch> {
        let path = "/[ab/]{0,4}";
        prop_oneof![
            path.prop_map(PathMatch::Exact),
            path.prop_map(PathMatch::Prefix),
            path.prop_map(PathMatch::Segments),
            Just(PathMatch::Regex(String::new())),
        ]
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_a_scan_in_order_finds(
            conditions in prop::collection::vec(condition(), 0..12),
            path in "/[ab/]{0,6}",
            excluded in prop::collection::vec(any::<bool>(), 12),
        ) {
            let holds = |route: u32| !excluded[route as usize] && matches(&conditions[route as usize], &path);
            let expected = (0..conditions.len() as u32).find(|&route| holds(route));
            let found = Paths::new(conditions.iter()).first(path.as_bytes(), |route| !excluded[route as usize]);
            prop_assert_eq!(found, expected);
        }
    }
}
