//! The recorded run: everything that [`verify`] checks of an `evm` proof, on recorded values.
//!
//! Public inputs, in order: the statement's digest; the commitments of base model, adapter and index; the index's digest; the request's id;
//! its token digest; `z`; `y = Σ_j w_j·z^j` over the published weights. The relation's digest and the lookup tables' commitment are constants.

use super::base::Base;
use super::domain::Subgroup;
use super::ext::Ext;
use super::hash::{Challenger, Root, Trees, Word, sponge};
use super::recorder;
use crate::plan::Plan;
use crate::profile::{Evm, HashProfile};
use crate::proof::{DecodeError, Proof};
use crate::verify::{Claimed, VerifyError, check, check_parameters, verify};
use circuits::ir::{F, Group};
use circuits::outer::program::{Op, Program, Values};
use circuits::public::{Bit, Position, PublicView, RequestView};
use circuits::relation::{Relation, Scope};
use circuits::statement::{Digest, Profile, RequestStatement, Statement, TokenOpening, Tokens};
use p3_bn254::Bn254;
use p3_challenger::CanObserve;
use p3_field::{Field, PrimeCharacteristicRing};
use thiserror::Error;

/// The `evm` profile over recorded values.
#[derive(Clone, Copy, Debug)]
pub struct Recorded;

impl HashProfile for Recorded {
    const PROFILE: Profile = Profile::Evm;
    const GRINDING_BITS: usize = Evm::GRINDING_BITS;
    type Base = Base;
    type Ext = Ext;
    type Seed = Word;
    type Domain = Subgroup;
    type Challenger = Challenger;
    type Mmcs = Trees;

    fn challenger(seed: &Word) -> Challenger {
        let mut challenger = Challenger::default();
        challenger.observe(*seed);
        challenger
    }

    fn mmcs() -> Trees {
        Trees
    }

    fn domain(_: usize) -> Subgroup {
        Subgroup
    }
}

/// Why a proof can't be recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It isn't valid.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It is not what the outer proof covers.
    #[error("the outer proof covers {expected}; this statement has {found}")]
    Unsupported {
        /// What it covers.
        expected: &'static str,
        /// What was found.
        found: String,
    },
}

impl From<DecodeError> for RecordError {
    fn from(e: DecodeError) -> Self {
        Self::Verify(e.into())
    }
}

/// A recorded run.
pub struct Recording {
    /// What was done.
    pub program: Program,
    /// With which values.
    pub values: Values,
    /// The public inputs.
    pub public: Vec<Bn254>,
}

fn unsupported<T>(expected: &'static str, found: impl Into<String>) -> Result<T, RecordError> {
    Err(RecordError::Unsupported { expected, found: found.into() })
}

/// Verifies an `evm` proof of one request and records how. `z` is the contract's challenge for the published weights.
///
/// # Errors
///
/// When the proof isn't valid, or isn't what the outer proof covers.
pub fn record(statement: &Statement, bytes: &[u8], z: Bn254) -> Result<Recording, RecordError> {
    if statement.profile != Profile::Evm {
        return unsupported("the `evm` profile", "the `native` one");
    }
    if statement.relation.scope != Scope::Attribution {
        return unsupported("an answer with its attribution", "no attribution");
    }
    let native = Proof::<Evm>::from_bytes(bytes)?;
    verify::<Evm>(statement, &native)?;
    replay(statement, &native, bytes, z)
}

/// [`record`] without verifying natively first: what the recorded checks alone accept. For tests that compare the two.
///
/// # Errors
///
/// When the recorded checks refuse the proof, or it isn't what the outer proof covers.
pub fn replay(statement: &Statement, native: &Proof<Evm>, bytes: &[u8], z: Bn254) -> Result<Recording, RecordError> {
    let [request] = statement.requests.as_slice() else {
        return unsupported("one request", format!("{}", statement.requests.len()));
    };
    let opening = match (&request.tokens, native.tokens.first()) {
        (Tokens::Public { tokens, prompt_len }, _) => TokenOpening { salt: [0; 32], tokens: tokens.clone(), prompt_len: *prompt_len },
        (Tokens::Digest(_), Some(Some(opening))) => opening.clone(),
        _ => return unsupported("opened tokens", "no opening"),
    };
    let relation = statement.check().map_err(VerifyError::from)?;
    // One thread records: the order of operations is the program.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.or_else(|e| unsupported("a thread to record on", e.to_string()))?;
    pool.install(|| {
        let (public, program, values) = recorder::record(|| run(statement, &relation, request, &opening, bytes, z));
        Ok(Recording { program, values, public: public? })
    })
}

