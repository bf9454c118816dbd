//! What an outer proof costs: rows of a program shaped like the inner verifier's run, and, on request, keys and a proof of it.

use circuits::outer::halo2::OuterCircuit;
use circuits::outer::program::{Op, Program, Small, Values, Wide};
use p3_bn254::Bn254;
use p3_field::PrimeCharacteristicRing;
use prover::outer::{Keys, Srs, prove, solidity};
use rand_core::OsRng;
use std::time::Instant;

#[derive(Default)]
struct Writer(Program, u32, u32);

impl Writer {
    fn push(&mut self, op: Op) -> (u32, u32) {
        let first = (self.1, self.2);
        let (s, w) = op.outputs();
        (self.1, self.2) = (self.1 + s, self.2 + w);
        self.0.ops.push(op);
        first
    }

    fn ext(&mut self, op: Op) -> [Small; 5] {
        let first = self.push(op).0;
        std::array::from_fn(|i| Small(first + i as u32))
    }

    fn inputs(&mut self) -> [Small; 5] {
        std::array::from_fn(|_| Small(self.push(Op::Input).0))
    }
}

/// Folds like sumcheck and openings do, hashes paths like Merkle trees do: `permutations` of the one, `products` of the other.
fn program(permutations: usize, products: usize) -> Program {
    let mut w = Writer::default();
    let point: Vec<_> = (0..8).map(|_| w.inputs()).collect();
    let mut state = Wide(w.push(Op::WideInput).1);
    let Small(first) = Small(w.push(Op::Bits(point[0][0], 20)).0);
    for i in 0..permutations {
        let sibling = Wide(w.push(Op::WideInput).1);
        let bit = Small(first + (i % 20) as u32);
        let left = Wide(w.push(Op::Select(bit, state, sibling)).1);
        let right = Wide(w.push(Op::Select(bit, sibling, state)).1);
        state = Wide(w.push(Op::Permute([left, right, left])).1);
    }
    let mut sum = point[1];
    for i in 0..products {
        let value = if i % 8 == 0 { w.inputs() } else { sum };
        let product = w.ext(Op::ExtMul(value, point[i % 8]));
        sum = std::array::from_fn(|l| Small(w.push(Op::Add(product[l], point[(i + 3) % 8][l])).0));
    }
    let packed = Wide(w.push(Op::Pack(sum.to_vec(), false)).1);
    w.push(Op::Public(state));
    w.push(Op::Public(packed));
    w.0.parts.push((0, "all"));
    w.0
}

fn values(program: &Program) -> (Values, Vec<Bn254>) {
    let count = |kind: &Op| program.ops.iter().filter(|o| *o == kind).count() as u32;
    let small: Vec<_> = (0..count(&Op::Input)).map(|i| circuits::ir::F::from_u32(i.wrapping_mul(2654435761) >> 2)).collect();
    let wide: Vec<_> = (0..count(&Op::WideInput)).map(|i| Bn254::from_u64(u64::from(i) + 1).square().square()).collect();
    program.evaluate(&small, &wide).unwrap()
}

#[test]
fn rows_by_operation() {
    let program = program(400, 800);
    let circuit = OuterCircuit::without_values(&program, 19).unwrap();
    for (kind, (count, cost)) in circuit.by_kind(&program) {
        println!("{kind}: {count}, {} rows, {} limbs", cost.rows, cost.limbs);
    }
    let size = circuit.size();
    println!("{size:?}");
    // A permutation with its two selections and its sibling, a product with its reduction.
    assert!(size.rows < 400 * 24 + 800 * 4 + 200, "{size:?}");
    assert!(size.limbs < 800 * 20 + 600, "{size:?}");
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    (11..13).filter_map(|i| fields.get(i)?.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|x| x.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// `K=17 cargo test --release -p prover --test outer_cost -- --ignored --nocapture`
#[test]
#[ignore = "minutes; prints times"]
fn keys_and_proof() {
    let k: u32 = std::env::var("K").ok().and_then(|k| k.parse().ok()).unwrap_or(15);
    let clock = |what: &str, since: (Instant, f64)| {
        println!("{what}: {:.1} s, {:.1} CPU s, peak {} MB", since.0.elapsed().as_secs_f64(), cpu_seconds() - since.1, peak_mb());
    };
    let now = || (Instant::now(), cpu_seconds());
    let program = program((1 << k) / 50, (1 << k) / 30);
    let (values, public) = values(&program);
    let since = now();
    let circuit = OuterCircuit::without_values(&program, k).unwrap();
    println!("{:?} of {}", circuit.size(), 1 << k);
    clock("layout", since);
    let since = now();
    let srs = Srs::setup(k, OsRng);
    clock("SRS", since);
    let since = now();
    let keys = Keys::generate(&srs, &program).unwrap();
    clock("keys", since);
    let since = now();
    let proof = prove(&srs, &keys, &program, &values, &public).unwrap();
    clock("proof", since);
    println!("{} bytes", proof.len());
    if let Ok(path) = std::env::var("SOLIDITY") {
        std::fs::write(path, solidity(&srs, &keys).unwrap()).unwrap();
    }
}
