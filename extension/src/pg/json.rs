//! A jsonb argument: the datum, which is stored as it is, and its text, which serde reads.
//!
//! pgrx's JsonB parses the argument before the function runs, and panics on 1e400 or deep nesting. This type accepts every
//! jsonb, so that a malformed event is an outcome and not an error.

use std::ffi::CStr;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::UnboxDatum;
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{direct_function_call, direct_function_call_as_datum, pg_sys, prelude::*};

/// A jsonb value and its text.
#[derive(Debug)]
pub(crate) struct JsonText {
    datum: pg_sys::Datum,
    text: String,
}

impl JsonText {
    /// From a text that serde has written or read. Raises what jsonb raises for a number or a depth that it cannot hold.
    pub(crate) fn from_json(text: String) -> JsonText {
        let cstring = std::ffi::CString::new(text.as_str()).expect("JSON escapes NUL");
        // SAFETY: jsonb_in takes one C string, which outlives the call.
        let datum =
            unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(cstring.as_ptr().into())]) };
        JsonText { datum: datum.expect("jsonb_in never answers NULL"), text }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The value as Postgres stores it.
    pub(crate) fn bytes(&self) -> JsonBytes {
        // SAFETY: the datum is a jsonb, and lives as long as this.
        unsafe { JsonBytes::from_datum(self.datum, false).expect("it is not null") }
    }
}

/// A jsonb value as Postgres stores it: the same bytes for the same value, with no text made of it, which may be a thousand times as
/// long.
#[derive(Debug)]
pub(crate) struct JsonBytes(Vec<u8>);

impl JsonBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl FromDatum for JsonBytes {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: Postgres hands a jsonb where the declaration says jsonb; its bytes are copied at once.
        let bytes = unsafe {
            let value = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            pgrx::varlena::varlena_to_byte_slice(value).to_vec()
        };
        Some(JsonBytes(bytes))
    }
}

impl IntoDatum for JsonBytes {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // A jsonb is a bytea whose bytes are these.
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

impl FromDatum for JsonText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: Postgres hands a jsonb where the declaration says jsonb; jsonb_out answers a C string in the
        // server's encoding.
        let text = unsafe {
            let detoasted = pg_sys::Datum::from(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()));
            direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(detoasted)]).expect("jsonb has a text")
        };
        Some(JsonText { datum, text: text.to_str().expect("the database's encoding is UTF8").to_owned() })
    }
}

impl IntoDatum for &JsonText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.datum)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: declares what FromDatum above reads.
unsafe impl SqlTranslatable for JsonText {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(JsonText);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

// SAFETY: as for pgrx's own types that are read through FromDatum.
unsafe impl<'fcx> ArgAbi<'fcx> for JsonText {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise, that the argument is a jsonb, is the one that FromDatum asks for.
        unsafe { arg.unbox_arg_using_from_datum().expect("a jsonb argument is not null") }
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as above.
        unsafe { arg.unbox_arg_using_from_datum().into() }
    }
}

// SAFETY: the text is a copy, and the datum lives as long as the call whose argument it is.
unsafe impl UnboxDatum for JsonText {
    type As<'src> = JsonText;

    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> JsonText
    where
        Self: 'src,
    {
        // SAFETY: the caller's promise, that the datum is a jsonb, is the one that FromDatum asks for.
        unsafe { JsonText::from_datum(datum.sans_lifetime(), false).expect("a jsonb argument is not null") }
    }
}
