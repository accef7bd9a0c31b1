//! The way of a bundle from an upload to versions that can be assigned, stage by stage, each visible to people.
//!
//! Nothing is stored half: blobs are written first and mean nothing by themselves; services, versions and the bundle's
//! end are one transaction. Blobs of a bundle that is refused late are collected as orphans.

mod failure;
mod receive;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aos_api::{
    BundleItem, BundleStage, BundleStageReport, BundleState, DeploymentBundle, StageState,
};
use aos_bundle::{ConvertError, ConvertedItem, OpenError, Opened, SignerCertificate};
use aos_db::{Actor, BlobRow, NewVersion};
use aos_image::BlobStore;
use aos_types::{ItemId, ItemType};
use uuid::Uuid;

pub(crate) use receive::{Received, receive};

use crate::{ApiError, ApiState};
use failure::{Failure, place_of, refusal};

/// Works in the background; gives the bundle as it is at the start.
pub(crate) async fn start(
    state: ApiState,
    actor: Actor,
    received: Received,
    is_check: bool,
) -> Result<DeploymentBundle, ApiError> {
    let intake = Intake::new(state.clone(), actor, &received, is_check);
    intake.save().await?;
    let shown = intake.bundle.clone();
    state.tasks().spawn(async move {
        if let Err(error) = intake.run(received).await {
            tracing::error!(
                error = error.body().message,
                "a bundle could not be worked on"
            );
        }
    });
    Ok(shown)
}

/// Works until the end; gives the bundle as it is then.
pub(crate) async fn work(
    state: ApiState,
    actor: Actor,
    received: Received,
    is_check: bool,
) -> Result<DeploymentBundle, ApiError> {
    let intake = Intake::new(state.clone(), actor, &received, is_check);
    intake.save().await?;
    // A task of its own: the work goes on if the caller does not wait for the end.
    state
        .tasks()
        .spawn(intake.run(received))
        .await
        .map_err(|error| ApiError::internal(&error))?
}
struct Intake {
    state: ApiState,
    actor: Actor,
    bundle: DeploymentBundle,
    /// The services that others of the bundle depend on, by codename.
    needed: BTreeMap<String, Uuid>,
}

impl Intake {
    fn new(state: ApiState, actor: Actor, received: &Received, is_check: bool) -> Self {
        let now = state.db().now();
        let stage = |stage, of| BundleStageReport {
            stage,
            state: of,
            message: String::new(),
            hint: None,
            started_at: None,
            finished_at: None,
        };
        let mut stages = vec![stage(BundleStage::Receive, StageState::Done)];
        for later in [
            BundleStage::Verify,
            BundleStage::Read,
            BundleStage::Convert,
            BundleStage::Publish,
        ] {
            stages.push(stage(later, StageState::Waiting));
        }
        if let Some(first) = stages.first_mut() {
            first.message = format!("{} bytes", received.size);
            first.started_at = Some(now);
            first.finished_at = Some(now);
        }
        let bundle = DeploymentBundle {
            id: Uuid::now_v7(),
            state: BundleState::Uploaded,
            build_info: String::new(),
            is_check,
            file_name: received.name.clone(),
            file_size: received.size,
            sha256: received.sha256.clone(),
            signed_by: String::new(),
            created_by: actor.name().to_owned(),
            created_at: now,
            items: Vec::new(),
            stages,
        };
        Self {
            state,
            actor,
            bundle,
            needed: BTreeMap::new(),
        }
    }

    /// Works until the end. A fault of the cloud itself ends the bundle too, so that it is not "processing" for ever.
    async fn run(self, received: Received) -> Result<DeploymentBundle, ApiError> {
        let (state, actor, id) = (self.state.clone(), self.actor.clone(), self.bundle.id);
        let is_check = self.bundle.is_check;
        let worked = self.stages(received).await;
        if let Err(error) = &worked
            && !is_check
            && let Ok(bundle) = state.db().bundle(&actor, id).await
        {
            let running = bundle
                .stages
                .iter()
                .find(|stage| stage.state == StageState::Running)
                .map_or(BundleStage::Verify, |stage| stage.stage);
            let failure = Failure {
                message: error.body().message.clone(),
                hint: error.body().hint.clone(),
            };
            let intake = Self {
                state,
                actor,
                bundle,
                needed: BTreeMap::new(),
            };
            if let Err(error) = intake.fail(running, failure).await {
                tracing::error!(error = error.body().message, "a bundle stays as it is");
            }
        }
        worked
    }

