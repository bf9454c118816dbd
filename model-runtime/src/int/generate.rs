//! Greedy decoding with a key-value cache, bit-for-bit the whole-sequence pass.

use super::engine::{Run, RunError, Runtime};
use super::forward::{KvCache, argmax, check_tokens, embed, layer, logits};
use super::trace::{Keep, Store};
use crate::semantics::Dims;

impl Runtime {
    /// Continues `prompt` greedily by at most `max_new` tokens, ending after one of `stops` or at the context's end; returns the new tokens.
    pub fn generate(&self, prompt: &[u32], max_new: usize, stops: impl IntoIterator<Item = u32>) -> Result<Vec<u32>, RunError> {
        let stops: Vec<u32> = stops.into_iter().collect();
        self.generate_while(prompt, max_new, &mut |answer| !answer.last().is_some_and(|last| stops.contains(last)))
    }

    /// The same for as long as `goes_on` says, which sees the answer after every token.
    pub fn generate_while(&self, prompt: &[u32], max_new: usize, goes_on: &mut dyn FnMut(&[u32]) -> bool) -> Result<Vec<u32>, RunError> {
        check_tokens(self, prompt)?;
        let context = self.sem.shape.context;
        if prompt.is_empty() || prompt.len() > context {
            let expected = format!("1 to {context}");
            return Err(RunError::BadLength { what: "prompt length", expected, found: prompt.len() });
        }
        let mut caches = vec![KvCache::default(); self.sem.shape.layers];
        let (mut chunk, mut offset, mut answer) = (prompt.to_vec(), 0, Vec::new());
        while answer.len() < max_new && offset + chunk.len() < context {
            let next = self.step(&chunk, offset, &mut caches)?;
            offset += chunk.len();
            answer.push(next);
            if !goes_on(&answer) {
                break;
            }
            chunk = vec![next];
        }
        Ok(answer)
    }

    /// Feeds `chunk` at position `offset`; the token predicted after it.
    fn step(&self, chunk: &[u32], offset: usize, caches: &mut [KvCache]) -> Result<u32, RunError> {
        let d = Dims { t: chunk.len(), s: 1, ..Dims::new(&self.sem, 1, 1) };
        let mut run = Run { rt: self, d, store: Store::new(Keep::Nothing, d.l) };
        let mut h = embed(&run, chunk);
        for (l, cache) in caches.iter_mut().enumerate() {
            let (hout, state) = layer(&mut run, l, &h, offset, std::mem::take(cache))?;
            *cache = state.kv;
            h = hout;
        }
        let (_, z) = logits(&mut run, 1, &h[(chunk.len() - 1) * d.d..])?;
        Ok(argmax(&z[..self.sem.shape.vocab]) as u32)
    }
}
