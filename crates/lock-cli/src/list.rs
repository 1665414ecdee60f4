//! `lockctl list`: the keys that are held or waited for.

use lock_core::{InspectQuery, KeyReport};

use crate::args::ListArgs;
use crate::failure::Failure;
use crate::open::{Opened, open};
use crate::output;
use crate::view::KeyView;

/// Lists the keys of a namespace, on every backend that the configuration uses.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let opened = open(&args.place)?;
    let mut reports = Vec::new();
    for backend in opened.backends() {
        reports.extend(all_of(&opened, backend)?);
    }
    reports.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<KeyView> = reports.iter().map(KeyView::new).collect();
    if args.json {
        return output::json(&keys);
    }
    output::text(&output::table(&rows(&keys)))
}

fn all_of(opened: &Opened, backend: &str) -> Result<Vec<KeyReport>, Failure> {
    let mut query = InspectQuery::namespace(&opened.manager().config().namespace);
    let mut reports = Vec::new();
    loop {
        let page = opened.page(backend, query.clone())?;
        reports.extend(page.keys);
        if page.next.is_none() {
            return Ok(reports);
        }
        query.after = page.next;
    }
}

/// A head, and one row for each holder; a key that is only waited for has a row without a holder.
fn rows(keys: &[KeyView]) -> Vec<Vec<String>> {
    let head = ["KEY", "MODE", "HOLDER", "PID", "SINCE", "WAITERS", "LABEL"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for key in keys {
        let waiters = key.waiters.len().to_string();
        if key.holders.is_empty() {
            let mut row = vec![key.name()];
            row.resize(5, "-".to_owned());
            row.push(waiters.clone());
            rows.push(row);
        }
        for holder in &key.holders {
            rows.push(vec![
                key.name(),
                holder.mode_for_people(),
                holder.host.clone(),
                holder.pid.to_string(),
                holder.age(),
                waiters.clone(),
                holder.label_for_people(),
            ]);
        }
    }
    rows
}
