//! AdamW (Loshchilov and Hutter 2019), as candle's.

use serde::{Deserialize, Serialize};

const BETA: [f32; 2] = [0.9, 0.99];
const EPSILON: f32 = 1e-8;

/// What one step is taken with.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdamRates {
    /// Learning rate.
    pub(super) rate: f64,
    /// Weight decay.
    pub(super) decay: f64,
    /// Number of the step, from 1.
    pub(super) step: usize,
}

/// First and second moments of one tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Adam {
    pub(super) fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }

    /// Whether they are of a tensor of so many entries.
    pub(super) fn fits(&self, len: usize) -> bool {
        self.first.len() == len && self.second.len() == len
    }

    pub(super) fn step(&mut self, weights: &mut [f32], gradient: &[f32], rates: &AdamRates) {
        let correction = BETA.map(|b| 1.0 / (1.0 - b.powi(rates.step as i32)));
        let (rate, keep) = (rates.rate as f32, (1.0 - rates.rate * rates.decay) as f32);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((weight, &g), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
            *first = BETA[0] * *first + (1.0 - BETA[0]) * g;
            *second = BETA[1] * *second + (1.0 - BETA[1]) * g * g;
            let step = *first * correction[0] / ((*second * correction[1]).sqrt() + EPSILON);
            *weight = keep * *weight - rate * step;
        }
    }
}
