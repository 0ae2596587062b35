//! placeholder until the branch lands
use crate::{Result, data::Split, net::Net, quant::QuantSpec, session::*, tensors::Tensors};
pub struct IntegerNet;
impl IntegerNet {
    pub fn fold(_: &Net, _: &QuantSpec, _: &Tensors, _: &Normalisation) -> Result<IntegerNet> {
        Ok(IntegerNet)
    }
    pub fn evaluate(&self, _: &Split) -> Result<Evaluation> {
        Ok(Evaluation::default())
    }
}
