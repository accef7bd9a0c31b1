//! `aos bundle`: make, check, sign and publish deployment bundles.

use std::path::{Path, PathBuf};

use aos_api::{BundleStage, BundleState, DeploymentBundle, StageState, UploadQuery, paths};
use aos_bundle::Problems;
use aos_pki::{KeyPair, Signer};
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
    /// Make the folder of a new bundle, with a service to start from.
    Init {
        /// Folder to make.
        folder: PathBuf,
        /// Name of the service in bundles; the folder's name if absent.
        #[arg(long)]
        codename: Option<String>,
        /// Architecture of its image, as OCI names it.
        #[arg(long, default_value = architecture())]
        architecture: String,
    },
    /// Say what is wrong with a bundle's folder, all of it at once.
    Check {
        /// The bundle's folder.
        folder: PathBuf,
    },
    /// Pack a bundle's folder and sign it with your certificate.
    Sign {
        /// The bundle's folder.
        folder: PathBuf,
        /// The file to write.
        #[arg(long, short, value_name = "FILE", default_value = "batch.tar.gz")]
        output: PathBuf,
    },
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
        Bundle::Init {
            folder,
            codename,
            architecture,
        } => init(&folder, codename, &architecture),
        Bundle::Check { folder } => check(&folder),
        Bundle::Sign { folder, output } => sign(&folder, &output),
        Bundle::Push {
            bundle,
            check,
            wait,
            json,
        } => push(&bundle, check, wait, json).await,
    }
}

/// The architecture of this machine, as OCI names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn init(folder: &Path, codename: Option<String>, architecture: &str) -> Result<(), Failure> {
    let name = codename
        .or_else(|| Some(folder.file_name()?.to_str()?.to_owned()))
        .ok_or_else(|| Failure::new("the bundle needs a name").hint("say --codename <name>"))?;
    let files = aos_bundle::init(folder, &name, architecture)
        .or_fail(|| format!("cannot make the bundle {}", folder.display()))?;
    for file in files {
        table::say(format!("made {}", file.display()));
    }
    table::say(format!(
        "next: `aos bundle check {0}`, then `aos bundle push {0}`",
        folder.display()
    ));
    Ok(())
}

fn check(folder: &Path) -> Result<(), Failure> {
    let checked = aos_bundle::check(folder).map_err(|problems| wrong(folder, &problems))?;
    warn(&checked.warnings);
    for item in &checked.config.items {
        table::say(format!("{} {} can be signed", item.codename, item.version));
    }
    Ok(())
}

fn sign(folder: &Path, output: &Path) -> Result<(), Failure> {
    let home = crate::home::Home::find()?;
    home.cloud()?;
    let key = KeyPair::from_pem(&home.read(&home.key_file())?)
        .or_fail(|| "cannot read your private key")?;
    let chain = aos_pki::certificates_from_pem(home.read(&home.certificate_file())?.as_bytes())
        .or_fail(|| "cannot read your certificate")?;
    let signer = Signer::new(&key, chain).or_fail(|| "your key cannot sign")?;
    let signed = aos_bundle::sign(folder, &signer, output).map_err(|error| match error {
        aos_bundle::SignError::Check(problems) => wrong(folder, &problems),
        other => Failure::because(
            format!("cannot sign the bundle {}", folder.display()),
            &other,
        ),
    })?;
    warn(&signed.warnings);
    table::say(format!(
        "signed {} ({})",
        signed.path.display(),
        indicatif::HumanBytes(signed.size)
    ));
    Ok(())
}

/// All that is wrong with a bundle, and what is probably not meant.
fn wrong(folder: &Path, problems: &Problems) -> Failure {
    warn(problems);
    problems
        .errors()
        .fold(
            Failure::new(format!("the bundle {} cannot be signed", folder.display())),
            |failure, problem| failure.why(problem.to_string()),
        )
        .hint("mend this and check again; `aos bundle init` writes a config.yaml that explains its keys")
        .exit(Exit::Refused)
}

#[allow(
    clippy::print_stderr,
    reason = "warnings must not mix with what a command answers"
)]
fn warn(problems: &Problems) {
    for problem in problems.warnings() {
        eprintln!("warning: {problem}");
    }
}

async fn push(bundle: &Path, check: bool, wait: bool, json: bool) -> Result<(), Failure> {
    let client = super::cloud()?;
    let scratch;
    let file = if bundle.is_dir() {
        scratch = tempfile::tempdir().or_fail(|| "cannot make a folder for the signed bundle")?;
        let name = bundle
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let file = scratch.path().join(format!("{name}.tar.gz"));
        sign(bundle, &file)?;
        file
    } else {
        bundle.to_path_buf()
    };
    let uploaded = upload(&client, &file, check).await?;
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
