//! Each step of a joining and of two starts at once is cut once, by one fault or another;
//! `cargo xtask sim --cuts` cuts each by all of them.

use sim::cuts::{CASES, FAULTS};

#[test]
fn a_pair_settles_whichever_step_is_cut() {
    let mut cut = 0;
    for case in CASES {
        let cuts = case.cut(FAULTS.len());
        assert!(cuts.broken.is_empty(), "{}", cuts.broken.join("\n"));
        assert!(cuts.steps >= 8 && cuts.cut == cuts.steps, "{}: {cuts:?}", case.name);
        cut += cuts.cut;
    }
    assert!(cut > 200, "only {cut} steps were cut");
}
