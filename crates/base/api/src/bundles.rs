use aos_time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How far a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BundleState {
    /// It is here and waits.
    Uploaded,
    /// It is being verified and converted.
    Processing,
    /// Its items are ready to be assigned; after a check: they would be.
    Done,
    /// It was refused; nothing of it is stored.
    Error,
}

/// A step of the way from a file to versions that can be assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BundleStage {
    /// Taking the file in.
    Receive,
    /// The signature, and whether its certificate is a user's of this cloud.
    Verify,
    /// `config.yaml` against the schema.
    Read,
    /// Building OCI images, item configurations and indexes.
    Convert,
    /// Making the versions visible, all at once.
    Publish,
}

/// Outcome of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// Not begun.
    Waiting,
    /// Under way.
    Running,
    /// Went well.
    Done,
    /// Failed: the text says why.
    Failed,
    /// Not done, because of an earlier failure or because this was a check.
    Skipped,
}

/// One stage of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleStageReport {
    /// Which.
    pub stage: BundleStage,
    /// Its outcome.
    pub state: StageState,
    /// What was found, or what failed and why.
    pub message: String,
    /// What to do about a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When it began.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// A deployment bundle and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentBundle {
    /// Id.
    pub id: Uuid,
    /// How far it is.
    pub state: BundleState,
    /// In one sentence why the state is `error`; otherwise empty.
    pub build_info: String,
    /// A dry run: nothing is published.
    pub is_check: bool,
    /// Name of the file as uploaded.
    pub file_name: String,
    /// Bytes.
    pub file_size: u64,
    /// SHA-256 of the file in hex.
    pub sha256: String,
    /// Whose certificate signed it; empty until that is verified.
    pub signed_by: String,
    /// Who uploaded it.
    pub created_by: String,
    /// When it was uploaded.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// What it holds, as far as that is known.
    pub items: Vec<BundleItem>,
    /// All stages in order.
    pub stages: Vec<BundleStageReport>,
}

/// An item of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BundleItem {
    /// `service`, `component` or `layer`.
    pub item_type: String,
    /// Name in bundles.
    pub codename: String,
    /// Name for people.
    pub title: String,
    /// SemVer.
    pub version: String,
    /// The service it became a version of, once published.
    pub service_id: Option<Uuid>,
    /// What it can run on, as `os/architecture[/variant]`.
    pub platforms: Vec<String>,
}

/// `POST /deployment-bundles/upload/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// Do all but publish, and keep nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<bool>,
    /// Answer when all is done (`true`), or at once with state `processing`. Absent: at once, except for a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
}

/// The form of an upload.
#[derive(ToSchema)]
pub struct UploadForm {
    /// `batch.tar.gz` as `aos bundle sign` and aos-signer write it.
    #[schema(value_type = String, format = Binary)]
    pub file: Vec<u8>,
}
