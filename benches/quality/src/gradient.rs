//! Gradients with respect to the adapter, sequence by sequence: what every gradient method is made of.

use crate::Failure;
use crate::stage::{Query, Stage};
use model_runtime::shape::Site;
use model_runtime::train::gemm::add_transposed_times;
use model_runtime::train::pack;
use model_runtime::train::pass::{Pass, SiteGradient, softmax};
use rayon::prelude::*;

/// What enters the residual stream at each predicted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// The loss's own gradient, from `p − e_t`.
    Loss,
    /// Score R's: from `q − e_t`, `q` the softmax over the other tokens, brought to length one.
    Unit,
}

/// Layers and sites of an adapter in one vector, group after group.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Layer, site, outputs (rows of B), inputs (columns of A).
    pub parts: Vec<(usize, Site, usize, usize)>,
    rank: usize,
}

impl Groups {
    /// Those of a stage's adapter.
    pub fn of(stage: &Stage) -> Self {
        let dims = |&(layer, site): &(usize, Site)| {
            let (outs, inner) = stage.model.shape.site_dims(site);
            (layer, site, outs, inner)
        };
        Self { parts: stage.adapter.pairs.keys().map(dims).collect(), rank: stage.adapter.shape.rank }
    }

    /// LoRA rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    fn find(&self, layer: usize, site: Site) -> usize {
        self.parts.iter().position(|p| (p.0, p.1) == (layer, site)).unwrap_or(usize::MAX)
    }
}

/// One sequence's gradients by group: of B `[out, rank]` and of A `[rank, in]`.
#[derive(Clone, Debug, Default)]
pub struct Gradient {
    /// Of B.
    pub b: Vec<Vec<f32>>,
    /// Of A.
    pub a: Vec<Vec<f32>>,
}

/// What one site sees of one sequence.
pub struct Factors<'a> {
    /// Number of the group.
    pub group: usize,
    /// Tokens.
    pub rows: usize,
    /// The pass's values.
    pub at: SiteGradient<'a>,
}

/// Runs a sequence, the loss over tokens from `first` (at least 1), and shows each site's factors.
pub fn factors(stage: &Stage, groups: &Groups, tokens: &[u32], first: usize, seed: Seed, visit: &mut dyn FnMut(Factors)) -> Result<(), Failure> {
    let pass = Pass::new(&stage.model);
    let (batch, targets) = pack([tokens]);
    let run = pass.forward(Some(&stage.adapter), &batch)?;
    let (vocab, width) = (stage.model.shape.vocab, stage.model.shape.width);
    let mut dz = pass.logits(&run);
    for (t, (row, &target)) in dz.chunks_exact_mut(vocab).zip(&targets).enumerate() {
        if t + 1 < first.max(1) {
            row.fill(0.0);
            continue;
        }
        if seed == Seed::Unit {
            row[target as usize] = f32::NEG_INFINITY;
        }
        softmax(row);
        row[target as usize] -= 1.0;
    }
    let mut g = pass.before_factor(&run, &dz);
    for (row, factor) in g.chunks_exact_mut(width).zip(&run.last.factor) {
        let scale = match seed {
            Seed::Loss => *factor,
            Seed::Unit => 1.0 / row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-20),
        };
        row.iter_mut().for_each(|x| *x *= scale);
    }
    pass.backward(&stage.adapter, &batch, &run, g, &mut |at| {
        visit(Factors { group: groups.find(at.layer, at.site), rows: batch.rows(), at });
    });
    Ok(())
}

/// A sequence's gradient.
pub fn gradient(stage: &Stage, groups: &Groups, tokens: &[u32], first: usize, seed: Seed) -> Result<Gradient, Failure> {
    let (rank, scale) = (groups.rank, stage.adapter.scale);
    let mut gradient = Gradient { b: vec![Vec::new(); groups.parts.len()], a: vec![Vec::new(); groups.parts.len()] };
    factors(stage, groups, tokens, first, seed, &mut |f: Factors| {
        let (_, _, outs, inner) = groups.parts[f.group];
        let (mut b, mut a) = (vec![0.0; outs * rank], vec![0.0; rank * inner]);
        add_transposed_times(&mut b, f.at.dy, f.at.u, f.rows, scale);
        add_transposed_times(&mut a, f.at.e, f.at.x, f.rows, 1.0);
        (gradient.b[f.group], gradient.a[f.group]) = (b, a);
    })?;
    Ok(gradient)
}

/// Every sample's gradient: the loss of all tokens but the first and, for score R, the end.
pub fn of_samples(stage: &Stage, groups: &Groups, seed: Seed) -> Result<Vec<Gradient>, Failure> {
    let of = |tokens: &Vec<u32>| {
        let mut tokens = tokens.clone();
        if seed == Seed::Unit {
            stage.tokenizer.without_end(&mut tokens, 2);
        }
        gradient(stage, groups, &tokens, 1, seed)
    };
    stage.samples.par_iter().map(of).collect()
}

/// A query's gradient: the loss of the answer's tokens.
pub fn of_query(stage: &Stage, groups: &Groups, query: &Query, seed: Seed) -> Result<Gradient, Failure> {
    gradient(stage, groups, &query.tokens, query.prompt_len, seed)
}

/// `a · b`, summed in `f64`.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.chunks(64).zip(b.chunks(64)).map(|(a, b)| f64::from(a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())).sum()
}

/// Scales to length one; zero stays zero.
pub fn to_unit(x: &mut [f32]) {
    let length = dot(x, x).sqrt();
    if length > 0.0 {
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
