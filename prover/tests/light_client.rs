//! The light client against halo2: it accepts what halo2's own verifier accepts, and nothing that was tampered with.

#[path = "proofs/common/toy.rs"]
mod toy;

use halo2_axiom::halo2curves::bn256::{Bn256, Fr, G1Affine};
use halo2_axiom::halo2curves::ff::PrimeField;
use halo2_axiom::plonk::ProvingKey;
use halo2_axiom::poly::kzg::commitment::ParamsKZG;
use light_client::settlement::{NAMED_INPUTS, NamedInputs, WEIGHT_BOUND, public_inputs, weight_word};
use light_client::{OuterKey, ProofError, Settlement, SettlementError, Word, verify, verify_settlement};
use prover::outer_key::{ExportError, outer_key, word_of};
use prover::srs::Srs;
use std::sync::LazyLock;
use toy::{INPUTS, Phased, Wide, halo2_accepts, keys, prove};

const K: u32 = 6;

/// A circuit's keys and one proof.
struct Case {
    params: ParamsKZG<Bn256>,
    pk: ProvingKey<G1Affine>,
    key: OuterKey,
    /// By column.
    inputs: Vec<Vec<Fr>>,
    proof: Vec<u8>,
}

impl Case {
    fn words(&self) -> Vec<Word> {
        self.inputs.iter().flatten().map(word_of).collect()
    }

    fn halo2(&self, inputs: &[Vec<Fr>], proof: &[u8]) -> bool {
        let columns: Vec<&[Fr]> = inputs.iter().map(Vec::as_slice).collect();
        halo2_accepts(&self.params, &self.pk, &columns, proof)
    }
}

fn scalar(word: &Word) -> Fr {
    let mut bytes = *word;
    bytes.reverse();
    Fr::from_repr(bytes).unwrap()
}

fn named() -> NamedInputs {
    let word = |i: u64| word_of(&(Fr::from(i + 1) * -Fr::from(0x1234_5678_9abc)));
    let [statement, base, adapter, index, index_statement, request, prompt, tokens] = std::array::from_fn(|i| word(i as u64));
    NamedInputs { statement, base, adapter, index, index_statement, request, prompt, tokens }
}

fn weights() -> Vec<Word> {
    [5, 0, 1 << 29, 1 << 20, 17].map(weight_word).to_vec()
}

fn settled(named: NamedInputs, weights: &[Word]) -> Settlement<'_> {
    Settlement { named, contributors: weights.len(), weights }
}

static WIDE: LazyLock<Case> = LazyLock::new(|| {
    let params = Srs::insecure(K).unwrap().params().clone();
    let inputs = public_inputs(&settled(named(), &weights())).unwrap().map(|word| scalar(&word));
    let pk = keys(&params, &Wide::default(), false);
    let key = outer_key(&params, pk.get_vk(), &[INPUTS]).unwrap();
    let proof = prove(&params, &pk, Wide { inputs }, &[&inputs], 1);
    Case { params, pk, key, inputs: vec![inputs.to_vec()], proof }
});

static PHASED: LazyLock<Case> = LazyLock::new(|| {
    let params = Srs::insecure(K).unwrap().params().clone();
    let circuit = Phased { first: [3, 4, 5].map(Fr::from), second: [6, 7].map(Fr::from) };
    let pk = keys(&params, &Phased::default(), false);
    let key = outer_key(&params, pk.get_vk(), &[3, 2]).unwrap();
    let proof = prove(&params, &pk, circuit.clone(), &[&circuit.first, &circuit.second], 2);
    Case { params, pk, key, inputs: vec![circuit.first.to_vec(), circuit.second.to_vec()], proof }
});

fn cases() -> [&'static Case; 2] {
    [&WIDE, &PHASED]
}

/// A word plus a number, modulo 2^256.
fn plus(word: &Word, other: &Word) -> Word {
    let mut sum = [0; 32];
    let mut carry = 0;
    for ((to, a), b) in sum.iter_mut().zip(word).zip(other).rev() {
        let value = u16::from(*a) + u16::from(*b) + carry;
        (*to, carry) = (value as u8, value >> 8);
    }
    sum
}

fn order() -> Word {
    plus(&word_of(&-Fr::from(1)), &weight_word(1))
}

#[test]
fn real_proofs_are_accepted() {
    for case in cases() {
        assert!(case.halo2(&case.inputs, &case.proof));
        assert_eq!(verify(&case.key, &case.words(), &case.proof), Ok(()));
        assert_eq!(case.proof.len(), case.key.proof_bytes());
    }
}

