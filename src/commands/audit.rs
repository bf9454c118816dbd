//! `poa audit`: replay everything, bit for bit, and name the first difference.

use super::attribute::{Loaded, load};
use crate::error::{Failure, While};
use crate::meter::say;
use crate::store::{AdapterDir, IndexDir, ModelDir, read_json};
use crate::work;
use circuits::ir::Group;
use circuits::relation::Relation;
use circuits::statement::{Digest, Profile, Statement, Tokens};
use model_runtime::int::index::IndexOptions;
use model_runtime::tensor::TensorMap;
use model_runtime::text::Datanet;
use prover::commit::digest_of;
use serde_json::json;
use std::path::PathBuf;
use verifier::profile::{Evm, Native};

/// Replay a run and its attribution from model, adapter and datanet, and compare with what is stored and stated.
///
/// Example: poa audit run/ --model m/ --adapter a/ --index i/ --datanet prompts.jsonl --statement statement.json
#[derive(clap::Args)]
pub struct Args {
    /// The run.
    run: PathBuf,
    /// Imported model.
    #[arg(long)]
    model: PathBuf,
    /// Adapter.
    #[arg(long)]
    adapter: PathBuf,
    /// Index.
    #[arg(long)]
    index: PathBuf,
    /// The datanet the index claims to be of.
    #[arg(long)]
    datanet: PathBuf,
    /// The statement.
    #[arg(long)]
    statement: PathBuf,
    /// Which of the statement's requests this run is.
    #[arg(long, default_value_t = 0)]
    request: usize,
}

struct Audit {
    model: ModelDir,
    adapter: AdapterDir,
    index: IndexDir,
    datanet: Datanet,
    statement: Statement,
}

/// The first position at which two sets of tensors differ.
fn first_difference(expected: &TensorMap, found: &TensorMap) -> Option<String> {
    let missing = expected.keys().find(|name| !found.contains_key(*name)).map(|name| format!("tensor `{name}` is missing"));
    let differs = || {
        expected.iter().find_map(|(name, e)| {
            let f = found.get(name)?;
            if e.dims != f.dims {
                return Some(format!("tensor `{name}` has dimensions {:?}, expected {:?}", f.dims, e.dims));
            }
            let i = e.data.iter().zip(&f.data).position(|(a, b)| a != b)?;
            Some(format!("tensor `{name}` at {}: {} instead of {}", position(&e.dims, i), f.data[i], e.data[i]))
        })
    };
    missing.or_else(differs)
}

fn position(dims: &[usize], mut index: usize) -> String {
    let mut at: Vec<usize> = dims
        .iter()
        .rev()
        .map(|&d| {
            let x = index % d;
            index /= d;
            x
        })
        .collect();
    at.reverse();
    format!("{at:?}")
}

impl Audit {
    /// The stored trace is what the model computes for the stated tokens.
    fn trace(&self, run: &Loaded, request: usize) -> Result<Option<String>, Failure> {
        let runtime = work::runtime(&self.adapter.int.semantics, &self.model, Some(&self.adapter))?;
        let replayed = work::trace_run(&runtime, &run.info, run.trace.dims)?;
        let stated = &self.statement.requests[request];
        if let Tokens::Public { tokens, prompt_len } = &stated.tokens
            && (tokens != &run.info.tokens || *prompt_len != run.info.prompt_len)
        {
            return Ok(Some("the statement's tokens are not the run's".into()));
        }
        if stated.id != run.info.request_id {
            return Ok(Some(format!("the statement's request id is {}, the run's {}", stated.id, run.info.request_id)));
        }
        Ok(first_difference(&replayed.tensors, &run.trace.tensors))
    }

