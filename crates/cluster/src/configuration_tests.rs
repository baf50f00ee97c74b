//! Who agrees to a configuration, and how a node finds out what became of one.

use model::config::Content;

use super::*;

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn files(texts: &[(&str, &str)]) -> Files {
    let content = |text: &str| Content { text: text.to_owned(), executable: false };
    Files(texts.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect())
}

fn stand(number: u64, files: &Files) -> Stand {
    Stand { number, digest: files.digest() }
}

/// From node1, number 8 after 7.
fn proposal(old: &Files, new: &Files) -> Proposal {
    let version = Version {
        number: 8,
        at_ms: 1,
        from: name("node1"),
        origin: Origin::Applied,
        files: new.clone(),
    };
    Proposal {
        id: "one".to_owned(),
        version,
        base: old.digests(),
        follows: stand(7, old),
        without: Vec::new(),
        overwrite: false,
    }
}

struct Case {
    old: Files,
    new: Files,
    draft: Files,
    stand: Stand,
    pending: Option<Proposal>,
    proposal: Proposal,
}

impl Case {
    fn new() -> Case {
        let old = files(&[("cluster.toml", "a"), ("modules/shop.toml", "a")]);
        let new = files(&[("cluster.toml", "a"), ("modules/shop.toml", "b")]);
        let (draft, stand, proposal) = (old.clone(), stand(7, &old), proposal(&old, &new));
        Case { old, new, draft, stand, pending: None, proposal }
    }

    fn judge(&self) -> Result<(), String> {
        let (node, pending) = (&name("node2"), self.pending.as_ref());
        let own = Own { node, stand: self.stand, pending, draft: &self.draft };
        judge(&own, &self.proposal)
    }

    fn refused(&mut self, why: &str) {
        let said = self.judge().unwrap_err();
        assert!(said.contains(why), "{said}");
        self.proposal.overwrite = true;
        assert_eq!(self.judge(), Ok(()));
    }
}

#[test]
fn a_node_agrees_to_what_follows_its_own() {
    let mut case = Case::new();
    assert_eq!(case.judge(), Ok(()));
    case.draft = case.new.clone();
    assert_eq!(case.judge(), Ok(()), "it is as it shall be already");
    case.pending = Some(case.proposal.clone());
    assert_eq!(case.judge(), Ok(()), "asked twice");
}

#[test]
fn a_node_that_stands_elsewhere_refuses() {
    let mut case = Case::new();
    case.stand = stand(6, &case.old);
    case.refused("has configuration 6, not 7");
    let mut case = Case::new();
    case.stand = stand(7, &case.new);
    case.refused("has configuration 7, another");
    let mut case = Case::new();
    case.stand = stand(8, &case.old);
    assert!(case.judge().unwrap_err().contains("has configuration 8 already"));
    case.proposal.overwrite = true;
    assert!(case.judge().is_err(), "no number is given twice");
}

#[test]
fn before_the_first_only_the_files_count() {
    let mut case = Case::new();
    case.stand = stand(0, &case.new);
    case.proposal.follows = stand(0, &case.old);
    assert_eq!(case.judge(), Ok(()));
    case.draft = files(&[("cluster.toml", "a"), ("modules/shop.toml", "c")]);
    case.refused("edited on node2, and not applied: modules/shop.toml");
    let mut case = Case::new();
    (case.stand, case.proposal.follows) = (stand(0, &case.new), stand(0, &case.old));
    case.draft = files(&[("cluster.toml", "a")]);
    assert_eq!(case.judge(), Ok(()), "what it never had, nobody has removed");
}

#[test]
fn what_was_edited_is_not_overwritten_unasked() {
    for (draft, why) in [
        (&[("cluster.toml", "c"), ("modules/shop.toml", "a")][..], "applied: cluster.toml"),
        (&[("cluster.toml", "a")], "applied: modules/shop.toml"),
        (
            &[("cluster.toml", "a"), ("modules/shop.toml", "a"), ("modules/web.toml", "c")],
            "applied: modules/web.toml",
        ),
    ] {
        let mut case = Case::new();
        case.draft = files(draft);
        case.refused(why);
    }
    let mut case = Case::new();
    case.draft = files(&[]);
    case.proposal.version.from = name("node2");
    assert_eq!(case.judge(), Ok(()), "the node that applies may have edited its own");
    case.proposal.version.origin = Origin::Rollback(3);
    assert!(case.judge().is_err(), "who goes back does not mean to lose them");
}

#[test]
fn one_at_a_time_unless_its_coordinator_is_given_up() {
    let mut case = Case::new();
    let mut other = case.proposal.clone();
    other.id = "other".to_owned();
    other.version.from = name("node3");
    case.pending = Some(other);
    assert!(case.judge().unwrap_err().contains("configuration 8 of node3 is just being applied"));
    case.proposal.overwrite = true;
    assert!(case.judge().is_err());
    case.proposal.without = vec![name("node3")];
    assert_eq!(case.judge(), Ok(()));
    case.proposal.overwrite = false;
    assert!(case.judge().is_err());
}

#[test]
fn a_coordinator_that_proposes_again_has_not_decided_before() {
    let mut case = Case::new();
    let mut earlier = case.proposal.clone();
    earlier.id = "earlier".to_owned();
    case.pending = Some(earlier.clone());
    assert_eq!(case.judge(), Ok(()));
    // What follows another one may come after a decision that this node has not heard.
    earlier.follows.number -= 1;
    case.pending = Some(earlier);
    assert!(case.judge().is_err());
}

#[test]
fn who_has_it_proves_the_decision_and_only_the_coordinator_disproves_it() {
    let case = Case::new();
    let says = |has, deciding| Testimony { stand: case.stand, has, deciding };
    let check = |heard: &[(&str, Testimony)], expected| {
        let heard = heard.iter().map(|(node, testimony)| (name(node), *testimony)).collect();
        assert_eq!(outcome(&case.proposal, &heard), expected);
    };
    check(&[], Outcome::Unknown);
    check(&[("node3", says(false, false))], Outcome::Unknown);
    check(&[("node1", says(false, true))], Outcome::Unknown);
    check(&[("node1", says(false, false))], Outcome::Abandon);
    check(&[("node1", says(true, false))], Outcome::Commit);
    check(&[("node3", says(true, false))], Outcome::Commit);
    check(&[("node1", says(true, true))], Outcome::Commit);
}

#[test]
fn a_node_follows_what_follows_from_its_own() {
    let case = Case::new();
    let (seven, eight) = (stand(7, &case.old), stand(8, &case.new));
    assert_eq!(catch_up(&seven, &eight), CatchUp::Ask);
    assert_eq!(catch_up(&eight, &seven), CatchUp::Nothing);
    assert_eq!(catch_up(&eight, &eight), CatchUp::Nothing);
    assert_eq!(catch_up(&stand(8, &case.old), &eight), CatchUp::Conflict);
    let never = |files| catch_up(&stand(0, &case.old), &stand(0, files));
    assert_eq!(never(&case.new), CatchUp::Nothing, "as long as none was applied");
    assert_eq!(take_over(&seven, &eight, true), CatchUp::Ask);
    assert_eq!(take_over(&seven, &eight, false), CatchUp::Conflict);
    assert_eq!(take_over(&stand(0, &case.old), &eight, false), CatchUp::Ask);
    assert_eq!(take_over(&eight, &seven, true), CatchUp::Nothing);
}
