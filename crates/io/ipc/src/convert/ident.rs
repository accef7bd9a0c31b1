use aos_types::{InstanceIdent, ItemType};

use super::{Unreadable, id};
use crate::proto::common::v2 as pb;

/// Reads an instance ident. An item type the proto does not know is taken for a service.
pub fn ident_from_proto(ident: Option<pb::InstanceIdent>) -> Result<InstanceIdent, Unreadable> {
    let ident = ident.ok_or(Unreadable::Missing { field: "instance" })?;
    let item_type = match ident.r#type() {
        pb::ItemType::Service => ItemType::Service,
        pb::ItemType::Component => ItemType::Component,
    };
    Ok(InstanceIdent {
        item: id("instance.item_id", &ident.item_id)?,
        subject: id("instance.subject_id", &ident.subject_id)?,
        index: ident.instance,
        item_type,
        preinstalled: ident.preinstalled,
    })
}

/// Writes an instance ident. A layer has no instances, so it is written as a service.
pub fn ident_to_proto(ident: &InstanceIdent) -> pb::InstanceIdent {
    let item_type = match ident.item_type {
        ItemType::Service | ItemType::Layer => pb::ItemType::Service,
        ItemType::Component => pb::ItemType::Component,
    };
    pb::InstanceIdent {
        item_id: ident.item.to_string(),
        subject_id: ident.subject.to_string(),
        instance: ident.index,
        r#type: item_type.into(),
        preinstalled: ident.preinstalled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ident_survives_the_wire_and_a_path_is_refused() {
        let ident = InstanceIdent {
            item: "item".parse().unwrap(),
            subject: "subject".parse().unwrap(),
            index: 7,
            item_type: ItemType::Component,
            preinstalled: true,
        };
        let mut wire = ident_to_proto(&ident);
        assert_eq!(ident_from_proto(Some(wire.clone())).unwrap(), ident);
        wire.item_id = "../x".into();
        assert!(matches!(
            ident_from_proto(Some(wire)),
            Err(Unreadable::Id {
                field: "instance.item_id",
                ..
            })
        ));
        assert!(matches!(
            ident_from_proto(None),
            Err(Unreadable::Missing { field: "instance" })
        ));
    }
}
