//! PEFT adapters: round trips and refusals.

use super::*;
use crate::test_support::{asset, random_adapter, tiny_shape};

const SITES: [Site; 3] = [Site::Q, Site::V, Site::Down];

fn written() -> (tempfile::TempDir, FloatAdapter) {
    let dir = tempfile::tempdir().unwrap();
    let adapter = random_adapter(&tiny_shape(), 3, &SITES, 11);
    write_peft(dir.path(), &adapter, &tiny_shape(), "tiny").unwrap();
    (dir, adapter)
}

/// Loads the adapter after overwriting one field of its configuration.
fn load_with(field: &str, value: Value) -> Result<FloatAdapter, ImportError> {
    let (dir, _) = written();
    let path = dir.path().join(CONFIG);
    let mut config = read_json(&path).unwrap();
    config[field] = value;
    fs::write(&path, config.to_string()).unwrap();
    load_peft(dir.path(), &tiny_shape())
}

#[test]
fn round_trip() {
    let (dir, adapter) = written();
    let back = load_peft(dir.path(), &tiny_shape()).unwrap();
    assert_eq!((&back.shape, back.scale, &back.pairs), (&adapter.shape, adapter.scale, &adapter.pairs));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "temporary files left: {left:?}");
}

#[test]
fn scales() {
    assert_eq!(load_with("lora_alpha", json!(12)).unwrap().scale, 4.0);
    let (dir, _) = written();
    fs::write(
        dir.path().join(CONFIG),
        json!({ "peft_type": "LORA", "r": 3, "lora_alpha": 12, "use_rslora": true, "target_modules": r".*\.(q_proj|v_proj|down_proj)" }).to_string(),
    )
    .unwrap();
    let adapter = load_peft(dir.path(), &tiny_shape()).unwrap();
    assert_eq!((adapter.scale, adapter.shape.sites), ((12.0 / 3f64.sqrt()) as f32, SITES.to_vec()));
}