#[test]
fn compressed_selectors_are_accepted() {
    let case = &WIDE;
    let pk = keys(&case.params, &Wide::default(), true);
    let key = outer_key(&case.params, pk.get_vk(), &[INPUTS]).unwrap();
    let inputs = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(Fr::from);
    let proof = prove(&case.params, &pk, Wide { inputs }, &[&inputs], 3);
    assert_eq!(verify(&key, &inputs.map(|x| word_of(&x)), &proof), Ok(()));
}

#[test]
fn keys_are_reproducible() {
    for case in cases() {
        assert_eq!(OuterKey::decode(case.key.encoding()).unwrap(), case.key);
    }
    let again = keys(&WIDE.params, &Wide { inputs: [Fr::from(1); INPUTS] }, false);
    assert_eq!(outer_key(&WIDE.params, again.get_vk(), &[INPUTS]).unwrap().digest(), WIDE.key.digest());
    assert_ne!(WIDE.key.digest(), PHASED.key.digest());
}

#[test]
fn insecure_reference_strings_are_recognised() {
    let key = &WIDE.key;
    assert!(key.insecure());
    let mut parts = key.parts().clone();
    parts.s_g2 = -parts.s_g2;
    assert!(!OuterKey::new(parts).unwrap().insecure());
}

#[test]
fn wrong_exports_are_refused() {
    let case = &WIDE;
    let other = Srs::insecure(K + 1).unwrap();
    let export = |params, lengths: &[usize]| outer_key(params, case.pk.get_vk(), lengths).unwrap_err();
    assert_eq!(export(&case.params, &[10, 1]), ExportError::Instances { got: 2, expected: 1 });
    assert_eq!(export(other.params(), &[10]), ExportError::Rows { key: K, params: K + 1 });
    assert!(matches!(export(&case.params, &[60]), ExportError::Key(_)));
}

/// Mutants of one proof: every word changed in several ways, and points swapped for others of the curve.
fn mutants(proof: &[u8]) -> Vec<Vec<u8>> {
    let words: Vec<Word> = proof.chunks_exact(32).map(|chunk| chunk.try_into().unwrap()).collect();
    let generator = [weight_word(1), weight_word(2)];
    let mut list = Vec::new();
    for i in 0..words.len() {
        let mut put = |replaced: &[Word]| {
            let mut mutant = words.clone();
            let end = (i + replaced.len()).min(mutant.len());
            mutant[i..end].copy_from_slice(&replaced[..end - i]);
            list.push(mutant.concat());
        };
        put(&[plus(&words[i], &weight_word(1))]);
        put(&[plus(&words[i], &order())]);
        put(&[[0; 32]]);
        put(&[[0; 32]; 2]);
        put(&generator);
        put(&[words[(i + 2) % words.len()]]);
        put(&[words[(i + 2) % words.len()], words[(i + 3) % words.len()]]);
        let mut flipped = words[i];
        flipped[i % 32] ^= 1 << (i % 8);
        put(&[flipped]);
    }
    list.retain(|mutant| mutant != proof);
    list
}

#[test]
fn agrees_with_halo2_on_tampered_proofs() {
    let mut count = 0;
    for case in cases() {
        let words = case.words();
        for mutant in mutants(&case.proof) {
            assert!(!case.halo2(&case.inputs, &mutant));
            assert!(verify(&case.key, &words, &mutant).is_err());
            count += 1;
        }
    }
    assert!(count >= 200, "{count} mutants");
}

#[test]
fn agrees_with_halo2_on_tampered_inputs() {
    for case in cases() {
        let words = case.words();
        for i in 0..words.len() {
            for change in [Fr::from(1), -Fr::from(1), Fr::from(1 << 60)] {
                let mut inputs = case.inputs.clone();
                *inputs.iter_mut().flatten().nth(i).unwrap() += change;
                let changed: Vec<Word> = inputs.iter().flatten().map(word_of).collect();
                assert!(!case.halo2(&inputs, &case.proof));
                assert_eq!(verify(&case.key, &changed, &case.proof), Err(ProofError::Pairing));
            }
            let mut aliased = words.clone();
            aliased[i] = plus(&aliased[i], &order());
            assert_eq!(verify(&case.key, &aliased, &case.proof), Err(ProofError::Input { index: i }));
        }
        assert_eq!(verify(&case.key, &words[1..], &case.proof), Err(ProofError::Inputs { got: words.len() - 1, expected: words.len() }));
        let longer = [words.as_slice(), &[[0; 32]]].concat();
        assert_eq!(verify(&case.key, &longer, &case.proof), Err(ProofError::Inputs { got: words.len() + 1, expected: words.len() }));
    }
}

