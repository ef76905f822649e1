//! How the ledger is written down: compact JSON that says which version wrote it.
//!
//! Many entries have the same claims (each interrupt those of the guests that are isolated), so that sets of claims are
//! written once, in a table. Fields and entries that this program does not know are kept as they are.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use thiserror::Error;

use super::cards::{KeptAwake, Quarantine};
use super::entry::{Entry, Pending};
use super::format_3;
use super::record::{Lease, Record, Unknown, UnknownEntry};
use super::settings::{Listed, ListedEntry, OfKind, OnEntry, of_kind};
use crate::guest::GuestUuid;
use crate::host::ProcessId;

/// The version of the format. A program that meets a newer one leaves it alone. 2: leases with keepers; 3: cards; 4:
/// compact, with unknown fields kept.
pub(super) const FORMAT: u32 = 4;

/// Why a ledger cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It is no JSON, or not what this program writes.
    #[error("the ledger is damaged: {0}")]
    Damaged(serde_json::Error),
    /// A later version wrote it.
    #[error("the ledger has format {0}, this vfio-hook knows formats up to {FORMAT}")]
    Newer(u32),
}

#[derive(Deserialize)]
struct Header {
    format: u32,
}

/// The file as it stands.
#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    /// Higher than that of what was written before.
    #[serde(default)]
    sequence: u64,
    boot_id: String,
    leases: BTreeMap<GuestUuid, Lease>,
    /// The guests that claim something: a claim names one by its place here.
    guests: Vec<GuestUuid>,
    /// Sets of claims, each a list of a guest's place and what it wants: an entry names one by its place here.
    claims: Vec<Vec<(usize, Json)>>,
    entries: Vec<Json>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    quarantines: Vec<Quarantine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kept_awake: Vec<KeptAwake>,
    #[serde(flatten)]
    unknown: Map<String, Json>,
    /// The same number again: it was written to its end.
    #[serde(default)]
    end: u64,
}

/// A ledger that was read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) sequence: u64,
    pub(super) record: Record,
}

/// An entry as it stands.
#[derive(Serialize, Deserialize)]
struct Row {
    /// The setting's kind.
    set: String,
    /// Which of them.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    of: Json,
    /// The baseline.
    was: Json,
    /// What was written; the baseline where it is not said.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    is: Option<Json>,
    /// What is being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Pending<Json>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stuck: Option<ProcessId>,
    /// The place of its claims.
    by: usize,
    /// What a newer program wrote, kept as it is.
    #[serde(flatten)]
    unknown: Map<String, Json>,
}

/// A value that is said; null is one too.
fn said<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// The tables, as they fill.
#[derive(Default)]
struct Tables {
    guests: Vec<GuestUuid>,
    claims: Vec<Vec<(usize, Json)>>,
    /// The place of each set of claims, by its text.
    places: BTreeMap<String, usize>,
}

impl Tables {
    fn guest(&mut self, guest: GuestUuid) -> usize {
        match self.guests.iter().position(|known| *known == guest) {
            Some(place) => place,
            None => {
                self.guests.push(guest);
                self.guests.len() - 1
            }
        }
    }

    fn claims(&mut self, claims: Vec<(usize, Json)>) -> usize {
        let text = Json::from_iter(claims.iter().map(|(guest, want)| json!([guest, want]))).to_string();
        if let Some(place) = self.places.get(&text) {
            return *place;
        }
        self.claims.push(claims);
        self.places.insert(text, self.claims.len() - 1);
        self.claims.len() - 1
    }
}

