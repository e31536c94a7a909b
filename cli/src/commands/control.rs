//! `weir control`.

use crate::failure::{Failure, Outcome};

/// Arguments of `weir control`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the database and the instances' files; made if it is not there.
    #[arg(long, default_value = "weir-data", value_name = "DIR")]
    data: std::path::PathBuf,
}

/// Runs the control plane until it is told to stop.
pub fn main(args: Args) -> Outcome {
    Err(Failure::new(format!("this build has no control plane to run on {}", args.data.display())))
}
