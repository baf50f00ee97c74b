//! The names of the world: two nodes and one mirror module.

use model::{ModuleName, NodeName};

/// The one module.
#[must_use]
pub fn shop() -> ModuleName {
    SHOP.with(ModuleName::clone)
}

pub(crate) fn node_name(i: usize) -> NodeName {
    NODES.with(|nodes| nodes[i].clone())
}

// Made once for each thread of a search, as names are asked for very often.
thread_local! {
    #[allow(clippy::expect_used, reason = "the name is a constant, and valid")]
    static SHOP: ModuleName = ModuleName::new("shop").expect("a valid name");
    #[allow(clippy::expect_used, reason = "the names are constants, and valid")]
    static NODES: [NodeName; 2] =
        ["node1", "node2"].map(|name| NodeName::new(name).expect("a valid name"));
}
