//! `cargo xtask bench <name>`: builds one bench with full optimisation and runs it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::command::Program;
use crate::metadata::Metadata;

const PACKAGE: &str = "lock-benches";

pub(crate) fn main(arguments: &[String]) -> Result<ExitCode> {
    let metadata = Metadata::load()?;
    let benches = metadata.package(PACKAGE);
    let benches = benches.with_context(|| format!("no package `{PACKAGE}`"))?;
    let names: Vec<&str> = benches.programs().collect();
    let Some((name, options)) = arguments.split_first() else {
        println!("usage: cargo xtask bench <name> [options]\n");
        println!("benches: {}", names.join(", "));
        println!("options: benches/README.md");
        return Ok(ExitCode::SUCCESS);
    };
    if !names.contains(&name.as_str()) {
        bail!("no bench `{name}`; there are: {}", names.join(", "));
    }
    let line = "cargo run --locked --profile bench --package lock-benches --no-default-features";
    let bench = Program::new(line).arg("--features").arg(name);
    let bench = bench.arg("--bin").arg(name).arg("--");
    let bench = options.iter().fold(bench, |bench, word| bench.arg(word));
    println!("running {bench}");
    bench.run()?;
    Ok(ExitCode::SUCCESS)
}
