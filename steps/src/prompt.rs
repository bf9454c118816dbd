//! A prompt that is paid for: its salted digest goes into the escrow, salt and prompt to the provider, in a file that only its owner reads.
//!
//! The digest is public; whoever knows the salt can try prompts against it. The provider proves with `--prompt-salt`.

use crate::error::{Failure, While};
use crate::run::random_id;
use circuits::statement::{Digest, prompt_digest};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Format of the file.
pub const FORMAT: &str = "poa-prompt/1";

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// [`FORMAT`].
    pub format: String,
    /// Random, and never used twice.
    pub salt: Digest,
    /// What is escrowed for.
    pub digest: Digest,
    /// Tokens that the model's relation has room for.
    pub capacity: usize,
    /// The prompt.
    pub tokens: Vec<u32>,
    /// As text, if it was given as one.
    pub text: Option<String>,
}

impl Prompt {
    /// A prompt under a fresh salt.
    ///
    /// # Errors
    ///
    /// When it leaves no room for an answer, or the system has no randomness.
    pub fn new(tokens: Vec<u32>, capacity: usize, text: Option<String>) -> Result<Self, Failure> {
        if tokens.is_empty() || tokens.len() >= capacity {
            let message = format!("the prompt has {} tokens; prompt and answer together have room for {capacity}", tokens.len());
            return Err(Failure::input(message).hint("shorten the prompt, or choose a model with a larger relation"));
        }
        let salt = random_id()?;
        let digest = prompt_digest(salt.0, &tokens, capacity);
        Ok(Self { format: FORMAT.into(), salt, digest, capacity, tokens, text })
    }

    /// The file's name unless another is given.
    pub fn default_path(&self) -> PathBuf {
        let digest = self.digest.to_string();
        PathBuf::from(format!("prompt-{}.json", &digest[..16]))
    }

    /// Writes it, for its owner's eyes; a file that is there stays.
    ///
    /// # Errors
    ///
    /// When the file exists or can't be written.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        crate::store::create_parent(path)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).during_path("creating", path).map_err(|f| f.hint("give another --prompt-out"))?;
        let text = serde_json::to_string_pretty(self).during("writing the prompt's salt")?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).during_path("writing", path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_are_fresh_and_digests_theirs() {
        let make = || Prompt::new(vec![1, 2, 3], 8, None).unwrap();
        let (a, b) = (make(), make());
        assert_ne!((a.salt, a.digest), (b.salt, b.digest));
        assert_eq!(a.digest, prompt_digest(a.salt.0, &[1, 2, 3], 8));
        assert_ne!(a.digest, prompt_digest(a.salt.0, &[1, 2, 3, 0], 8), "the length counts");
        assert_ne!(a.digest, prompt_digest(a.salt.0, &[1, 2, 4], 8));
    }

    #[test]
    fn prompts_leave_room_for_an_answer() {
        for (tokens, capacity) in [(vec![], 8), (vec![1; 8], 8), (vec![1; 9], 8)] {
            let refused = Prompt::new(tokens, capacity, None).unwrap_err();
            assert!(refused.message.contains("room for 8") && refused.hint.is_some(), "{refused:?}");
        }
        Prompt::new(vec![1; 7], 8, None).unwrap();
    }

    #[test]
    fn files_are_their_owners_and_arent_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/prompt.json");
        let prompt = Prompt::new(vec![5, 6], 8, Some("a question".into())).unwrap();
        prompt.save(&path).unwrap();
        assert_eq!(crate::store::read_json::<Prompt>(&path).unwrap(), prompt);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let refused = prompt.save(&path).unwrap_err();
        assert!(refused.hint.is_some_and(|h| h.contains("--prompt-out")));
    }
}
