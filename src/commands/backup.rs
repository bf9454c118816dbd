//! `poa backup`: a copy of what `poa serve` keeps.

use crate::meter::Terminal;
use serde_json::json;
use service::backup::backup;
use std::path::PathBuf;
use steps::error::Failure;

/// Copy everything that `poa serve` keeps, while it runs or not; `poa serve --data` takes the copy as it is.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  poa backup --data ./poa-data --out ./backups/today\n  poa serve --data ./backups/today")]
pub struct Args {
    /// The service's data directory.
    #[arg(long, default_value = "poa-data")]
    data: PathBuf,
    /// Where the copy goes; it must not be there yet.
    #[arg(long)]
    out: PathBuf,
}

pub fn run(args: Args, json: bool) -> Result<u8, Failure> {
    let copied = backup(&args.data, &args.out, &Terminal::new())?;
    if json {
        println!("{}", json!({ "files": copied.files, "models": copied.models, "trainings": copied.trainings }));
    } else {
        let (files, models, trainings) = (copied.files, copied.models, copied.trainings);
        println!("Copied to {}: the database, {files} files, {models} models, {trainings} unfinished trainings", args.out.display());
    }
    Ok(0)
}
