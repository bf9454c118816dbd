//! The recorded run: everything that [`verify`] checks of an `evm` proof, on recorded values.
//!
//! Public inputs, in order: the statement's digest; the pins of base model, adapter and index; the index's digest; the request's id;
//! its prompt's and its exchange's digest; `z`; `y = Σ_j w_j·z^j` over the published weights. [`Constants`] are constants.

use super::base::Base;
use super::domain::Subgroup;
use super::ext::Ext;
use super::hash::{Challenger, Root, Trees, Word, sponge};
use super::recorder;
use crate::pcs;
use crate::plan::Plan;
use crate::profile::{Evm, HashProfile, NativeProfile as _};
use crate::proof::{DecodeError, Proof};
use crate::verify::{Claimed, VerifyError, check, check_parameters, verify};
use circuits::ir::{F, Group};
use circuits::layout::Layout;
use circuits::outer::program::{Op, Program, Values};
use circuits::public::{Bit, Position, PublicView, RequestView};
use circuits::relation::{Relation, RelationParams, Scope, TableMode, WeightRanges};
use circuits::statement::{Digest, Profile, RequestStatement, Statement, StatementError, TokenOpening, Tokens};
use circuits::witness::table_column;
use p3_bn254::Bn254;
use p3_challenger::CanObserve;
use p3_commit::Mmcs;
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing};
use p3_matrix::dense::RowMajorMatrix;
use p3_sumcheck::layout::Table;
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

    fn constant(digest: Digest) -> Word {
        Word::constant(digest.word())
    }

    fn pin(parameters: &Word, root: &Root, value: Ext) -> Word {
        sponge(&[*parameters, root.0, Word::pack(value.as_basis_coefficients_slice(), false)])
    }

    fn same(a: &Word, b: &Word) -> bool {
        a.assert_equal(*b)
    }

    fn mmcs() -> Trees {
        Trees
    }

    fn domain(_: usize) -> Subgroup {
        Subgroup
    }

    fn inner_product(weights: &[Ext], elements: &[Base]) -> Ext {
        Ext::inner_product(weights, elements)
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

/// What a key fixes: computed from the relation's parameters, whatever a statement claims.
pub struct Constants {
    relation: Relation,
    /// Root of the lookup tables.
    tables: Digest,
}

impl Constants {
    /// Of a relation that the outer proof covers.
    ///
    /// # Errors
    ///
    /// When it isn't one, or has no sound parameters.
    pub fn new(params: &RelationParams) -> Result<Self, RecordError> {
        let relation = Relation::new(params).map_err(StatementError::from).map_err(VerifyError::from)?;
        match params {
            RelationParams { scope: Scope::Forward, .. } => return unsupported("an answer with its attribution", "no attribution"),
            RelationParams { weight_ranges: WeightRanges::AssumedInsecure, .. } => return unsupported("proven ranges", "assumed ones"),
            RelationParams { weight_ranges: WeightRanges::Registered, .. } => return unsupported("proven ranges", "registered ones"),
            RelationParams { tables: TableMode::Evaluated, .. } => return unsupported("committed lookup tables", "none"),
            RelationParams { requests, .. } if *requests != 1 => return unsupported("one request", format!("{requests}")),
            _ => {}
        }
        check_parameters::<Evm>(&Plan::new(&relation))?;
        let tables = tables_root(&relation)?;
        Ok(Self { relation, tables })
    }

    /// Root of the relation's lookup tables.
    pub fn tables(&self) -> Digest {
        self.tables
    }
}

/// Commits a relation's lookup tables.
fn tables_root(relation: &Relation) -> Result<Digest, RecordError> {
    let Some(layout) = Layout::of(relation, Group::Tables) else { return unsupported("committed lookup tables", "none") };
    pcs::scheme::<Evm>(Group::Tables, layout.log).map_err(VerifyError::from)?;
    let mut values = vec![F::ZERO; 1 << layout.log];
    for slot in &layout.slots {
        let column = table_column(relation, slot.tensor).unwrap_or_default();
        values.iter_mut().skip(slot.offset).zip(column).for_each(|(value, x)| *value = F::from_i32(x));
    }
    let table = Table::new(RowMajorMatrix::new(values, 1 << layout.log));
    let (_, codeword) = pcs::encode::<Evm>(Group::Tables, &table);
    let (root, _) = Evm::mmcs().commit_matrix(codeword);
    Ok(Evm::digest(&root))
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
    let native = Proof::<Evm>::from_bytes(bytes)?;
    verify::<Evm>(statement, &native)?;
    let constants = Constants::new(&statement.relation)?;
    if statement.tables != Some(constants.tables) {
        return Err(VerifyError::Tables.into());
    }
    replay(&constants, statement, &native, bytes, z)
}

/// [`record`] without any of the statement's clauses, or verifying natively first: what a prover of their own can record. A comparison that fails
/// ends the recording; an assertion about tokens that fails is left to whoever evaluates the program. For tests that compare the hosts.
///
/// # Errors
///
/// When the recorded checks refuse the proof, or it isn't what the outer proof covers.
pub fn replay(constants: &Constants, statement: &Statement, native: &Proof<Evm>, bytes: &[u8], z: Bn254) -> Result<Recording, RecordError> {
    let [request] = statement.requests.as_slice() else {
        return unsupported("one request", format!("{}", statement.requests.len()));
    };
    let opening = match (&request.tokens, native.tokens.first()) {
        (Tokens::Public { tokens, prompt_len }, _) => TokenOpening::public(tokens, *prompt_len),
        (Tokens::Digests(_), Some(Some(opening))) => opening.clone(),
        _ => return unsupported("opened tokens", "no opening"),
    };
    let bits = token_bits(&constants.relation);
    if let Some(token) = opening.tokens.iter().find(|&&t| t as usize >> bits != 0) {
        return unsupported("tokens of as many bits as the vocabulary needs", token.to_string());
    }
    // One thread records: the order of operations is the program.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.or_else(|e| unsupported("a thread to record on", e.to_string()))?;
    pool.install(|| {
        let (public, program, values) = recorder::record(|| run(constants, statement, request, &opening, bytes, z));
        Ok(Recording { program, values, public: public? })
    })
}

fn run(
    Constants { relation, tables }: &Constants,
    statement: &Statement,
    request: &RequestStatement,
    opening: &TokenOpening,
    bytes: &[u8],
    z: Bn254,
) -> Result<Vec<Bn254>, RecordError> {
    recorder::part("statement");
    let plan = Plan::new(relation);
    let pin = |group| Word::input(statement.commitment(group).unwrap_or_default().word());
    let [base, adapter, index] = [Group::Base, Group::Adapter, Group::Index].map(pin);
    let index_digest = Word::input(statement.index.as_ref().map(|i| i.digest().truncated()).unwrap_or_default().word());
    let id = Word::input(request.id.truncated().word());
    let tables = Word::constant(tables.word());
    let (view, [prompt, exchange]) = tokens(relation, opening);
    let weight = |j: usize| request.weights.get(j).copied().unwrap_or(0);
    let weights: Vec<Base> = (0..relation.params.contributors).map(|j| Base::input(F::from_u64(weight(j)))).collect();

    let mut words = vec![Word::constant(relation.params.digest().truncated().word()), base, adapter, index, tables, index_digest];
    words.extend([Word::constant(Bn254::ONE), id, prompt, exchange]);
    words.extend(weights.chunks(8).map(|chunk| Word::pack(chunk, false)));
    let seed = sponge(&words);

    let z = Word::input(z);
    let y = weights.iter().rev().fold(Word::constant(Bn254::ZERO), |acc, &w| acc.times(z).plus(Word::pack(&[w], false)));
    let public = [seed, base, adapter, index, index_digest, id, prompt, exchange, z, y];
    public.iter().for_each(|word| word.publish());

    let pins = [(Group::Base, base), (Group::Adapter, adapter), (Group::Index, index)];
    let present = pins.into_iter().filter(|(group, _)| plan.layouts.iter().any(|(g, _)| g == group));
    let claimed = Claimed {
        seed,
        pins: present.map(|(_, word)| word).collect(),
        tables: Some(Root(tables)),
        view: PublicView::new(&relation.params, vec![view]),
        weights: vec![weights.into_iter().map(Ext::from).collect()],
    };
    recorder::part("proof");
    let proof = Proof::<Recorded>::decode(bytes)?;
    check(&plan, &claimed, &proof)?;
    Ok(public.iter().map(|word| word.value()).collect())
}

/// A request's tokens as inputs, padded to the relation's size, and the digests of prompt and exchange.
fn tokens(relation: &Relation, opening: &TokenOpening) -> (RequestView<Ext>, [Word; 2]) {
    let (capacity, vocab, bits) = (relation.params.tokens, relation.params.semantics.shape.vocab, token_bits(relation));
    let bit = |on: bool| {
        let bit = Base::input(F::from_bool(on));
        recorder::assert(Op::AssertBit(bit.register()));
        bit
    };
    let (mut positions, mut ids, mut prompt_ids) = (vec![], vec![], vec![]);
    let (mut length, mut prompt) = (Base::ZERO, Base::ZERO);
    let (mut last_present, mut last_answer) = (Base::ONE, Base::ZERO);
    // A token that no slot predicts would be in the digests and in no constraint: there is none.
    for i in 0..capacity.min(FIRST + relation.params.slots) {
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
        (below(&token, vocab) - Base::ONE).assert_zero();
        length += present;
        prompt += present - answer;
        (last_present, last_answer) = (present, answer);
        let id = token.iter().fold(Base::ZERO, |acc, &b| acc.double() + b);
        ids.push(id);
        prompt_ids.push(id * (present - answer));
        let value = |b: Base| Bit::Value(Ext::from(b));
        positions.push(Position { token: token.into_iter().map(value).collect(), present: value(present), answer: value(answer) });
    }
    // There is an answer.
    (length - prompt).assert_nonzero();
    let digest = |salt: [u8; 32], lengths: &[Base], mut ids: Vec<Base>| {
        ids.resize(capacity, Base::ZERO);
        let mut words = vec![Word::input(Digest(salt).word())];
        words.extend(lengths.iter().map(|&x| Word::pack(&[x], false)));
        words.extend(ids.chunks(8).map(|chunk| Word::pack(chunk, false)));
        sponge(&words)
    };
    let digests = [digest(opening.prompt_salt, &[prompt], prompt_ids), digest(opening.salt, &[length, prompt], ids)];
    (RequestView { positions, first: FIRST }, digests)
}

/// Bits of a token's id.
fn token_bits(relation: &Relation) -> u32 {
    usize::BITS - relation.params.semantics.shape.vocab.saturating_sub(1).leading_zeros()
}

/// The position that the first slot predicts.
const FIRST: usize = 1;

/// One if the number with these bits, most significant first, is below the bound, else zero; one if the bound has more bits.
fn below(bits: &[Base], bound: usize) -> Base {
    if bound >> bits.len() != 0 {
        return Base::ONE;
    }
    let (mut equal, mut below) = (Base::ONE, Base::ZERO);
    for (&bit, place) in bits.iter().zip((0..bits.len()).rev()) {
        let set = equal * bit;
        if (bound >> place) & 1 == 1 {
            below += equal - set;
            equal = set;
        } else {
            equal -= set;
        }
    }
    below
}
