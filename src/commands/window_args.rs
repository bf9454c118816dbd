//! Options of commands that read samples.

use super::choice;
use steps::error::Failure;
use steps::texts::{Window, Windows};

/// How samples are read.
#[derive(clap::Args)]
pub struct WindowArgs {
    /// Most tokens of a sample, BOS and EOS included (default: 64; of an index: as its adapter was trained).
    #[arg(long)]
    max_tokens: Option<usize>,
    /// What becomes of longer samples: cut, or split between words into windows that count as samples of their contributor (default: cut; of an
    /// index: as its adapter was trained).
    #[arg(long, value_parser = choice(Windows::NAMES, Windows::named))]
    windows: Option<Windows>,
}

impl WindowArgs {
    /// What is given, else what `trained` says, else the defaults; never more than the model's context.
    pub fn window(&self, trained: Option<Window>, context: usize) -> Result<Window, Failure> {
        Window::new(self.max_tokens, self.windows, trained, context)
    }
}