/// The file's bytes.
#[must_use]
pub(super) fn to_bytes(record: &Record, sequence: u64) -> Vec<u8> {
    let mut tables = Tables::default();
    let mut entries: Vec<Json> = record.all_listed().map(|entry| entry.with(RowOf(&mut tables))).collect();
    for UnknownEntry { row, claims } in &record.unknown.entries {
        let claims = claims.iter().map(|(guest, want)| (tables.guest(*guest), want.clone())).collect();
        let mut row = row.clone();
        row["by"] = json!(tables.claims(claims));
        entries.push(row);
    }
    let Tables { guests, claims, .. } = tables;
    let file = File {
        format: FORMAT,
        sequence,
        boot_id: record.boot_id.clone(),
        leases: record.leases.clone(),
        guests,
        claims,
        entries,
        quarantines: record.quarantines.clone(),
        kept_awake: record.kept_awake.clone(),
        unknown: record.unknown.fields.clone(),
        end: sequence,
    };
    // Nothing in a record can fail to serialise: no map has a key that is not a string.
    serde_json::to_vec(&file).unwrap_or_default()
}

/// Writes an entry down.
struct RowOf<'a>(&'a mut Tables);

impl OnEntry for RowOf<'_> {
    type Output = Json;

    fn on<S: Listed>(self, entry: &Entry<S>) -> Json {
        let tables = self.0;
        let value = |value: &S::Value| json_of(value);
        let claims: Vec<_> =
            entry.claims.iter().map(|(guest, want)| (tables.guest(*guest), json_of(want))).collect();
        let next = entry.pending();
        json_of(&Row {
            set: S::WORD.to_owned(),
            of: json_of(&entry.setting),
            was: value(&entry.baseline),
            is: (entry.written != entry.baseline).then(|| value(&entry.written)),
            next: next.map(|next| Pending { value: value(&next.value), beneficiary: next.beneficiary }),
            stuck: entry.stuck,
            by: tables.claims(claims),
            unknown: entry.unknown.clone(),
        })
    }
}

/// Nothing in a record can fail to serialise: no map has a key that is not a string.
fn json_of(value: &impl Serialize) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// Reads an entry.
struct EntryOf {
    row: Row,
    claims: Vec<(GuestUuid, Json)>,
}

impl OfKind for EntryOf {
    /// None: it is a setting of this kind that is not known, such as an attribute that is not in the table.
    type Output = Result<Option<ListedEntry>, serde_json::Error>;

    fn of<S: Listed>(self) -> Self::Output {
        let Row { of, was, is, next, stuck, unknown, .. } = self.row;
        let Ok(setting) = serde_json::from_value(of) else { return Ok(None) };
        let baseline: S::Value = serde_json::from_value(was)?;
        let written = match is {
            Some(is) => serde_json::from_value(is)?,
            None => baseline.clone(),
        };
        let pending = match next {
            Some(Pending { value, beneficiary }) => {
                Some(Pending { value: serde_json::from_value(value)?, beneficiary })
            }
            None => None,
        };
        let claims = self.claims.into_iter();
        let claims = claims.map(|(guest, want)| Ok((guest, serde_json::from_value(want)?)));
        let mut entry = Entry::new(setting, written).with_pending(pending);
        entry.baseline = baseline;
        entry.stuck = stuck;
        entry.claims = claims.collect::<Result<_, serde_json::Error>>()?;
        entry.unknown = unknown;
        Ok(Some(S::listed(entry)))
    }
}

/// Reads the file's bytes.
///
/// # Errors
/// They are damaged, or of a newer version.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, RecordError> {
    // The version first: a newer format need not look like this one in anything else.
    let header: Header = serde_json::from_slice(bytes).map_err(RecordError::Damaged)?;
    match header.format {
        FORMAT => parse_4(bytes).map_err(RecordError::Damaged),
        newer if newer > FORMAT => Err(RecordError::Newer(newer)),
        _ => {
            let record = format_3::parse(bytes).map_err(RecordError::Damaged)?;
            Ok(Parsed { sequence: 0, record })
        }
    }
}

