//! What the activity logs of a cluster say, and what its newest resync compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use activity::Image;
use serde_json::Value;

use super::{Cluster, NODES, ROOT, SYNC_PATIENCE};

/// Waits until what was changed until now is in no log any more, and shows no recent times.
pub fn forget(cluster: &Cluster) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    // Times count as recent when they are a second older than the log's stamp.
    let furnished = now() + 2;
    cluster.until("the clock to move on", SYNC_PATIENCE, || now() > furnished);
    let primary = cluster.primary();
    cluster.must(primary, &["stop", cluster.module()]);
    cluster.must(primary, &["start", cluster.module()]);
    cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    cluster.until("both logs have let go of what was furnished", SYNC_PATIENCE, || {
        NODES.iter().all(|node| image(&log_of(cluster, node)).header.since.0 > furnished)
    });
}

pub fn log_of(cluster: &Cluster, node: &str) -> PathBuf {
    let path = format!("{ROOT}/var/lib/evenkeel/modules/{}/activity.log", cluster.module());
    cluster.host(node).path(path).unwrap()
}

fn image(log: &Path) -> Image {
    Image::read(&fs::read(log).unwrap()).unwrap()
}

pub fn progress(cluster: &Cluster, node: &str) -> Value {
    cluster.module_status(node).unwrap()["detail"]["progress"].clone()
}

pub fn why(progress: &Value) -> &str {
    progress["why"].as_str().unwrap()
}
