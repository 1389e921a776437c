//! A jsonb argument: the datum, which is stored as it is, and for what is read, its text, which serde reads and a column of
//! type json stores as it is.
//!
//! pgrx's JsonB parses the argument before the function runs, and panics on 1e400 or deep nesting. This type accepts every
//! jsonb, so that a malformed event is an outcome and not an error. Its text is made only once its length is known: a
//! number such as 1e131000 takes 12 bytes as a datum and 131,001 as text.

use std::ffi::CStr;
use std::ptr;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::UnboxDatum;
use pgrx::nullable::Nullable;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{direct_function_call, direct_function_call_as_datum, pg_sys, prelude::*};
use serde_json::Value;
use stripe_credits_rules::jsonb::surely_holds;

/// A jsonb value, of which no text is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Json(pg_sys::Datum);

impl Json {
    /// From a text that serde has written or read. Raises what jsonb raises for a number or a depth that it cannot hold.
    pub(crate) fn from_text(text: &str) -> Json {
        let cstring = std::ffi::CString::new(text).expect("JSON escapes NUL");
        // SAFETY: jsonb_in takes one C string, which outlives the call.
        let datum =
            unsafe { direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(cstring.as_ptr().into())]) };
        Json(datum.expect("jsonb_in never answers NULL"))
    }

    /// From the bytes of another: see [`Json::bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Json {
        Json(bytes.into_datum().expect("bytes are not null"))
    }

    /// Whether its text would be longer than `limit` bytes.
    pub(crate) fn is_longer_than(self, limit: usize) -> bool {
        // SAFETY: it was detoasted.
        unsafe { text_bytes(self.detoasted(), limit) > limit }
    }

    /// Whether it is `{}`.
    pub(crate) fn is_empty_object(self) -> bool {
        // SAFETY: it was detoasted, and the header of a jsonb says what it is and how many pairs it has.
        let header = unsafe { (*self.detoasted()).root.header };
        header & pg_sys::JB_FOBJECT != 0 && header & pg_sys::JB_CMASK == 0
    }

    /// The value as Postgres stores it: the same bytes for the same value.
    pub(crate) fn bytes(self) -> Vec<u8> {
        // SAFETY: it was detoasted, and its bytes are copied at once.
        unsafe { pgrx::varlena::varlena_to_byte_slice(self.detoasted().cast()).to_vec() }
    }

    /// What serde has written, read again.
    pub(crate) fn value(self) -> Value {
        serde_json::from_str(&self.text()).expect("jsonb is JSON")
    }

    /// The text. The caller knows that it is not too long.
    fn text(self) -> String {
        // SAFETY: jsonb_out takes a detoasted jsonb, and answers a C string in the server's encoding.
        let text = unsafe {
            let jsonb = pg_sys::Datum::from(self.detoasted());
            direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(jsonb)]).expect("jsonb has a text")
        };
        text.to_str().expect("the database's encoding is UTF8").to_owned()
    }

    fn detoasted(self) -> *mut pg_sys::Jsonb {
        // SAFETY: the datum is a jsonb, as every argument that is declared as one.
        unsafe { pg_sys::pg_detoast_datum(self.0.cast_mut_ptr()).cast() }
    }
}

/// An upper bound of the length of a value's text, or more than `limit` as soon as that is certain.
///
/// # Safety
/// `jsonb` is a detoasted jsonb.
unsafe fn text_bytes(jsonb: *mut pg_sys::Jsonb, limit: usize) -> usize {
    /// Quotes and a separator with its blank; of a nested value, its brackets and their separator.
    const PUNCTUATION_BYTES: usize = 4;
    let mut bytes = 0;
    // SAFETY: the iterator reads the jsonb, and ends with WJB_DONE; a value's tag says which field of the union it has.
    unsafe {
        let mut iterator = pg_sys::JsonbIteratorInit(&raw mut (*jsonb).root);
        let mut value = pg_sys::JsonbValue::default();
        loop {
            let token = pg_sys::JsonbIteratorNext(&raw mut iterator, &raw mut value, false);
            if token == pg_sys::JsonbIteratorToken::WJB_DONE || bytes > limit {
                return bytes;
            }
            let is_scalar = matches!(
                token,
                pg_sys::JsonbIteratorToken::WJB_KEY
                    | pg_sys::JsonbIteratorToken::WJB_VALUE
                    | pg_sys::JsonbIteratorToken::WJB_ELEM
            );
            bytes += PUNCTUATION_BYTES + if is_scalar { scalar_bytes(&value) } else { 0 };
        }
    }
}

