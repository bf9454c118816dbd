//! What a settlement has made: proofs of the profile that circuits verify, keys, outer proofs, and the contracts that verify them.
//!
//! Proofs of a model have one of few sizes, so that few keys are needed: slots are a power of two, at least eight, and there are twice as many
//! padded tokens, at most the model's context. With a context of 32 that's exchanges of up to 9, 17 and 32 tokens.

use crate::catalog::Served;
use crate::datanets;
use crate::files::Files;
use crate::requests::Request;
use crate::server::Service;
use crate::settlements::Maker;
use crate::trainings;
use chain::bundled;
use chain::deploy::{RawVerifier, VERIFIER_GAS, bytecode};
use chain::register::LICENCE;
use chain::rehearsal::rehearse;
use circuits::relation::WeightRanges;
use circuits::statement::{Digest, Profile, Statement};
use light_client::OuterKey;
use model_runtime::int::trace::Span;
use model_runtime::semantics::Dims;
use prover::srs::Srs;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steps::error::{Failure, While};
use steps::evm_proof::EvmProof;
use steps::progress::Observer;
use steps::prove::{Job, prove};
use steps::store::{RunInfo, write_file};
use steps::{outer, run};

/// Fewest slots of a proof.
const SLOTS: usize = 8;

/// Where keys and their reference string are.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Keys that were made.
    pub keys: PathBuf,
    /// The reference string; none for one whose secret is published, which is for trials.
    pub srs: Option<PathBuf>,
}

/// Makes what one request's settlement needs.
pub struct Making<'a> {
    service: &'a Service,
    request: &'a Request,
    served: Arc<Served>,
    info: RunInfo,
    dims: Dims,
}

/// Padded slots and tokens of an exchange.
fn size(tokens: usize, context: usize) -> (usize, usize) {
    let slots = (tokens - 1).next_power_of_two().max(SLOTS);
    (slots, (2 * slots).min(context.next_power_of_two()).max(slots))
}

impl<'a> Making<'a> {
    /// For a request of a model with an index, which is still what answered.
    ///
    /// # Errors
    ///
    /// When it isn't.
    pub fn new(service: &'a Service, request: &'a Request) -> Result<Self, Failure> {
        let served = service.catalog.get(&request.model).map_err(|e| Failure::input(format!("{}: {}", request.model, e.message)))?;
        let info = request.run(&served).map_err(|e| Failure::input(e.message))?;
        if served.index().is_none() {
            return Err(Failure::input(format!("{} has no index: nobody is credited", request.model)));
        }
        let (slots, tokens) = size(info.tokens.len(), served.context());
        let dims = Dims::new(served.runtime().semantics(), tokens, slots);
        Ok(Self { service, request, served, info, dims })
    }

    /// The reference string for a proof's circuit.
    fn srs(&self, k: u32, on: &dyn Observer) -> Result<Srs, Failure> {
        let mut say = |what: &str| on.note(what);
        if let Some(given) = &self.service.keys.srs {
            return Srs::load(given, k, &mut say).during("the reference string");
        }
        let directory = self.service.data.join("srs");
        match Srs::load(&directory, k, &mut say) {
            Ok(srs) => Ok(srs),
            Err(_) => {
                let srs = Srs::insecure(k).during("making an insecure reference string")?;
                srs.save(&directory).during_path("writing", &directory)?;
                Ok(srs)
            }
        }
    }

    fn source(&self, key: &OuterKey, extension: &str) -> PathBuf {
        self.service.data.join("verifiers").join(format!("{}.{extension}", Digest(key.digest())))
    }
}

/// The bundled contract, filled in: as it is where fees are for trials, its key's secret being published; else tried.
fn tried(raw: RawVerifier, trial: Option<&EvmProof>) -> Result<Option<RawVerifier>, Failure> {
    if raw.insecure_srs {
        return Ok(Some(raw));
    }
    trial.map(|trial| rehearse(&raw, trial).map(|()| raw)).transpose()
}

/// A compiled verifier of an operator's, tried with a proof of its key.
fn compiled(artifact: &Path, source: &Path, key: &OuterKey, trial: &EvmProof) -> Result<RawVerifier, Failure> {
    if !artifact.exists() {
        let message = format!("no contract verifies this model's proofs yet: {} is missing", artifact.display());
        return Err(Failure::input(message).hint(format!("in contracts/: npm run verifier -- {} {}", source.display(), artifact.display())));
    }
    let raw = RawVerifier {
        code: bytecode(artifact)?,
        key_digest: Digest(key.digest()),
        proof_bytes: key.proof_bytes(),
        insecure_srs: key.insecure(),
        gas_limit: VERIFIER_GAS,
    };
    rehearse(&raw, trial)?;
    Ok(raw)
}

fn versions(service: &Service, files: &Files, model: &str, below: u64) -> Result<Vec<(Digest, Vec<String>)>, Failure> {
    let training = trainings::of_model(&service.database, model).during("reading the training")?;
    let Some(training) = training else {
        return Err(Failure::input(format!("{model} is of version {below} of a datanet whose earlier versions aren't here")));
    };
    let of = datanets::by_id(&service.database, training.datanet_id).during("reading the datanet")?;
    let mut versions = datanets::versions(&service.database, &of).during("reading the datanet")?;
    versions.sort_by_key(|v| v.version);
    let read = |version: &datanets::Version| {
        let names: BTreeSet<String> = datanets::samples(files, version)?.samples.into_iter().map(|s| s.contributor).collect();
        Ok((version.root.parse().during("reading a version's root")?, names.into_iter().collect()))
    };
    versions.iter().filter(|v| (v.version as u64) < below).map(read).collect()
}

