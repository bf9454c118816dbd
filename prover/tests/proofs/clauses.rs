//! The clauses of acceptance, one by one: a statement that breaks one alone, proven by a prover that skips the check, and refused by every host
//! that says it checks ([`Clause::counterpart`]). What contracts do is tested in `contracts/test`.

use crate::common;
use circuits::outer::halo2::{OuterCircuit, OuterError, inputs};
use circuits::outer::program::{Op, Program};
use circuits::relation::{Relation, RelationParams, TableMode, WeightRanges};
use circuits::statement::{Clause, Counterpart, Digest, Host, Profile, Statement, StatementError, TokenOpening, Tokens};
use circuits::witness::Witness;
use common::recompute::{recompute_after, values};
use common::{Full, full};
use light_client::settlement::{NamedInputs, weight_word};
use light_client::{OuterKey, ProofError, Settlement, SettlementError, verify_settlement};
use model_runtime::int::Mode;
use model_runtime::int::trace::{Keep, Span};
use model_runtime::semantics::Dims;
use model_runtime::shape::Site;
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use prover::commit::Committed;
use prover::prove::{Inputs, Silent, Stages, prove};
use std::sync::OnceLock;
use verifier::plan::Plan;
use verifier::profile::Evm;
use verifier::recorded::{Constants, Recording, record, replay};
use verifier::soundness::MIN_SECURITY_BITS;
use verifier::verify::check_parameters;
use verifier::{Proof, VerifyError, verify};

/// Order of KoalaBear.
const P: u64 = (1 << 31) - (1 << 24) + 1;

/// An answer whose tokens are hidden, with all it is proven from.
struct Fixture {
    full: Full,
    witness: Witness,
    fixed: Vec<Committed<Evm>>,
    statement: Statement,
    opening: TokenOpening,
    bytes: Vec<u8>,
    constants: Constants,
    recording: Recording,
}

fn z() -> Bn254 {
    Bn254::from_u64(0x1234_5678_9abc)
}

/// The statement of a witness, its tokens hidden.
fn hidden(full: &Full, witness: &Witness, fixed: &[Committed<Evm>]) -> (Statement, TokenOpening) {
    let mut statement = full.statement(witness, fixed);
    let request = &witness.ctx.requests[0];
    let opening = TokenOpening { prompt_salt: [6; 32], salt: [7; 32], ..TokenOpening::public(&request.tokens, request.prompt_len) };
    statement.requests[0].tokens = Tokens::Digests(opening.digests(full.relation.params.tokens));
    (statement, opening)
}

/// Proves whatever the statement says.
fn proven(full: &Full, witness: &Witness, fixed: &[Committed<Evm>], statement: &Statement, opening: &TokenOpening) -> Vec<u8> {
    let inputs = Inputs { claim: statement.into(), relation: &full.relation, tokens: vec![Some(opening.clone())], fixed: fixed.iter().collect() };
    prove(inputs, witness.clone(), &mut Stages::new(&mut Silent)).unwrap().to_bytes()
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let full = full(1, 1, &[Site::Q, Site::Down]).under(Profile::Evm);
        let witness = full.witness();
        let fixed = full.commit::<Evm>(&witness);
        let (statement, opening) = hidden(&full, &witness, &fixed);
        let bytes = proven(&full, &witness, &fixed, &statement, &opening);
        let constants = Constants::new(&statement.relation).unwrap();
        let recording = record(&statement, &bytes, z()).unwrap();
        Fixture { full, witness, fixed, statement, opening, bytes, constants, recording }
    })
}

impl Fixture {
    /// A proof of another statement or opening by the honest witness, as far as another prompt's end leaves it honest.
    fn proof_of(&self, statement: &Statement, opening: &TokenOpening) -> Vec<u8> {
        proven(&self.full, &self.witness_of(opening.prompt_len), &self.fixed, statement, opening)
    }