fn run(
    statement: &Statement,
    relation: &Relation,
    request: &RequestStatement,
    opening: &TokenOpening,
    bytes: &[u8],
    z: Bn254,
) -> Result<Vec<Bn254>, RecordError> {
    recorder::part("statement");
    let plan = Plan::new(relation);
    check_parameters::<Evm>(&plan)?;
    let commitment = |group| Word::input(statement.commitment(group).unwrap_or_default().word());
    let [base, adapter, index] = [Group::Base, Group::Adapter, Group::Index].map(commitment);
    let index_digest = Word::input(statement.index.as_ref().map(|i| i.digest().truncated()).unwrap_or_default().word());
    let id = Word::input(request.id.truncated().word());
    let tables = Word::constant(statement.tables.unwrap_or_default().word());
    let (view, tokens) = tokens(relation, opening);
    let weights: Vec<Base> = request.weights.iter().map(|&w| Base::input(F::from_u64(w))).collect();

    let mut words = vec![Word::constant(statement.relation.digest().truncated().word()), base, adapter, index, tables, index_digest];
    words.extend([Word::constant(Bn254::ONE), id, tokens]);
    words.extend(weights.chunks(8).map(|chunk| Word::pack(chunk, false)));
    let seed = sponge(&words);
    debug_assert_eq!(Digest::of_word(seed.value()), statement.digest());

    let z = Word::input(z);
    let y = weights.iter().rev().fold(Word::constant(Bn254::ZERO), |acc, &w| acc.times(z).plus(Word::pack(&[w], false)));
    let public = [seed, base, adapter, index, index_digest, id, tokens, z, y];
    public.iter().for_each(|word| word.publish());

    let commitments = [(Group::Base, base), (Group::Adapter, adapter), (Group::Index, index), (Group::Tables, tables)];
    let present = commitments.into_iter().filter(|(group, _)| plan.layouts.iter().any(|(g, _)| g == group));
    let claimed = Claimed {
        seed,
        fixed: present.map(|(_, word)| Root(word)).collect(),
        view: PublicView::new(&statement.relation, vec![view]),
        weights: vec![weights.into_iter().map(Ext::from).collect()],
    };
    recorder::part("proof");
    let proof = Proof::<Recorded>::decode(bytes)?;
    check(&plan, &claimed, &proof)?;
    Ok(public.iter().map(|word| word.value()).collect())
}

/// A request's tokens as inputs, padded to the relation's size, and their digest.
fn tokens(relation: &Relation, opening: &TokenOpening) -> (RequestView<Ext>, Word) {
    let vocab = relation.params.semantics.shape.vocab;
    let bits = usize::BITS - vocab.saturating_sub(1).leading_zeros();
    let bit = |on: bool| {
        let bit = Base::input(F::from_bool(on));
        recorder::assert(Op::AssertBit(bit.register()));
        bit
    };
    let (mut positions, mut ids) = (vec![], vec![]);
    let (mut length, mut prompt) = (Base::ZERO, Base::ZERO);
    let (mut last_present, mut last_answer) = (Base::ONE, Base::ZERO);
    for i in 0..relation.params.tokens {
        let token = opening.tokens.get(i).copied().unwrap_or(0);
        let present = bit(i < opening.tokens.len());
        let answer = bit(i < opening.tokens.len() && i >= opening.prompt_len);
        let token: Vec<Base> = (0..bits).rev().map(|k| bit((token >> k) & 1 == 1)).collect();
        // Tokens come first, then none: presence never returns, and what is absent is token 0 and no answer.
        (present * (Base::ONE - last_present)).assert_zero();
        ((Base::ONE - present) * (answer + token.iter().copied().sum::<Base>())).assert_zero();
        // The answer follows the prompt: once begun, it lasts as long as there are tokens.
        (present * last_answer * (Base::ONE - answer)).assert_zero();
        if i == 0 {
            // There is a prompt.
            (present - Base::ONE).assert_zero();
            answer.assert_zero();
        }
        length += present;
        prompt += present - answer;
        (last_present, last_answer) = (present, answer);
        ids.push(token.iter().fold(Base::ZERO, |acc, &b| acc.double() + b));
        let value = |b: Base| Bit::Value(Ext::from(b));
        positions.push(Position { token: token.into_iter().map(value).collect(), present: value(present), answer: value(answer) });
    }
    // There is an answer.
    let _ = (length - prompt).inverse();
    let mut words = vec![Word::input(Digest(opening.salt).word()), Word::pack(&[length], false), Word::pack(&[prompt], false)];
    words.extend(ids.chunks(8).map(|chunk| Word::pack(chunk, false)));
    (RequestView { positions, first: 1 }, sponge(&words))
}
