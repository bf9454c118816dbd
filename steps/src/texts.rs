//! Datanets as steps read them: what reading left out, samples longer than the window, copies. All of it is told to whoever observes.

use crate::error::{Failure, While};
use crate::progress::Observer;
use crate::store::{read_json, write_json};
use model_runtime::text::duplicates::{Canonical, Cluster, canonical_rows, clusters};
use model_runtime::text::{Cut, Datanet, Notes, Sample, Tokenizer, lookalikes, split};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

/// What becomes of samples that are longer than the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Windows {
    /// The first window counts, the rest is left out.
    #[default]
    Cut,
    /// Every window counts as a sample of its contributor.
    Split,
}

impl Windows {
    /// As it's written.
    pub const NAMES: [&str; 2] = ["cut", "split"];

    /// By name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Cut, Self::Split].into_iter().zip(Self::NAMES).find_map(|(windows, own)| (own == name).then_some(windows))
    }

    /// As it's written.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The window that samples are read with. Kept beside an adapter, so that its index is of the text that trained it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Most tokens of a sample.
    pub max_tokens: usize,
    /// What becomes of longer ones.
    pub windows: Windows,
}

impl Window {
    const FILE: &str = "training.json";
    const MAX_TOKENS: usize = 64;

    /// What is given, else what `trained` says, else the defaults; never more than the model's context.
    pub fn new(max_tokens: Option<usize>, windows: Option<Windows>, trained: Option<Self>, context: usize) -> Result<Self, Failure> {
        let max_tokens = max_tokens.or(trained.map(|t| t.max_tokens)).unwrap_or(Self::MAX_TOKENS).min(context);
        if max_tokens < 2 {
            return Err(Failure::input(format!("--max-tokens is {max_tokens}, expected at least 2")));
        }
        Ok(Self { max_tokens, windows: windows.or(trained.map(|t| t.windows)).unwrap_or_default() })
    }

    /// Keeps it beside the adapter that was trained with it.
    pub fn save(&self, adapter: &Path) -> Result<(), Failure> {
        write_json(&adapter.join(Self::FILE), self)
    }

    /// What an adapter was trained with; nothing where it wasn't trained here.
    pub fn of_adapter(adapter: &Path) -> Result<Option<Self>, Failure> {
        let path = adapter.join(Self::FILE);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }

    /// Says what an index leaves without credit, where it reads samples otherwise than training did.
    pub fn compare(&self, trained: Option<Self>, on: &dyn Observer) {
        if let Some(trained) = trained.filter(|trained| trained != self) {
            let of = |w: Self| format!("--max-tokens {} --windows {}", w.max_tokens, w.windows.name());
            on.note(format!("warning: the adapter was trained with {}, the index is made with {}: it scores another text", of(trained), of(*self)));
        }
    }
}

/// A datanet's samples, cut or split, and their tokens.
pub struct Prepared {
    /// One sample a row.
    pub datanet: Datanet,
    /// Which sample each row is a window of; empty where rows are samples.
    pub sample_of_row: Vec<usize>,
    /// Each row's tokens.
    pub tokens: Vec<Vec<u32>>,
    /// What is left out.
    pub cut: Cut,
}

/// Reads a datanet, or its first samples, and says what was left out or changed and which names look alike.
pub fn read(path: &Path, limit: Option<NonZeroUsize>, on: &dyn Observer) -> Result<Datanet, Failure> {
    let (mut datanet, notes) = Datanet::read(path).during_path("reading", path)?;
    datanet.samples.truncate(limit.map_or(usize::MAX, NonZeroUsize::get));
    remarks(&notes, &datanet).iter().for_each(|line| on.note(line));
    Ok(datanet)
}

/// What is to be said of a datanet's files and names.
pub fn remarks(notes: &Notes, datanet: &Datanet) -> Vec<String> {
    let alike = |group: Vec<&str>| {
        let names: Vec<String> = group.iter().map(|name| format!("{name:?}")).collect();
        format!("warning: these contributors' names look alike: {}; each is paid apart", names.join(", "))
    };
    let mut lines: Vec<String> = notes.lines().into_iter().map(|line| format!("note: {line}")).collect();
    lines.extend(lookalikes(&datanet.contributors()).into_iter().map(alike));
    lines
}

/// Cuts or splits samples to a window, and says what that leaves out.
pub fn prepare(datanet: Datanet, tokenizer: &Tokenizer, window: Window, on: &dyn Observer) -> Result<Prepared, Failure> {
    let before = datanet.samples.len();
    let (datanet, sample_of_row) = match window.windows {
        Windows::Cut => (datanet, vec![]),
        Windows::Split => split_samples(datanet, tokenizer, window.max_tokens)?,
    };
    let mut tokens = encoded(&datanet, tokenizer)?;
    let cut = Cut::of(&tokens.iter().map(Vec::len).collect::<Vec<_>>(), window.max_tokens);
    tokens.iter_mut().for_each(|t| t.truncate(window.max_tokens));
    if datanet.samples.len() > before {
        on.note(format!("split: {before} samples are {} windows of at most {} tokens", datanet.samples.len(), window.max_tokens));
    }
    if let Some(line) = cut_line(&cut, window.max_tokens) {
        on.note(line);
    }
    Ok(Prepared { datanet, sample_of_row, tokens, cut })
}

