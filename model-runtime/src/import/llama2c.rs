//! llama2.c's `.bin` files, little-endian: version 0 (no magic), versions 1 and 2 (magic `ak42`, a 256-byte header).
//!
//! All begin with seven `i32`s. Version 0, `f32`: embedding; for all layers at once attention norm, q, k, v, o, feed-forward norm, gate (`w1`),
//! down (`w2`), up (`w3`); final norm; two rotary tables (ignored); the head unless tied (`vocab_size > 0`). Version 1, `f32`: all norms first,
//! then embedding, q, k, v, o, gate, down, up, the head unless the header's flag ties it. Version 2: the norms as `f32`; then each matrix as
//! `i8`, followed by one `f32` scale for each group of neighbours; read as the products. (Sources: llama2.c's `export.py`, `run.c`, `runq.c`.)
//!
//! q and k rows rotate neighbours `(2p, 2p+1)`; they are permuted to the rotate-half convention `(p, p + head_dim/2)`, which leaves every
//! attention score as it is.

use super::files::read;
use super::weights::check_finite;
use super::{ImportError, ImportOptions, check_shape};
use crate::shape::{FloatLayer, FloatModel, ModelShape, Site};
use std::path::Path;

/// `ak42` as the exporter writes it.
const MAGIC: u32 = 0x616b_3432;
/// The format has no fields for these two; llama2.c fixes them.
const THETA: f64 = 10000.0;
const NORM_EPS: f64 = 1e-5;

/// Loads a llama2.c file.
pub fn load_llama2c(path: &Path, options: &ImportOptions) -> Result<FloatModel, ImportError> {
    parse_llama2c(&path.display().to_string(), &read(path)?, options)
}

/// Parses a llama2.c file's bytes; `name` is for errors.
pub fn parse_llama2c(name: &str, bytes: &[u8], options: &ImportOptions) -> Result<FloatModel, ImportError> {
    let header = Header::parse(name, bytes)?;
    let shape = header.shape(options)?;
    let expected = header.bytes(&shape);
    if expected != bytes.len() as u64 {
        let what = format!("a version {} model with header {:?}", header.format.version(), header.fields);
        return Err(ImportError::Length { path: name.into(), what, expected, found: bytes.len() as u64 });
    }
    let body = bytes.get(header.format.header()..).unwrap_or_default();
    read_model(&mut Cursor { bytes: body, format: header.format }, shape, &header)
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Version 0.
    Legacy,
    /// Version 1.
    Float,
    /// Version 2.
    Groups {
        /// Weights that share a scale.
        size: usize,
    },
}

impl Format {
    fn version(self) -> u32 {
        match self {
            Self::Legacy => 0,
            Self::Float => 1,
            Self::Groups { .. } => 2,
        }
    }

    /// Length of the header in bytes.
    fn header(self) -> usize {
        if self == Self::Legacy { 28 } else { 256 }
    }

    /// Bytes of a matrix of so many weights.
    fn matrix(self, weights: u64) -> u64 {
        match self {
            Self::Groups { size } => weights + 4 * (weights / size as u64),
            _ => 4 * weights,
        }
    }
}

struct Header {
    format: Format,
    /// dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size (version 0, negative: the head isn't tied), seq_len.
    fields: [i32; 7],
    tied: bool,
}

/// The `i32` at a byte offset.
fn int(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_le_bytes)
}

impl Header {
    fn parse(name: &str, bytes: &[u8]) -> Result<Self, ImportError> {
        let magic = int(bytes, 0).is_some_and(|magic| magic as u32 == MAGIC);
        let (start, least) = if magic { (8, 256) } else { (0, 28) };
        if bytes.len() < least {
            let what = "the header".to_string();
            return Err(ImportError::Length { path: name.into(), what, expected: least as u64, found: bytes.len() as u64 });
        }
        let fields = std::array::from_fn(|i| int(bytes, start + 4 * i).unwrap_or(0));
        if !magic {
            return Ok(Self { format: Format::Legacy, fields, tied: fields[5] > 0 });
        }
        let format = match (int(bytes, 4), int(bytes, 37)) {
            (Some(1), _) => Format::Float,
            (Some(2), Some(size)) if size > 0 => Format::Groups { size: size as usize },
            (Some(2), size) => return Err(wrong("group_size", "a positive integer", size.unwrap_or(0))),
            (version, _) => return Err(wrong("version", "0, 1 or 2; export the model with one of them", version.unwrap_or(0))),
        };
        match bytes.get(36) {
            Some(flag @ (0 | 1)) => Ok(Self { format, fields, tied: *flag == 1 }),
            flag => Err(wrong("shared_classifier", "0 or 1", flag.copied().unwrap_or(0))),
        }
    }

    fn sequence(&self) -> u64 {
        self.fields[6].unsigned_abs().into()
    }

    fn shape(&self, options: &ImportOptions) -> Result<ModelShape, ImportError> {
        let size = |name: &str, i: usize| {
            let positive = usize::try_from(self.fields[i]).ok().filter(|&n| n > 0);
            positive.ok_or_else(|| wrong(name, "a positive integer", self.fields[i]))
        };
        let (width, heads) = (size("dim", 0)?, size("n_heads", 3)?);
        if !width.is_multiple_of(heads) {
            return Err(wrong("n_heads", &format!("a divisor of {width}"), heads));
        }
        let shape = ModelShape {
            layers: size("n_layers", 2)?,
            width,
            heads,
            kv_heads: size("n_kv_heads", 4)?,
            head_dim: width / heads,
            ff: size("hidden_dim", 1)?,
            vocab: if self.format == Format::Legacy { self.fields[5].unsigned_abs() as usize } else { size("vocab_size", 5)? },
            rope_theta: THETA,
            norm_eps: NORM_EPS,
            context: options.context(size("seq_len", 6)?),
        };
        check_shape(&shape)?;
        self.check_groups(&shape)?;
        Ok(shape)
    }

