//! What was applied, for people: a list, and one of it whole. Nothing is changed here.

use std::io;

use cluster::configuration::Version;
use model::config::{self, Files};
use serde_json::json;
use wire::control::{Exit, Reply};

use crate::daemon::configuring::Context;

/// Everything that is remembered, newest first.
pub(super) fn list(context: &Context) -> Reply {
    let store = context.store();
    let listed = || -> io::Result<serde_json::Value> {
        let mut versions = Vec::new();
        let mut before = None;
        for number in store.numbers()? {
            let Some(version) = store.get(number)? else { continue };
            let changes = before.as_ref().map(|before| config::changes(before, &version.files));
            let Version { number, at_ms, from, origin, files } = version;
            versions.push(json!({
                "number": number, "at_ms": at_ms, "from": from, "origin": origin,
                "digest": files.digest().to_string(), "changes": changes.unwrap_or_default(),
            }));
            before = Some(files);
        }
        versions.reverse();
        let kept = store.all_kept()?.into_iter().map(|kept| {
            let files: Vec<&String> = kept.files.0.keys().collect();
            json!({
                "name": format!("kept-{}", kept.at_ms), "at_ms": kept.at_ms,
                "replaced_by": kept.replaced_by, "files": files,
            })
        });
        Ok(json!({ "versions": versions, "kept": kept.collect::<Vec<_>>() }))
    };
    match listed() {
        Ok(data) => Reply { data, ..Reply::new(Exit::Done, "as follows") },
        Err(error) => Reply::new(Exit::Failed, error.to_string()),
    }
}

/// One configuration, by its number, or what was set aside, by its name.
pub(super) fn show(context: &Context, which: &str) -> Reply {
    match find(context, which) {
        Ok(Some((about, files))) => Reply {
            data: json!({ "about": about, "files": files }),
            ..Reply::new(Exit::Done, about)
        },
        Ok(None) => {
            let mut reply =
                Reply::new(Exit::Usage, format!("configuration `{which}` is not remembered"));
            reply.next = vec!["evenkeel config history".to_owned()];
            reply
        }
        Err(error) => Reply::new(Exit::Failed, error.to_string()),
    }
}

fn find(context: &Context, which: &str) -> io::Result<Option<(String, Files)>> {
    let store = context.store();
    if let Some(at) = which.strip_prefix("kept-").and_then(|at| at.parse().ok()) {
        let kept = store.kept(at)?;
        return Ok(kept.map(|kept| {
            (format!("files that configuration {} has replaced", kept.replaced_by), kept.files)
        }));
    }
    let Ok(number) = which.parse() else { return Ok(None) };
    let version = store.get(number)?;
    Ok(version
        .map(|version| (format!("configuration {number} of {}", version.from), version.files)))
}