/// What cutting leaves out, in words; nothing where it leaves out nothing.
pub fn cut_line(cut: &Cut, max_tokens: usize) -> Option<String> {
    let line = || {
        let (samples, of, share) = (cut.samples, cut.of, 100.0 * cut.share());
        format!("warning: {samples} of {of} samples are cut after {max_tokens} tokens: {share:.1} % of the text neither trains nor earns")
    };
    (cut.samples > 0).then(line)
}

/// The samples' tokens, BOS first, EOS last, cut.
pub fn sample_tokens(tokenizer: &Tokenizer, datanet: &Datanet, max_tokens: usize) -> Result<Vec<Vec<u32>>, Failure> {
    let encode = |(i, s): (usize, &Sample)| tokenizer.encode_sample(&s.text, max_tokens).during(format!("sample {} of {}", i + 1, s.contributor));
    datanet.samples.iter().enumerate().map(encode).collect()
}

/// The samples' whole sequences, BOS and EOS included.
pub fn encoded(datanet: &Datanet, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>, Failure> {
    datanet.samples.iter().enumerate().map(|(i, s)| encode(tokenizer, i, s, &s.text)).collect()
}

fn encode(tokenizer: &Tokenizer, at: usize, sample: &Sample, text: &str) -> Result<Vec<u32>, Failure> {
    tokenizer.encode_sample(text, usize::MAX).during(format!("sample {at} of {:?}", sample.contributor))
}

/// Every window as a sample, and which sample it was.
fn split_samples(datanet: Datanet, tokenizer: &Tokenizer, max_tokens: usize) -> Result<(Datanet, Vec<usize>), Failure> {
    let (mut samples, mut sample_of_row) = (Vec::new(), Vec::new());
    for (at, sample) in datanet.samples.into_iter().enumerate() {
        let fits = |text: &str| Ok::<_, Failure>(encode(tokenizer, at, &sample, text)?.len() <= max_tokens);
        if fits(&sample.text)? {
            samples.push(sample);
            sample_of_row.push(at);
            continue;
        }
        for window in split(&sample.text, fits)? {
            samples.push(Sample { contributor: sample.contributor.clone(), text: window.to_owned() });
            sample_of_row.push(at);
        }
    }
    Ok((Datanet { samples }, sample_of_row))
}

/// Copies among samples: identical and near-identical texts, and who was first.
pub struct Copies {
    verdicts: Vec<Canonical>,
    /// Samples that have copies, with them.
    pub clusters: Vec<Cluster>,
}

/// Clusters that are shown unless all are asked for.
const SHOWN: usize = 5;

impl Copies {
    /// Of a datanet's samples by their words, and by their tokens (BOS first) where they are known.
    pub fn of(datanet: &Datanet, tokens: Option<&[Vec<u32>]>) -> Self {
        let by_words = datanet.canonical();
        let verdicts = match tokens {
            Some(tokens) => canonical_rows(by_words, tokens),
            None => by_words,
        };
        Self { clusters: clusters(&verdicts), verdicts }
    }

    fn is_identical(&self, sample: usize) -> bool {
        matches!(self.verdicts[sample], Canonical::Copy { identical: true, .. })
    }

    /// Identical and near-identical copies.
    pub fn counts(&self) -> (usize, usize) {
        let copies = self.verdicts.iter().filter(|v| !v.is_first()).count();
        let identical = (0..self.verdicts.len()).filter(|&i| self.is_identical(i)).count();
        (identical, copies - identical)
    }

    /// One line in all and one a cluster, the largest few or all; none where there are no copies.
    pub fn lines(&self, datanet: &Datanet, all: bool) -> Vec<String> {
        let (identical, near) = self.counts();
        if identical + near == 0 {
            return vec![];
        }
        let total = self.verdicts.len();
        let mut lines =
            vec![format!("{} of {total} samples copy earlier ones and don't earn: {identical} identical, {near} nearly", identical + near)];
        let mut order: Vec<&Cluster> = self.clusters.iter().collect();
        order.sort_by_key(|c| std::cmp::Reverse(c.copies.len()));
        let shown = if all { order.len() } else { SHOWN.min(order.len()) };
        lines.extend(order[..shown].iter().map(|cluster| cluster_line(cluster, datanet)));
        if shown < order.len() {
            lines.push(format!("  and {} more; `poa datanet check` lists them", order.len() - shown));
        }
        lines
    }

    /// Counts and clusters.
    pub fn json(&self, datanet: &Datanet) -> Value {
        let (identical, near) = self.counts();
        let of = |i: usize| &datanet.samples[i].contributor;
        let copy = |&i: &usize| json!({ "sample": i, "contributor": of(i), "identical": self.is_identical(i) });
        let cluster = |c: &Cluster| json!({ "first": c.first, "contributor": of(c.first), "copies": c.copies.iter().map(copy).collect::<Value>() });
        json!({ "identical": identical, "near": near, "clusters": self.clusters.iter().map(cluster).collect::<Value>() })
    }
}

fn cluster_line(cluster: &Cluster, datanet: &Datanet) -> String {
    let first = &datanet.samples[cluster.first];
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for &copy in &cluster.copies {
        *names.entry(&datanet.samples[copy].contributor).or_default() += 1;
    }
    let by: Vec<String> = names.iter().take(SHOWN).map(|(name, count)| format!("{name:?} ({count})")).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    let text: String = first.text.chars().take(60).collect();
    format!("  sample {} of {:?} was first, copied by {}{more}: {text:?}", cluster.first, first.contributor, by.join(", "))
}