    /// Groups lie within one matrix.
    fn check_groups(&self, shape: &ModelShape) -> Result<(), ImportError> {
        let Format::Groups { size } = self.format else { return Ok(()) };
        let matrices = Site::ALL.iter().map(|&site| shape.site_dims(site)).chain([(shape.vocab, shape.width)]);
        match matrices.map(|(rows, columns)| rows * columns).find(|len| !len.is_multiple_of(size)) {
            Some(len) => Err(wrong("group_size", &format!("a divisor of {len}"), size)),
            None => Ok(()),
        }
    }

    /// Length of the file (sizes are at most 2^18, so this fits).
    fn bytes(&self, s: &ModelShape) -> u64 {
        let matrix = |(rows, columns): (usize, usize)| self.format.matrix(rows as u64 * columns as u64);
        let table = matrix((s.vocab, s.width)) * if self.tied { 1 } else { 2 };
        let linear: u64 = Site::ALL.iter().map(|&site| matrix(s.site_dims(site))).sum();
        let norms = 4 * (2 * s.layers as u64 + 1) * s.width as u64;
        let rotary = if self.format == Format::Legacy { 4 * self.sequence() * s.head_dim as u64 } else { 0 };
        self.format.header() as u64 + table + s.layers as u64 * linear + norms + rotary
    }
}

fn wrong(field: &str, expected: &str, found: impl ToString) -> ImportError {
    ImportError::Config { field: field.into(), expected: expected.into(), found: found.to_string() }
}

/// The weights not yet read; the file's length was checked before.
struct Cursor<'a> {
    bytes: &'a [u8],
    format: Format,
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, name: &str, len: usize) -> Result<&'a [u8], ImportError> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or_else(|| ImportError::MissingTensor { name: name.into() })?;
        self.bytes = rest;
        Ok(head)
    }

    fn floats(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ImportError> {
        let bytes = self.bytes(name, 4 * len)?;
        let floats: Vec<f32> = bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        check_finite(name, &floats)?;
        Ok(floats)
    }

    fn matrix(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ImportError> {
        let Format::Groups { size } = self.format else { return self.floats(name, len) };
        let integers = self.bytes(name, len)?;
        let scales = self.floats(&format!("{name} (scales)"), len / size)?;
        if let Some(scale) = scales.iter().find(|s| s.is_sign_negative()) {
            return Err(wrong(&format!("{name} (scales)"), "positive numbers; export the model again with llama2.c's current export.py", scale));
        }
        let product = |(group, scale): (&[u8], &f32)| group.iter().map(|&q| f32::from(q as i8) * scale).collect::<Vec<_>>();
        let values = integers.chunks_exact(size).zip(&scales).flat_map(product).collect::<Vec<_>>();
        check_finite(name, &values)?;
        Ok(values)
    }

    fn norms(&mut self, name: &str, layers: usize, width: usize) -> Result<Vec<Vec<f32>>, ImportError> {
        (0..layers).map(|l| self.floats(&format!("layer {l} {name}"), width)).collect()
    }

    fn sites(&mut self, linear: &mut [[Vec<f32>; 7]], sites: &[Site], shape: &ModelShape) -> Result<(), ImportError> {
        for &site in sites {
            let (rows, columns) = shape.site_dims(site);
            for (l, layer) in linear.iter_mut().enumerate() {
                layer[site as usize] = self.matrix(&format!("layer {l} {}", site.name()), rows * columns)?;
            }
        }
        Ok(())
    }
}

fn read_model(cursor: &mut Cursor, shape: ModelShape, header: &Header) -> Result<FloatModel, ImportError> {
    const ATTENTION: [Site; 4] = [Site::Q, Site::K, Site::V, Site::O];
    const FEED_FORWARD: [Site; 3] = [Site::Gate, Site::Down, Site::Up];
    let (layers, width, table) = (shape.layers, shape.width, shape.vocab * shape.width);
    let mut linear: Vec<[Vec<f32>; 7]> = vec![Default::default(); layers];
    let (embed, attn_norm, ffn_norm, final_norm);
    if header.format == Format::Legacy {
        embed = cursor.matrix("token embedding", table)?;
        attn_norm = cursor.norms("attention norm", layers, width)?;
        cursor.sites(&mut linear, &ATTENTION, &shape)?;
        ffn_norm = cursor.norms("feed-forward norm", layers, width)?;
        cursor.sites(&mut linear, &FEED_FORWARD, &shape)?;
        final_norm = cursor.floats("final norm", width)?;
        // The rotary tables are recomputed from theta.
        cursor.floats("rotary tables", header.sequence() as usize * shape.head_dim)?;
    } else {
        attn_norm = cursor.norms("attention norm", layers, width)?;
        ffn_norm = cursor.norms("feed-forward norm", layers, width)?;
        final_norm = cursor.floats("final norm", width)?;
        embed = cursor.matrix("token embedding", table)?;
        cursor.sites(&mut linear, &ATTENTION, &shape)?;
        cursor.sites(&mut linear, &FEED_FORWARD, &shape)?;
    }
    let head = if header.tied { None } else { Some(cursor.matrix("head", table)?) };
    for matrices in &mut linear {
        for site in [Site::Q, Site::K] {
            matrices[site as usize] = to_rotate_half(&matrices[site as usize], shape.head_dim, width);
        }
    }
    let layers = linear.into_iter().zip(attn_norm).zip(ffn_norm);
    let layers = layers.map(|((linear, attn_norm), ffn_norm)| FloatLayer { attn_norm, ffn_norm, linear }).collect();
    Ok(FloatModel { shape, embed, layers, final_norm, head })
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