    /// The witness with the prompt ending elsewhere.
    fn witness_of(&self, prompt_len: usize) -> Witness {
        let mut witness = self.witness.clone();
        witness.ctx.requests[0].prompt_len = prompt_len;
        if prompt_len != self.opening.prompt_len {
            // A slot that is no longer live has no tie to tell, and the gradient is of other tokens.
            let live: Vec<usize> = witness.ctx.slots(&witness.ctx.requests[0]).map(|x| x.number).collect();
            let ties = values(&self.full.relation, &mut witness, "out.tie").iter_mut().enumerate();
            ties.filter(|(slot, _)| !live.contains(slot)).for_each(|(_, tie)| *tie = 0);
            recompute_after(&self.full.relation, &mut witness, "pr.r", |_, _| {});
        }
        witness
    }
}

fn clause_of(error: &VerifyError) -> Clause {
    match error {
        VerifyError::Statement(StatementError::Clause { clause, .. }) => *clause,
        VerifyError::Statement(StatementError::Version { .. }) => Clause::Version,
        VerifyError::Statement(StatementError::Relation(_)) => Clause::Relation,
        VerifyError::Profile => Clause::Profile,
        VerifyError::Root { .. } => Clause::Roots,
        VerifyError::Pin { .. } => Clause::Pins,
        VerifyError::Tables => Clause::TableContents,
        VerifyError::Security { .. } | VerifyError::TooManyLookups { .. } => Clause::Security,
        _ => Clause::Argument,
    }
}

/// Whether the outer circuit of a key refuses what a prover records of a proof, for the public inputs that the statement stands for.
fn circuit_refuses(constants: &Constants, key: &Program, statement: &Statement, bytes: &[u8]) -> bool {
    let native = Proof::<Evm>::from_bytes(bytes).unwrap();
    let Ok(Recording { program, values, public }) = replay(constants, statement, &native, bytes, z()) else { return true };
    let (small, wide) = inputs(&program, &values).unwrap();
    let small: Vec<_> = small.into_iter().map(circuits::ir::F::from_u32).collect();
    let digests = statement.requests[0].token_digests(statement.relation.tokens);
    let named = [statement.digest(), statement.base, digests.prompt, digests.exchange].map(|d| d.word());
    program != *key || key.evaluate(&small, &wide).is_err() || [public[0], public[1], public[6], public[7]] != named
}

/// Whether the light client refuses a settlement by its shape alone, whatever the proof.
fn light_client_refuses(statement: &Statement) -> bool {
    static KEY: OnceLock<OuterKey> = OnceLock::new();
    let key = KEY.get_or_init(|| OuterKey::decode(include_bytes!("../../../light-client/tests/vectors/wide.key")).unwrap());
    let (request, index) = (&statement.requests[0], statement.index.as_ref().unwrap());
    let digests = request.token_digests(statement.relation.tokens);
    let named = NamedInputs {
        statement: statement.digest().0,
        base: statement.base.0,
        adapter: statement.adapter.unwrap_or_default().0,
        index: index.commitment.0,
        index_statement: index.digest().truncated().0,
        request: request.id.0,
        prompt: digests.prompt.0,
        tokens: digests.exchange.0,
    };
    let weights: Vec<_> = request.weights.iter().map(|&w| weight_word(w)).collect();
    let settlement = Settlement { named, contributors: index.contributors.len(), weights: &weights };
    let result = verify_settlement(key, &settlement, &vec![0; key.proof_bytes()]);
    matches!(
        result,
        Err(SettlementError::Count { .. }
            | SettlementError::Weight { .. }
            | SettlementError::Total
            | SettlementError::Proof(ProofError::Input { .. }))
    )
}

