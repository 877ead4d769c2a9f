//! Names of topics and channels with holes: `cdc:{section}s`, `__dataChanged:{partition}:{section}:{key}`.

use smartpulse_pipeline::Event;
use smartpulse_pipeline::registry::Check;

/// What stands in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    Partition,
    Section,
    Key,
}

const HOLES: [(&str, Hole); 3] = [("{partition}", Hole::Partition), ("{section}", Hole::Section), ("{key}", Hole::Key)];

/// A name with holes, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameTemplate {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(Hole),
}

impl NameTemplate {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            let Some((name, hole)) = HOLES.iter().find(|(name, _)| from.starts_with(name)) else {
                let names = HOLES.map(|(name, _)| name).join(", ");
                return Err(format!("`{text}` has a `{{` that begins none of {names}"));
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Hole(*hole));
            rest = &from[name.len()..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        match pieces.is_empty() {
            true => Err("the name is empty".to_owned()),
            false => Ok(Self { pieces }),
        }
    }

    /// The name for an event.
    pub fn name(&self, event: &Event, partition: &str) -> String {
        let mut name = String::new();
        for piece in &self.pieces {
            name.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Hole(Hole::Partition) => partition,
                Piece::Hole(Hole::Section) => &event.section,
                Piece::Hole(Hole::Key) => &event.key,
            });
        }
        name
    }
}

/// Complains of a name that cannot be read.
pub(crate) fn check_name(pointer: &str, text: &str, check: &mut Check<'_>) {
    if let Err(reason) = NameTemplate::parse(text) {
        let help = "write it like `cdc:{section}s` or `__dataChanged:production:forecast:{key}`";
        check.problem(pointer, reason, Some(help.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smartpulse_pipeline::Operation;

    #[test]
    fn holes_are_filled_from_the_event() {
        let event = Event::new("forecast".into(), "f1".into(), 1, Operation::Insert, None);
        for (template, name) in [
            ("cdc:{section}s", "cdc:forecasts"),
            ("__dataChanged:{partition}:{section}:{key}", "__dataChanged:production:forecast:f1"),
            ("plain", "plain"),
        ] {
            assert_eq!(NameTemplate::parse(template).unwrap().name(&event, "production"), name);
        }
    }

    #[test]
    fn an_unknown_hole_is_refused() {
        assert!(NameTemplate::parse("a:{kee}").unwrap_err().contains("{partition}, {section}, {key}"));
        assert_eq!(NameTemplate::parse("").unwrap_err(), "the name is empty");
    }
}
