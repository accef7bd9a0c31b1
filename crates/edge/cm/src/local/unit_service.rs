use aos_ipc::proto::aos::unit::v1 as pb;
use aos_types::InvalidId;
use tonic::{Request, Response, Status};

use super::{Local, chain::Question};
use crate::gates;

/// `aos.unit.v1` `UnitService`.
pub(super) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Self { local }
    }
}

#[tonic::async_trait]
impl pb::unit_service_server::UnitService for Service {
    async fn why(
        &self,
        request: Request<pb::WhyRequest>,
    ) -> Result<Response<pb::WhyResponse>, Status> {
        self.local.allow(&request)?;
        let asked = request.into_inner();
        let bad = |field: &'static str| {
            move |error: InvalidId| Status::invalid_argument(format!("{field}: {error}"))
        };
        let question = Question {
            item: asked
                .item_id
                .map(|id| id.parse())
                .transpose()
                .map_err(bad("item_id"))?,
            subject: asked
                .subject_id
                .map(|id| id.parse())
                .transpose()
                .map_err(bad("subject_id"))?,
            index: asked.instance,
        };
        Ok(Response::new(self.local.explainer()?.answer(&question)))
    }

    async fn get_update(
        &self,
        request: Request<pb::GetUpdateRequest>,
    ) -> Result<Response<pb::GetUpdateResponse>, Status> {
        self.local.allow(&request)?;
        Ok(Response::new(gates::shown(self.local.desk()?)))
    }

    async fn consent(
        &self,
        request: Request<pb::ConsentRequest>,
    ) -> Result<Response<pb::ConsentResponse>, Status> {
        self.local.allow(&request)?;
        gates::consent(self.local.desk()?, request.into_inner()).await?;
        Ok(Response::new(pb::ConsentResponse {}))
    }

    async fn start_update(
        &self,
        request: Request<pb::StartUpdateRequest>,
    ) -> Result<Response<pb::StartUpdateResponse>, Status> {
        self.local.allow(&request)?;
        gates::start(self.local.desk()?, request.get_ref()).await?;
        Ok(Response::new(pb::StartUpdateResponse {}))
    }

    async fn report_readiness(
        &self,
        request: Request<pb::ReportReadinessRequest>,
    ) -> Result<Response<pb::ReportReadinessResponse>, Status> {
        self.local.allow(&request)?;
        gates::report_readiness(self.local.desk()?, request.into_inner())?;
        Ok(Response::new(pb::ReportReadinessResponse {}))
    }
}
