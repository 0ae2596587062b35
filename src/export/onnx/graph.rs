//! A graph that grows node by node. A node's name is that of its output; every tensor gets its type and shape.

use std::collections::BTreeSet;

use bytemuck::NoUninit;

use super::proto::{
    Attribute, Dimension, Graph as Message, Node, Shape, Tensor, TensorType, Type, Value, attribute_type, data_type,
};
use crate::{Error, Result};

/// Types of elements.
pub trait Element: NoUninit {
    const TYPE: i32;
}

impl Element for f32 {
    const TYPE: i32 = data_type::FLOAT;
}
impl Element for u8 {
    const TYPE: i32 = data_type::UINT8;
}
impl Element for i8 {
    const TYPE: i32 = data_type::INT8;
}
impl Element for i32 {
    const TYPE: i32 = data_type::INT32;
}

/// A tensor of the graph: its name, type and shape without the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    pub name: String,
    pub element: i32,
    pub shape: Vec<usize>,
}

impl Wire {
    pub fn new(name: impl Into<String>, element: i32, shape: &[usize]) -> Wire {
        Wire { name: name.into(), element, shape: shape.to_vec() }
    }
}

/// Nodes in forward order with their constants.
pub struct Graph {
    message: Message,
    /// Those of its tensors.
    names: BTreeSet<String>,
    /// How many pictures there are; any number where it is none.
    batch: Option<i64>,
}

impl Graph {
    pub fn new(name: &str, batch: Option<i64>) -> Graph {
        Graph { message: Message { name: name.into(), ..Message::default() }, names: BTreeSet::new(), batch }
    }

    /// A graph in which two tensors have one name is none: readers would take one for the other.
    fn claim(&mut self, name: &str) -> Result<()> {
        if self.names.insert(name.into()) {
            return Ok(());
        }
        Err(Error::training(format!("two tensors of the graph are called {name}, expected names of their own")).hint(
            "a layer has the name of a part of another one: rename it, or make the model again with cqat quantize",
        ))
    }

    /// A constant; its name.
    ///
    /// # Errors
    /// A name that is taken, as in all that follow.
    pub fn constant<T: Element>(&mut self, name: impl Into<String>, shape: &[usize], data: &[T]) -> Result<String> {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        let name = name.into();
        self.claim(&name)?;
        self.message.initializer.push(Tensor {
            dims: shape.iter().map(|d| *d as i64).collect(),
            data_type: T::TYPE,
            name: name.clone(),
            raw_data: Some(bytemuck::cast_slice(data).to_vec()),
        });
        Ok(name)
    }

    /// A node of the standard operators; what it makes.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: Vec<Attribute>, output: Wire) -> Result<Wire> {
        self.node_of("", op, inputs, attributes, output)
    }

    /// A node of the operators of `domain`; what it makes.
    pub fn node_of(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
        output: Wire,
    ) -> Result<Wire> {
        let value = self.value(&output);
        self.push(domain, op, inputs, attributes, value)?;
        Ok(output)
    }

    /// A node that reads constants alone, so that what it makes has no batch; its output's name.
    pub fn constant_node_of(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
        output: Wire,
    ) -> Result<String> {
        let name = output.name.clone();
        self.push(domain, op, inputs, attributes, value(output, vec![]))?;
        Ok(name)
    }

    fn push(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        attribute: Vec<Attribute>,
        output: Value,
    ) -> Result<()> {
        self.claim(&output.name)?;
        self.message.node.push(Node {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.name.clone()],
            name: output.name.clone(),
            op_type: op.into(),
            attribute,
            domain: domain.into(),
        });
        self.message.value_info.push(output);
        Ok(())
    }

    /// The graph from `input` to `output`, which its last node has made and is called `name`.
    pub fn finish(mut self, input: &Wire, output: &Wire, name: &str) -> Result<Message> {
        self.claim(&input.name)?;
        self.claim(name)?;
        if let Some(node) = self.message.node.last_mut() {
            node.output = vec![name.into()];
        }
        self.message.value_info.retain(|value| value.name != output.name);
        self.message.input = vec![self.value(input)];
        self.message.output = vec![self.value(&Wire { name: name.into(), ..output.clone() })];
        Ok(self.message)
    }

    fn value(&self, wire: &Wire) -> Value {
        let batch = match self.batch {
            Some(count) => Dimension { dim_value: Some(count), dim_param: None },
            None => Dimension { dim_value: None, dim_param: Some("N".into()) },
        };
        value(wire.clone(), vec![batch])
    }
}

/// A tensor with these dimensions before those of its shape.
fn value(wire: Wire, before: Vec<Dimension>) -> Value {
    let sides = wire.shape.iter().map(|d| Dimension { dim_value: Some(*d as i64), dim_param: None });
    let shape = Shape { dim: before.into_iter().chain(sides).collect() };
    let tensor_type = Some(TensorType { elem_type: wire.element, shape: Some(shape) });
    Value { name: wire.name, r#type: Some(Type { tensor_type }) }
}

pub fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.into(), i: Some(value), r#type: attribute_type::INT, ..Attribute::default() }
}

pub fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: values.to_vec(), r#type: attribute_type::INTS, ..Attribute::default() }
}

pub fn string(name: &str, value: &str) -> Attribute {
    Attribute { name: name.into(), s: Some(value.into()), r#type: attribute_type::STRING, ..Attribute::default() }
}
