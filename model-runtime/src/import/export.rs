//! Writing models: Hugging Face directories, and files that appear whole or not at all.

use super::ImportError;
use super::hf::linear_name;
use crate::shape::{FloatModel, ModelShape, Site};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Element type of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit floats, exact.
    F32,
    /// bfloat16, rounded to nearest even: half the size.
    Bf16,
}

/// A named float tensor to be written: name, shape, values.
pub(super) type NamedTensor<'a> = (String, Vec<usize>, &'a [f32]);

/// Writes `config.json` and `model.safetensors` as Hugging Face does. `bos` and `eos` are token ids.
pub fn export_hf(dir: &Path, model: &FloatModel, stored: StoredType, bos: u32, eos: u32) -> Result<(), ImportError> {
    let weights = encode_safetensors(&named_tensors(model), stored)?;
    let config = config_json(&model.shape, model.head.is_none(), stored, bos, eos);
    fs::create_dir_all(dir).map_err(|e| ImportError::io(dir, e))?;
    write_atomic(&dir.join("model.safetensors"), &weights)?;
    write_atomic(&dir.join("config.json"), format!("{config:#}\n").as_bytes())
}

fn config_json(s: &ModelShape, tied: bool, stored: StoredType, bos: u32, eos: u32) -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "head_dim": s.head_dim,
        "hidden_act": "silu",
        "hidden_size": s.width,
        "intermediate_size": s.ff,
        "max_position_embeddings": s.context,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": s.heads,
        "num_hidden_layers": s.layers,
        "num_key_value_heads": s.kv_heads,
        "rms_norm_eps": s.norm_eps,
        "rope_scaling": null,
        "rope_theta": s.rope_theta,
        "tie_word_embeddings": tied,
        "torch_dtype": match stored { StoredType::F32 => "float32", StoredType::Bf16 => "bfloat16" },
        "vocab_size": s.vocab,
    })
}

fn named_tensors(model: &FloatModel) -> Vec<NamedTensor<'_>> {
    let s = &model.shape;
    let table = vec![s.vocab, s.width];
    let mut tensors: Vec<NamedTensor> =
        vec![("model.embed_tokens.weight".into(), table.clone(), &model.embed), ("model.norm.weight".into(), vec![s.width], &model.final_norm)];
    tensors.extend(model.head.as_ref().map(|head| ("lm_head.weight".to_string(), table, &head[..])));
    for (l, layer) in model.layers.iter().enumerate() {
        for site in Site::ALL {
            let (rows, columns) = s.site_dims(site);
            tensors.push((linear_name(l, site), vec![rows, columns], &layer.linear[site as usize]));
        }
        tensors.push((format!("model.layers.{l}.input_layernorm.weight"), vec![s.width], &layer.attn_norm));
        tensors.push((format!("model.layers.{l}.post_attention_layernorm.weight"), vec![s.width], &layer.ffn_norm));
    }
    tensors
}

/// A safetensors file with the metadata Hugging Face's loaders ask for.
pub(super) fn encode_safetensors(tensors: &[NamedTensor], stored: StoredType) -> Result<Vec<u8>, ImportError> {
    let mut buffers = Vec::with_capacity(tensors.len());
    for (name, shape, values) in tensors {
        let expected: usize = shape.iter().product();
        if expected != values.len() {
            return Err(ImportError::Values { name: name.clone(), expected, found: values.len() });
        }
        super::weights::check_finite(name, values)?;
        buffers.push(encode_values(values, stored));
    }
    let dtype = match stored {
        StoredType::F32 => Dtype::F32,
        StoredType::Bf16 => Dtype::BF16,
    };
    let failed = |e: safetensors::SafeTensorError| ImportError::Safetensors { path: "output".into(), reason: e.to_string() };
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, shape, _), buffer) in tensors.iter().zip(&buffers) {
        views.push((name.clone(), TensorView::new(dtype, shape.clone(), buffer).map_err(failed)?));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(metadata)).map_err(failed)
}

fn encode_values(values: &[f32], stored: StoredType) -> Vec<u8> {
    match stored {
        StoredType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        StoredType::Bf16 => values.iter().flat_map(|v| to_bf16(*v).to_le_bytes()).collect(),
    }
}

/// Rounds a finite float to bfloat16, ties to even; what would overflow becomes the largest finite value.
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits + 0x7fff + ((bits >> 16) & 1);
    let overflow = rounded & 0x7f80_0000 == 0x7f80_0000;
    (if overflow { (bits & 0x8000_0000) | 0x7f7f_0000 } else { rounded } >> 16) as u16
}

/// Writes a file through a temporary one beside it, so that a reader sees the old bytes or the new ones.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// [`write_atomic`] of bytes that are never in memory all at once.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), ImportError> {
    let failed = |e| ImportError::io(path, e);
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(dir).map_err(failed)?;
    write(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// bfloat16 keeps eight significant bits.
        #[test]
        fn bf16_is_the_nearest(value in -1e30f32..1e30) {
            let back = f32::from_bits(u32::from(to_bf16(value)) << 16);
            prop_assert!((back - value).abs() <= value.abs() / 256.0 + f32::MIN_POSITIVE);
        }
    }

    #[test]
    fn bf16_ties_and_overflow() {
        assert_eq!(to_bf16(1.0), 0x3f80);
        assert_eq!(to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert_eq!(to_bf16(f32::MAX), 0x7f7f);
        assert_eq!(to_bf16(f32::MIN), 0xff7f);
    }
}
