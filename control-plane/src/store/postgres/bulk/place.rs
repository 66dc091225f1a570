//! Where a row is: what it is found by without an index, in the transaction that saw it there.

use bytes::{BufMut as _, BytesMut};
use postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

type Converted<T> = Result<T, Box<dyn std::error::Error + Sync + Send>>;

/// A row's `ctid`, as the server writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Place([u8; 6]);

impl<'a> FromSql<'a> for Place {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Converted<Self> {
        Ok(Self(raw.try_into()?))
    }

    accepts!(TID);
}

impl ToSql for Place {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Converted<IsNull> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(TID);
    to_sql_checked!();
}