impl Maker for Making<'_> {
    fn model(&self) -> String {
        blake3::hash(json!(self.served.generation).to_string().as_bytes()).to_hex().to_string()
    }

    fn slots(&self) -> usize {
        self.dims.s
    }

    fn capacity(&self) -> usize {
        self.dims.t
    }

    fn prompt(&self) -> &[u32] {
        &self.info.tokens[..self.info.prompt_len]
    }

    fn prove(&self, id: Digest, salt: Digest, on: &dyn Observer) -> Result<(Statement, Vec<u8>), Failure> {
        let (served, info) = (&self.served, &self.info);
        let mut trace = run::trace(served.runtime(), &info.tokens, info.prompt_len, Span::Exchange, self.dims)?;
        let index = served.index().ok_or_else(|| Failure::input("the model has no index"))?;
        run::attribute(index, &mut trace)?;
        let job = Job {
            model: &served.model().int.tensors,
            adapter: served.adapter().map(|a| &a.int.tensors),
            index: Some(index),
            semantics: served.runtime().semantics(),
            weight_ranges: WeightRanges::Proven,
            registration: None,
            requests: vec![(trace, id)],
            private_tokens: true,
            prompt_salts: vec![Some(salt)],
            shelves: served.shelves(),
        };
        let proven = prove(Profile::Evm, job, on)?;
        verifier::verify_bytes(&proven.statement, &proven.bytes).during("verifying the proof that was made")?;
        Ok((proven.statement, proven.bytes))
    }

    fn key(&self, statement: &Statement, inner: &[u8], on: &dyn Observer) -> Result<OuterKey, Failure> {
        let srs = self.srs(outer::smallest(statement, inner)?, on)?;
        let (key, solidity) = outer::key(statement, inner, &srs, &self.service.keys.keys, on)?;
        if bundled::verifier(&key)?.is_none() {
            write_file(&self.source(&key, "sol"), solidity.as_bytes())?;
        }
        Ok(key)
    }

    fn wrap(&self, statement: &Statement, inner: &[u8], on: &dyn Observer) -> Result<(EvmProof, OuterKey), Failure> {
        let srs = self.srs(outer::smallest(statement, inner)?, on)?;
        let wrapped = outer::wrap(statement, inner, &srs, &self.service.keys.keys, on)?;
        Ok((wrapped.proof, wrapped.key))
    }

    fn verifier(&self, key: &OuterKey, trial: Option<&EvmProof>) -> Result<Option<RawVerifier>, Failure> {
        if let Some(raw) = bundled::verifier(key)? {
            return tried(raw, trial);
        }
        trial.map(|trial| compiled(&self.source(key, "json"), &self.source(key, "sol"), key, trial)).transpose()
    }

    fn earlier_versions(&self) -> Result<Vec<(Digest, Vec<String>)>, Failure> {
        match self.served.index().map_or(1, |index| index.info.datanet_version) {
            0 | 1 => Ok(vec![]),
            version => versions(self.service, &self.service.files, &self.request.model, version),
        }
    }

    fn licence(&self) -> Result<String, Failure> {
        let training = trainings::of_model(&self.service.database, &self.request.model).during("reading the training")?;
        let of = training.map(|t| datanets::by_id(&self.service.database, t.datanet_id)).transpose().during("reading the datanet")?;
        Ok(of.map_or_else(|| LICENCE.to_owned(), |of| of.licence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over a ceremony's reference string no contract gets a fee that hasn't taken a proof of its key.
    #[test]
    fn what_is_filled_in_is_tried_before_a_fee_depends_on_it() {
        let verifier = |key: &[u8]| bundled::verifier(&OuterKey::decode(key).unwrap()).unwrap().unwrap();
        let proof: EvmProof = serde_json::from_str(include_str!("../../chain/fixtures/other-proof.json")).unwrap();
        let (right, wrong) = (verifier(include_bytes!("../../chain/fixtures/other.vk")), verifier(include_bytes!("../../assets/demo/outer.vk")));
        assert!(right.insecure_srs && tried(right.clone(), None).unwrap().is_some());
        let right = RawVerifier { insecure_srs: false, ..right };
        assert!(tried(right.clone(), None).unwrap().is_none(), "a proof is made first");
        assert!(tried(right.clone(), Some(&proof)).unwrap().is_some());
        let wrong = RawVerifier { code: wrong.code, ..right };
        assert!(tried(wrong, Some(&proof)).unwrap_err().message.contains("refuses a good proof"));
    }

    #[test]
    fn sizes_are_few_and_have_room() {
        for context in [32, 48, 1024] {
            let mut sizes = BTreeSet::new();
            for tokens in 2..=context {
                let (slots, padded) = size(tokens, context);
                assert!(slots >= tokens - 1 && padded >= tokens && padded >= slots, "{tokens} of {context}: {slots}, {padded}");
                sizes.insert((slots, padded));
            }
            assert!(sizes.len() <= context.ilog2() as usize, "{sizes:?}");
        }
        assert_eq!(size(9, 32), (8, 16), "the demo's");
    }
}
