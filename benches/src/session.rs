//! One run of a bench: its sections, its bars, and how it ended.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::bar::median;
use crate::calibration::worst_stall;
use crate::machine::{self, ProcessorTime};
use crate::{Bar, Round, Rounds, Verdict};

/// The rounds of a section, unless `--rounds` says otherwise.
const ROUNDS: usize = 9;
/// More foreign work than this, in cores, makes a round void.
const MOST_FOREIGN_CORES: f64 = 0.2;

/// One run of a bench.
#[derive(Debug)]
pub struct Session {
    name: String,
    rounds: usize,
    only: Option<String>,
    verdicts: Vec<Verdict>,
    /// Where the page about this run goes, if it is wanted.
    folder: Option<PathBuf>,
    page: String,
}

impl Session {
    /// Reads the command line and prints what is measured on what.
    ///
    /// # Errors
    /// When an option is unknown.
    pub fn start(name: &str) -> Result<Self> {
        let mut session = Self::with_arguments(std::env::args().skip(1))?;
        name.clone_into(&mut session.name);
        let about = format!("{} rounds; {}", session.rounds, machine::description());
        println!("bench {name}: {about}");
        let options: Vec<String> = std::env::args().skip(1).collect();
        let options = options.join(" ");
        session.page = format!(
            "# Bench `{name}`\n\nWritten by `cargo xtask bench {name} {options}`: {about}, built for {}.\n\n",
            std::env::consts::ARCH
        );
        Ok(session)
    }

    fn with_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut session = Self {
            name: String::new(),
            rounds: ROUNDS,
            only: None,
            verdicts: Vec::new(),
            folder: None,
            page: String::new(),
        };
        while let Some(option) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.with_context(|| format!("`{option}` needs a value"))
            };
            match option.as_str() {
                "--rounds" => {
                    let rounds = value()?.parse().context("`--rounds` takes a number")?;
                    session.rounds = rounds;
                }
                "--only" => session.only = Some(value()?),
                "--write" => session.folder = Some(value()?.into()),
                _ => bail!(
                    "no option `{option}`; there are `--rounds N`, `--only WORD` and `--write FOLDER`"
                ),
            }
        }
        Ok(session)
    }

    /// Whether `--only` leaves the section in.
    pub fn wants(&self, section: &str) -> bool {
        let only = self.only.as_deref();
        only.is_none_or(|word| section.contains(word))
    }

    /// Measures a section, round after round; `None` when it is left out.
    ///
    /// # Errors
    /// The first of `measure`.
    pub fn section(
        &self,
        name: &str,
        mut measure: impl FnMut(&mut Round) -> Result<()>,
    ) -> Result<Option<Rounds>> {
        if !self.wants(name) {
            return Ok(None);
        }
        println!("\n== {name}");
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            let mut round = Round::default();
            round.worst_stall = worst_stall();
            let (before, start) = (ProcessorTime::now()?, Instant::now());
            measure(&mut round).with_context(|| format!("measuring `{name}`"))?;
            let after = ProcessorTime::now()?;
            round.foreign_cores = after.foreign_cores_since(&before, start.elapsed());
            round.is_void = round.foreign_cores > MOST_FOREIGN_CORES;
            rounds.push(round);
        }
        let rounds = Rounds::from(rounds);
        print_medians(&rounds);
        Ok(Some(rounds))
    }

    /// Prints whether the median of `figure` over the rounds keeps the bar.
    pub fn judge(&mut self, rounds: &Rounds, bar: &Bar, figure: impl Fn(&Round) -> f64) -> Verdict {
        let figures: Vec<f64> = rounds.iter().map(figure).collect();
        let (figure, limit, verdict) = bar.judge(rounds, &figures);
        let (name, figure, limit) = (bar.name(), rounded(figure), rounded(limit));
        let missing = figures.iter().filter(|figure| figure.is_nan()).count();
        let remark = match missing {
            0 => String::new(),
            _ => format!(", no figure in {missing} of {} rounds", figures.len()),
        };
        let line = format!("bar {name}: {figure} (limit {limit}): {verdict}{remark}");
        println!("{line}");
        self.page += &format!("    {line}\n");
        self.verdicts.push(verdict);
        verdict
    }

    /// Prints a table or a remark, which also stands on the page that `--write` wants.
    pub fn show(&mut self, what: impl Display) {
        println!("\n{what}");
        self.page += &format!("\n{what}\n");
    }

    /// Where pictures go: beside the page, or among what is built.
    pub fn folder(&self) -> &Path {
        let usual = Path::new("target/benchmarks");
        self.folder.as_deref().unwrap_or(usual)
    }

    /// Ends the run: fails when no bar was judged, or the page cannot be written. A bar that falls short is a finding, which the
    /// report tells, and no failure of the bench.
    pub fn finish(self) -> ExitCode {
        let count = |wanted| self.verdicts.iter().filter(|v| **v == wanted).count();
        println!(
            "\n{} bars hold, {} fall short, {} inconclusive",
            count(Verdict::Holds),
            count(Verdict::FallsShort),
            count(Verdict::Inconclusive)
        );
        if self.verdicts.is_empty() {
            println!("error: no bar was judged; does `--only` match a section?");
            return ExitCode::FAILURE;
        }
        match self.write_page() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn write_page(&self) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let path = folder.join(format!("{}.md", self.name));
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, &self.page))
            .with_context(|| format!("writing {}", path.display()))?;
        println!("page: {}", path.display());
        Ok(())
    }
}

