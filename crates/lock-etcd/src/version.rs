//! Faults of server versions that concern locks, to warn of by name.

use crate::cluster::Cluster;

/// A fault, and the first version of each line that is free of it.
struct Fault {
    what: &'static str,
    /// Of 3.4, 3.5 and 3.6.
    mended: [u32; 3],
}

/// From the servers' own change logs.
const FAULTS: [Fault; 4] = [
    Fault {
        what: "a leader that was stopped and continued may revoke leases that are alive \
               (etcd issue 15247)",
        mended: [31, 13, 0],
    },
    Fault {
        what: "watch events may be lost after a compaction (etcd issue 17610); waiters look by \
               themselves every `check_again`",
        mended: [31, 13, 0],
    },
    Fault {
        what: "renewing a revoked lease may be answered as a success (etcd issue 20813)",
        mended: [38, 23, 5],
    },
    Fault {
        what: "reads may be out of date after a server was paused (etcd issue 20418); such \
               answers are refused",
        mended: [42, 28, 9],
    },
];

/// The faults of a version, empty for those that are not known to have any.
fn faults(version: &str) -> Vec<&'static str> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return Vec::new();
    };
    let Some(line) = minor
        .checked_sub(4)
        .and_then(|line| usize::try_from(line).ok())
    else {
        return Vec::new();
    };
    FAULTS
        .iter()
        .filter(|fault| {
            let mended = fault.mended.get(line).copied();
            major == 3 && mended.is_some_and(|mended| patch < mended)
        })
        .map(|fault| fault.what)
        .collect()
}

/// Asks a server for its version and warns of what is known of it.
pub(crate) async fn warn_of_faults(cluster: &Cluster) {
    let Ok(status) = cluster.status().await else {
        return;
    };
    if status.version.starts_with("3.3.") || status.version.starts_with("2.") {
        tracing::warn!(version = status.version, "older than 3.4, which locks need");
    }
    for fault in faults(&status.version) {
        tracing::warn!(
            version = status.version,
            fault,
            "this version of etcd has a fault"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_faults_that_were_mended_after_them() {
        assert_eq!(faults("3.4.23").len(), 4);
        assert_eq!(faults("3.5.13").len(), 2);
        assert_eq!(faults("3.6.9").len(), 0);
        assert_eq!(faults("3.7.0").len(), 0);
        assert_eq!(faults("3.5.0-rc.1").len(), 4);
        assert_eq!(faults("unknown").len(), 0);
    }
}
