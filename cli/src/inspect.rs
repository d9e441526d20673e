//! `shrbuf inspect`: which types of elements there are, and what can be set on each.

use shrbuf_pipeline::nearest::nearest;
use shrbuf_pipeline::{ElementType, reference};

use crate::args::InspectArgs;
use crate::error;
use crate::outcome::{Outcome, WRONG};
use crate::table::{Align, Paint, Table};

/// Describes one type, or lists all.
pub fn inspect(args: &InspectArgs) -> Outcome {
    let types = shrbuf_elements::types();
    let Some(name) = args.element.as_deref() else {
        return Outcome::done(if args.markdown { reference::markdown(&types) } else { list(&types) });
    };
    match types.iter().find(|t| t.name == name) {
        Some(found) if args.markdown => Outcome::done(reference::markdown(std::slice::from_ref(found))),
        Some(found) => Outcome::done(reference::text(found)),
        None => Outcome::failed(WRONG, unknown(name, &types)),
    }
}

fn list(types: &[ElementType]) -> String {
    let mut table = Table::new(&[("type", Align::Left), ("what it does", Align::Left)]);
    for t in types {
        let summary = t.doc.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        table.row([t.name.to_owned(), summary]);
    }
    table.show(Paint::stdout()) + "\n`shrbuf inspect TYPE` says what can be set on one.\n"
}

fn unknown(name: &str, types: &[ElementType]) -> String {
    if let Some(line) = error::built_with(name) {
        return format!("error: {line}\n");
    }
    let names: Vec<&str> = types.iter().map(|t| t.name).collect();
    let hint = nearest(name, names.iter().copied()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
    format!("error: there is no element type `{}`{hint}\n\ntypes: {}\n", name.escape_debug(), names.join(", "))
}
