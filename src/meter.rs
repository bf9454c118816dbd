//! Progress on standard error: notes, bars, phases.

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use steps::progress::{Event, Observer};

/// What moves at the end of the output, and what it is of.
type Shown = Option<(&'static str, ProgressBar)>;

/// Standard error as an observer. Bars are hidden where it is no terminal.
#[derive(Default)]
pub struct Terminal(Mutex<Shown>);

impl Terminal {
    /// Shows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A bar for `total` steps.
fn bar(total: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("  {msg:<16} {bar:30} {pos}/{len} {prefix} ({eta} left)");
    let bar = ProgressBar::new(total).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A spinner that names a phase.
fn spinner(phase: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(phase);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

impl Observer for Terminal {
    fn tell(&self, event: Event) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replace = |shown: &mut Shown, new: Shown| {
            shown.iter().for_each(|(_, bar)| bar.finish_and_clear());
            *shown = new;
        };
        match event {
            Event::Note(text) => match &*shown {
                Some((_, bar)) => bar.suspend(|| eprintln!("{text}")),
                None => eprintln!("{text}"),
            },
            Event::Steps { what, done, total, loss } => {
                if shown.as_ref().is_none_or(|(name, _)| *name != what) {
                    replace(&mut shown, Some((what, bar(total, what))));
                }
                for (_, bar) in shown.iter() {
                    bar.set_length(total);
                    bar.set_position(done);
                    loss.iter().for_each(|loss| bar.set_prefix(format!("loss {loss:.3}")));
                }
                if done == total {
                    replace(&mut shown, None);
                }
            }
            // The curve is printed when it's whole.
            Event::Epoch(_) => {}
            Event::Begun(phase) => replace(&mut shown, Some((phase, spinner(phase)))),
            Event::Ended(stage) => {
                shown.iter().for_each(|(_, bar)| bar.println(format!("  {:<16}{:>8.2} s", stage.name, stage.seconds)));
                replace(&mut shown, None);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let shown = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        shown.iter().for_each(|(_, bar)| bar.finish_and_clear());
    }
}

/// Says on standard error what is being done.
pub fn say(what: impl std::fmt::Display) {
    eprintln!("{what}");
}
