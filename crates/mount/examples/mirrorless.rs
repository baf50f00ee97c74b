//! Serves a directory unreplicated until it is killed: SOURCE TARGET. For trials and tests.
//!
//! The product's own way to do this is `evenkeel mount`.

use std::path::Path;
use std::sync::Arc;

use mount::{Immediate, Order, Serving, Tree};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (source, target) = (Path::new(&arguments[1]), Path::new(&arguments[2]));
    let tree = Arc::new(Tree::open(0, source).expect("source"));
    let order = Arc::new(Order::new(Immediate));
    let _serving = Serving::start(tree, order, target, 4).expect("mount");
    println!("ready");
    loop {
        std::thread::park();
    }
}
