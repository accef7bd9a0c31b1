//! Finding what a person means: a Unit by system id, UUID or title, a Subject by label, and so on.

use aos_api::{Page, Service, Subject, Unit, UnitModel, UnitsQuery, paths};

use crate::client::Client;
use crate::failure::{Exit, Failure};

/// The Unit with this UUID, system id, or, if only one has it, title.
pub async fn unit(client: &Client, name: &str) -> Result<Unit, Failure> {
    let query = UnitsQuery {
        search: Some(name.to_owned()),
        limit: Some(1000),
        ..UnitsQuery::default()
    };
    let page: Page<Unit> = client.get_with(paths::UNITS, &query).await?;
    let exact = |unit: &&Unit| unit.system_uid == name || unit.id.to_string() == name;
    if let Some(unit) = page.items.iter().find(exact) {
        return Ok(unit.clone());
    }
    let titled: Vec<_> = page
        .items
        .iter()
        .filter(|unit| unit.title == name)
        .collect();
    match titled.as_slice() {
        [unit] => Ok((*unit).clone()),
        [] => match client.get(&paths::fill(paths::UNIT, &[name])).await {
            Ok(unit) => Ok(unit),
            Err(failure) if failure.code() == Exit::NotFound => {
                Err(absent("Unit", name, "aos unit ls"))
            }
            Err(failure) => Err(failure),
        },
        _ => Err(
            Failure::new(format!("more than one Unit has the title `{name}`"))
                .hint("name it by its system id: see `aos unit ls`"),
        ),
    }
}

/// The service with this UUID or codename.
pub async fn service(client: &Client, name: &str) -> Result<Service, Failure> {
    match client.get(&paths::fill(paths::SERVICE, &[name])).await {
        Err(failure) if failure.code() == Exit::NotFound => {
            Err(absent("service", name, "aos service ls"))
        }
        other => other,
    }
}

/// The Subject with this label or UUID, if there is one.
pub async fn subject(client: &Client, name: &str) -> Result<Option<Subject>, Failure> {
    let all: Vec<Subject> = client.all(paths::SUBJECTS).await?;
    Ok(all
        .into_iter()
        .find(|subject| subject.label == name || subject.id.to_string() == name))
}

/// The unit model `name;version` or with this UUID.
pub async fn model(client: &Client, name: &str) -> Result<UnitModel, Failure> {
    let all: Vec<UnitModel> = client.all(paths::UNIT_MODELS).await?;
    all.into_iter()
        .find(|model| {
            format!("{};{}", model.name, model.version) == name || model.id.to_string() == name
        })
        .ok_or_else(|| absent("unit model", name, "aos model ls"))
}

fn absent(kind: &str, name: &str, list: &str) -> Failure {
    Failure::new(format!("there is no {kind} `{name}`"))
        .hint(format!("`{list}` shows what there is"))
        .exit(Exit::NotFound)
}
