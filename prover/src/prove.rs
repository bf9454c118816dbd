//! The prover: phases in the order of the transcript schedule.

use crate::ProveError;
use crate::commit::{self, Committed, ENCODED_AGAIN_LOG};
use crate::fraction;
use crate::lookups;
use crate::reduction::{self, Reduction};
use crate::sumcheck::prove_sums;
use crate::terms::{self, Tensors, TermTables};
use circuits::ir::{EF, F, Group, TensorId};
use circuits::layout::{Layout, Slot};
use circuits::relation::Relation;
use circuits::statement::{Digest, Statement, TokenOpening};
use circuits::witness::{LookupValues, Witness};
use p3_challenger::FieldChallenger;
use p3_field::PrimeCharacteristicRing;
use p3_multilinear_util::point::Point;
use p3_multilinear_util::poly::Poly;
use rayon::prelude::*;
use std::borrow::Cow;
use std::time::Instant;
use verifier::plan::{Claims, Plan, Points};
use verifier::profile::{HashProfile, NativeProfile};
use verifier::proof::{Pinned, Proof};
use verifier::transcript;

/// A finished phase.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Wall seconds.
    pub seconds: f64,
}

/// Sees phases as they begin and end.
pub trait Progress {
    /// A phase begins.
    fn begin(&mut self, name: &'static str);
    /// It has ended.
    fn end(&mut self, stage: &Stage);
    /// Whether to go on with the next.
    fn goes_on(&self) -> bool {
        true
    }
}

/// Told to stop between two phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped")]
pub struct Stopped;

/// Progress that nobody watches.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &'static str) {}
    fn end(&mut self, _: &Stage) {}
}

/// Times phases.
pub struct Stages<'a> {
    progress: &'a mut dyn Progress,
    /// Phases so far.
    pub list: Vec<Stage>,
}

impl<'a> Stages<'a> {
    /// No phase yet.
    pub fn new(progress: &'a mut dyn Progress) -> Self {
        Self { progress, list: vec![] }
    }

    /// Runs a phase.
    ///
    /// # Errors
    ///
    /// When it's told to stop instead.
    pub fn run<T>(&mut self, name: &'static str, f: impl FnOnce() -> T) -> Result<T, Stopped> {
        if !self.progress.goes_on() {
            return Err(Stopped);
        }
        self.progress.begin(name);
        let start = Instant::now();
        let out = f();
        let stage = Stage { name, seconds: start.elapsed().as_secs_f64() };
        self.progress.end(&stage);
        self.list.push(stage);
        Ok(out)
    }
}

/// What is claimed: what the transcript begins with, and the weights to be published.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Digest of the statement, or the seed of a registration's proof.
    pub seed: Digest,
    /// Weights of each contributor, request by request; none where none are published.
    pub weights: Vec<Vec<u64>>,
}

impl From<&Statement> for Claim {
    fn from(statement: &Statement) -> Self {
        Self { seed: statement.digest(), weights: statement.requests.iter().map(|r| r.weights.clone()).collect() }
    }
}

/// What a proof is made from.
pub struct Inputs<'a, C: NativeProfile> {
    /// What is claimed of the commitments.
    pub claim: Claim,
    /// Its relation.
    pub relation: &'a Relation,
    /// Openings of token digests, one per request; none of registrations.
    pub tokens: Vec<Option<TokenOpening>>,
    /// Commitments made beforehand, pinned where they outlive the proof, in the order of [`Group::ALL`].
    pub fixed: Vec<&'a Committed<C>>,
}

/// Committed values where this relation has its tensors: a commitment may have been made for another relation, which numbers them otherwise.
struct AllTensors<'a>(Vec<(&'a Layout, &'a [F])>);

