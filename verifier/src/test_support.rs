//! A small relation for unit tests.

use circuits::relation::{Relation, RelationParams, Scope, TableMode, WeightRanges};
use model_runtime::int::synthetic::synthetic_model;
use model_runtime::shape::{LoraShape, ModelShape, Site};

/// The forward pass of a synthetic model with an adapter.
pub fn relation() -> Relation {
    let shape =
        ModelShape { layers: 3, width: 16, heads: 4, kv_heads: 2, head_dim: 4, ff: 24, vocab: 40, rope_theta: 10_000.0, norm_eps: 1e-5, context: 16 };
    let lora = LoraShape { rank: 2, sites: vec![Site::Q, Site::Down] };
    let (_, adapter) = synthetic_model(&shape, &lora, 5).unwrap();
    let params = RelationParams {
        semantics: adapter.semantics,
        scope: Scope::Forward,
        weight_ranges: WeightRanges::Proven,
        tables: TableMode::Evaluated,
        tokens: 8,
        slots: 4,
        requests: 2,
        rows: 0,
        contributors: 0,
    };
    Relation::new(&params).unwrap()
}