#[test]
fn variants_are_refused_by_name() {
    let cases = [
        ("peft_type", json!("IA3")),
        ("task_type", json!("SEQ_CLS")),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("fan_in_fan_out", json!(true)),
        ("lora_bias", json!(true)),
        ("use_dora", json!(true)),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({ "nblocks": 2 })),
        ("velora_config", json!({ "num_groups": 32 })),
        ("monteclora_config", json!({ "num_samples": 8 })),
        ("kasa_config", json!({ "beta": 0.1 })),
        ("arrow_config", json!({ "top_k": 3 })),
        ("alora_invocation_tokens", json!([5, 6])),
        ("layer_replication", json!([[0, 1], [0, 2]])),
        ("megatron_config", json!({ "x": 1 })),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["mlp.down_proj"])),
        ("layers_pattern", json!("h")),
        ("a_field_of_a_later_version", json!(false)),
    ];
    for (field, value) in cases {
        match load_with(field, value) {
            Err(ImportError::Unsupported { feature, .. }) => assert_eq!(feature, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    for (name, value) in [("r", json!(0)), ("lora_alpha", json!("x")), ("target_modules", json!(3)), ("use_rslora", json!(1))] {
        assert!(matches!(load_with(name, value), Err(ImportError::Config { field, .. }) if field == name));
    }
}

/// These start from changed base weights, or promise nothing about them.
#[test]
fn initialisations_that_change_the_base_are_refused() {
    for name in ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "something else"] {
        match load_with("init_lora_weights", json!(name)) {
            Err(ImportError::Unsupported { feature, expected, .. }) => {
                assert!(feature == "init_lora_weights" && expected.contains("path_initial_model_for_weight_conversion"))
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    for value in [json!(true), json!(false), json!("gaussian"), json!("eva"), json!("orthogonal"), Value::Null] {
        assert!(load_with("init_lora_weights", value).is_ok());
    }
}

/// What PEFT 0.21 writes for a plain adapter.
#[test]
fn fields_that_change_nothing_are_read_over() {
    let fields = [
        ("peft_version", json!("0.21.2")),
        ("lora_dropout", json!(0.1)),
        ("loftq_config", json!({})),
        ("megatron_core", json!("megatron.core")),
        ("qalora_group_size", json!(16)),
        ("revision", json!("main")),
        ("ensure_weight_tying", json!(true)),
        ("arrow_config", Value::Null),
        ("a_field_of_a_later_version", Value::Null),
        ("task_type", json!("CAUSAL_LM")),
    ];
    for (field, value) in fields {
        assert!(load_with(field, value).is_ok(), "{field}");
    }
}

/// Writes the tensors that `keep` picks beside a configuration with the given fields.
fn load_parts(fields: Value, keep: impl Fn(usize, Site) -> Option<usize>) -> Result<FloatAdapter, ImportError> {
    let (dir, shape) = (tempfile::tempdir().unwrap(), tiny_shape());
    let adapter = random_adapter(&shape, 3, &SITES, 11);
    let cut: Vec<_> = adapter.pairs.iter().filter_map(|(&(l, site), pair)| Some((l, site, keep(l, site)?, pair))).collect();
    let narrow = |b: &[f32], rank: usize| b.chunks(3).flat_map(|row| row[..rank].to_vec()).collect::<Vec<_>>();
    let halves: Vec<_> = cut.iter().map(|(l, site, rank, (a, b))| (*l, *site, *rank, a[..rank * a.len() / 3].to_vec(), narrow(b, *rank))).collect();
    let tensors: Vec<NamedTensor> = halves
        .iter()
        .flat_map(|(l, site, rank, a, b)| {
            let (rows, columns) = shape.site_dims(*site);
            [(tensor_name(*l, *site, 'A'), vec![*rank, columns], &a[..]), (tensor_name(*l, *site, 'B'), vec![rows, *rank], &b[..])]
        })
        .collect();
    fs::write(dir.path().join(WEIGHTS), encode_safetensors(&tensors, StoredType::F32).unwrap()).unwrap();
    let mut config = json!({ "peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"] });
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    load_peft(dir.path(), &shape)
}

/// `scale · B A` of one pair.
fn product(adapter: &FloatAdapter, layer: usize, site: Site) -> Vec<f32> {
    let (rank, (a, b)) = (adapter.shape.rank, &adapter.pairs[&(layer, site)]);
    let columns = a.len() / rank;
    let entry = |row: &[f32], c: usize| (0..rank).map(|r| row[r] * a[r * columns + c]).sum::<f32>() * adapter.scale;
    b.chunks(rank).flat_map(|row| (0..columns).map(move |c| entry(row, c))).collect()
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn ranks_and_alphas_may_differ_between_modules() {
    let fields = json!({ "rank_pattern": { "q_proj": 2 }, "alpha_pattern": { "layers.1.self_attn.v_proj": 12, "down_proj": 3 } });
    let mixed = load_parts(fields, |_, site| Some(if site == Site::Q { 2 } else { 3 })).unwrap();
    let plain = load_parts(json!({}), |_, _| Some(3)).unwrap();
    let two = load_parts(json!({ "r": 2, "lora_alpha": 6 }), |_, _| Some(2)).unwrap();
    assert_eq!((mixed.shape.rank, &mixed.shape.sites[..]), (3, &SITES[..]));
    let times = |values: Vec<f32>, by: f32| values.into_iter().map(|x| x * by).collect::<Vec<_>>();
    assert!(near(&product(&mixed, 0, Site::Q), &product(&two, 0, Site::Q)), "alpha 6, rank 2");
    assert!(near(&product(&mixed, 0, Site::V), &product(&plain, 0, Site::V)), "alpha 6, rank 3");
    assert!(near(&product(&mixed, 1, Site::V), &times(product(&plain, 1, Site::V), 2.0)), "alpha 12, rank 3");
    assert!(near(&product(&mixed, 1, Site::Down), &times(product(&plain, 1, Site::Down), 0.5)), "alpha 3, rank 3");
    let stabilised =
        load_parts(json!({ "use_rslora": true, "rank_pattern": { "q_proj": 2 } }), |_, s| Some(if s == Site::Q { 2 } else { 3 })).unwrap();
    assert!(near(&product(&stabilised, 0, Site::Q), &times(product(&two, 0, Site::Q), 2f32.sqrt())));
    let ambiguous = load_parts(json!({ "rank_pattern": { "q_proj": 2, ".*q_proj": 3 } }), |_, _| Some(3));
    assert!(matches!(ambiguous, Err(ImportError::Config { field, .. }) if field == "rank_pattern"));
    let broken = load_parts(json!({ "alpha_pattern": { "(": 3 } }), |_, _| Some(3));
    assert!(matches!(broken, Err(ImportError::Config { field, .. }) if field == "alpha_pattern"));
}

#[test]
fn layers_and_modules_may_be_left_out() {
    let plain = load_parts(json!({}), |_, _| Some(3)).unwrap();
    let some = load_parts(json!({ "layers_to_transform": [1] }), |l, _| (l == 1).then_some(3)).unwrap();
    assert_eq!(product(&some, 1, Site::V), product(&plain, 1, Site::V));
    assert!(product(&some, 0, Site::V).iter().all(|x| *x == 0.0));
    let excluded = json!({ "exclude_modules": ["0.self_attn.q_proj", "down_proj"] });
    let some = load_parts(excluded, |l, site| (site == Site::V || (site == Site::Q && l == 1)).then_some(3)).unwrap();
    assert_eq!(some.shape.sites, [Site::Q, Site::V]);
    assert!(product(&some, 0, Site::Q).iter().all(|x| *x == 0.0));
    let pattern = json!({ "target_modules": r"model\.layers\.(?!0\.).*\.v_proj" });
    let some = load_parts(pattern, |l, site| (l == 1 && site == Site::V).then_some(3)).unwrap();
    assert_eq!(product(&some, 1, Site::V), product(&plain, 1, Site::V));
    // A tensor that PEFT would leave out, a layer that isn't there.
    let more = load_parts(json!({ "layers_to_transform": 1 }), |_, _| Some(3));
    assert!(matches!(more, Err(ImportError::NotCovered { name }) if name.contains("layers.0")));
    let deep = load_parts(json!({ "layers_to_transform": [2] }), |_, _| Some(3));
    assert!(matches!(deep, Err(ImportError::Config { field, .. }) if field == "layers_to_transform"));
    let head = load_parts(json!({ "target_modules": ".*" }), |_, _| Some(3));
    assert!(matches!(head, Err(ImportError::Unsupported { feature, .. }) if feature.contains("lm_head")));
}

#[test]
fn tensors_are_refused_by_name() {
    assert!(matches!(load_with("r", json!(4)), Err(ImportError::Shape { expected, .. }) if expected[0] == 4));
    let listed = load_with("target_modules", json!(["q_proj", "k_proj"]));
    assert!(matches!(listed, Err(ImportError::MissingTensor { name }) if name.contains("k_proj")));
    let (dir, _) = written();
    let deeper = ModelShape { layers: 3, ..tiny_shape() };
    match load_peft(dir.path(), &deeper) {
        Err(ImportError::PartialSite { module, layer, .. }) => assert_eq!((module.as_str(), layer), ("self_attn.q_proj", 2)),
        other => panic!("{other:?}"),
    }
    fs::rename(dir.path().join(WEIGHTS), dir.path().join("adapter_model.bin")).unwrap();
    assert!(matches!(load_peft(dir.path(), &tiny_shape()), Err(ImportError::OtherWeights { found, .. }) if found == "adapter_model.bin"));
    fs::rename(dir.path().join("adapter_model.bin"), dir.path().join(WEIGHTS)).unwrap();
    let shallower = ModelShape { layers: 1, ..tiny_shape() };
    assert!(matches!(load_peft(dir.path(), &shallower), Err(ImportError::Config { .. })));
}

#[test]
fn writing_a_wrong_adapter_fails() {
    let dir = tempfile::tempdir().unwrap();
    let mut adapter = random_adapter(&tiny_shape(), 3, &SITES, 11);
    let write = |adapter: &FloatAdapter| write_peft(dir.path(), adapter, &tiny_shape(), "tiny");
    adapter.shape.sites.push(Site::Up);
    assert!(matches!(write(&adapter), Err(ImportError::MissingTensor { .. })));
    adapter.shape.sites.pop();
    adapter.shape.rank = 4;
    assert!(matches!(write(&adapter), Err(ImportError::Values { .. })));
}

#[test]
fn gpt_neox_is_refused_by_its_module() {
    let Some(dir) = asset("adapters/opencalm-1b-lora-r1") else { return };
    match load_peft(&dir, &tiny_shape()) {
        Err(error @ ImportError::Unsupported { .. }) => assert!(error.to_string().contains("query_key_value"), "{error}"),
        other => panic!("{other:?}"),
    }
}
