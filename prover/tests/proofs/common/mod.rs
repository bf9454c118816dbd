//! A small random model, its runs and its proofs, shared by the prover's tests.
#![allow(dead_code)]

pub mod cheat;
pub mod golden;
pub mod mutate;
pub mod recompute;
pub mod registrar;

use circuits::ir::Group;
use circuits::layout::Layout;
use circuits::public::PublicRequest;
use circuits::relation::{Relation, RelationParams, Scope, TableMode, WeightRanges};
use circuits::statement::{Digest, IndexStatement, PROTOCOL_VERSION, Profile, RequestStatement, Statement, Tokens};
use circuits::witness::{Fixed, Witness};
use model_runtime::int::adapter::{IntAdapter, quantise_adapter};
use model_runtime::int::attribute::attribute;
use model_runtime::int::index::{Index, IndexOptions, build_index};
use model_runtime::int::sketch::sketch;
use model_runtime::int::trace::{Keep, Span};
use model_runtime::int::{IntModel, Mode, Runtime, Trace, quantise_base};
use model_runtime::semantics::{Dims, Semantics};
use model_runtime::shape::{FloatAdapter, FloatLayer, FloatModel, LoraShape, ModelShape, Site};
use model_runtime::tensor::{Tensor, TensorMap};
use prover::commit::Committed;
use verifier::profile::NativeProfile;

/// Deterministic noise in [-1, 1).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / f32::from(1u8) / 8_388_608.0 - 1.0
    }

    pub fn vec(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * scale).collect()
    }
}

pub fn small_shape(layers: usize) -> ModelShape {
    ModelShape { layers, width: 12, heads: 4, kv_heads: 2, head_dim: 6, ff: 20, vocab: 30, rope_theta: 10_000.0, norm_eps: 1e-5, context: 16 }
}

pub fn random_model(shape: &ModelShape, seed: u64) -> FloatModel {
    let mut noise = Noise(seed);
    let layers = (0..shape.layers)
        .map(|_| FloatLayer {
            attn_norm: vec![1.0; shape.width],
            ffn_norm: vec![1.0; shape.width],
            linear: Site::ALL.map(|s| {
                let (out, input) = shape.site_dims(s);
                noise.vec(out * input, 1.5 / (input as f32).sqrt())
            }),
        })
        .collect();
    FloatModel {
        shape: shape.clone(),
        embed: noise.vec(shape.vocab * shape.width, 1.0),
        layers,
        final_norm: vec![1.0; shape.width],
        head: Some(noise.vec(shape.vocab * shape.width, 1.0)),
    }
}

pub struct Forward {
    pub model: IntModel,
    pub traces: Vec<Trace>,
    pub relation: Relation,
}

pub fn forward(layers: usize, requests: usize) -> Forward {
    forward_of(&small_shape(layers), requests, Profile::Native)
}

pub fn forward_of(shape: &ModelShape, requests: usize, profile: Profile) -> Forward {
    let float = random_model(shape, 7);
    let calibration: Vec<Vec<u32>> = (0..4).map(|i| (0..12).map(|t| (t * 7 + i * 5 + 1) % 30).collect()).collect();
    let model = quantise_base(&float, &calibration).unwrap();
    let runtime = Runtime::new(model.semantics.clone(), &model.tensors, None).unwrap();
    let dims = Dims::new(&model.semantics, 8, 4);
    let traces = (0..requests as u32)
        .map(|i| {
            let prompt = [1, 5 + i, 9];
            let mut tokens = prompt.to_vec();
            tokens.extend(runtime.generate(&prompt, 3 + (i as usize) % 2, None).unwrap());
            runtime.run(&tokens, 3, dims, Mode::Greedy, Keep::All, Span::Answer).unwrap()
        })
        .collect();
    let params = RelationParams {
        semantics: model.semantics.clone(),
        scope: Scope::Forward,
        weight_ranges: WeightRanges::Proven,
        tables: if profile == Profile::Evm { TableMode::Committed } else { TableMode::Evaluated },
        tokens: 8,
        slots: 4,
        requests: requests.next_power_of_two(),
        rows: 0,
        contributors: 0,
    };
    let relation = Relation::new(&params).unwrap();
    Forward { model, traces, relation }
}

/// A model with an adapter, an index and one or more attributed answers.
pub struct Full {
    pub model: IntModel,
    pub adapter: IntAdapter,
    pub index: Index,
    pub index_tensors: TensorMap,
    pub traces: Vec<Trace>,
    pub relation: Relation,
}

