//! Whoever registers an index: proves whatever their witness says.

use super::{CONTRIBUTORS, Full, UNEARNED, contributors, full_sketched, samples};
use circuits::layout::Layout;
use circuits::registration::{Registration, Sample};
use circuits::relation::{Part, Purpose, Relation};
use circuits::statement::{Digest, PROTOCOL_VERSION, Profile};
use circuits::witness::{Fixed, LookupValues, Witness};
use model_runtime::int::Mode;
use model_runtime::int::index::IndexOptions;
use model_runtime::int::sketch::sketch;
use model_runtime::int::trace::{Keep, Span, Trace};
use model_runtime::semantics::Seed;
use model_runtime::shape::Site;
use model_runtime::tensor::TensorMap;
use prover::ProveError;
use prover::commit::{Committed, values_of};
use prover::prove::{Claim, Inputs, Silent, Stages, prove_counted};
use verifier::VerifyError;
use verifier::profile::Native;
use verifier::registration::{RefusedRegistration, verify_form, verify_rows};

const SITES: [Site; 2] = [Site::Gate, Site::Up];
/// Root of the datanet, which the projection is drawn from.
pub const ROOT: Digest = Digest([3; 32]);

/// Everything a registrar has, honest or not.
pub struct Registrar {
    pub full: Full,
    pub index: TensorMap,
    pub registration: Registration,
    pub fixed: [Committed<Native>; 3],
}

impl Registrar {
    /// Registers what is given, whether it is right or not: pins are those of the given tensors.
    pub fn new(full: Full, index: TensorMap, samples: Vec<Sample>) -> Self {
        let mut registration = Registration {
            version: PROTOCOL_VERSION,
            profile: Profile::Native,
            semantics: full.index.semantics.clone(),
            base: Digest::default(),
            adapter: Digest::default(),
            index: Digest::default(),
            datanet_root: ROOT,
            datanet_version: 1,
            beacon: None,
            max_tokens: 16,
            split: false,
            contributors: (0..CONTRIBUTORS).map(|c| format!("contributor-{c}")).collect(),
            samples,
        };
        let commit = |part: Part, tensors: &TensorMap| {
            let relation = registration.form(part).unwrap();
            let (layout, values) = values_of(&relation, part.group(), tensors).unwrap();
            Committed::<Native>::new(part.group(), layout, values).unwrap().pinned(&relation)
        };
        let fixed = [commit(Part::Base, &full.model.tensors), commit(Part::Adapter, &full.adapter.tensors), commit(Part::Index, &index)];
        [registration.base, registration.adapter, registration.index] = [0, 1, 2].map(|i| fixed[i].digest());
        Self { full, index, registration, fixed }
    }

    pub fn honest() -> Self {
        let options = IndexOptions { rows: 2, sites: Some(SITES.to_vec()), seed: Seed::of(&ROOT.0, None), ..IndexOptions::default() };
        let full = full_sketched(1, 1, &SITES, options, |_| {});
        let index = full.index_tensors.clone();
        let earns = |row: usize| row != UNEARNED;
        let rows = samples().into_iter().zip(contributors(&full.index)).enumerate();
        let rows = rows.map(|(row, (tokens, contributor))| Sample { tokens, contributor, earns: earns(row) }).collect();
        Self::new(full, index, rows)
    }

    /// The same with another index or other samples.
    pub fn with(change: impl FnOnce(&mut TensorMap, &mut Vec<Sample>)) -> Self {
        let Self { full, mut index, registration, .. } = Self::honest();
        let mut samples = registration.samples;
        change(&mut index, &mut samples);
        Self::new(full, index, samples)
    }

    /// Runs the samples of rows as the chunk of `rows` is padded; `of` says which row's sample is run for a row.
    pub fn traces(&self, rows: &[usize], of: impl Fn(usize) -> usize, base: &TensorMap) -> Vec<Trace> {
        let (runtime, semantics) = (self.full.runtime(base), &self.full.index.semantics);
        let dims = self.registration.rows(rows).unwrap().dims();
        let trace = |&row: &usize| {
            let tokens = &self.registration.samples[of(row)].tokens;
            let mut trace = runtime.run(tokens, 1, dims, Mode::Sample, Keep::All, Span::Exchange).unwrap();
            let sketch = sketch(semantics, &trace).unwrap();
            trace.tensors.extend(sketch);
            trace
        };
        rows.iter().map(trace).collect()
    }

