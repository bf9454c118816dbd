//! A datanet becomes an attribution index: the sketch of every sample's gradient.

use crate::error::{Failure, While};
use crate::progress::Observer;
use crate::run::fingerprint;
use crate::store::{AdapterDir, IndexDir, IndexInfo, ModelDir, Row};
use crate::texts::sample_tokens;
use circuits::relation::{Relation, RelationParams, Scope, TableMode, WeightRanges};
use circuits::statement::Digest;
use model_runtime::int::index::{Index, IndexError, IndexOptions, build_index};
use model_runtime::semantics::Seed;
use model_runtime::text::Datanet;
use model_runtime::text::duplicates::{Canonical, canonical_rows};
use std::path::Path;

/// How an index is made.
#[derive(Clone, Debug)]
pub struct Indexing<'a> {
    /// What is sketched; its seed is that of the datanet and the beacon.
    pub options: IndexOptions,
    /// Samples are cut after this many tokens.
    pub max_tokens: usize,
    /// Scores up to this count as noise, if not up to what the projection's chance gives.
    pub noise_floor: Option<i64>,
    /// A value that nobody knew when the datanet closed.
    pub beacon: Option<Digest>,
    /// Where model and adapter are.
    pub paths: (&'a Path, &'a Path),
}

/// Makes an index of a datanet.
pub fn index(model: &ModelDir, adapter: &AdapterDir, datanet: &Datanet, how: Indexing<'_>, on: &dyn Observer) -> Result<IndexDir, Failure> {
    let mut tokens = sample_tokens(&model.tokenizer, datanet, how.max_tokens)?;
    let progress = |done: usize, total: usize| {
        on.steps("sketching", done, total);
        on.goes_on()
    };
    // A copy of an earlier sample is a zero row: it neither earns nor moves the floor.
    let earns: Vec<bool> = canonical_rows(datanet.canonical(), &tokens).into_iter().map(Canonical::is_first).collect();
    tokens.iter_mut().for_each(|t| model.tokenizer.without_end(t, 2));
    let failed = |error: IndexError| match error {
        IndexError::Stopped => Failure::stopped(),
        error => Failure::input(format!("indexing: {error}")),
    };
    let root = datanet.root();
    let options = IndexOptions { seed: Seed::of(&root, how.beacon.as_ref().map(|b| &b.0)), ..how.options };
    let mut index = build_index(&model.int, &adapter.int, &tokens, &earns, &options, &progress).map_err(failed)?;
    if let Some(theta) = how.noise_floor {
        index.semantics.consts.insert("theta".into(), theta);
    }
    check_provable(&index, datanet.contributors().len())?;
    let rows = datanet.samples.iter().map(|s| Row { contributor: s.contributor.clone(), text: s.text.clone() }).collect();
    let info = IndexInfo {
        rows,
        contributors: datanet.contributors().into_iter().map(str::to_owned).collect(),
        datanet_root: Digest(root),
        datanet_version: 1,
        beacon: how.beacon,
        max_tokens: how.max_tokens,
        options,
        sample_of_row: vec![],
        model: how.paths.0.to_owned(),
        adapter: how.paths.1.to_owned(),
        made_with: fingerprint(model, Some(adapter)),
    };
    Ok(IndexDir { index, info })
}

/// Refuses what no proof could be made of, for an exchange of any length, before anything is written.
fn check_provable(index: &Index, contributors: usize) -> Result<(), Failure> {
    let tokens = index.semantics.shape.context.next_power_of_two();
    let params = RelationParams {
        semantics: index.semantics.clone(),
        scope: Scope::Attribution,
        weight_ranges: WeightRanges::Proven,
        tables: TableMode::Evaluated,
        tokens,
        slots: tokens,
        requests: 1,
        rows: index.rows,
        contributors,
    };
    Relation::new(&params).map(|_| ()).during("checking that answers can be proven with this index")
}