pub const CONTRIBUTORS: usize = 3;

pub fn random_adapter(shape: &ModelShape, rank: usize, sites: &[Site]) -> FloatAdapter {
    let mut noise = Noise(99);
    let mut pairs = std::collections::BTreeMap::new();
    for layer in 0..shape.layers {
        for &site in sites {
            let (out, input) = shape.site_dims(site);
            pairs.insert((layer, site), (noise.vec(rank * input, 0.5), noise.vec(out * rank, 0.3)));
        }
    }
    FloatAdapter { shape: LoraShape { rank, sites: sites.to_vec() }, scale: 1.0, pairs }
}

pub fn full(layers: usize, requests: usize, sites: &[Site]) -> Full {
    full_with(layers, requests, sites, |_| {})
}

/// The same with other semantics for what follows the index.
pub fn full_with(layers: usize, requests: usize, sites: &[Site], tweak: impl Fn(&mut Semantics)) -> Full {
    full_sketched(layers, requests, sites, IndexOptions { rows: 2, sites: Some(sites.to_vec()), ..IndexOptions::default() }, tweak)
}

/// What the fixtures' indexes are of.
pub fn samples() -> Vec<Vec<u32>> {
    (0..11u32).map(|i| (0..5 + i % 4).map(|t| (t * t * 3 + i * 11 + 1) % 30).collect()).collect()
}

/// A row of the fixtures' indexes that doesn't earn.
pub const UNEARNED: usize = 7;

/// The same with a sketch of another shape.
pub fn full_sketched(layers: usize, requests: usize, sites: &[Site], options: IndexOptions, tweak: impl Fn(&mut Semantics)) -> Full {
    let shape = small_shape(layers);
    let float = random_model(&shape, 7);
    let calibration: Vec<Vec<u32>> = (0..4).map(|i| (0..8).map(|t| (t * 7 + i * 5 + 1) % 30).collect()).collect();
    let model = quantise_base(&float, &calibration).unwrap();
    let adapter = quantise_adapter(&model, &float, &random_adapter(&shape, 3, sites), &calibration).unwrap();
    let samples = samples();
    let earns: Vec<bool> = (0..samples.len()).map(|i| i != UNEARNED).collect();
    let mut index = build_index(&model, &adapter, &samples, &earns, &options, &|_, _| true).unwrap();
    // Sketches of a few entries: by chance alone any score could be noise.
    index.semantics.consts.insert("theta".into(), 0);
    tweak(&mut index.semantics);
    let mut index_tensors = index.tensors.clone();
    index_tensors.insert("contributor".into(), pad_rows(&index, contributors(&index).iter().map(|&c| c as i32).collect()));
    let params = RelationParams {
        semantics: index.semantics.clone(),
        scope: Scope::Attribution,
        weight_ranges: WeightRanges::Proven,
        tables: TableMode::Evaluated,
        tokens: 8,
        slots: 8,
        requests: requests.next_power_of_two(),
        rows: index.rows,
        contributors: CONTRIBUTORS,
    };
    let relation = Relation::new(&params).unwrap();
    let mut full = Full { model, adapter, index, index_tensors, traces: vec![], relation };
    let runtime = full.runtime(&full.model.tensors);
    full.traces = (0..requests as u32)
        .map(|i| {
            let prompt = [1, 5 + i, 9];
            let mut tokens = prompt.to_vec();
            tokens.extend(runtime.generate(&prompt, 3 + (i as usize) % 2, None).unwrap());
            full.trace(&runtime, &tokens, 3)
        })
        .collect();
    full
}

/// Who made each row.
pub fn contributors(index: &Index) -> Vec<u32> {
    (0..index.rows as u32).map(|i| i % CONTRIBUTORS as u32).collect()
}

fn pad_rows(index: &Index, mut rows: Vec<i32>) -> Tensor {
    let padded = index.rows.next_power_of_two();
    rows.resize(padded, 0);
    Tensor::new(&[padded], rows).unwrap()
}

impl Full {
    /// The same with tables as a profile has them.
    pub fn under(mut self, profile: Profile) -> Self {
        let mut params = self.relation.params.clone();
        params.tables = if profile == Profile::Evm { TableMode::Committed } else { TableMode::Evaluated };
        self.relation = Relation::new(&params).unwrap();
        self
    }

    /// The runtime over a base model's tensors.
    pub fn runtime(&self, base: &TensorMap) -> Runtime {
        Runtime::new(self.index.semantics.clone(), base, Some(&self.adapter.tensors)).unwrap()
    }

