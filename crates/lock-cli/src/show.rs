//! `lockctl show`: all that is known about one key.

use std::fmt::Write as _;

use lock_core::block_on;

use crate::args::ShowArgs;
use crate::failure::Failure;
use crate::open::open;
use crate::output;
use crate::view::{KeyView, PartyView};

/// Shows one key.
pub(crate) fn show(args: &ShowArgs) -> Result<(), Failure> {
    let opened = open(&args.place)?;
    let view = KeyView::new(&block_on(opened.manager().inspect(&args.key))?);
    if args.json {
        return output::json(&view);
    }
    output::text(&for_people(&view))
}

fn for_people(key: &KeyView) -> String {
    let mut text = format!("{}\n", key.name());
    let KeyView {
        holders,
        waiters,
        debts,
        ..
    } = key;
    if holders.is_empty() {
        text.push_str("  nobody holds it\n");
    }
    for (party, what) in holders.iter().map(|holder| (holder, "held by")) {
        describe(&mut text, what, party);
    }
    for (party, what) in waiters.iter().map(|waiter| (waiter, "waited for by")) {
        describe(&mut text, what, party);
    }
    for debt in debts {
        let _ = writeln!(text, "  given up, end not confirmed yet: attempt {debt}");
    }
    text
}

/// One party: a line that says who, and one for each thing that is known.
fn describe(text: &mut String, what: &str, party: &PartyView) {
    let PartyView { host, pid, .. } = party;
    let _ = writeln!(text, "  {what} pid {pid} on {host}, for {}", party.age());
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "    {name:<15}{value}");
        }
    };
    line("mode", Some(party.mode_for_people()));
    line("label", Some(party.label_for_people()));
    line("since", party.since.clone());
    let priority = (party.priority != 0).then(|| party.priority.to_string());
    line("priority", priority);
    let fencing = party.fencing_number.map(|number| number.to_string());
    line("fencing number", fencing);
    let lease = party.lease_seconds.map(|left| format!("{left:.1}s left"));
    line("lease", lease);
    line("owner", party.owner.clone());
    line("attempt", Some(party.attempt.clone()));
    line("boot id", Some(party.boot_id.clone()));
    line("pid namespace", Some(party.pid_namespace.clone()));
    line("record", party.record.clone());
}
