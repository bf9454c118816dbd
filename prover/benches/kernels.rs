//! The heavy kernels, each in what it handles a second, beside what the machine can do: `cargo bench --workspace --bench kernels`.
//!
//! `limits` are measured by this program, on all cores: bytes copied between buffers larger than any cache, multiplications that leave registers for nothing.
//! A kernel that moves bytes is compared with the first, one that multiplies with the others.

use circuits::ir::{EF, F, Group};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use model_runtime::int::gemm::{Mat16, dot, gemm};
use p3_commit::Mmcs;
use p3_field::{BasedVectorSpace, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use p3_matrix::dense::RowMajorMatrix;
use p3_sumcheck::layout::Table;
use prover::fraction::{self, Leaves, Limits};
use prover::packed::{self, PackedEF, PackedF, WIDTH};
use prover::sumcheck::prove_sums;
use prover::terms::TermTables;
use rayon::prelude::*;
use verifier::pcs::encode;
use verifier::profile::{Evm, HashProfile, Native, NativeProfile};

fn main() {
    divan::main();
}

/// Field elements that look random.
fn elements(len: usize) -> Vec<F> {
    (0..len as u64).map(|i| F::from_u64(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33)).collect()
}

fn extension(len: usize) -> Vec<EF> {
    elements(5 * len).chunks_exact(5).map(|c| EF::from_basis_coefficients_fn(|i| c[i])).collect()
}

mod limits {
    use super::*;

    /// Multiplications of a task, in as many chains as keep the units busy.
    const ROUNDS: usize = 1 << 14;
    const CHAINS: usize = 8;
    const TASKS: usize = 64;

    #[divan::bench]
    fn copy(bencher: Bencher) {
        let (from, mut to) = (vec![1u8; 1 << 28], vec![0u8; 1 << 28]);
        bencher.counter(BytesCount::new(from.len())).bench_local(|| {
            to.par_chunks_mut(1 << 20).zip(from.par_chunks(1 << 20)).for_each(|(to, from)| to.copy_from_slice(from));
            black_box(&to);
        });
    }

    fn multiply<A: PrimeCharacteristicRing + Copy + Send + Sync>(bencher: Bencher, factor: A) {
        bencher.counter(ItemsCount::new(WIDTH * ROUNDS * CHAINS * TASKS)).bench(|| {
            (0..TASKS).into_par_iter().for_each(|_| {
                let mut chains = [black_box(factor); CHAINS];
                for _ in 0..ROUNDS {
                    chains.iter_mut().for_each(|x| *x *= factor);
                }
                black_box(chains);
            });
        });
    }

    #[divan::bench]
    fn base_multiplications(bencher: Bencher) {
        multiply(bencher, PackedF::from_fn(|i| F::from_usize(i + 3)));
    }

    #[divan::bench]
    fn extension_multiplications(bencher: Bencher) {
        multiply(bencher, PackedEF::from_ext_slice(&extension(WIDTH)));
    }

    /// Products of 16-bit integers in a core's first cache.
    #[divan::bench]
    fn integer_products(bencher: Bencher) {
        let row: Vec<i16> = (0..4096).map(|i| (i % 251) as i16 - 125).collect();
        bencher
            .counter(ItemsCount::new(row.len() * ROUNDS))
            .bench(|| (0..ROUNDS).into_par_iter().with_min_len(256).map(|_| dot(black_box(&row), &row)).reduce(|| 0, i32::wrapping_add));
    }
}

/// Committing 2^log values: encoding them, and the codeword's tree.
mod commit {
    use super::*;

    fn table(log: usize) -> Table<F> {
        Table::new(RowMajorMatrix::new(elements(1 << log), 1 << log))
    }

    #[divan::bench(types = [Native, Evm], args = [16, 20])]
    fn encode_values<C: NativeProfile>(bencher: Bencher, log: usize) {
        let table = table(log);
        bencher.counter(ItemsCount::new(1usize << log)).bench(|| encode::<C>(Group::Base, &table));
    }

    #[divan::bench(types = [Native, Evm], args = [16], sample_count = 10)]
    fn hash_codeword<C: NativeProfile>(bencher: Bencher, log: usize) {
        let (_, codeword) = encode::<C>(Group::Base, &table(log));
        bencher.counter(ItemsCount::new(codeword.values.len())).with_inputs(|| codeword.clone()).bench_values(|c| C::mmcs().commit_matrix(c));
    }
}

/// Each fraction occurs twice, once with either sign.
struct Balanced {
    numerators: Vec<F>,
    denominators: Vec<EF>,
}

impl Balanced {
    fn new(log: usize) -> Self {
        let (n, d) = (elements(1 << (log - 1)), extension(1 << (log - 1)));
        let negated = n.iter().rev().map(|&x| -x);
        Self { numerators: n.iter().copied().chain(negated).collect(), denominators: d.iter().chain(d.iter().rev()).copied().collect() }
    }
}

impl Leaves for Balanced {
    fn log(&self) -> usize {
        self.numerators.len().trailing_zeros() as usize
    }

    fn read(&self, start: usize, numerators: &mut [PackedF], denominators: &mut [PackedEF]) {
        for (k, (n, d)) in numerators.iter_mut().zip(denominators).enumerate() {
            let at = start + k * WIDTH;
            *n = *PackedF::from_slice(&self.numerators[at..at + WIDTH]);
            *d = PackedEF::from_ext_slice(&self.denominators[at..at + WIDTH]);
        }
    }
}

/// The fraction table's reduction, whole: all layers of 2^log leaves.
#[divan::bench(args = [16, 20], sample_count = 20)]
fn fractions(bencher: Bencher, log: usize) {
    let leaves = Balanced::new(log);
    let prove = || fraction::prove(&leaves, Limits::default(), &mut Native::challenger(&Default::default())).map(|_| ());
    bencher.counter(ItemsCount::new(1usize << log)).bench(prove);
}

/// Binding one variable of a table of 2^log values.
#[divan::bench(args = [16, 22])]
fn fold(bencher: Bencher, log: usize) {
    let table: Vec<PackedEF> = extension(1 << log).chunks_exact(WIDTH).map(PackedEF::from_ext_slice).collect();
    let r = PackedEF::from(EF::from_u32(77));
    bencher.counter(BytesCount::new(size_of::<EF>() << log)).with_inputs(|| table.clone()).bench_refs(|table| packed::fold(table, r));
}

/// A batched sumcheck, whole: one term of so many factors over 2^18 positions.
#[divan::bench(args = [1, 2, 3], sample_count = 20)]
fn sumcheck(bencher: Bencher, factors: usize) {
    let log = 18;
    let tables = || (0..factors).map(|_| extension(1 << log)).collect();
    let term = || vec![TermTables { weight: EF::TWO, tables: tables(), log }];
    bencher
        .counter(ItemsCount::new(1usize << log))
        .with_inputs(term)
        .bench_values(|terms| prove_sums(terms, log, &mut Native::challenger(&Default::default())));
}

/// Matrix products of 16-bit integers: so many rows against 1024 × 1024.
#[divan::bench(args = [1, 8, 64])]
fn integer_products(bencher: Bencher, rows: usize) {
    let side = 1024;
    let numbers = |len: usize| (0..len).map(|i| (i % 251) as i16 - 125).collect::<Vec<_>>();
    let (x, w) = (numbers(rows * side), Mat16 { rows: side, cols: side, data: numbers(side * side) });
    bencher.counter(ItemsCount::new(rows * side * side)).bench(|| {
        let mut sums = vec![0i32; rows * side];
        gemm(&mut sums, 1, &x, &w);
        sums
    });
}

/// Scores of 2^16 rows of 2048 numbers.
#[divan::bench]
fn scores(bencher: Bencher) {
    let (rows, len) = (1usize << 16, 2048);
    let numbers = |len: usize| (0..len).map(|i| (i % 251) as i16 - 125).collect::<Vec<_>>();
    let (index, query) = (numbers(rows * len), numbers(len));
    bencher.counter(BytesCount::new(2 * rows * len)).bench(|| index.par_chunks_exact(len).map(|row| dot(row, &query)).collect::<Vec<i32>>());
}