    /// Runs and attributes.
    pub fn trace(&self, runtime: &Runtime, tokens: &[u32], prompt_len: usize) -> Trace {
        let dims = Dims::new(&self.index.semantics, 8, 7);
        self.attributed(runtime.run(tokens, prompt_len, dims, Mode::Teacher, Keep::All, Span::Exchange).unwrap())
    }

    /// The same trace with its sketch, scores and relevances.
    pub fn attributed(&self, mut trace: Trace) -> Trace {
        let sketch = sketch(&self.index.semantics, &trace).unwrap();
        let attribution = attribute(&self.index, &sketch, &contributors(&self.index), None).unwrap();
        trace.tensors.extend(sketch);
        trace.tensors.extend(attribution.tensors);
        trace
    }

    /// A witness from other tensors than the fixture's.
    pub fn witness_of(&self, base: &TensorMap, index: &TensorMap, traces: &[Trace]) -> Witness {
        let fixed = Fixed { base, adapter: &self.adapter.tensors, index };
        let tensors: Vec<&TensorMap> = traces.iter().map(|t| &t.tensors).collect();
        Witness::new(&self.relation, fixed, &tensors, traces.iter().map(public_request).collect()).unwrap()
    }

    pub fn witness(&self) -> Witness {
        self.witness_of(&self.model.tensors, &self.index_tensors, &self.traces)
    }

    /// Commits the long-lived groups of a witness.
    pub fn commit<C: NativeProfile>(&self, witness: &Witness) -> Vec<Committed<C>> {
        let groups = Group::ALL.into_iter().filter(|&g| g != Group::Trace);
        let groups = groups.filter(|&g| Layout::of(&self.relation, g).is_some());
        groups.map(|g| Committed::of_witness(&self.relation, g, witness).unwrap()).collect()
    }

    pub fn statement<C: NativeProfile>(&self, witness: &Witness, fixed: &[Committed<C>]) -> Statement {
        let [base, adapter, commitment] = [0, 1, 2].map(|i| fixed[i].digest());
        let weights = witness.contributor_weights(&self.relation);
        let requests = witness.ctx.requests.iter().zip(weights).enumerate().map(|(i, (t, weights))| RequestStatement {
            id: circuits::statement::keccak(&[i as u8]).truncated(),
            tokens: Tokens::Public { tokens: t.tokens.clone(), prompt_len: t.prompt_len },
            total: weights.iter().sum(),
            weights,
        });
        let index = IndexStatement {
            commitment,
            base,
            adapter,
            datanet_root: Digest([3; 32]),
            datanet_version: 1,
            contributors: (0..CONTRIBUTORS).map(|c| format!("contributor-{c}")).collect(),
        };
        Statement {
            version: PROTOCOL_VERSION,
            profile: C::PROFILE,
            relation: self.relation.params.clone(),
            base,
            adapter: Some(adapter),
            requests: requests.collect(),
            index: Some(index),
            tables: fixed.get(3).map(Committed::digest),
            registration: None,
        }
    }
}

pub fn public_request(trace: &Trace) -> PublicRequest {
    PublicRequest { tokens: trace.tokens.clone(), prompt_len: trace.prompt_len }
}

impl Forward {
    pub fn witness(&self) -> Witness {
        let none = TensorMap::new();
        let fixed = Fixed { base: &self.model.tensors, adapter: &none, index: &none };
        let traces: Vec<&TensorMap> = self.traces.iter().map(|t| &t.tensors).collect();
        Witness::new(&self.relation, fixed, &traces, self.traces.iter().map(public_request).collect()).unwrap()
    }

    /// Of the fixed commitments, the base model's first, then the tables' where they are committed.
    pub fn statement<C: NativeProfile>(&self, fixed: &[Committed<C>]) -> Statement {
        let requests = self
            .traces
            .iter()
            .enumerate()
            .map(|(i, t)| RequestStatement {
                id: circuits::statement::keccak(&[i as u8]).truncated(),
                tokens: Tokens::Public { tokens: t.tokens.clone(), prompt_len: t.prompt_len },
                weights: vec![],
                total: 0,
            })
            .collect();
        Statement {
            version: PROTOCOL_VERSION,
            profile: C::PROFILE,
            relation: self.relation.params.clone(),
            base: fixed[0].digest(),
            adapter: None,
            index: None,
            tables: fixed.get(1).map(Committed::digest),
            registration: None,
            requests,
        }
    }
}
