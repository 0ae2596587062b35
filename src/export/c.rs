//! A C99 engine with the network's tables.

use super::{Files, Golden};
use crate::Result;
use crate::model::Model;

/// Its files.
pub(super) fn files(_model: &Model, _golden: &Golden) -> Result<Files> {
    Ok(Files::default())
}
