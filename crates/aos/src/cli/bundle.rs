//! `aos bundle`: make, check, sign and publish deployment bundles.

use std::path::{Path, PathBuf};

use aos_api::{BundleStage, BundleState, DeploymentBundle, StageState, UploadQuery, paths};
use clap::Subcommand;
use futures::StreamExt as _;
use tokio_util::io::ReaderStream;

use crate::client::Client;
use crate::failure::{Exit, Failure, OrFail as _};
use crate::progress::{self, Spinner};
use crate::table;

/// Deployment bundles.
#[derive(Subcommand)]
pub enum Bundle {
    /// Publish a bundle: a signed file, or a folder that is signed first.
    Push {
        /// `batch.tar.gz` as `aos bundle sign` writes it, or a bundle's folder.
        bundle: PathBuf,
        /// Let the cloud do all but publish: nothing is kept.
        #[arg(long)]
        check: bool,
        /// Wait until the versions are ready or refused, and show each stage.
        #[arg(long)]
        wait: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `aos bundle …`.
pub async fn run(command: Bundle) -> Result<(), Failure> {
    match command {
        Bundle::Push {
            bundle,
            check,
            wait,
            json,
        } => push(&bundle, check, wait, json).await,
    }
}

async fn push(bundle: &Path, check: bool, wait: bool, json: bool) -> Result<(), Failure> {
    let client = super::cloud()?;
    let uploaded = upload(&client, bundle, check).await?;
    let ended =
        |bundle: &DeploymentBundle| matches!(bundle.state, BundleState::Done | BundleState::Error);
    let result = if (wait || check) && !ended(&uploaded) {
        follow(&client, uploaded).await?
    } else {
        uploaded
    };
    if json {
        table::json(&result)?;
    } else {
        show(&result);
    }
    if result.state == BundleState::Error {
        let hint = result.stages.iter().find_map(|stage| stage.hint.clone());
        let failure = Failure::new(format!("the cloud refused the bundle {}", bundle.display()))
            .why(result.build_info)
            .exit(Exit::Refused);
        return Err(match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
    Ok(())
}

/// Sends the file, with a bar on a terminal.
async fn upload(client: &Client, path: &Path, check: bool) -> Result<DeploymentBundle, Failure> {
    let what = || format!("cannot read the bundle {}", path.display());
    let file = tokio::fs::File::open(path).await.or_fail(what)?;
    let size = file.metadata().await.or_fail(what)?.len();
    let name = path.file_name().map_or_else(
        || "batch.tar.gz".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let bar = progress::bytes(&name, size);
    let counting = bar.clone();
    let bytes = ReaderStream::with_capacity(file, 64 << 10).inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            counting.inc(chunk.len() as u64);
        }
    });
    let part =
        reqwest::multipart::Part::stream_with_length(reqwest::Body::wrap_stream(bytes), size)
            .file_name(name);
    let query = UploadQuery {
        check: check.then_some(true),
        wait: None,
    };
    let result = client.upload(paths::BUNDLE_UPLOAD, &query, part).await;
    bar.finish_and_clear();
    result
}

/// Waits until the cloud is through with a bundle.
async fn follow(client: &Client, bundle: DeploymentBundle) -> Result<DeploymentBundle, Failure> {
    let path = paths::fill(paths::BUNDLE, &[&bundle.id.to_string()]);
    let spinner = Spinner::new(&bundle.file_name);
    let mut changes = client.events().await?;
    loop {
        let now: DeploymentBundle = client.get(&path).await?;
        if matches!(now.state, BundleState::Done | BundleState::Error) {
            spinner.done();
            return Ok(now);
        }
        let stage = now
            .stages
            .iter()
            .find(|stage| stage.state == StageState::Running);
        spinner.say(stage.map_or("waiting", |stage| stage_name(stage.stage)));
        // An event may have passed before the stream stood, so it is read again in any case.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), changes.next()).await;
    }
}

fn stage_name(stage: BundleStage) -> &'static str {
    match stage {
        BundleStage::Receive => "received",
        BundleStage::Verify => "signature",
        BundleStage::Read => "schema",
        BundleStage::Convert => "images",
        BundleStage::Publish => "versions",
    }
}

fn show(bundle: &DeploymentBundle) {
    let mut out = table::table(&["stage", "outcome", "found"]);
    for stage in &bundle.stages {
        out.add_row([
            comfy_table::Cell::new(stage_name(stage.stage)),
            table::state(table::word(&stage.state)),
            comfy_table::Cell::new(&stage.message),
        ]);
    }
    table::show(&out, "");
    for item in &bundle.items {
        let word = match (bundle.state, bundle.is_check) {
            (BundleState::Done, true) => "can be published",
            (BundleState::Done, false) => "is ready",
            (BundleState::Error, _) => "is not published",
            _ => "is being processed",
        };
        table::say(format!(
            "{} {} {} ({}) {word}",
            item.item_type,
            item.codename,
            item.version,
            item.platforms.join(", ")
        ));
    }
}
