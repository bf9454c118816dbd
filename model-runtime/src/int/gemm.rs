//! Exact integer matrix products.
//!
//! Operands are 16-bit (every tensor of the semantics is at most 16 bits wide), sums 32-bit. The field bound of each operation keeps the
//! final sum inside 31 bits, so wrapping partial sums are harmless and the result doesn't depend on the order of additions or the number of
//! threads. Debug builds add in 64 bits and check.

use rayon::prelude::*;

/// A row-major 16-bit matrix.
#[derive(Clone, Debug, Default)]
pub struct Mat16 {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `rows · cols` entries.
    pub data: Vec<i16>,
}

impl Mat16 {
    /// Narrows `data` (`rows · cols` entries that fit 16 bits).
    pub fn new(rows: usize, cols: usize, data: &[i32]) -> Self {
        debug_assert_eq!(data.len(), rows * cols);
        Self { rows, cols, data: narrow(data) }
    }

    /// The transposed matrix.
    pub fn transposed(&self) -> Self {
        Self { rows: self.cols, cols: self.rows, data: transpose16(&self.data, self.rows, self.cols) }
    }
}

/// Narrows to 16 bits (callers have range-checked the values).
pub fn narrow(values: &[i32]) -> Vec<i16> {
    debug_assert!(values.iter().all(|&x| i16::try_from(x).is_ok()));
    values.iter().map(|&x| x as i16).collect()
}

/// Transposes a `rows × cols` matrix.
pub fn transpose16(data: &[i16], rows: usize, cols: usize) -> Vec<i16> {
    let mut out = vec![0; data.len()];
    for r in 0..rows {
        for c in 0..cols {
            out[c * rows + r] = data[r * cols + c];
        }
    }
    out
}

/// Products smaller than this many multiplications stay on one thread.
const PARALLEL_WORK: usize = 1 << 20;
/// Outputs of one row that a thread takes at a time, where there are fewer rows than threads.
const BLOCK: usize = 128;
/// Groups of rows for each thread, where there are more.
const GROUPS: usize = 2;
/// Numbers of 16 bits that stay in a core's first cache.
const CACHED: usize = 1 << 13;

/// `acc[t, o] += coef · Σ_i x[t, i]·w[o, i]`, `x` being `[rows, w.cols]` and `acc` `[rows, w.rows]`.
pub fn gemm(acc: &mut [i32], coef: i64, x: &[i16], w: &Mat16) {
    if w.rows == 0 || acc.is_empty() {
        return;
    }
    gemm_slices(acc, coef, x, &w.data, w.rows, w.cols);
}

/// [`gemm()`] on a borrowed `[outs, inner]` right-hand side.
pub fn gemm_slices(acc: &mut [i32], coef: i64, x: &[i16], w: &[i16], outs: usize, inner: usize) {
    debug_assert_eq!(acc.len() / outs, x.len() / inner);
    let (coef, rows, threads) = (coef as i32, acc.len() / outs, rayon::current_num_threads());
    if acc.len() * inner < PARALLEL_WORK || threads == 1 {
        gemm_rows(acc, coef, x, w, outs, inner);
    } else if rows < threads {
        for (y, x) in acc.chunks_exact_mut(outs).zip(x.chunks_exact(inner)) {
            y.par_chunks_mut(BLOCK).zip(w.par_chunks(BLOCK * inner)).for_each(|(y, w)| gemm_row(y, coef, x, w, inner));
        }
    } else {
        let group = rows.div_ceil(GROUPS * threads);
        acc.par_chunks_mut(group * outs).zip(x.par_chunks(group * inner)).for_each(|(y, x)| gemm_rows(y, coef, x, w, outs, inner));
    }
}

/// All rows by a block of outputs before the next block: so a block of `w` is read from memory once for all of them.
fn gemm_rows(acc: &mut [i32], coef: i32, x: &[i16], w: &[i16], outs: usize, inner: usize) {
    let block = (CACHED / inner / 4 * 4).max(4);
    for (first, w) in (0..outs).step_by(block).zip(w.chunks(block * inner)) {
        let outputs = first..first + w.len() / inner;
        for (y, x) in acc.chunks_exact_mut(outs).zip(x.chunks_exact(inner)) {
            gemm_row(&mut y[outputs.clone()], coef, x, w, inner);
        }
    }
}

fn gemm_row(y: &mut [i32], coef: i32, x: &[i16], w: &[i16], inner: usize) {
    let mut blocks = y.chunks_exact_mut(4);
    let mut rows = w.chunks_exact(4 * inner);
    for (y, w) in (&mut blocks).zip(&mut rows) {
        let sums = dot4(x, w, inner);
        for (y, s) in y.iter_mut().zip(sums) {
            *y = y.wrapping_add(s.wrapping_mul(coef));
        }
    }
    for (y, w) in blocks.into_remainder().iter_mut().zip(rows.remainder().chunks_exact(inner)) {
        *y = y.wrapping_add(dot(x, w).wrapping_mul(coef));
    }
}

fn dot4(x: &[i16], w: &[i16], inner: usize) -> [i32; 4] {
    let (w01, w23) = w.split_at(2 * inner);
    let (w0, w1) = w01.split_at(inner);
    let (w2, w3) = w23.split_at(inner);
    [dot(x, w0), dot(x, w1), dot(x, w2), dot(x, w3)]
}

/// `Σ x·w`, exact when the true sum fits 32 bits.
#[inline(always)]
pub fn dot(x: &[i16], w: &[i16]) -> i32 {
    if cfg!(debug_assertions) {
        let wide: i64 = x.iter().zip(w).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum();
        return i32::try_from(wide).expect("the field bound keeps every sum inside 31 bits");
    }
    x.iter().zip(w).fold(0i32, |s, (&a, &b)| s.wrapping_add(i32::from(a) * i32::from(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_schoolbook_product() {
        // Small, with several blocks, with more and with fewer rows than threads.
        for (rows, outs, inner) in [(5, 7, 33), (3, 70, 515), (37, 130, 257), (1, 1031, 1029)] {
            let x: Vec<i32> = (0..rows * inner).map(|i| (i * 37 % 401) as i32 - 200).collect();
            let w: Vec<i32> = (0..outs * inner).map(|i| (i * 91 % 401) as i32 - 200).collect();
            let mut acc = vec![1; rows * outs];
            gemm(&mut acc, 2, &narrow(&x), &Mat16::new(outs, inner, &w));
            for (i, found) in acc.iter().enumerate() {
                let (t, o) = (i / outs, i % outs);
                let sum: i32 = (0..inner).map(|i| x[t * inner + i] * w[o * inner + i]).sum();
                assert_eq!(*found, 1 + 2 * sum, "{rows} {outs} {inner}: {i}");
            }
        }
    }
}