    async fn stages(mut self, received: Received) -> Result<DeploymentBundle, ApiError> {
        let state = self.state.clone();
        let _turn = state
            .conversions()
            .acquire()
            .await
            .map_err(|error| ApiError::internal(&error))?;
        self.bundle.state = BundleState::Processing;
        self.begin(BundleStage::Verify).await?;
        let opened = match self.open(received).await? {
            Ok(opened) => opened,
            Err((stage, failure)) => return self.fail(stage, failure).await,
        };
        let converted = match self.convert(opened).await? {
            Ok(converted) => converted,
            Err(failure) => return self.fail(BundleStage::Convert, failure).await,
        };
        self.publish(converted).await
    }

    /// Signature, signer, form and content.
    async fn open(
        &mut self,
        received: Received,
    ) -> Result<Result<Opened, (BundleStage, Failure)>, ApiError> {
        let mut known = HashMap::new();
        for (serial, chain) in self.state.db().signer_certificates(&self.actor).await? {
            if let Ok(chain) = aos_pki::certificates_from_pem(chain.as_bytes()) {
                known.insert(serial, chain);
            }
        }
        let options = self.state.options();
        let (caps, roots, scratch) = (
            options.caps,
            options.authority.roots(),
            options.scratch.clone(),
        );
        let now = self.state.db().now();
        let stop = self.state.stop().clone();
        let opened = tokio::task::spawn_blocking(move || {
            let by_serial = |serial: &str| {
                known
                    .iter()
                    .find(|(known, _)| aos_pki::same_serial(known, serial))
                    .map(|(_, chain)| SignerCertificate {
                        chain: chain.clone(),
                    })
            };
            let file = received.file.reopen().map_err(|source| OpenError::Io {
                action: "open",
                path: received.file.path().to_owned(),
                source,
            })?;
            aos_bundle::open(
                std::io::BufReader::new(file),
                &caps,
                &roots,
                &by_serial,
                now,
                &scratch,
                &stop,
            )
        })
        .await
        .map_err(|error| ApiError::internal(&error))?;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let (stage, hint) = place_of(&error);
                return Ok(Err((stage, Failure::of(&error, hint))));
            }
        };
        let signer = self
            .state
            .db()
            .user_of_certificate(&opened.signer.fingerprint.to_string())
            .await?;
        match signer {
            Some(user) if user.tenant.id == self.actor.tenant() => {
                self.bundle.signed_by = user.username;
            }
            _ => {
                return Ok(Err((
                    BundleStage::Verify,
                    Failure::new(
                        format!(
                            "the signer's certificate (serial {}) is not one of this organisation's users",
                            opened.signer.serial
                        ),
                        "sign it with a certificate that `aos login` got from this cloud",
                    ),
                )));
            }
        }
        let signed_by = format!("signed by {}", self.bundle.signed_by);
        self.end(BundleStage::Verify, signed_by).await?;
        self.begin(BundleStage::Read).await?;
        self.bundle.items = opened
            .config
            .items
            .iter()
            .map(|item| BundleItem {
                item_type: item.item_type.to_string(),
                codename: item.codename.clone(),
                title: item.title.clone(),
                version: item.version.to_string(),
                service_id: None,
                platforms: item
                    .images
                    .iter()
                    .map(|image| platform(&image.os, &image.architecture, &image.variant))
                    .collect(),
            })
            .collect();
        if let Some(item) = opened
            .config
            .items
            .iter()
            .find(|item| item.item_type != ItemType::Service)
        {
            return Ok(Err((
                BundleStage::Read,
                Failure::new(
                    format!(
                        "{} is a {}, and this cloud delivers services only",
                        item.codename, item.item_type
                    ),
                    "leave it out",
                ),
            )));
        }
        let versions: Vec<_> = opened
            .config
            .items
            .iter()
            .map(|item| (item.codename.clone(), item.version.clone()))
            .collect();
        if let Err(error) = self.state.db().check_versions(&self.actor, &versions).await {
            return Ok(Err((BundleStage::Read, refusal(ApiError::from(error))?)));
        }
        let mut found = self
            .bundle
            .items
            .iter()
            .map(|item| format!("{} {}", item.codename, item.version))
            .collect::<Vec<_>>()
            .join(", ");
        for warning in opened.warnings.warnings().take(20) {
            found.push_str("\nwarning: ");
            found.push_str(&warning.to_string());
        }
        self.end(BundleStage::Read, found).await?;
        Ok(Ok(opened))
    }

    /// The services that items of the bundle depend on: those that are known, and those that the bundle brings.
    async fn needed_by(&self, opened: &Opened) -> Result<BTreeMap<String, Uuid>, ApiError> {
        let items = &opened.config.items;
        let named: BTreeSet<String> = items
            .iter()
            .flat_map(|item| &item.dependencies)
            .map(|dependency| dependency.codename.clone())
            .collect();
        let db = self.state.db();
        let mut needed = db.service_ids(&self.actor, &named).await?;
        for name in named {
            if items.iter().any(|item| item.codename == name) {
                needed.entry(name).or_insert_with(Uuid::now_v7);
            }
        }
        Ok(needed)
    }

    async fn convert(
        &mut self,
        opened: Opened,
    ) -> Result<Result<Vec<ConvertedItem>, Failure>, ApiError> {
        self.begin(BundleStage::Convert).await?;
        self.needed = self.needed_by(&opened).await?;
        let ids: BTreeMap<String, ItemId> = self
            .needed
            .iter()
            .filter_map(|(name, id)| Some((name.clone(), ItemId::new(id.to_string()).ok()?)))
            .collect();
        let is_check = self.bundle.is_check;
        let blobs = self.state.options().blobs.clone();
        let scratch = self.state.options().scratch.clone();
        let stop = self.state.stop().clone();
        let converted = tokio::task::spawn_blocking(move || {
            const HINT: &str = "the cloud's disk or the bundle's files are at fault";
            let hint = |error: &ConvertError| match error {
                ConvertError::Dependency { .. } => "look for the codename with `aos service list`",
                _ => HINT,
            };
            if !is_check {
                return aos_bundle::convert(&opened, &ids, &blobs, &stop)
                    .map_err(|error| Failure::of(&error, hint(&error)));
            }
            // A check leaves nothing behind, so it writes to a folder that goes.
            let folder = tempfile::Builder::new()
                .prefix("check-")
                .tempdir_in(&scratch)
                .map_err(|error| Failure::of(&error, HINT))?;
            let blobs =
                BlobStore::open(folder.path()).map_err(|error| Failure::of(&error, HINT))?;
            aos_bundle::convert(&opened, &ids, &blobs, &stop)
                .map_err(|error| Failure::of(&error, hint(&error)))
        })
        .await
        .map_err(|error| ApiError::internal(&error))?;
        let converted = match converted {
            Ok(converted) => converted,
            Err(failure) => return Ok(Err(failure)),
        };
        let text = format!(
            "{} blobs, {} bytes",
            converted.iter().map(|item| item.blobs.len()).sum::<usize>(),
            converted
                .iter()
                .flat_map(|item| &item.blobs)
                .map(|blob| blob.size)
                .sum::<u64>()
        );
        self.end(BundleStage::Convert, text).await?;
        Ok(Ok(converted))
    }

    async fn publish(
        mut self,
        converted: Vec<ConvertedItem>,
    ) -> Result<DeploymentBundle, ApiError> {
        if self.bundle.is_check {
            self.bundle.state = BundleState::Done;
            self.stage(BundleStage::Publish, |stage| {
                stage.state = StageState::Skipped;
                stage.message = "not published: this was a check".into();
            });
            return Ok(self.bundle);
        }
        self.begin(BundleStage::Publish).await?;
        let mut versions = Vec::new();
        for item in converted {
            let service = self.needed.get(&item.codename).copied();
            versions.push(version(item, service)?);
        }
        // The end of the bundle is part of the transaction, so it is written down before.
        let before = self.bundle.clone();
        let now = self.state.db().now();
        self.bundle.state = BundleState::Done;
        self.stage(BundleStage::Publish, |stage| {
            stage.state = StageState::Done;
            stage.message = "ready to be assigned; Units that have it assigned get it now".into();
            stage.finished_at = Some(now);
        });
        let published = self
            .state
            .db()
            .publish_bundle(&self.actor, &mut self.bundle, &versions)
            .await;
        match published {
            Ok(()) => Ok(self.bundle),
            Err(error) => {
                self.bundle = before;
                let failure = refusal(ApiError::from(error)).unwrap_or_else(|_| {
                    Failure::new("the store failed", "the cloud's log says more")
                });
                self.fail(BundleStage::Publish, failure).await
            }
        }
    }

    fn stage(&mut self, which: BundleStage, change: impl FnOnce(&mut BundleStageReport)) {
        if let Some(stage) = self
            .bundle
            .stages
            .iter_mut()
            .find(|stage| stage.stage == which)
        {
            change(stage);
        }
    }

    async fn begin(&mut self, which: BundleStage) -> Result<(), ApiError> {
        let now = self.state.db().now();
        self.stage(which, |stage| {
            stage.state = StageState::Running;
            stage.started_at = Some(now);
        });
        self.save().await
    }

    async fn end(&mut self, which: BundleStage, message: String) -> Result<(), ApiError> {
        let now = self.state.db().now();
        self.stage(which, |stage| {
            stage.state = StageState::Done;
            stage.message = message;
            stage.finished_at = Some(now);
        });
        self.save().await
    }

    async fn fail(
        mut self,
        which: BundleStage,
        failure: Failure,
    ) -> Result<DeploymentBundle, ApiError> {
        let now = self.state.db().now();
        self.bundle.state = BundleState::Error;
        self.bundle.build_info.clone_from(&failure.message);
        for stage in &mut self.bundle.stages {
            if stage.stage == which {
                stage.state = StageState::Failed;
                stage.message.clone_from(&failure.message);
                stage.hint.clone_from(&failure.hint);
                stage.started_at = stage.started_at.or(Some(now));
                stage.finished_at = Some(now);
            } else if matches!(stage.state, StageState::Waiting | StageState::Running) {
                // A stage that was entered together with the one that failed had nothing to complain of.
                stage.state = if stage.started_at.is_some() {
                    StageState::Done
                } else {
                    StageState::Skipped
                };
            }
        }
        self.save().await?;
        Ok(self.bundle)
    }

    async fn save(&self) -> Result<(), ApiError> {
        if !self.bundle.is_check {
            self.state
                .db()
                .put_bundle(&self.actor, &self.bundle)
                .await?;
        }
        Ok(())
    }
}
fn platform(os: &str, architecture: &str, variant: &str) -> String {
    let mut text = format!("{os}/{architecture}");
    if !variant.is_empty() {
        text.push('/');
        text.push_str(variant);
    }
    text
}

fn version(item: ConvertedItem, service: Option<Uuid>) -> Result<NewVersion, ApiError> {
    Ok(NewVersion {
        service,
        codename: item.codename,
        title: item.title,
        description: item.description,
        version: item.version,
        index_digest: item.index.to_string(),
        configuration: serde_json::to_value(&item.item_config)
            .map_err(|error| ApiError::internal(&error))?,
        platforms: item
            .platforms
            .iter()
            .map(|p| platform(&p.os, &p.architecture, &p.variant))
            .collect(),
        labels: item.instances.labels,
        priority: item.instances.priority,
        min_num_instances: item.instances.min,
        default_state: item.default_state,
        blobs: item
            .blobs
            .into_iter()
            .map(|blob| BlobRow {
                digest: blob.digest,
                size: blob.size,
                sha3_256: hex::encode(blob.sha3_256),
                signature: String::new(),
            })
            .collect(),
    })
}