fn print_medians(rounds: &Rounds) {
    for name in rounds.names() {
        let figures = rounds.iter().map(|round| round.get(name));
        let figures: Vec<f64> = figures.filter(|figure| !figure.is_nan()).collect();
        let remark = match rounds.iter().count() - figures.len() {
            0 => String::new(),
            missing => format!("   without {missing} rounds"),
        };
        println!("{name:<40} {:>14}{remark}", rounded(median(&figures)));
    }
    let void = rounds.iter().filter(|round| round.is_void).count();
    println!(
        "{} rounds, {void} void (others used up to {:.2} cores), stall {:.0} us",
        rounds.iter().count(),
        rounds.iter().map(|r| r.foreign_cores).fold(0.0, f64::max),
        rounds.worst_stall().as_secs_f64() * 1e6
    );
}

/// Three digits that say something.
fn rounded(figure: f64) -> String {
    match figure.abs() {
        none if none.is_nan() => "none".to_owned(),
        large if large >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        small if small >= 0.1 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(line: &str) -> Result<Session> {
        Session::with_arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_choose_rounds_and_sections() {
        let chosen = session("--rounds 3 --only cold").unwrap();
        assert_eq!(chosen.rounds, 3);
        assert!(chosen.wants("file-cold"));
        assert!(!chosen.wants("file-warm"));
        assert!(session("").unwrap().wants("anything"));
    }

    #[test]
    fn a_page_has_what_was_shown_and_judged() {
        let folder = std::env::temp_dir().join(format!("lock-bench-page-{}", std::process::id()));
        let mut session = session(&format!("--rounds 1 --write {}", folder.display())).unwrap();
        session.name = "example".to_owned();
        let rounds = session.section("any", |_| Ok(())).unwrap().unwrap();
        session.show("a table");
        session.judge(&rounds, &Bar::at_most("small", 2.0), |_| 1.0);
        assert_eq!(session.folder(), folder);
        session.finish();
        let page = std::fs::read_to_string(folder.join("example.md")).unwrap();
        assert!(
            page.contains("a table\n") && page.contains("bar small: 1.00"),
            "{page}"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn wrong_options_say_what_there_is() {
        let error = session("--fast").unwrap_err().to_string();
        assert!(error.contains("--rounds N"), "{error}");
        assert!(session("--rounds").is_err());
        assert!(session("--rounds many").is_err());
    }

    #[test]
    fn every_round_is_kept_with_what_was_measured() {
        let mut calls = 0.0;
        let measured = session("--rounds 3").unwrap().section("any", |round| {
            calls += 1.0;
            round.record("calls", calls);
            Ok(())
        });
        let rounds = measured.unwrap().unwrap();
        assert_eq!(rounds.median("calls"), 2.0);
        assert!(rounds.median("never").is_nan());
        assert_eq!(rounds.names(), ["calls"]);
    }
}