/// The honest statement with one clause broken, and what opens its digests; `None` for clauses with a test of their own below.
fn broken(clause: Clause) -> Option<(Statement, TokenOpening)> {
    let f = fixture();
    let (mut s, mut o) = (f.statement.clone(), f.opening.clone());
    let hide = |s: &mut Statement, o: &TokenOpening| s.requests[0].tokens = Tokens::Digests(o.digests(s.relation.tokens));
    match clause {
        Clause::Version => s.version += 1,
        Clause::Relation => s.relation.tokens = 12,
        Clause::Ranges => s.relation.weight_ranges = WeightRanges::AssumedInsecure,
        Clause::Registration => s.registration = Some(Digest([1; 32])),
        Clause::Requests => s.requests.push(s.requests[0].clone()),
        Clause::DistinctIds => {
            s.relation.requests = 2;
            s.requests.push(s.requests[0].clone());
        }
        Clause::IdBits => s.requests[0].id.0[0] = 0xff,
        Clause::Tables => s.tables = None,
        Clause::Adapter => s.adapter = None,
        Clause::Index => s.index = None,
        Clause::IndexModel => s.index.as_mut().unwrap().adapter.0[31] ^= 1,
        Clause::Names => {
            let names = &mut s.index.as_mut().unwrap().contributors;
            names[1] = names[0].clone();
        }
        Clause::Contributors => s.index.as_mut().unwrap().contributors.push("one more".into()),
        Clause::WeightCount => s.requests[0].weights.push(0),
        Clause::WeightBound => {
            s.requests[0].weights[1] += P;
            s.requests[0].total += P;
        }
        Clause::Total => s.requests[0].total += 1,
        Clause::Parts => {
            o.prompt_len = o.tokens.len();
            s.requests[0].weights = f.witness_of(o.prompt_len).contributor_weights(&f.full.relation).remove(0);
            s.requests[0].total = s.requests[0].weights.iter().sum();
            hide(&mut s, &o);
        }
        Clause::Capacity => {
            o.tokens.resize(s.relation.tokens + 1, 1);
            hide(&mut s, &o);
        }
        Clause::PromptDigest => {
            let Tokens::Digests(digests) = &mut s.requests[0].tokens else { unreachable!("tokens are hidden") };
            digests.prompt = Digest::of_word(Bn254::from_u64(5));
        }
        Clause::ExchangeDigest => {
            let Tokens::Digests(digests) = &mut s.requests[0].tokens else { unreachable!("tokens are hidden") };
            digests.exchange = Digest::of_word(Bn254::from_u64(5));
        }
        Clause::Profile => {
            s.profile = Profile::Native;
            s.relation.tables = TableMode::Evaluated;
            s.tables = None;
        }
        Clause::Pins => {
            s.base = Digest([0xff; 32]);
            s.index.as_mut().unwrap().base = s.base;
        }
        Clause::Argument => {
            // A weight goes to another contributor.
            let weights = &mut s.requests[0].weights;
            let from = weights.iter().position(|&w| w > 0).unwrap_or(0);
            let to = (from + 1) % weights.len();
            weights[from] -= 1;
            weights[to] += 1;
        }
        Clause::Slots | Clause::Vocabulary | Clause::Openings | Clause::Roots | Clause::Security | Clause::TableContents => return None,
    }
    Some((s, o))
}

#[test]
fn a_statement_that_breaks_one_clause_is_refused_by_every_host() {
    let f = fixture();
    verify::<Evm>(&f.statement, &Proof::from_bytes(&f.bytes).unwrap()).unwrap();
    assert!(!circuit_refuses(&f.constants, &f.recording.program, &f.statement, &f.bytes));
    assert!(!light_client_refuses(&f.statement));
    for clause in Clause::ALL {
        let Some((statement, opening)) = broken(clause) else { continue };
        // Under the relation's own key the prover proves whatever else the statement says.
        let same_key = statement.relation == f.statement.relation && statement.requests.len() == 1;
        let whole = statement.adapter.is_some() && statement.index.is_some();
        // Of a false argument there is no proof but another statement's.
        let proven = same_key && whole && clause != Clause::Argument;
        let bytes = if proven { f.proof_of(&statement, &opening) } else { f.bytes.clone() };
        let native = verify::<Evm>(&statement, &Proof::from_bytes(&bytes).unwrap()).expect_err(clause.name());
        assert_eq!(clause_of(&native), clause, "{native}");
        match clause.counterpart(Host::Circuit) {
            // The version is in the digest of the relation, a constant of the key.
            Counterpart::Checks(_) if clause == Clause::Version => {}
            Counterpart::Checks(_) if same_key => assert!(circuit_refuses(&f.constants, &f.recording.program, &statement, &bytes), "{clause:?}"),
            Counterpart::Checks(_) => assert!(Constants::new(&statement.relation).is_err() || statement.requests.len() != 1, "{clause:?}"),
            Counterpart::Needless(_) => {}
        }
        if matches!(clause, Clause::IdBits | Clause::Contributors | Clause::WeightCount | Clause::WeightBound | Clause::Pins) {
            assert!(matches!(clause.counterpart(Host::LightClient), Counterpart::Checks(_)));
            assert!(light_client_refuses(&statement), "{clause:?}");
        }
    }
}

