//! Certificates of the Unit are renewed: the cloud orders it, IAM makes keys and requests, the cloud issues, IAM takes the
//! certificates, and the cloud is told.
//!
//! Nothing of it is stored here. An order that is lost half-way is given again by the cloud, which keeps it until every
//! certificate is confirmed; a key that never got its certificate is dropped by IAM in time.

use std::{collections::BTreeMap, sync::Arc};

use aos_cloud_protocol::{
    Body, CertificateRequest, InstallUnitCertificatesConfirmation, InstalledCertificate,
    IssueUnitCertificates, IssuedUnitCertificates, RenewCertificatesNotification,
};
use aos_session::Priority;
use aos_types::NodeId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::{Link, Outgoing},
    contract::Iam,
};

/// What the cloud says about certificates, with the correlation id to answer with.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// Some are to be renewed.
    Order(RenewCertificatesNotification, Option<String>),
    /// They were issued.
    Issued(IssuedUnitCertificates, Option<String>),
}

/// Deals with renewals one after the other, until the stop.
pub(crate) async fn run(
    mut renewals: mpsc::Receiver<Renewal>,
    iam: Arc<dyn Iam>,
    link: Link,
    main: NodeId,
    stop: CancellationToken,
) {
    loop {
        // Receiving is cancel-safe; a call to IAM that is dropped is ordered again by the cloud.
        let renewal = tokio::select! {
            renewal = renewals.recv() => renewal,
            () = stop.cancelled() => return,
        };
        let Some(renewal) = renewal else {
            return stop.cancelled().await;
        };
        let answers = async {
            match renewal {
                Renewal::Order(order, id) => (request(iam.as_ref(), order).await, id),
                Renewal::Issued(issued, id) => {
                    let said = install(iam.as_ref(), issued, &main).await;
                    (vec![confirmation(said)], id)
                }
            }
        };
        let (bodies, id) = tokio::select! {
            answers = answers => answers,
            () = stop.cancelled() => return,
        };
        for body in bodies {
            let message = Outgoing::durable(body, Priority::High);
            link.send(message.answering(id.clone())).await;
        }
    }
}

/// Has keys made. One that cannot be made does not keep the others from being renewed.
async fn request(iam: &dyn Iam, order: RenewCertificatesNotification) -> Vec<Body> {
    let secrets: BTreeMap<_, _> = order
        .unit_secrets
        .nodes
        .iter()
        .map(|one| (one.node.clone(), one.secret.expose().to_owned()))
        .collect();
    let (mut requests, mut failed) = (Vec::new(), Vec::new());
    for one in order.certificates {
        let kind = one.cert_type.as_str();
        let secret = secrets.get(&one.node).map_or("", String::as_str);
        match iam.create_key(&one.node, kind, secret).await {
            Ok(csr) => requests.push(CertificateRequest {
                cert_type: one.cert_type,
                node: one.node,
                csr,
            }),
            Err(error) => {
                tracing::warn!(node = %one.node, kind, %error, "no key could be made for a certificate that is to be renewed");
                failed.push(InstalledCertificate {
                    cert_type: one.cert_type,
                    node: one.node,
                    serial: one.serial.unwrap_or_default(),
                    error: Some(error),
                });
            }
        }
    }
    let mut bodies = Vec::new();
    if !requests.is_empty() {
        bodies.push(Body::IssueUnitCertificates(IssueUnitCertificates {
            requests,
        }));
    }
    if !failed.is_empty() {
        bodies.push(confirmation(failed));
    }
    bodies
}

/// Has certificates taken into use: other Nodes first, and of each Node `iam` last, because what carries the next order
/// must not change before it; this Node is the last.
async fn install(
    iam: &dyn Iam,
    issued: IssuedUnitCertificates,
    main: &NodeId,
) -> Vec<InstalledCertificate> {
    let mut certificates = issued.certificates;
    certificates.sort_by_key(|one| {
        let of_iam = one.cert_type == aos_cloud_protocol::CertType::Iam;
        (one.node == *main, one.node.clone(), of_iam, one.cert_type)
    });
    let mut said = Vec::new();
    for one in certificates {
        let kind = one.cert_type.as_str();
        let applied = iam
            .apply_cert(&one.node, kind, &one.certificate_chain)
            .await;
        match &applied {
            Ok(serial) => {
                tracing::info!(node = %one.node, kind, serial, "a certificate is renewed")
            }
            Err(error) => {
                tracing::warn!(node = %one.node, kind, %error, "a certificate that was issued is not in use");
            }
        }
        said.push(InstalledCertificate {
            cert_type: one.cert_type,
            node: one.node,
            serial: applied.as_ref().cloned().unwrap_or_default(),
            error: applied.err(),
        });
    }
    said
}

fn confirmation(certificates: Vec<InstalledCertificate>) -> Body {
    Body::InstallUnitCertificatesConfirmation(InstallUnitCertificatesConfirmation { certificates })
}