impl<'a> AllTensors<'a> {
    fn new<C: NativeProfile>(plan: &'a Plan<'_>, all: &[&'a Committed<C>]) -> Result<Self, ProveError> {
        let place = |slot: &'a Slot| (slot.offset, slot.variables.as_slice());
        let pair = |((group, layout), committed): (&'a (Group, Layout), &&'a Committed<C>)| {
            let same = *group == committed.group && layout.log == committed.layout.log;
            let aligned = layout.slots.iter().map(place).eq(committed.layout.slots.iter().map(place));
            if same && aligned { Ok((layout, committed.values())) } else { Err(ProveError::Layout(*group)) }
        };
        let missing = plan.layouts.iter().map(|(group, _)| *group).find(|group| all.iter().all(|c| c.group != *group));
        missing.map_or(Ok(()), |group| Err(ProveError::NotCommitted(group)))?;
        plan.layouts.iter().zip(all).map(pair).collect::<Result<_, _>>().map(Self)
    }
}

impl AllTensors<'_> {
    /// A tensor's slots with their values.
    fn slots(&self, id: TensorId) -> impl Iterator<Item = (&Slot, &[F])> {
        self.0.iter().flat_map(move |(layout, values)| layout.slots(id).map(|slot| (slot, &values[slot.offset..slot.offset + (1 << slot.log)])))
    }
}

impl Tensors for AllTensors<'_> {
    fn tensor(&self, id: TensorId) -> Cow<'_, [F]> {
        let slots: Vec<_> = self.slots(id).collect();
        match slots.as_slice() {
            [(slot, values)] if slot.is_whole() => Cow::Borrowed(values),
            _ => {
                let mut out = vec![F::ZERO; slots.first().map_or(0, |(slot, _)| 1 << slot.variables.len())];
                for (slot, values) in slots {
                    let (starts, len) = slot.runs();
                    values.chunks(len).zip(starts).for_each(|(run, start)| out[start..start + len].copy_from_slice(run));
                }
                Cow::Owned(out)
            }
        }
    }

    fn evaluate(&self, id: TensorId, point: &[EF]) -> EF {
        let value = |(slot, values): (&Slot, &[F])| {
            let (weight, free) = slot.claim(point);
            weight * Poly::new(values).eval_base(&Point::new(free))
        };
        self.slots(id).map(value).sum()
    }
}

/// Proves a statement.
///
/// # Errors
///
/// When the witness violates a lookup, parameters are missing, or it was told to stop.
pub fn prove<C: NativeProfile>(inputs: Inputs<'_, C>, mut witness: Witness, stages: &mut Stages<'_>) -> Result<Proof<C>, ProveError> {
    let values = stages.run("look up", || witness.count(inputs.relation))??;
    witness.free(inputs.relation, &[Group::Base, Group::Adapter, Group::Index]);
    prove_counted(inputs, witness, values, stages)
}

