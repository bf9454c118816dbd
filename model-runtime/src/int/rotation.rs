//! A rotation of the residual stream that spreads outliers: `h' = Q h`, `Q = (1/√n)·H·S` in blocks of `n` channels.
//!
//! `H` is the Hadamard matrix, `S` a diagonal of public signs, `n` the largest power of two that divides the width. With gains folded into the
//! matrices behind a norm, the norm commutes with `Q`, so rotating what reads and what writes the stream leaves the float model's function as it
//! is, while one huge channel becomes `n` channels `√n` times smaller: the stream's static unit, the norms' outputs and the weights all gain
//! resolution. Source: QuaRot (arXiv 2404.00456), its offline part. Used by [`super::reference::Folded`]; nothing integer knows of it.

/// The rotation for one width.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// `1/√n` with the sign of each channel, `[width]`.
    scaled_signs: Vec<f64>,
    block: usize,
}

impl Rotation {
    /// The rotation of a stream of `width` channels.
    pub fn new(width: usize) -> Self {
        let block = 1 << width.trailing_zeros();
        let mut bytes = vec![0u8; width];
        blake3::Hasher::new().update(format!("poa/rotation/v1/{width}").as_bytes()).finalize_xof().fill(&mut bytes);
        let scale = 1.0 / (block as f64).sqrt();
        let scaled_signs = bytes.iter().map(|b| if b & 1 == 0 { scale } else { -scale }).collect();
        Self { scaled_signs, block }
    }

    fn apply(&self, h: &mut [f64]) {
        h.iter_mut().zip(&self.scaled_signs).for_each(|(h, s)| *h *= s);
        for block in h.chunks_exact_mut(self.block) {
            let mut half = 1;
            while half < self.block {
                for pair in block.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    low.iter_mut().zip(high).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
                }
                half *= 2;
            }
        }
    }

    /// Rotates every row of `[rows, width]`: embeddings, and matrices that read the stream.
    pub fn rows(&self, matrix: &mut [f32]) {
        let mut wide = vec![0f64; self.scaled_signs.len()];
        for row in matrix.chunks_exact_mut(wide.len()) {
            wide.iter_mut().zip(&*row).for_each(|(w, &x)| *w = f64::from(x));
            self.apply(&mut wide);
            row.iter_mut().zip(&wide).for_each(|(x, &w)| *x = w as f32);
        }
    }

    /// Rotates every column of `[width, columns]`: matrices that write the stream.
    pub fn columns(&self, matrix: &mut [f32]) {
        let columns = matrix.len() / self.scaled_signs.len();
        let mut wide = vec![0f64; self.scaled_signs.len()];
        for column in 0..columns {
            wide.iter_mut().zip(matrix[column..].iter().step_by(columns)).for_each(|(w, &x)| *w = f64::from(x));
            self.apply(&mut wide);
            matrix[column..].iter_mut().step_by(columns).zip(&wide).for_each(|(x, &w)| *x = w as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_products_and_spreads_an_outlier() {
        for width in [8, 24, 7] {
            let rotation = Rotation::new(width);
            let mut h: Vec<f32> = (0..width).map(|i| if i == 3 { 100.0 } else { i as f32 }).collect();
            let mut w: Vec<f32> = (0..width).map(|i| (i * i % 5) as f32).collect();
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let before = dot(&h, &w);
            let mut as_column = h.clone();
            rotation.rows(&mut h);
            rotation.rows(&mut w);
            rotation.columns(&mut as_column);
            assert!((dot(&h, &w) - before).abs() < 1e-3);
            assert_eq!(h, as_column);
            let largest = h.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(width == 7 || largest < 60.0, "{largest}");
        }
    }
}
