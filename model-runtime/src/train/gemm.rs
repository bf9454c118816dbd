//! Products of row-major `f32` matrices: the one kernel of training and of float gradients (crate `gemm`).
//!
//! Inside a rayon pool of one thread everything runs on that thread; the same shapes and number of threads give the same bits.

use gemm::{Parallelism, gemm};

/// Multiplications below which threads cost more than they save.
const PARALLEL: usize = 1 << 22;

/// A matrix as `gemm` sees it: values and the distances between columns and rows.
struct View<'a> {
    values: &'a [f32],
    column: usize,
    row: usize,
}

impl View<'_> {
    /// One more than the largest index that a `rows × columns` matrix reads.
    fn span(&self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.row + (columns - 1) * self.column + 1
    }
}

/// `out[m, n] = keep·out + scale·left[m, k]·right[k, n]`, `out` row-major and `keep` 0 or 1.
fn product(out: &mut [f32], keep: bool, (m, n, k): (usize, usize, usize), left: View, right: View, scale: f32) {
    assert_eq!(out.len(), m * n, "output of {m} × {n}");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !keep {
            out.fill(0.0);
        }
        return;
    }
    assert!(left.span(m, k) <= left.values.len() && right.span(k, n) <= right.values.len(), "operands of {m} × {k} × {n}");
    let threads = rayon::current_num_threads();
    let parallelism = if threads > 1 && m * n * k >= PARALLEL { Parallelism::Rayon(threads) } else { Parallelism::None };
    let strides = |view: &View| (view.column as isize, view.row as isize);
    let ((left_column, left_row), (right_column, right_row)) = (strides(&left), strides(&right));
    // SAFETY: the assertions above keep every index of the three matrices inside its slice, and `out` is borrowed mutably, so none overlaps it.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            keep,
            left.values.as_ptr(),
            left_column,
            left_row,
            right.values.as_ptr(),
            right_column,
            right_row,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `x [n, i]` times `w [o, i]` transposed, times `scale`, added to `y [n, o]`.
pub fn add_times_transposed(y: &mut [f32], x: &[f32], w: &[f32], inner: usize, scale: f32) {
    let (n, o) = (x.len() / inner, w.len() / inner);
    product(y, true, (n, o, inner), View { values: x, column: 1, row: inner }, View { values: w, column: inner, row: 1 }, scale);
}

/// `x [n, i]` times `w [o, i]` transposed: `[n, o]`.
pub fn times_transposed(x: &[f32], w: &[f32], inner: usize) -> Vec<f32> {
    let (n, o) = (x.len() / inner, w.len() / inner);
    let mut y = vec![0.0; n * o];
    product(&mut y, false, (n, o, inner), View { values: x, column: 1, row: inner }, View { values: w, column: inner, row: 1 }, 1.0);
    y
}

/// `g [n, o]` times `w [o, i]`, times `scale`, added to `y [n, i]`.
pub fn add_times(y: &mut [f32], g: &[f32], w: &[f32], outer: usize, scale: f32) {
    let (n, i) = (g.len() / outer, w.len() / outer);
    product(y, true, (n, i, outer), View { values: g, column: 1, row: outer }, View { values: w, column: 1, row: i }, scale);
}

/// `g [n, o]` transposed times `x [n, i]`, times `scale`, added to `y [o, i]`.
pub fn add_transposed_times(y: &mut [f32], g: &[f32], x: &[f32], n: usize, scale: f32) {
    if n == 0 {
        return;
    }
    let (o, i) = (g.len() / n, x.len() / n);
    product(y, true, (o, i, n), View { values: g, column: o, row: 1 }, View { values: x, column: 1, row: i }, scale);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::SplitMix64;

    /// Against three loops, at sizes that no vector width divides.
    #[test]
    fn products_are_the_plain_ones() {
        let mut rng = SplitMix64::new(3);
        for (n, o, i) in [(1, 1, 1), (3, 5, 7), (33, 17, 40), (190, 190, 190)] {
            let mut values = |len: usize| (0..len).map(|_| rng.normal()).collect::<Vec<f32>>();
            let (x, w, g, start) = (values(n * i), values(o * i), values(n * o), values(n * o));
            let at = |f: &dyn Fn(usize) -> f64, len: usize| (0..len).map(f).sum::<f64>();
            let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-3, "{a} {b}");
            let mut y = start.clone();
            add_times_transposed(&mut y, &x, &w, i, 0.5);
            let plain = times_transposed(&x, &w, i);
            let (mut back, mut weights) = (vec![0.0; n * i], vec![0.0; o * i]);
            add_times(&mut back, &g, &w, o, 1.0);
            add_transposed_times(&mut weights, &g, &x, n, 1.0);
            for (r, c) in (0..n).flat_map(|r| (0..o).map(move |c| (r, c))) {
                let sum = at(&|k| f64::from(x[r * i + k]) * f64::from(w[c * i + k]), i);
                close(plain[r * o + c], sum);
                close(y[r * o + c], f64::from(start[r * o + c]) + 0.5 * sum);
            }
            (0..n * i).for_each(|at_| close(back[at_], at(&|k| f64::from(g[at_ / i * o + k]) * f64::from(w[k * i + at_ % i]), o)));
            (0..o * i).for_each(|at_| close(weights[at_], at(&|k| f64::from(g[k * o + at_ / i]) * f64::from(x[k * i + at_ % i]), n)));
        }
    }
}
