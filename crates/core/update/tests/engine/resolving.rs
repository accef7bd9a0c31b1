use aos_update::{Desired, Part, Target, Unreadable, resolve};

use crate::given::*;

fn in_force() -> Target {
    resolve(
        desired("1.0.0", &[("a", "1", 1), ("b", "1", 2)]),
        &Target::default(),
    )
    .0
}

fn unreadable(part: Part, name: Option<&str>) -> Unreadable {
    Unreadable {
        part,
        name: name.map(Into::into),
        error: "`indexDigest` is not a digest".into(),
    }
}

#[test]
fn absent_lists_stay_and_only_an_empty_one_removes() {
    let base = in_force();
    let (target, notes) = resolve(Desired::default(), &base);
    assert_eq!(target, base);
    assert!(notes.is_empty());
    let (target, _) = resolve(
        Desired {
            items: Some(vec![]),
            instances: Some(vec![]),
            ..Desired::default()
        },
        &base,
    );
    assert!(target.items.is_empty() && target.instances.is_empty());
    assert_eq!(target.unit_config, base.unit_config);
    assert_eq!(target.nodes, base.nodes);
}

#[test]
fn an_unreadable_element_stays_as_it_is() {
    let base = in_force();
    let mut came = desired("1.0.0", &[("a", "2", 1)]);
    came.unreadable = vec![
        unreadable(Part::Items, Some("b")),
        unreadable(Part::Instances, Some("b")),
    ];
    let (target, notes) = resolve(came, &base);
    assert_eq!(target.item(&item_id("a")).unwrap().version, "2");
    assert_eq!(target.item(&item_id("b")).unwrap().version, "1");
    assert_eq!(target.instances.len(), 2);
    assert_eq!(
        notes[0].text,
        "`b` stays as it is: `indexDigest` is not a digest"
    );
}

#[test]
fn a_nameless_unreadable_element_keeps_its_whole_list() {
    let base = in_force();
    let mut came = desired("1.0.0", &[("a", "2", 1)]);
    came.unreadable = vec![unreadable(Part::Items, None)];
    let (target, notes) = resolve(came, &base);
    assert_eq!(target.items, base.items);
    assert_eq!(target.instances.len(), 1, "the other list is as it came");
    assert!(notes[0].text.starts_with("the whole list stays"));
}

#[test]
fn doubles_and_instances_without_an_item_are_left_out_with_a_note() {
    let mut came = desired("1.0.0", &[("a", "1", 1), ("a", "2", 1)]);
    came.instances.as_mut().unwrap().push(run("ghost", 1));
    let (target, notes) = resolve(came, &Target::default());
    assert_eq!(target.items.len(), 1);
    assert_eq!(target.items[0].version, "1");
    assert_eq!(target.instances.len(), 1);
    assert_eq!(notes.len(), 3, "{notes:?}");
}