/// The program up to the inner proof: what it asks of the statement's inputs alone.
fn statement_part(program: &Program) -> Program {
    Program { ops: program.ops[..program.parts[1].0].to_vec(), parts: vec![program.parts[0]] }
}

/// A prover of their own feeds `x + p` for `x`: no input of the statement has a second representative, nor has any of the proof.
#[test]
fn no_input_has_a_second_representative() {
    let Recording { program, values, .. } = &fixture().recording;
    let part = statement_part(program);
    let (small, wide) = inputs(program, values).unwrap();
    let places: Vec<usize> = program.ops.iter().enumerate().filter(|(_, op)| **op == Op::Input).map(|(at, _)| at).collect();
    let refused = |program: &Program, i: usize, k: u32| {
        let mut forged = small.clone();
        forged[i] += P as u32;
        assert!(forged[i] < 1 << 31);
        let result = OuterCircuit::of_inputs(program, &forged, &wide, k).map(|_| ());
        assert_eq!(result, Err(OuterError::Unsatisfied { at: places[i], op: "Input".into() }), "input {i}");
    };
    OuterCircuit::of_inputs(&part, &small, &wide, 13).unwrap();
    let own = places.iter().filter(|&&at| at < part.ops.len()).count();
    (0..own).filter(|&i| u64::from(small[i]) + P < 1 << 31).for_each(|i| refused(&part, i, 13));
    // Of the proof's inputs few are so small; a few are made so.
    let weights = fixture().statement.requests[0].weights.len();
    assert!((0..own).filter(|&i| small[i] > 1).count() >= weights.min(1), "weights are among the inputs");
    if let Some(i) = (own..small.len()).find(|&i| u64::from(small[i]) + P < 1 << 31) {
        refused(program, i, 20);
    }
}

/// Tokens as no honest prover has them, in the circuit's statement part: holes, an answer before the prompt, none, and ids past the vocabulary.
#[test]
fn token_inputs_are_checked_bit_by_bit() {
    let Recording { program, values, .. } = &fixture().recording;
    let part = statement_part(program);
    let (small, wide) = inputs(program, values).unwrap();
    let evaluate = |small: &[u32]| part.evaluate(&small.iter().map(|&x| circuits::ir::F::from_u32(x)).collect::<Vec<_>>(), &wide).is_ok();
    assert!(evaluate(&small));
    // Each position has the bits present, answer and five of its token.
    let (bits, count) = (5, fixture().opening.tokens.len());
    let at = |position: usize, bit: usize| position * (2 + bits) + bit;
    let refused = |what: &str, changes: &[(usize, u32)]| {
        let mut forged = small.clone();
        changes.iter().for_each(|&(i, x)| forged[i] = x);
        assert!(forged != small && !evaluate(&forged), "{what}");
    };
    refused("an absent token has an id", &[(at(count, 6), 1)]);
    refused("a hole", &[(at(count + 1, 0), 1)]);
    refused("an answer token that is absent", &[(at(count, 1), 1)]);
    refused("no prompt", &(0..3).map(|i| (at(i, 1), 1)).collect::<Vec<_>>());
    refused("no answer", &(3..count).map(|i| (at(i, 1), 0)).collect::<Vec<_>>());
    refused("a prompt token in the answer", &[(at(count - 1, 1), 0)]);
    refused("a bit that is none", &[(at(1, 4), 2)]);
    for id in [30, 31] {
        let changes: Vec<(usize, u32)> = (0..bits).map(|k| (at(0, 2 + k), (id >> (bits - 1 - k)) & 1)).collect();
        refused("a token past the vocabulary", &changes);
    }
}