    /// The index is what sketching the datanet gives.
    fn index(&self) -> Result<Option<String>, Failure> {
        let info = &self.index.info;
        if Digest(self.datanet.root()) != info.datanet_root {
            return Ok(Some("the datanet's root is not the index's".into()));
        }
        let options = IndexOptions { rows: self.index.index.semantics.sketch_rows.unwrap_or(1), damping: info.damping };
        let floor = self.index.index.semantics.consts.get("theta").copied();
        let again = work::index(&self.model, &self.adapter, &self.datanet, options, info.max_tokens, floor, (&info.model, &info.adapter))?;
        if again.index.semantics != self.index.index.semantics {
            return Ok(Some("the index's parameters are not what the datanet gives".into()));
        }
        if again.info.rows != info.rows || again.info.contributors != info.contributors {
            return Ok(Some("the index's rows are not the datanet's samples".into()));
        }
        Ok(first_difference(&again.committed(), &self.index.committed()))
    }

    /// The statement's commitments are those of model, adapter and index.
    fn commitments(&self) -> Result<Option<String>, Failure> {
        let relation = Relation::new(&self.statement.relation).during("building the relation")?;
        let digest = |group: Group, tensors: &TensorMap| {
            match self.statement.profile {
                Profile::Native => digest_of::<Native>(&relation, group, tensors),
                Profile::Evm => digest_of::<Evm>(&relation, group, tensors),
            }
            .during("committing")
        };
        let stated_index = self.statement.index.as_ref().map(|i| i.commitment);
        let all = [
            ("base model", Group::Base, &self.model.int.tensors, Some(self.statement.base)),
            ("adapter", Group::Adapter, &self.adapter.int.tensors, self.statement.adapter),
            ("index", Group::Index, &self.index.committed(), stated_index),
        ];
        for (what, group, tensors, stated) in all {
            if let Some(stated) = stated {
                let own = digest(group, tensors)?;
                if own != stated {
                    return Ok(Some(format!("the {what}'s commitment is {own}, the statement says {stated}")));
                }
            }
        }
        Ok(None)
    }

    /// The stated weights are what the scores give.
    fn weights(&self, run: &Loaded, request: usize) -> Result<Option<String>, Failure> {
        let runtime = work::runtime(&self.index.index.semantics, &self.model, Some(&self.adapter))?;
        let mut trace = work::trace_run(&runtime, &run.info, run.trace.dims)?;
        let attribution = work::attribute(&self.index, &mut trace)?;
        let stated = &self.statement.requests[request].weights;
        let wrong = self.index.info.contributors.iter().enumerate().find_map(|(i, c)| {
            let own = attribution.weights.get(&(i as u32)).copied().unwrap_or(0);
            let said = stated.get(i).copied().unwrap_or(0);
            (own != said).then(|| format!("the weight of {c} is {own}, the statement says {said}"))
        });
        Ok(wrong)
    }
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let model = ModelDir::load(&args.model)?;
    let adapter = AdapterDir::load(&args.adapter, &model)?;
    let index = IndexDir::load(&args.index)?;
    let mut datanet = Datanet::load(&args.datanet).during(format!("reading {}", args.datanet.display()))?;
    datanet.samples.truncate(index.info.rows.len());
    let statement: Statement = read_json(&args.statement)?;
    statement.check().during("the statement")?;
    if args.request >= statement.requests.len() {
        return Err(Failure::input(format!("the statement has {} requests", statement.requests.len())));
    }
    let run = load(&args.run)?;
    let audit = Audit { model, adapter, index, datanet, statement };
    let steps: [(&str, &dyn Fn() -> Result<Option<String>, Failure>); 4] = [
        ("commitments", &|| audit.commitments()),
        ("trace", &|| audit.trace(&run, args.request)),
        ("weights", &|| audit.weights(&run, args.request)),
        ("index", &|| audit.index()),
    ];
    let mut difference = None;
    for (name, step) in steps {
        say(format!("replaying: {name} …"));
        if let Some(what) = step()? {
            difference = Some((name, what));
            break;
        }
    }
    if json {
        println!("{}", json!({ "agrees": difference.is_none(), "step": difference.as_ref().map(|d| d.0), "difference": difference.as_ref().map(|d| &d.1) }));
    } else {
        match &difference {
            None => println!("everything agrees: commitments, trace, weights, index"),
            Some((step, what)) => println!("DIFFERS ({step}): {what}"),
        }
    }
    Ok(u8::from(difference.is_some()))
}