/// The length of a scalar's text, without quotes.
///
/// # Safety
/// `value` was read by a JsonbIterator.
unsafe fn scalar_bytes(value: &pg_sys::JsonbValue) -> usize {
    /// `false`, the longest of the words.
    const WORD_BYTES: usize = 5;
    // SAFETY: the tag says which field the union has; a string is as long as it says, and numeric_out's text ends with NUL.
    unsafe {
        match value.type_ {
            pg_sys::jbvType::jbvString => {
                let length = usize::try_from(value.val.string.len).expect("a length");
                let bytes = std::slice::from_raw_parts(value.val.string.val.cast::<u8>(), length);
                bytes.iter().map(|byte| escaped_bytes(*byte)).sum()
            }
            pg_sys::jbvType::jbvNumeric => {
                let digits = direct_function_call::<&CStr>(
                    pg_sys::numeric_out,
                    &[Some(pg_sys::Datum::from(value.val.numeric))],
                )
                .expect("a number has a text");
                let length = digits.count_bytes();
                pg_sys::pfree(ptr::from_ref(digits).cast_mut().cast());
                length
            }
            _ => WORD_BYTES,
        }
    }
}

/// The length of a byte of a string in JSON: `\u0001`, `\"` or itself.
fn escaped_bytes(byte: u8) -> usize {
    match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    }
}

/// The text of a JSON value that jsonb holds too: for Postgres, a value of type json.
#[derive(Debug)]
pub(crate) struct JsonText(String);

impl JsonText {
    /// Of a value, unless its text is longer than `limit` bytes.
    pub(crate) fn within(json: Json, limit: usize) -> Option<JsonText> {
        (!json.is_longer_than(limit)).then(|| JsonText(json.text()))
    }

    /// From a text that serde has read, unless as jsonb its text would be longer than `limit` bytes, which are more than a
    /// text of [`surely_holds`] can have. Raises what jsonb raises, as [`Json::from_text`].
    pub(crate) fn from_body(text: String, limit: usize) -> Option<JsonText> {
        let holds = surely_holds(&text) || !Json::from_text(&text).is_longer_than(limit);
        holds.then_some(JsonText(text))
    }

    /// From a text that serde has written, of parts of such texts.
    pub(crate) fn from_written(text: String) -> JsonText {
        JsonText(text)
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl FromDatum for Json {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(Json(datum))
    }
}

impl IntoDatum for Json {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

impl IntoDatum for &JsonText {
    /// A json is stored as its text.
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.as_str().into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONOID
    }
}

// SAFETY: declares what FromDatum above reads.
unsafe impl SqlTranslatable for Json {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Json);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

// SAFETY: as for pgrx's own types that are read through FromDatum.
unsafe impl<'fcx> ArgAbi<'fcx> for Json {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise, that the argument is a jsonb, is the one that FromDatum asks for.
        unsafe { arg.unbox_arg_using_from_datum().expect("a jsonb argument is not null") }
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as above.
        unsafe { arg.unbox_arg_using_from_datum().into() }
    }
}

// SAFETY: the datum lives as long as the call whose argument it is.
unsafe impl UnboxDatum for Json {
    type As<'src> = Json;

    unsafe fn unbox<'src>(datum: pgrx::datum::Datum<'src>) -> Json
    where
        Self: 'src,
    {
        // SAFETY: the caller's promise, that the datum is a jsonb, is the one that FromDatum asks for.
        unsafe { Json::from_datum(datum.sans_lifetime(), false).expect("a jsonb argument is not null") }
    }
}
