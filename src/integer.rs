//! placeholder until the branch lands
use crate::{Result,net::Net,quant::QuantSpec,tensors::Tensors,session::*,data::Split};
pub struct IntegerNet;
impl IntegerNet{ pub fn fold(_:&Net,_:&QuantSpec,_:&Tensors,_:&Normalisation)->Result<IntegerNet>{Ok(IntegerNet)} pub fn evaluate(&self,_:&Split)->Result<Evaluation>{Ok(Evaluation::default())} }