/// Several proofs of one statement, all accepted by both; each under the other's inputs refused by both.
#[test]
fn agrees_with_halo2_on_fresh_proofs() {
    let case = &WIDE;
    for seed in 10..14 {
        let inputs = [seed, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(Fr::from);
        let proof = prove(&case.params, &case.pk, Wide { inputs }, &[&inputs], seed);
        assert!(case.halo2(&[inputs.to_vec()], &proof));
        assert_eq!(verify(&case.key, &inputs.map(|x| word_of(&x)), &proof), Ok(()));
        assert!(!case.halo2(&case.inputs, &proof));
        assert_eq!(verify(&case.key, &case.words(), &proof), Err(ProofError::Pairing));
    }
}

#[test]
fn lengths_are_exact() {
    let case = &WIDE;
    let (words, expected) = (case.words(), case.proof.len());
    for got in [0, 1, 31, 32, expected - 32, expected - 1] {
        assert_eq!(verify(&case.key, &words, &case.proof[..got]), Err(ProofError::Length { got, expected }));
    }
    for extra in [1, 32, 4096] {
        let longer = [case.proof.as_slice(), &vec![0; extra]].concat();
        assert_eq!(verify(&case.key, &words, &longer), Err(ProofError::Length { got: expected + extra, expected }));
    }
}

#[test]
fn points_are_finite_and_on_the_curve() {
    let case = &WIDE;
    let mut proof = case.proof.clone();
    proof[..64].fill(0);
    assert_eq!(verify(&case.key, &case.words(), &proof), Err(ProofError::Point { at: 0 }));
    // The last point follows all scalars.
    let at = case.proof.len() - 64;
    let mut proof = case.proof.clone();
    proof[at..at + 32].copy_from_slice(&weight_word(1));
    assert_eq!(verify(&case.key, &case.words(), &proof), Err(ProofError::Point { at }));
}

#[test]
fn keys_are_not_interchangeable() {
    let case = &WIDE;
    let words = case.words();
    let mut parts = case.key.parts().clone();
    parts.transcript_start += light_client::word::reduced(&weight_word(1));
    assert_eq!(verify(&OuterKey::new(parts).unwrap(), &words, &case.proof), Err(ProofError::Pairing));
    let mut parts = case.key.parts().clone();
    parts.fixed.swap(0, 2);
    assert_eq!(verify(&OuterKey::new(parts).unwrap(), &words, &case.proof), Err(ProofError::Pairing));
    let mut parts = case.key.parts().clone();
    parts.s_g2 = -parts.s_g2;
    assert_eq!(verify(&OuterKey::new(parts).unwrap(), &words, &case.proof), Err(ProofError::Pairing));
    assert!(verify(&PHASED.key, &PHASED.words(), &case.proof).is_err());
}

/// Order of the inner proof's field.
const KOALA_BEAR: u64 = (1 << 31) - (1 << 24) + 1;

#[test]
fn settlements_bind_their_weights() {
    let case = &WIDE;
    let (named, weights) = (named(), weights());
    let check = |named, weights: &[Word]| verify_settlement(&case.key, &settled(named, weights), &case.proof);
    assert_eq!(check(named, &weights), Ok(()));
    let refused = Err(SettlementError::Proof(ProofError::Pairing));
    for i in 0..weights.len() {
        let mut other = weights.clone();
        other[i] = weight_word(123);
        assert_eq!(check(named, &other), refused);
        // The first is the same element of the inner proof's field.
        let large = [plus(&weights[i], &weight_word(KOALA_BEAR)), weight_word(WEIGHT_BOUND), weight_word(1 << 31), weight_word(1 << 32)];
        for large in large.into_iter().chain([weight_word(u64::MAX), plus(&weights[i], &order()), [0xff; 32]]) {
            other[i] = large;
            assert_eq!(check(named, &other), Err(SettlementError::Weight { index: i }));
        }
    }
    let mut heavy = weights.clone();
    heavy[0] = weight_word(1 << 29);
    assert_eq!(check(named, &heavy), Err(SettlementError::Total));
    let mut swapped = weights.clone();
    swapped.swap(0, 1);
    assert_eq!(check(named, &swapped), refused);
    assert_eq!(check(named, &[weights.as_slice(), &[[0; 32]]].concat()), refused);
    assert_eq!(check(named, &weights[..4]), refused);
    let one = weight_word(1);
    let mut other = named;
    other.request = plus(&other.request, &one);
    assert_eq!(check(other, &weights), refused);
    other.request = plus(&named.request, &order());
    assert_eq!(check(other, &weights), Err(SettlementError::Proof(ProofError::Input { index: 5 })));
    let mut other = named;
    other.prompt = plus(&named.prompt, &one);
    assert_eq!(check(other, &weights), refused);
    // Zeros at the end change neither the polynomial nor, for a prover who expects them, what is proven: their number is checked.
    let longer = [weights.as_slice(), &[[0; 32]]].concat();
    let stretched = Settlement { named, contributors: weights.len(), weights: &longer };
    let count = Err(SettlementError::Count { got: weights.len() + 1, expected: weights.len() });
    assert_eq!(verify_settlement(&case.key, &stretched, &case.proof), count);
    let settlement = settled(named, &weights);
    assert_eq!(verify_settlement(&PHASED.key, &settlement, &PHASED.proof), Err(SettlementError::Key { got: 5 }));
}

const PUBLIC_INPUTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/test/vectors/public-inputs.json");

/// The contracts' own vector: the same point and value from the same inputs and weights, and the same bound.
#[test]
fn the_point_is_the_contracts() {
    let vector: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(PUBLIC_INPUTS).unwrap()).unwrap();
    assert_eq!(vector["weight_bound"].as_u64(), Some(WEIGHT_BOUND));
    let word = |value: &serde_json::Value| -> Word {
        let text = value.as_str().unwrap().strip_prefix("0x").unwrap();
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    };
    let inputs: Vec<Word> = vector["inputs"].as_array().unwrap().iter().map(word).collect();
    let [statement, base, adapter, index, index_statement, request, prompt, tokens] = inputs[..].try_into().unwrap();
    let named = NamedInputs { statement, base, adapter, index, index_statement, request, prompt, tokens };
    let weights: Vec<Word> = vector["weights"].as_array().unwrap().iter().map(|weight| weight_word(weight.as_u64().unwrap())).collect();
    let derived = public_inputs(&settled(named, &weights)).unwrap();
    assert_eq!(derived[..NAMED_INPUTS], inputs);
    assert_eq!(derived[NAMED_INPUTS..], [word(&vector["challenge"]), word(&vector["evaluation"])]);
}

