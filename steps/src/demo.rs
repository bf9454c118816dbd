//! The bundled model, datanet and adapter, made once in a directory and read again.

use crate::error::{Failure, While};
use crate::import::import;
use crate::index::{Indexing, index};
use crate::progress::Observer;
use crate::store::{AdapterDir, IndexDir, ModelDir, absolute, create_parent};
use crate::texts::sample_tokens;
use crate::train::{quantised, trained};
use model_runtime::demo::{BASE_DIR, CONTEXT, DATANET_FILE, lora_config};
use model_runtime::import::{ImportOptions, load_model};
use model_runtime::int::Headroom;
use model_runtime::int::index::IndexOptions;
use model_runtime::semantics::Seed;
use model_runtime::text::{Datanet, Tokenizer};
use model_runtime::train::HoldOut;
use std::path::{Path, PathBuf};

/// What the demo's answers are made with.
pub struct Demo {
    /// The base model.
    pub model: ModelDir,
    /// The adapter trained on the bundled datanet.
    pub adapter: AdapterDir,
    /// The datanet's index.
    pub index: IndexDir,
    /// Where model and adapter are.
    pub paths: (PathBuf, PathBuf),
}

/// Reads the directories of model, adapter and index, and makes from `assets` what isn't there.
///
/// # Errors
///
/// When the assets can't be read, or a directory can't be written.
pub fn prepare([model_dir, adapter_dir, index_dir]: &[PathBuf; 3], assets: &Path, on: &dyn Observer) -> Result<Demo, Failure> {
    let datanet_path = assets.join(DATANET_FILE);
    let datanet = Datanet::load(&datanet_path).during_path("reading", &datanet_path).map_err(|f| f.hint("name the bundled assets with --assets"))?;
    [model_dir, adapter_dir, index_dir].into_iter().try_for_each(|dir| create_parent(dir))?;
    let model = match ModelDir::load(model_dir) {
        Ok(model) => model,
        Err(_) => {
            on.note("importing the base model (floats become exact integers) …");
            let base = assets.join(BASE_DIR);
            let float = load_model(&base, &ImportOptions { context: Some(CONTEXT) }).during("importing the base model")?;
            let tokenizer = Tokenizer::load(&base).during("loading the tokenizer")?;
            let texts = sample_tokens(&tokenizer, &datanet, CONTEXT)?;
            let imported = import(float, tokenizer, Some(texts), Headroom::Auto, on)?;
            imported.model.save(model_dir)?;
            imported.model
        }
    };
    let tokens = sample_tokens(&model.tokenizer, &datanet, CONTEXT)?;
    let adapter = match AdapterDir::load(adapter_dir, &model) {
        Ok(adapter) => adapter,
        Err(_) => {
            on.note("training a LoRA adapter on the datanet …");
            let float = trained(&model.float, &tokens, &lora_config(), Some(HoldOut::default()), None, on)?.adapter;
            let adapter = quantised(&model, float, &tokens, on)?.adapter;
            adapter.save(adapter_dir, &model.float, "poa-demo")?;
            adapter
        }
    };
    let paths = (absolute(model_dir)?, absolute(adapter_dir)?);
    let root = datanet.root();
    let options = IndexOptions { seed: Seed::of(&root, None), ..IndexOptions::default() };
    let index = match IndexDir::load(index_dir) {
        Ok(index) if index.info.options == options && index.info.datanet_root.0 == root => index,
        _ => {
            on.note("sketching every sample's gradient …");
            let how = Indexing { options, max_tokens: CONTEXT, noise_floor: None, beacon: None, paths: (&paths.0, &paths.1) };
            let index = index(&model, &adapter, &datanet, how, on)?;
            index.save(index_dir)?;
            index
        }
    };
    Ok(Demo { model, adapter, index, paths })
}