    pub fn witness(&self, relation: &Relation, traces: &[Trace], rows: &[usize]) -> Witness {
        let fixed = Fixed { base: &self.full.model.tensors, adapter: &self.full.adapter.tensors, index: &self.index };
        let traces: Vec<&TensorMap> = traces.iter().map(|t| &t.tensors).collect();
        let mut witness = Witness::new(relation, fixed, &traces, vec![]).unwrap();
        witness.ctx = match relation.purpose {
            Purpose::Rows => self.registration.rows_context(relation, rows),
            _ => self.registration.form_context(relation),
        };
        witness
    }

    fn prove_with(&self, relation: &Relation, witness: Witness, values: Vec<LookupValues>, seed: Digest) -> Option<Vec<u8>> {
        let fixed = self.fixed.iter().filter(|c| Layout::of(relation, c.group).is_some()).collect();
        let inputs = Inputs { claim: Claim { seed, weights: vec![] }, relation, tokens: vec![], fixed };
        match prove_counted(inputs, witness, values, &mut Stages::new(&mut Silent)) {
            Ok(proof) => Some(proof.to_bytes()),
            Err(ProveError::Unbalanced) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Proves whatever the witness says. If its lookups don't balance, with those of an honest one: then the fraction table sums to zero, but
    /// isn't the committed tensors'.
    pub fn prove(&self, relation: &Relation, witness: &Witness, honest: &Witness, seed: Digest) -> Vec<u8> {
        let mut own = witness.clone();
        let values = own.count_leniently(relation);
        self.prove_with(relation, own, values, seed).unwrap_or_else(|| {
            let (mut counted, mut stubborn) = (honest.clone(), witness.clone());
            let values = counted.count(relation).unwrap();
            relation.tables.iter().for_each(|(_, mult)| stubborn.tensors[mult.0].clone_from(&counted.tensors[mult.0]));
            self.prove_with(relation, stubborn, values, seed).unwrap()
        })
    }

    /// Proves a part's form, with `honest`'s lookups where its own don't balance.
    pub fn form(&self, part: Part, honest: &Self) -> Vec<u8> {
        let relation = self.registration.form(part).unwrap();
        let [own, other] = [self, honest].map(|r| r.witness(&relation, &[], &[]));
        self.prove(&relation, &own, &other, self.registration.form_seed(&self.registration.digest(), part))
    }

    /// Proves a chunk with some traces, with `honest`'s lookups where theirs don't balance.
    pub fn chunk(&self, rows: &[usize], traces: &[Trace], honest: &Self) -> Vec<u8> {
        let relation = self.registration.rows(rows).unwrap();
        let seed = self.registration.rows_seed(&self.registration.digest(), rows);
        let other = honest.witness(&relation, &honest.honest_traces(rows), rows);
        self.prove(&relation, &self.witness(&relation, traces, rows), &other, seed)
    }

    pub fn honest_traces(&self, rows: &[usize]) -> Vec<Trace> {
        self.traces(rows, |row| row, &self.full.model.tensors)
    }

    pub fn check_rows(&self, rows: &[usize], bytes: &[u8]) -> Result<(), VerifyError> {
        match verify_rows(&self.registration, &self.registration.digest(), rows, bytes) {
            Ok(_) => Ok(()),
            Err(RefusedRegistration::Rows { rows: named, reason }) if named == rows => Err(reason),
            Err(other) => panic!("{other}"),
        }
    }

    pub fn check_form(&self, part: Part, bytes: &[u8]) -> Result<(), VerifyError> {
        match verify_form(&self.registration, &self.registration.digest(), part, bytes) {
            Ok(_) => Ok(()),
            Err(RefusedRegistration::Form { part: named, reason }) if named == part => Err(reason),
            Err(other) => panic!("{other}"),
        }
    }
}