/// Proves with given lookups; constraints aren't checked (for tests of cheating provers, too).
///
/// # Errors
///
/// When the lookups and multiplicities don't balance, parameters are missing, or it was told to stop.
pub fn prove_counted<C: NativeProfile>(
    inputs: Inputs<'_, C>,
    mut witness: Witness,
    values: Vec<LookupValues>,
    stages: &mut Stages<'_>,
) -> Result<Proof<C>, ProveError> {
    let Inputs { claim, relation, tokens, fixed } = inputs;
    let plan = Plan::new(relation);
    let trace = stages.run("commit trace", || Committed::<C>::of_witness(relation, Group::Trace, &witness))??;
    witness.free(relation, &Group::ALL);
    let mut all = fixed;
    all.push(&trace);
    let tensors = AllTensors::new(&plan, &all)?;
    let roots: Vec<_> = all.iter().map(|c| (&c.root, c.pin.as_ref().map(|pin| pin.value))).collect();
    let pinned = all.iter().filter_map(|c| Some(Pinned { root: c.root.clone(), value: c.pin.as_ref()?.value })).collect();
    let mut challenger = transcript::start::<C>(&claim.seed, &roots);

    let challenges = transcript::lookup_challenges::<F, EF>(&mut challenger);
    let (lookups, output) = stages.run("lookups", || lookups::prove(&plan, &claim.weights, &witness, &values, challenges, &mut challenger))??;
    drop(values);
    let rho = output.point.as_slice().to_vec();
    let gamma: EF = challenger.sample_algebra_element();
    let weights: Vec<Vec<EF>> = claim.weights.iter().map(|weights| weights.iter().map(|&w| EF::from_u64(w)).collect()).collect();
    let weighted = plan.weigh(&weights, &rho, challenges, gamma);

    let terms = stages.run("bind terms", || {
        let list: Vec<_> = weighted.items.iter().flat_map(|item| item.sum.terms.iter().map(move |t| (item, t))).collect();
        let build = |(item, term): (&verifier::plan::Item<'_>, &circuits::ir::Term)| -> TermTables {
            terms::build(relation, &witness.ctx, &tensors, &item.sum.free, term, &rho, item.weight)
        };
        list.into_par_iter().map(build).collect::<Vec<_>>()
    })?;
    let (sum_rounds, sigma) = stages.run("sumcheck", || prove_sums(terms, plan.sum_rounds, &mut challenger))?;
    let claims = plan.claims(&weighted.items, Points { rho: &rho, sigma: &sigma });
    let evaluations = stages.run("evaluate", || evaluate_claims(&claims, &tensors))?;
    challenger.observe_algebra_slice(&evaluations);

    let delta: EF = challenger.sample_algebra_element();
    let reductions: Vec<Reduction> = tensors.0.iter().map(|(layout, values)| Reduction::new(values, layout, &claims, &evaluations, delta)).collect();
    let rounds = verifier::verify::reduction_rounds(&plan);
    let (reduction_rounds, point, finals) = stages.run("reduce claims", || reduction::prove(&reductions, rounds, &mut challenger))?;
    challenger.observe_algebra_slice(&finals);

    let openings =
        stages.run("open", || all.iter().map(|c| c.open(&point[point.len() - c.layout.log..], &mut challenger)).collect::<Result<Vec<_>, _>>())??;
    Ok(Proof { tokens, pinned, trace: trace.root.clone(), lookups, sum_rounds, evaluations, reduction_rounds, finals, openings })
}

fn evaluate_claims(claims: &Claims, tensors: &dyn Tensors) -> Vec<EF> {
    let value = |claim: &verifier::plan::Claim| tensors.evaluate(claim.tensor, &claim.point);
    claims.list.par_iter().map(value).collect()
}

/// The number of looked-up positions and the number of committed elements of a proof.
pub fn size(relation: &Relation) -> (usize, usize) {
    let lookups = relation.lookups.iter().map(|l| 1usize << relation.log(&l.free)).sum();
    let committed = Group::ALL.into_iter().filter_map(|g| Layout::of(relation, g)).map(|l| l.used()).sum();
    (lookups, committed)
}

/// Bytes of memory that proving needs beside its inputs, roughly: of the phases that take most.
pub fn memory<C: HashProfile>(relation: &Relation) -> usize {
    let plan = Plan::new(relation);
    let (element, extension) = (size_of::<F>(), size_of::<EF>());
    let padded: usize = plan.layouts.iter().map(|(_, l)| 1 << l.log).sum();
    let integers: usize = relation.tensors.iter().map(|t| 1 << relation.log(&t.axes)).sum();
    let encoded = |is_kept: bool| {
        let of_kind = plan.layouts.iter().filter(move |(_, l)| (l.log < ENCODED_AGAIN_LOG) == is_kept);
        of_kind.map(|(group, l)| commit::encoded_bytes::<C>(*group, l.log))
    };
    let columns: usize = relation.lookups.iter().map(|l| (l.tuple.len() + usize::from(l.numerator.is_some())) << relation.log(&l.free)).sum();
    // The witness' integers; field elements; the codewords that are kept; what is looked up.
    let held = size_of::<i32>() * integers + element * (padded + columns) + encoded(true).sum::<usize>();
    // The layers that are held, and the tables of the one that is proven.
    let limits = fraction::Limits::default();
    let layers = (4 * extension) << plan.leaves_log.saturating_sub(1).min(limits.stored_log);
    held + encoded(false).max().unwrap_or(0).max(2 * layers)
}
