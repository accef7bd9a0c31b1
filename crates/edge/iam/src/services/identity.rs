use aos_ipc::proto::iamanager::{
    ApiVersion,
    iam_version_service_server::IamVersionService,
    v6::{self as pb, iam_public_identity_service_server::IamPublicIdentityService},
};
use aos_types::{SubjectId, SystemId};
use tonic::{Request, Response, Status};

use super::feed::{Feed, Feeds};

/// Who the Unit is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub system_id: SystemId,
    pub unit_model: String,
    pub version: String,
    pub subjects: Vec<SubjectId>,
}

/// Answers which generation of iamanager this is.
pub(super) struct Version;

#[tonic::async_trait]
impl IamVersionService for Version {
    async fn get_api_version(&self, _: Request<()>) -> Result<Response<ApiVersion>, Status> {
        Ok(Response::new(ApiVersion { version: 6 }))
    }
}

pub(super) struct IdentityService {
    pub identity: Identity,
    pub feeds: Feeds,
}

#[tonic::async_trait]
impl IamPublicIdentityService for IdentityService {
    async fn get_system_info(&self, _: Request<()>) -> Result<Response<pb::SystemInfo>, Status> {
        Ok(Response::new(pb::SystemInfo {
            system_id: self.identity.system_id.to_string(),
            unit_model: self.identity.unit_model.clone(),
            version: self.identity.version.clone(),
        }))
    }

    async fn get_subjects(&self, _: Request<()>) -> Result<Response<pb::Subjects>, Status> {
        let subjects = &self.identity.subjects;
        Ok(Response::new(pb::Subjects {
            subjects: subjects.iter().map(ToString::to_string).collect(),
        }))
    }

    type SubscribeSubjectsChangedStream = Feed<pb::Subjects>;

    /// The Subjects stand in the configuration, so nothing ever comes; the stream stays open as subscribers expect.
    async fn subscribe_subjects_changed(
        &self,
        _: Request<()>,
    ) -> Result<Response<Self::SubscribeSubjectsChangedStream>, Status> {
        Ok(self
            .feeds
            .open(|sender| async move { sender.closed().await }))
    }
}
