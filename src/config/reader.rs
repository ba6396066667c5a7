//! The TOML as written, asked key by key. Nothing stops at the first error: a reader answers
//! nothing, puts the error on the [`Report`], and the next key is asked.

use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::report::{At, Report};
use super::schema::{Portal, Schema};
use super::units::UnitError;

/// One table and the keys it may have.
pub(super) struct Fields<'d> {
    at: At,
    schema: &'static Schema,
    table: &'d DeTable<'d>,
}

impl<'d> Fields<'d> {
    /// The file itself.
    pub(super) fn of_file(
        schema: &'static Schema,
        table: &'d DeTable<'d>,
        report: &mut Report<'_>,
    ) -> Self {
        let at = At {
            place: String::new(),
            offset: None,
        };
        Self::new(at, schema, table, report)
    }

    fn new(
        at: At,
        schema: &'static Schema,
        table: &'d DeTable<'d>,
        report: &mut Report<'_>,
    ) -> Self {
        let fields = Self { at, schema, table };
        for key in table.keys() {
            if schema.find(key.get_ref()).is_none() {
                let at = At {
                    place: fields.place_of(&readable(key.get_ref())),
                    offset: Some(key.span().start),
                };
                report.error(&at, schema.unknown(key.get_ref()));
            }
        }
        fields
    }

    fn place_of(&self, name: &str) -> String {
        if self.at.place.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.at.place)
        }
    }

    /// Says which keys are the other portal's.
    pub(super) fn refuse_keys_of_the_other(&self, role: Portal, report: &mut Report<'_>) {
        for key in self.schema.keys {
            let Some(owner) = key.only.filter(|&owner| owner != role) else {
                continue;
            };
            if let Some(field) = self.get(key.name) {
                report.error(
                    &field.at,
                    format!(
                        "only the {} portal has it, and this file says role = \"{}\"",
                        owner.word(),
                        role.word()
                    ),
                );
            }
        }
    }

    /// Where a key stands, or would.
    pub(super) fn at(&self, name: &'static str) -> At {
        match self.get(name) {
            Some(field) => field.at,
            None => At {
                place: self.place_of(name),
                offset: self.at.offset,
            },
        }
    }

    /// Where the table stands.
    pub(super) fn own_at(&self) -> &At {
        &self.at
    }

    /// A key, if it is there.
    pub(super) fn get(&self, name: &'static str) -> Option<Field<'d>> {
        debug_assert!(
            self.schema.find(name).is_some(),
            "{name} is not in schema.rs"
        );
        let (key, value) = self.table.get_key_value(name)?;
        Some(Field {
            at: At {
                place: self.place_of(name),
                offset: Some(key.span().start),
            },
            value: value.get_ref(),
        })
    }

    /// A key that must be there; `need` says why, or what it may be.
    pub(super) fn need(
        &self,
        name: &'static str,
        need: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<'d>> {
        let field = self.get(name);
        if field.is_none() {
            report.missing(&self.at(name), format!("is missing ({need})"));
        }
        field
    }

    /// A word that may be left out; an error counts as left out, and is reported.
    pub(super) fn word<T: FromStr<Err = UnitError>>(
        &self,
        name: &'static str,
        report: &mut Report<'_>,
    ) -> Option<T> {
        self.get(name)?.word(report)
    }

    /// A whole number that may be left out.
    pub(super) fn number<T: TryFrom<i128>>(
        &self,
        name: &'static str,
        range: RangeInclusive<i128>,
        what: &str,
        report: &mut Report<'_>,
    ) -> Option<T> {
        self.get(name)?.number(range, what, report)
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &'static str, report: &mut Report<'_>) -> Option<bool> {
        let field = self.get(name)?;
        if let DeValue::Boolean(flag) = field.value {
            return Some(*flag);
        }
        field.refuse_type("true or false", report);
        None
    }

    /// A table that may be left out: `client = { .. }` or `[client]`.
    pub(super) fn table(
        &self,
        name: &'static str,
        schema: &'static Schema,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let field = self.get(name)?;
        if let DeValue::Table(table) = field.value {
            return Some(Self::new(field.at, schema, table, report));
        }
        field.refuse_type("a table", report);
        None
    }

    /// A list of tables, each begun by `[[name]]`.
    pub(super) fn tables(
        &self,
        name: &'static str,
        schema: &'static Schema,
        report: &mut Report<'_>,
    ) -> Vec<Self> {
        let Some(field) = self.get(name) else {
            return Vec::new();
        };
        let DeValue::Array(array) = field.value else {
            report.error(
                &field.at,
                format!("must be a list of tables: begin each with [[{name}]]"),
            );
            return Vec::new();
        };
        let mut found = Vec::new();
        for element in field.elements(array) {
            if let DeValue::Table(table) = element.value {
                found.push(Self::new(element.at, schema, table, report));
            } else {
                element.refuse_type("a table", report);
            }
        }
        found
    }
}

