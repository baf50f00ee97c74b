//! What another node asks about configurations, and what the node that applies one asks itself.
//!
//! Who may agree to what is `cluster::configuration`'s; here it is made durable before it is said.

use std::io;

use cluster::configuration::{self, Own, Proposal, Testimony, Version};
use model::config::{self, Stand};
use serde_json::json;
use wire::control::{Exit, Newest, Reply};

use crate::configuration::{accept, draft};
use crate::daemon::configuring::{Context, Running, WRITING, lock};
use crate::daemon::event::{Event, Line};

/// Why a node does not agree.
enum Refusal {
    /// The sentence says it all.
    Other(String),
    /// Modules run.
    Running(Running),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Other(error.to_string())
    }
}

/// Agrees to a proposal, durably, or says why not.
pub(super) fn prepare(context: &Context, proposal: &Proposal, dry_run: bool) -> Reply {
    let own = context.own();
    let number = proposal.version.number;
    match agree(context, proposal, dry_run) {
        Ok(()) => Reply::new(Exit::Done, format!("{own} agrees to configuration {number}")),
        Err(Refusal::Other(why)) => Reply::new(Exit::Refused, why),
        Err(Refusal::Running(running)) => {
            let data = json!({ "running": running.0 });
            Reply { data, ..Reply::new(Exit::Refused, running.sentence(own)) }
        }
    }
}

fn agree(context: &Context, proposal: &Proposal, dry_run: bool) -> Result<(), Refusal> {
    let _one = lock(&WRITING);
    let (layout, own) = (&context.membership.layout, context.own());
    proposal.version.files.check().map_err(Refusal::Other)?;
    let store = context.store();
    let newest = store.newest()?;
    let draft = draft::read(layout).map_err(Refusal::Other)?;
    let pending = store.pending()?;
    let stand = newest.as_ref().map(Version::stand).unwrap_or_default();
    let goes_by = Own { node: own, stand, pending: pending.as_ref(), draft: &draft };
    configuration::judge(&goes_by, proposal).map_err(Refusal::Other)?;
    // Where none was applied and the files could not be read, nothing is known to compare with.
    let before = newest.map_or(draft, |newest| newest.files);
    let changes = config::changes(&before, &proposal.version.files);
    config::possible(&changes).map_err(Refusal::Other)?;
    let files = &proposal.version.files;
    accept::usable(layout, own, &before, files).map_err(Refusal::Other)?;
    context.reserve(config::to_stop(&changes), dry_run).map_err(Refusal::Running)?;
    if !dry_run && let Err(error) = store.note_pending(proposal) {
        context.configuring.release();
        return Err(error.into());
    }
    Ok(())
}

/// What was agreed to was decided.
pub(super) fn commit(context: &Context, id: &str, stand: &Stand) -> Line {
    let own = context.own();
    match carry_out(context, id, stand) {
        Ok(true) => {
            let done = Reply::new(Exit::Done, format!("{own} has configuration {}", stand.number));
            Line::Last(done, Box::new(Event::Again))
        }
        Ok(false) => {
            let what = format!("{own} knows nothing of configuration {}", stand.number);
            Line::Reply(Reply::new(Exit::Refused, what))
        }
        Err(error) => Line::Reply(Reply::new(Exit::Failed, format!("{own}: {error}"))),
    }
}

/// Makes what was agreed to the newest; whether it is there.
pub(super) fn carry_out(context: &Context, id: &str, stand: &Stand) -> io::Result<bool> {
    let _one = lock(&WRITING);
    let store = context.store();
    if store.has(stand)? {
        return Ok(true);
    }
    let Some(pending) = store.pending()?.filter(|pending| pending.id == id) else {
        return Ok(false);
    };
    let before = store.newest()?.map(|newest| newest.files).unwrap_or_default();
    context.take(&before, &pending.version, pending.overwrite)?;
    store.drop_pending()?;
    Ok(true)
}

/// What was agreed to comes to nothing.
pub(super) fn abandon(context: &Context, id: &str) -> Reply {
    let _one = lock(&WRITING);
    let store = context.store();
    let dropped = store.pending().and_then(|pending| match pending {
        Some(pending) if pending.id == id => {
            store.drop_pending()?;
            context.configuring.release();
            Ok(())
        }
        Some(_) | None => Ok(()),
    });
    match dropped {
        Ok(()) => Reply::new(Exit::Done, format!("{} goes on as before", context.own())),
        Err(error) => Reply::new(Exit::Failed, error.to_string()),
    }
}

/// What this node knows of a proposal.
pub(super) fn testify(context: &Context, id: &str, stand: &Stand) -> Reply {
    let _one = lock(&WRITING);
    let store = context.store();
    let testimony = || -> io::Result<Testimony> {
        let mine = |pending: &Proposal| pending.id == id && pending.version.from == *context.own();
        Ok(Testimony {
            stand: store.newest()?.as_ref().map(Version::stand).unwrap_or_default(),
            has: store.has(stand)?,
            deciding: store.pending()?.as_ref().is_some_and(mine),
        })
    };
    match testimony() {
        Ok(testimony) => Reply { data: json!(testimony), ..Reply::new(Exit::Done, "as follows") },
        Err(error) => Reply::new(Exit::Failed, error.to_string()),
    }
}

/// The newest configuration.
pub(super) fn newest(context: &Context, own: &Stand) -> Reply {
    let store = context.store();
    let found = || -> io::Result<Option<Newest>> {
        let Some(version) = store.newest()? else { return Ok(None) };
        Ok(Some(Newest { version, knows_own: store.has(own)? }))
    };
    match found() {
        Ok(Some(newest)) => Reply { data: json!(newest), ..Reply::new(Exit::Done, "as follows") },
        Ok(None) => Reply::new(Exit::Failed, "there is none"),
        Err(error) => Reply::new(Exit::Failed, error.to_string()),
    }
}
