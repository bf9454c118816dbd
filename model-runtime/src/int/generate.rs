//! Greedy decoding with a key-value cache, bit-for-bit the whole-sequence pass.

use super::batch::{Sequence, turn};
use super::engine::{RunError, Runtime};

impl AsRef<Runtime> for Runtime {
    fn as_ref(&self) -> &Runtime {
        self
    }
}

impl Runtime {
    /// Continues `prompt` greedily by at most `max_new` tokens, ending after one of `stops` or at the context's end; returns the new tokens.
    pub fn generate(&self, prompt: &[u32], max_new: usize, stops: impl IntoIterator<Item = u32>) -> Result<Vec<u32>, RunError> {
        let stops: Vec<u32> = stops.into_iter().collect();
        let mut sequence = Sequence::new(self, prompt, None)?;
        while sequence.answer().len() < max_new && sequence.has_room() {
            let next = turn(&mut [&mut sequence]).remove(0)?;
            if stops.contains(&next) {
                break;
            }
        }
        Ok(sequence.answer().to_vec())
    }
}