#[test]
fn verification_is_fast() {
    let case = &WIDE;
    let words = case.words();
    let time = || {
        let start = std::time::Instant::now();
        verify(&case.key, &words, &case.proof).unwrap();
        start.elapsed()
    };
    let best = (0..10).map(|_| time()).min().unwrap();
    println!("{} bytes of proof, {} of key, verified in {best:?}", case.proof.len(), case.key.encoding().len());
    assert!(cfg!(debug_assertions) || best.as_millis() < 20, "{best:?}");
}

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../light-client/tests/vectors");

/// The light client's own tests read a key and a proof from files: the key is still the one that this circuit has.
#[test]
fn vectors_are_current() {
    let read = |name: &str| std::fs::read(format!("{VECTORS}/{name}")).unwrap();
    assert_eq!(read("wide.key"), WIDE.key.encoding(), "run `cargo test -p prover --test light_client -- --ignored`");
    assert!(WIDE.halo2(&WIDE.inputs, &read("wide.proof")));
}

#[test]
#[ignore = "writes the light client's test vectors and the contracts'"]
fn write_vectors() {
    let hex = |word: &Word| format!("0x{}", word.iter().map(|b| format!("{b:02x}")).collect::<String>());
    let weights = [0, 1, 5, WEIGHT_BOUND - 123_456_796, 0, 123_456_789, 0];
    let derived = public_inputs(&settled(named(), &weights.map(weight_word))).unwrap();
    let (inputs, bound) = derived.split_at(NAMED_INPUTS);
    let inputs: Vec<String> = inputs.iter().map(hex).collect();
    let vector = serde_json::json!({
        "inputs": inputs, "weights": weights, "weight_bound": WEIGHT_BOUND, "challenge": hex(&bound[0]), "evaluation": hex(&bound[1]),
    });
    std::fs::write(PUBLIC_INPUTS, serde_json::to_string_pretty(&vector).unwrap() + "\n").unwrap();
    std::fs::create_dir_all(VECTORS).unwrap();
    std::fs::write(format!("{VECTORS}/wide.key"), WIDE.key.encoding()).unwrap();
    std::fs::write(format!("{VECTORS}/wide.proof"), &WIDE.proof).unwrap();
}