fn parse_4(bytes: &[u8]) -> Result<Parsed, serde_json::Error> {
    let File {
        sequence,
        boot_id,
        leases,
        guests,
        claims,
        entries,
        quarantines,
        kept_awake,
        unknown,
        end,
        ..
    } = serde_json::from_slice(bytes)?;
    if sequence != end {
        return Err(serde_json::Error::custom("it was not written to its end"));
    }
    let mut record = Record::empty(boot_id);
    record.leases = leases;
    record.quarantines = quarantines;
    record.kept_awake = kept_awake;
    record.unknown = Unknown { fields: unknown, entries: Vec::new() };
    for entry in entries {
        let row: Row = serde_json::from_value(entry.clone())?;
        let claims = claims_at(row.by, &guests, &claims)?;
        let kind = row.set.clone();
        match of_kind(&kind, EntryOf { row, claims: claims.clone() }).transpose()?.flatten() {
            Some(listed) => record.put_listed(listed),
            None => record.unknown.entries.push(UnknownEntry { row: entry, claims }),
        }
    }
    Ok(Parsed { sequence, record })
}

/// A set of claims from the table.
fn claims_at(
    place: usize,
    guests: &[GuestUuid],
    claims: &[Vec<(usize, Json)>],
) -> Result<Vec<(GuestUuid, Json)>, serde_json::Error> {
    let missing = || serde_json::Error::custom(format!("there is no set of claims {place}"));
    let claims = claims.get(place).ok_or_else(missing)?.iter();
    claims
        .map(|(guest, want)| {
            let missing = || serde_json::Error::custom(format!("there is no guest {guest}"));
            Ok((*guests.get(*guest).ok_or_else(missing)?, want.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::settings::IrqAffinity;

    fn again(record: &Record) -> Record {
        parse(&to_bytes(record, 7)).unwrap().record
    }

    /// A keeper of an older format has other names than this program's.
    #[test]
    fn the_generation_of_keepers_rises_with_the_format() {
        let guest = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        assert!(crate::host::keeper_lock(guest).starts_with(&format!("keeper-{}-", FORMAT)));
    }

    /// Ledgers that the program of format 3 wrote while guests ran.
    #[test]
    fn format_3_is_read() {
        for (text, leases, entries, quarantines) in [
            (include_str!("../../tests/data/ledgers/3-two-guests.json"), 2, 28, 0),
            (include_str!("../../tests/data/ledgers/3-card.json"), 1, 17, 0),
        ] {
            let record = parse(text.as_bytes()).unwrap().record;
            assert_eq!(record.leases.len(), leases);
            assert_eq!(record.entries().count(), entries);
            assert_eq!(record.quarantines.len(), quarantines);
            assert_eq!(again(&record), record);
        }
    }

    fn guest(number: u8) -> GuestUuid {
        GuestUuid::from_bytes([number; 16])
    }

    /// Interrupts of a server, each claimed by all guests.
    fn large(interrupts: u32, guests: u8) -> Record {
        let mut record = Record::empty("3b7d8a3e-0f57-4d6c-9a11-0c2f5d1e7950".to_owned());
        for number in 1..=guests {
            let by = ProcessId { pid: 1, start_time: 1 };
            record.leases.insert(guest(number), Lease::preparing(&format!("guest{number}"), by));
        }
        for number in 0..interrupts {
            let setting = IrqAffinity { number, actions: format!("mlx5_comp{number}@pci:0000:c1:00.0") };
            let mut entry = Entry::new(setting, "0-63".parse().unwrap());
            entry.confirm("0-3,60-63".parse().unwrap());
            entry.claims = (1..=guests)
                .map(|number| (guest(number), format!("{}-{}", 3 * number, 3 * number + 2).parse().unwrap()))
                .collect();
            record.put(entry);
        }
        record
    }

    #[test]
    fn the_ledger_of_a_large_host_is_less_than_a_megabyte() {
        let record = large(5000, 17);
        let bytes = to_bytes(&record, 7);
        assert!(bytes.len() < 1_000_000, "{} bytes", bytes.len());
        assert_eq!(parse(&bytes).unwrap().record, record);
    }
}
