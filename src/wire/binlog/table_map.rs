//! Table maps: the types of a table's columns, and what `binlog_row_metadata` adds to them.

use super::Malformed;
use super::bytes::{Bytes, bit, bit_high};
use crate::wire::mysqltype::code;

/// A table map, its columns not read yet: most of them say again what the last one of their table said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableMapEvent<'a> {
    /// The number that row events name it by.
    pub table_id: u64,
    /// All behind that number: two maps of one server with the same bytes say the same.
    pub bytes: &'a [u8],
    /// Whether MariaDB wrote it, which counts geometries among the columns that have a collation.
    mariadb: bool,
}

/// A table map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    pub table_id: u64,
    pub database: String,
    pub table: String,
    pub columns: Vec<MapColumn>,
    pub metadata: Metadata,
}

/// A column of a table map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapColumn {
    /// See [`code`]; never `STRING` for an `ENUM` or a `SET`.
    pub code: u8,
    /// What the code needs: a length, a precision and scale (low and high byte), a number of digits.
    pub meta: u16,
    pub nullable: bool,
}

/// What `binlog_row_metadata` adds; lists have one entry for each column of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Which columns are unsigned numbers.
    pub unsigned: Option<Vec<bool>>,
    /// The numbers of collations of text, `ENUM` and `SET` columns.
    pub collations: Option<Vec<Option<u64>>>,
    /// With `FULL`.
    pub names: Option<Vec<String>>,
    /// With `FULL`: the members of `ENUM` and `SET` columns, in the column's character set.
    pub members: Vec<Option<Vec<Vec<u8>>>>,
    /// With `FULL`: the positions of the columns of the primary key.
    pub key: Vec<usize>,
    /// With `FULL`, from MySQL 8.0.23: which columns `SELECT *` shows.
    pub visible: Option<Vec<bool>>,
}

impl<'a> TableMapEvent<'a> {
    pub(super) fn parse(mut body: Bytes<'a>, id_width: usize, mariadb: bool) -> Result<Self, Malformed> {
        let table_id = body.number(id_width)?;
        Ok(Self { table_id, bytes: body.0, mariadb })
    }

    /// The database and the table.
    pub fn name(&self) -> Result<(&'a str, &'a str), Malformed> {
        names(&mut Bytes(self.bytes))
    }

    /// Reads all of it.
    pub fn parse_columns(&self) -> Result<TableMap, Malformed> {
        let mut rest = Bytes(self.bytes);
        let (database, table) = names(&mut rest)?;
        let count = rest.length()?;
        let codes = rest.take(count)?;
        let mut metas = Bytes(rest.counted()?);
        let nullable = rest.take(count.div_ceil(8))?;
        let mut columns = Vec::with_capacity(count);
        for (at, code) in codes.iter().enumerate() {
            let (code, meta) = column(*code, &mut metas).map_err(|()| Malformed::Type(at + 1, *code, 0))?;
            columns.push(MapColumn { code, meta, nullable: bit(nullable, at) });
        }
        let metadata = Metadata::parse(rest, &columns, self.mariadb)?;
        Ok(TableMap {
            table_id: self.table_id,
            database: database.to_owned(),
            table: table.to_owned(),
            columns,
            metadata,
        })
    }
}

fn names<'a>(rest: &mut Bytes<'a>) -> Result<(&'a str, &'a str), Malformed> {
    rest.u16()?;
    let database = Bytes::utf8(rest.counted()?)?;
    rest.u8()?;
    let table = Bytes::utf8(rest.counted()?)?;
    rest.u8()?;
    Ok((database, table))
}

/// A column's real type and what it needs.
fn column(column: u8, metas: &mut Bytes<'_>) -> Result<(u8, u16), ()> {
    let failed = |_: Malformed| ();
    Ok(match column {
        code::FLOAT | code::DOUBLE => {
            metas.u8().map_err(failed)?;
            (column, 0)
        }
        code::BLOB_COMPRESSED
        | code::VECTOR
        | code::JSON
        | code::TINY_BLOB..=code::BLOB
        | code::GEOMETRY
        | code::TIMESTAMP2
        | code::DATETIME2
        | code::TIME2 => (column, u16::from(metas.u8().map_err(failed)?)),
        code::VARCHAR | code::VAR_STRING | code::VARCHAR_COMPRESSED => (column, metas.u16().map_err(failed)?),
        code::NEWDECIMAL => (column, metas.u16().map_err(failed)?),
        code::BIT => {
            let [bits, bytes] = metas.array().map_err(failed)?;
            (column, u16::from(bytes) * 8 + u16::from(bits))
        }
        code::STRING | code::ENUM | code::SET => {
            let [kind, length] = metas.array().map_err(failed)?;
            string(kind, length)
        }
        code::DECIMAL | 20..=139 | 142..=241 | 243 | 244 => return Err(()),
        _ => (column, 0),
    })
}

/// The type and the length hidden in a `STRING`'s metadata: two bits of the length are in the type, inverted.
fn string(kind: u8, length: u8) -> (u8, u16) {
    if kind & 0x30 == 0x30 || kind == 0 {
        let kind = if kind == 0 { code::STRING } else { kind };
        return (kind, u16::from(length));
    }
    (kind | 0x30, u16::from(length) | u16::from((kind & 0x30) ^ 0x30) << 4)
}

