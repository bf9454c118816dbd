//! llama2.c files (legacy "version 0" `.bin`): seven `i32`s, then `f32` weights, little-endian.
//!
//! Order: embedding; for all layers at once attention norm, q, k, v, o, feed-forward norm, gate (`w1`), down (`w2`), up (`w3`); final norm;
//! two rotary tables (ignored); the head unless tied (`vocab_size > 0`). Their q and k rows rotate neighbours `(2p, 2p+1)`;
//! they are permuted to the rotate-half convention `(p, p + head_dim/2)`, which leaves every attention score as it is.

use super::weights::check_finite;
use super::{ImportError, ImportOptions, check_shape};
use crate::shape::{FloatLayer, FloatModel, ModelShape, Site};
use std::fs;
use std::path::Path;

const HEADER: usize = 28;
/// The format has no fields for these two; llama2.c fixes them.
const THETA: f64 = 10000.0;
const NORM_EPS: f64 = 1e-5;

/// Loads a llama2.c file.
pub fn load_llama2c(path: &Path, options: &ImportOptions) -> Result<FloatModel, ImportError> {
    let bytes = fs::read(path).map_err(|e| ImportError::io(path, e))?;
    parse_llama2c(&path.display().to_string(), &bytes, options)
}

/// Parses a llama2.c file's bytes; `name` is for errors.
pub fn parse_llama2c(name: &str, bytes: &[u8], options: &ImportOptions) -> Result<FloatModel, ImportError> {
    let header = Header::parse(name, bytes)?;
    let shape = header.shape(options)?;
    let expected = HEADER as u64 + 4 * header.weights(&shape);
    if expected != bytes.len() as u64 {
        let what = format!("a model with header {:?}", header.0);
        return Err(ImportError::Length { path: name.into(), what, expected, found: bytes.len() as u64 });
    }
    let floats = bytes[HEADER..].chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect::<Vec<_>>();
    read_model(&mut Cursor(&floats), shape, &header)
}

/// dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (negative: the head isn't tied), seq_len.
struct Header([i32; 7]);

impl Header {
    fn parse(name: &str, bytes: &[u8]) -> Result<Self, ImportError> {
        let short = || ImportError::Length { path: name.into(), what: "the header".into(), expected: HEADER as u64, found: bytes.len() as u64 };
        let header = bytes.get(..HEADER).ok_or_else(short)?;
        let mut fields = [0; 7];
        for (field, c) in fields.iter_mut().zip(header.chunks_exact(4)) {
            *field = i32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        }
        Ok(Self(fields))
    }

    fn tied(&self) -> bool {
        self.0[5] > 0
    }

    fn sequence(&self) -> u64 {
        self.0[6].unsigned_abs().into()
    }

    fn shape(&self, options: &ImportOptions) -> Result<ModelShape, ImportError> {
        let size = |name: &str, i: usize| {
            let found = || ImportError::Config { field: name.into(), expected: "a positive integer".into(), found: self.0[i].to_string() };
            usize::try_from(self.0[i]).ok().filter(|&n| n > 0).ok_or_else(found)
        };
        let (width, heads) = (size("dim", 0)?, size("n_heads", 3)?);
        if !width.is_multiple_of(heads) {
            return Err(ImportError::Config { field: "n_heads".into(), expected: format!("a divisor of {width}"), found: heads.to_string() });
        }
        let shape = ModelShape {
            layers: size("n_layers", 2)?,
            width,
            heads,
            kv_heads: size("n_kv_heads", 4)?,
            head_dim: width / heads,
            ff: size("hidden_dim", 1)?,
            vocab: self.0[5].unsigned_abs() as usize,
            rope_theta: THETA,
            norm_eps: NORM_EPS,
            context: options.context(size("seq_len", 6)?),
        };
        check_shape(&shape)?;
        Ok(shape)
    }

    /// Number of floats after the header (sizes are at most 2^18, so this fits).
    fn weights(&self, s: &ModelShape) -> u64 {
        let table = s.vocab as u64 * s.width as u64;
        let linear: u64 = Site::ALL.iter().map(|&site| s.site_dims(site)).map(|(rows, columns)| rows as u64 * columns as u64).sum();
        let layers = s.layers as u64 * (2 * s.width as u64 + linear);
        let rotary = self.sequence() * s.head_dim as u64;
        table * if self.tied() { 1 } else { 2 } + layers + s.width as u64 + rotary
    }
}

/// The floats not yet read; the file's length was checked before.
struct Cursor<'a>(&'a [f32]);

impl Cursor<'_> {
    fn take(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ImportError> {
        let missing = || ImportError::MissingTensor { name: name.into() };
        let (head, rest) = self.0.split_at_checked(len).ok_or_else(missing)?;
        self.0 = rest;
        check_finite(name, head)?;
        Ok(head.to_vec())
    }

    fn per_layer(&mut self, name: &str, layers: usize, len: usize) -> Result<Vec<Vec<f32>>, ImportError> {
        (0..layers).map(|l| self.take(&format!("layer {l} {name}"), len)).collect()
    }
}

fn read_model(cursor: &mut Cursor, shape: ModelShape, header: &Header) -> Result<FloatModel, ImportError> {
    let (layers, width) = (shape.layers, shape.width);
    let len = |site| shape.site_dims(site).0 * shape.site_dims(site).1;
    let embed = cursor.take("token embedding", shape.vocab * width)?;
    let attn_norm = cursor.per_layer("attention norm", layers, width)?;
    let mut linear: Vec<[Vec<f32>; 7]> = vec![Default::default(); layers];
    read_sites(cursor, &mut linear, &[Site::Q, Site::K, Site::V, Site::O], len)?;
    let ffn_norm = cursor.per_layer("feed-forward norm", layers, width)?;
    read_sites(cursor, &mut linear, &[Site::Gate, Site::Down, Site::Up], len)?;
    let final_norm = cursor.take("final norm", width)?;
    // The rotary tables are recomputed from theta.
    cursor.take("rotary tables", header.sequence() as usize * shape.head_dim)?;
    let head = if header.tied() { None } else { Some(cursor.take("head", shape.vocab * width)?) };
    for matrices in &mut linear {
        for site in [Site::Q, Site::K] {
            matrices[site as usize] = to_rotate_half(&matrices[site as usize], shape.head_dim, width);
        }
    }
    let layers = linear.into_iter().zip(attn_norm).zip(ffn_norm);
    let layers = layers.map(|((linear, attn_norm), ffn_norm)| FloatLayer { attn_norm, ffn_norm, linear }).collect();
    Ok(FloatModel { shape, embed, layers, final_norm, head })
}

fn read_sites(cursor: &mut Cursor, linear: &mut [[Vec<f32>; 7]], sites: &[Site], len: impl Fn(Site) -> usize) -> Result<(), ImportError> {
    for &site in sites {
        let matrices = cursor.per_layer(site.name(), linear.len(), len(site))?;
        linear.iter_mut().zip(matrices).for_each(|(layer, matrix)| layer[site as usize] = matrix);
    }
    Ok(())
}

/// Row `2p + z` of each head becomes row `p + z·head_dim/2`.
fn to_rotate_half(matrix: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(matrix.len());
    for head in matrix.chunks(head_dim * columns) {
        for z in 0..2 {
            head.chunks(columns).skip(z).step_by(2).for_each(|row| out.extend_from_slice(row));
        }
    }
    out
}

#[cfg(test)]
#[path = "llama2c_tests.rs"]
mod tests;