/// Tokens 30 and 31 exist in the padded tables only: their rows are zero, so that a model with another zero row answers as if they were that token.
#[test]
fn a_prompt_token_outside_the_vocabulary() {
    let f = fixture();
    let width = f.full.model.tensors["embed"].data.len() / 32;
    // Not every such model's run stays in range.
    let dims = Dims::new(&f.full.index.semantics, 8, 7);
    let run = |zero: u32| {
        let mut base = f.full.model.tensors.clone();
        base.get_mut("embed")?.data[zero as usize * width..][..width].fill(0);
        let runtime = f.full.runtime(&base);
        let prompt = [zero, 5, 9];
        let tokens = [prompt.to_vec(), runtime.generate(&prompt, 3, None).ok()?].concat();
        let trace = runtime.run(&tokens, 3, dims, Mode::Greedy, Keep::All, Span::Exchange).ok()?;
        Some((zero, base, trace))
    };
    let (zero, base, trace) = (0..30).rev().find_map(run).unwrap();
    let trace = f.full.attributed(trace);
    let mut witness = f.full.witness_of(&base, &f.full.index_tensors, &[trace]);
    let fixed = f.full.commit::<Evm>(&witness);
    for (token, accepted) in [(zero, true), (31, false)] {
        witness.ctx.requests[0].tokens[0] = token;
        let (statement, opening) = hidden(&f.full, &witness, &fixed);
        let bytes = proven(&f.full, &witness, &fixed, &statement, &opening);
        let native = verify::<Evm>(&statement, &Proof::from_bytes(&bytes).unwrap());
        assert_eq!(native.map_err(|e| clause_of(&e)).err(), (!accepted).then_some(Clause::Vocabulary), "token {token}");
        assert_eq!(circuit_refuses(&f.constants, &f.recording.program, &statement, &bytes), !accepted, "token {token}");
    }
}

/// A relation of 16 tokens and 8 slots: what follows the ninth token is in the digests and in no constraint about the answer.
#[test]
fn tokens_beyond_the_slots() {
    let mut full = full(1, 1, &[Site::Q, Site::Down]).under(Profile::Evm);
    let mut params = full.relation.params.clone();
    (params.tokens, params.slots) = (16, 8);
    full.relation = Relation::new(&params).unwrap();
    let runtime = full.runtime(&full.model.tensors);
    let prompt = [1, 5, 9];
    let tokens = [prompt.to_vec(), runtime.generate(&prompt, 6, None).unwrap()].concat();
    let trace = |tokens: &[u32], slots: usize, span: Span| {
        runtime.run(tokens, prompt.len(), Dims::new(&full.index.semantics, 16, slots), Mode::Teacher, Keep::All, span).unwrap()
    };
    let honest = full.attributed(trace(&tokens, 8, Span::Exchange));
    let witness = full.witness_of(&full.model.tensors, &full.index_tensors, &[honest]);
    let fixed = full.commit::<Evm>(&witness);
    let (statement, opening) = hidden(&full, &witness, &fixed);
    let bytes = proven(&full, &witness, &fixed, &statement, &opening);
    let key = record(&statement, &bytes, z()).unwrap().program;
    let constants = Constants::new(&params).unwrap();
    // Three tokens of the prover's choice follow: positions' forward tensors are those of the longer exchange, all else is as it was.
    let longer = [tokens, vec![7, 7, 7]].concat();
    let forward = trace(&longer, 16, Span::Answer);
    let mut cheat = witness.clone();
    for (id, def) in full.relation.tensors.iter().enumerate() {
        let names: Vec<&str> = def.axes.iter().map(|a| full.relation.axes[a.0].name).collect();
        if names.contains(&"t")
            && !names.contains(&"s")
            && let Some(tensor) = forward.tensors.get(&def.name)
        {
            cheat.tensors[id].clone_from(&tensor.data);
        }
    }
    cheat.ctx.requests[0].tokens = longer;
    recompute_after(&full.relation, &mut cheat, "pr.r", |_, _| {});
    let (statement, opening) = hidden(&full, &cheat, &fixed);
    let bytes = proven(&full, &cheat, &fixed, &statement, &opening);
    let native = verify::<Evm>(&statement, &Proof::from_bytes(&bytes).unwrap()).unwrap_err();
    assert_eq!(clause_of(&native), Clause::Slots, "{native}");
    assert!(circuit_refuses(&constants, &key, &statement, &bytes));
}