impl MapColumn {
    fn is_number(&self) -> bool {
        matches!(
            self.code,
            code::TINY
                | code::SHORT
                | code::INT24
                | code::LONG
                | code::LONGLONG
                | code::FLOAT
                | code::DOUBLE
                | code::NEWDECIMAL
                | code::YEAR
        )
    }

    /// Whether a collation is said for it: MySQL counts vectors in, MariaDB geometries.
    fn is_text(&self, mariadb: bool) -> bool {
        match self.code {
            code::VECTOR => !mariadb,
            code::GEOMETRY => mariadb,
            code => matches!(
                code,
                code::STRING | code::VAR_STRING | code::VARCHAR | code::TINY_BLOB
                    ..=code::BLOB | code::BLOB_COMPRESSED | code::VARCHAR_COMPRESSED
            ),
        }
    }

    fn is_choice(&self) -> bool {
        matches!(self.code, code::ENUM | code::SET)
    }
}

/// The positions of the columns that fit.
fn positions(columns: &[MapColumn], fits: impl Fn(&MapColumn) -> bool) -> Vec<usize> {
    columns.iter().enumerate().filter(|(_, column)| fits(column)).map(|(at, _)| at).collect()
}

impl Metadata {
    fn parse(mut rest: Bytes<'_>, columns: &[MapColumn], mariadb: bool) -> Result<Self, Malformed> {
        let is_text = |column: &MapColumn| column.is_text(mariadb);
        let mut metadata = Self { members: vec![None; columns.len()], ..Self::default() };
        while !rest.0.is_empty() {
            let field = rest.u8()?;
            let value = Bytes(rest.counted()?);
            match field {
                1 => {
                    let mut unsigned = vec![false; columns.len()];
                    for (bit, at) in positions(columns, MapColumn::is_number).into_iter().enumerate() {
                        unsigned[at] = bit_high(value.0, bit);
                    }
                    metadata.unsigned = Some(unsigned);
                }
                2 => metadata.default_collation(value, positions(columns, is_text))?,
                3 => metadata.each_collation(value, positions(columns, is_text))?,
                4 => metadata.names = Some(column_names(value, columns.len())?),
                5 => metadata.members(value, positions(columns, |column| column.code == code::SET))?,
                6 => metadata.members(value, positions(columns, |column| column.code == code::ENUM))?,
                8 => metadata.primary_key(value, false)?,
                9 => metadata.primary_key(value, true)?,
                10 => metadata.default_collation(value, positions(columns, MapColumn::is_choice))?,
                11 => metadata.each_collation(value, positions(columns, MapColumn::is_choice))?,
                12 => metadata.visible = Some((0..columns.len()).map(|at| bit_high(value.0, at)).collect()),
                // The kinds of geometries and the dimensions of vectors: values say them themselves.
                _ => {}
            }
        }
        if metadata.key.iter().any(|at| *at >= columns.len()) {
            return Err(Malformed::Other("its primary key has a column that the table does not have"));
        }
        Ok(metadata)
    }

    fn collations_mut(&mut self) -> &mut Vec<Option<u64>> {
        let count = self.members.len();
        self.collations.get_or_insert_with(|| vec![None; count])
    }

    /// One for all, and the exceptions.
    fn default_collation(&mut self, mut value: Bytes<'_>, columns: Vec<usize>) -> Result<(), Malformed> {
        let default = value.lenenc()?;
        let collations = self.collations_mut();
        columns.iter().for_each(|at| collations[*at] = Some(default));
        while !value.0.is_empty() {
            let (at, collation) = (value.lenenc()?, value.lenenc()?);
            let at = usize::try_from(at).ok().and_then(|at| columns.get(at));
            collations[*at.ok_or(Malformed::Number)?] = Some(collation);
        }
        Ok(())
    }

    fn each_collation(&mut self, mut value: Bytes<'_>, columns: Vec<usize>) -> Result<(), Malformed> {
        let collations = self.collations_mut();
        for at in columns {
            collations[at] = Some(value.lenenc()?);
        }
        Ok(())
    }

    fn members(&mut self, mut value: Bytes<'_>, columns: Vec<usize>) -> Result<(), Malformed> {
        for at in columns {
            let count = value.lenenc()?;
            let members = (0..count).map(|_| Ok(value.counted()?.to_vec())).collect::<Result<_, Malformed>>()?;
            self.members[at] = Some(members);
        }
        Ok(())
    }

    fn primary_key(&mut self, mut value: Bytes<'_>, prefixes: bool) -> Result<(), Malformed> {
        while !value.0.is_empty() {
            self.key.push(usize::try_from(value.lenenc()?).map_err(|_| Malformed::Number)?);
            if prefixes {
                value.lenenc()?;
            }
        }
        Ok(())
    }
}

fn column_names(mut value: Bytes<'_>, count: usize) -> Result<Vec<String>, Malformed> {
    (0..count).map(|_| Ok(Bytes::utf8(value.counted()?)?.to_owned())).collect()
}