/// A key of a foreign file, safe and short enough to print.
fn readable(key: &str) -> String {
    const LONGEST: usize = 40;
    let short: String = key.chars().take(LONGEST).collect();
    let more = if short.len() < key.len() { "..." } else { "" };
    format!("{}{more}", short.escape_debug())
}

/// One key and its value.
pub(super) struct Field<'d> {
    pub(super) at: At,
    value: &'d DeValue<'d>,
}

impl<'d> Field<'d> {
    /// The value as text.
    pub(super) fn text(&self, report: &mut Report<'_>) -> Option<&'d str> {
        if let DeValue::String(text) = self.value {
            return Some(text);
        }
        self.refuse_type("text in quotes", report);
        None
    }

    /// The value as text that means a `T`.
    pub(super) fn word<T: FromStr<Err = UnitError>>(&self, report: &mut Report<'_>) -> Option<T> {
        self.text(report)?
            .parse()
            .map_err(|error: UnitError| report.error(&self.at, error.0))
            .ok()
    }

    /// The value as a whole number; `what` goes into "74523 is not `what` (1-65535)".
    pub(super) fn number<T: TryFrom<i128>>(
        &self,
        range: RangeInclusive<i128>,
        what: &str,
        report: &mut Report<'_>,
    ) -> Option<T> {
        let DeValue::Integer(written) = self.value else {
            self.refuse_type("a whole number", report);
            return None;
        };
        let number = integer(written).filter(|number| range.contains(number));
        let value = number.and_then(|number| T::try_from(number).ok());
        if value.is_none() {
            let (first, last) = range.into_inner();
            let written = readable(&written.to_string());
            report.error(
                &self.at,
                format!("{written} is not {what} ({first}-{last})"),
            );
        }
        value
    }

    /// A text, or a list of texts: each with its place.
    pub(super) fn each(&self, report: &mut Report<'_>) -> Vec<Self> {
        if let DeValue::Array(array) = self.value {
            return self.elements(array).collect();
        }
        if let DeValue::String(_) = self.value {
            return vec![Self {
                at: self.at.clone(),
                value: self.value,
            }];
        }
        self.refuse_type("text in quotes or a list of such", report);
        Vec::new()
    }

    /// Each of a list's texts as a `T`, those that are one, with their places.
    pub(super) fn words<T: FromStr<Err = UnitError>>(
        &self,
        report: &mut Report<'_>,
    ) -> Vec<(At, T)> {
        self.each(report)
            .into_iter()
            .filter_map(|element| Some((element.at.clone(), element.word(report)?)))
            .collect()
    }

    /// True for `[]`.
    pub(super) fn is_empty_list(&self) -> bool {
        matches!(self.value, DeValue::Array(array) if array.is_empty())
    }

    fn elements(&self, array: &'d [Spanned<DeValue<'d>>]) -> impl Iterator<Item = Self> {
        let place = self.at.place.clone();
        (1..).zip(array).map(move |(count, value)| Self {
            at: At {
                place: format!("{place}[{count}]"),
                offset: Some(value.span().start),
            },
            value: value.get_ref(),
        })
    }

    fn refuse_type(&self, wanted: &str, report: &mut Report<'_>) {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a decimal number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        report.error(&self.at, format!("must be {wanted}, not {found}"));
    }
}

fn integer(written: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(written.as_str(), written.radix()).ok()
}
