use aos_cloud_protocol::AlertEvent;
use aos_schedule::{Cause, Plan, Rule, Unplaced};

/// An alert of an instance that has no place because something is used up or not there; nothing if it is for other reasons,
/// which its status tells. The Node that came first speaks; the text names others too.
pub(super) fn alert(plan: &Plan, unplaced: &Unplaced) -> Option<AlertEvent> {
    if !matches!(unplaced.cause, Cause::Nowhere(_)) {
        return None;
    }
    let (node, device) = plan
        .excluded(&unplaced.excluded)
        .find_map(|(node, rule)| Some((node, resource(rule)?)))?;
    Some(AlertEvent::ResourceAllocate {
        instance: unplaced.ident.clone(),
        node: node.clone(),
        device,
        message: unplaced.reason.to_string(),
    })
}

/// What is lacking, if it is something that is given away.
fn resource(rule: &Rule) -> Option<String> {
    Some(match rule {
        Rule::NoResource(name) | Rule::ResourceTaken(name, _) => name.to_string(),
        Rule::Port(port, protocol, _) => format!("port {port}/{protocol}"),
        Rule::Cpu(..) => "cpu".into(),
        Rule::Ram(..) => "ram".into(),
        Rule::Storage(..) => "storage".into(),
        Rule::State(..) => "state".into(),
        Rule::Instances(_) => "instances".into(),
        _ => return None,
    })
}