/// Openings of public tokens, and none of hidden ones.
#[test]
fn openings_are_there_where_digests_are() {
    let f = fixture();
    let mut proof = Proof::<Evm>::from_bytes(&f.bytes).unwrap();
    proof.tokens = vec![None];
    assert_eq!(clause_of(&verify::<Evm>(&f.statement, &proof).unwrap_err()), Clause::Openings);
    let mut public = f.statement.clone();
    public.requests[0].tokens = Tokens::Public { tokens: f.opening.tokens.clone(), prompt_len: f.opening.prompt_len };
    let proof = Proof::<Evm>::from_bytes(&f.bytes).unwrap();
    assert_eq!(clause_of(&verify::<Evm>(&public, &proof).unwrap_err()), Clause::Openings);
}

/// A commitment's type has room for several roots.
#[test]
fn roots_are_one_digest() {
    let f = fixture();
    let changes: [fn(&mut Proof<Evm>); 2] = [
        |p| p.trace = p.trace.roots().iter().chain(p.trace.roots()).copied().collect::<Vec<_>>().into(),
        |p| p.pinned[1].root = p.pinned[1].root.roots().iter().chain(p.pinned[0].root.roots()).copied().collect::<Vec<_>>().into(),
    ];
    for change in changes {
        let mut proof = Proof::<Evm>::from_bytes(&f.bytes).unwrap();
        change(&mut proof);
        assert_eq!(clause_of(&verify::<Evm>(&f.statement, &proof).unwrap_err()), Clause::Roots);
        assert!(circuit_refuses(&f.constants, &f.recording.program, &f.statement, &proof.to_bytes()));
    }
}

/// A row of a lookup table that nothing reads is another, under the root of the false table.
#[test]
fn false_lookup_tables() {
    let f = fixture();
    let relation = &f.full.relation;
    assert_eq!(Some(f.constants.tables()), f.statement.tables);
    let mut witness = f.witness.clone();
    let (table, column) = relation.table_columns.iter().enumerate().find_map(|(i, ids)| Some((i, *ids.first()?))).unwrap();
    let mut counted = witness.clone();
    counted.count(relation).unwrap();
    let unread = counted.tensors[relation.tables[table].1.0].iter().position(|&m| m == 0).unwrap();
    witness.tensors[column.0][unread] += 1;
    let fixed = f.full.commit::<Evm>(&witness);
    let (statement, opening) = hidden(&f.full, &witness, &fixed);
    assert_ne!(statement.tables, f.statement.tables);
    let bytes = proven(&f.full, &witness, &fixed, &statement, &opening);
    assert!(verify::<Evm>(&statement, &Proof::from_bytes(&bytes).unwrap()).is_err());
    assert!(circuit_refuses(&f.constants, &f.recording.program, &statement, &bytes));
    // Whatever a statement says of the tables, the key's constants are the relation's.
    assert_eq!(Constants::new(&statement.relation).unwrap().tables(), f.constants.tables());
}

/// No relation that fits a test is so large; whoever hosts the argument asks of the plan, proofs and keys alike.
#[test]
fn parameters_that_prove_too_little() {
    let mut plan = Plan::new(&fixture().full.relation);
    assert!(check_parameters::<Evm>(&plan).unwrap() >= MIN_SECURITY_BITS);
    plan.leaves_log = 31;
    let error = check_parameters::<Evm>(&plan).unwrap_err();
    assert_eq!((clause_of(&error), error), (Clause::Security, VerifyError::TooManyLookups { log: 31 }));
}

/// No key is made of a relation that assumes what it should prove.
#[test]
fn keys_are_of_full_relations_only() {
    for weight_ranges in [WeightRanges::AssumedInsecure, WeightRanges::Registered] {
        assert!(Constants::new(&RelationParams { weight_ranges, ..fixture().statement.relation.clone() }).is_err());
    }
}
