//! The network as data: a flat list of layers in forward order, with torchvision-style names.
//!
//! Layers are coarse on purpose: a convolution carries its batch norm, and an activation is "sum of branches, ReLU,
//! quantize", because that is how the shaders are fused. A new kind of layer is one arm of [`Layer`].

use crate::{Error, Result};

/// Index into [`Net::layers`].
pub type LayerId = usize;

/// Height, width and channels of one picture's tensor; memory order is NHWC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels, as stored (padded to a multiple of 4).
    pub c: usize,
}

impl Shape {
    /// Pixels of one picture.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// Values of one picture.
    pub fn len(&self) -> usize {
        self.pixels() * self.c
    }

    /// Whether the shape holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The picture, normalised, three channels stored as four.
#[derive(Debug, Clone)]
pub struct Input {
    /// Stored shape.
    pub shape: Shape,
}

/// Convolution (square kernel, padding `kernel / 2`, no bias) followed by batch norm.
#[derive(Debug, Clone)]
pub struct Conv {
    /// Name of the convolution, such as `layer1.0.conv1`.
    pub name: String,
    /// Name of its batch norm, such as `layer1.0.bn1`.
    pub norm: String,
    /// The layer it reads.
    pub input: LayerId,
    /// Kernel side, 1 or 3.
    pub kernel: usize,
    /// Stride, 1 or 2.
    pub stride: usize,
    /// Input shape.
    pub from: Shape,
    /// Output shape.
    pub to: Shape,
    /// Input channels that carry data (3 of 4 for the first layer).
    pub real_in: usize,
}

/// What is added to the main branch before the ReLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortcut {
    /// Nothing.
    None,
    /// The output of an earlier activation.
    Identity(LayerId),
    /// A 1x1 convolution with batch norm.
    Projection(LayerId),
}

/// `quantize(relu(batch_norm(main) + shortcut))`.
#[derive(Debug, Clone)]
pub struct Activation {
    /// Name, such as `stem` or `layer1.0.relu2`.
    pub name: String,
    /// The convolution on the main branch.
    pub main: LayerId,
    /// The other branch.
    pub shortcut: Shortcut,
    /// Output shape.
    pub shape: Shape,
}

impl Activation {
    /// Convolutions that end in it: 2 where the shortcut is a projection.
    pub fn branches(&self) -> usize {
        1 + usize::from(matches!(self.shortcut, Shortcut::Projection(_)))
    }
}

/// Global average pool: `(H, W, C) -> (1, 1, C)`.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The activation it reads.
    pub input: LayerId,
    /// Input shape.
    pub from: Shape,
}

/// Fully connected layer with bias.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Name, `fc`.
    pub name: String,
    /// The pool it reads.
    pub input: LayerId,
    /// Input features.
    pub features: usize,
    /// Outputs.
    pub classes: usize,
}

impl Linear {
    /// Outputs as stored: padded to a multiple of 8.
    pub fn padded(&self) -> usize {
        self.classes.next_multiple_of(8)
    }
}

/// One layer.
#[derive(Debug, Clone)]
pub enum Layer {
    /// The picture.
    Input(Input),
    /// Convolution and batch norm.
    Conv(Conv),
    /// Sum, ReLU, quantize.
    Activation(Activation),
    /// Global average pool.
    Pool(Pool),
    /// Fully connected.
    Linear(Linear),
}

impl Layer {
    /// The layer's name.
    pub fn name(&self) -> &str {
        match self {
            Layer::Input(_) => "input",
            Layer::Conv(c) => &c.name,
            Layer::Activation(a) => &a.name,
            Layer::Pool(_) => "pool",
            Layer::Linear(l) => &l.name,
        }
    }

    /// Its output's shape, and the kernel of a convolution: `16x16x128, 3x3/2`.
    pub fn shape_text(&self) -> String {
        let s = |h: usize, w: usize, c: usize| format!("{h}x{w}x{c}");
        match self {
            Layer::Input(i) => s(i.shape.h, i.shape.w, 3),
            Layer::Conv(c) => format!("{}, {}x{}/{}", s(c.to.h, c.to.w, c.to.c), c.kernel, c.kernel, c.stride),
            Layer::Activation(a) => s(a.shape.h, a.shape.w, a.shape.c),
            Layer::Pool(p) => s(1, 1, p.from.c),
            Layer::Linear(l) => s(1, 1, l.classes),
        }
    }
}

/// A network: layers in forward order.
#[derive(Debug, Clone)]
pub struct Net {
    /// The layers; the first is the input, the last is linear.
    pub layers: Vec<Layer>,
    /// Classes.
    pub classes: usize,
    /// Side of the square picture.
    pub size: usize,
}

/// Depths of [`Net::resnet`], with the number of BasicBlocks in each stage.
pub const DEPTHS: [(usize, &[usize]); 8] = [
    (8, &[1, 1, 1]),
    (10, &[1, 1, 1, 1]),
    (18, &[2, 2, 2, 2]),
    (20, &[3, 3, 3]),
    (32, &[5, 5, 5]),
    (34, &[3, 4, 6, 3]),
    (44, &[7, 7, 7]),
    (56, &[9, 9, 9]),
];

/// The depths in words: `8, 10, ... or 56`.
pub fn depths_in_words() -> String {
    let depths: Vec<String> = DEPTHS.iter().map(|(depth, _)| depth.to_string()).collect();
    let (last, first) = depths.split_last().expect("there are depths");
    format!("{} or {last}", first.join(", "))
}

impl Net {
    /// ResNet for small pictures: depth 10, 18 and 34 (four stages of BasicBlocks: w, 2w, 4w, 8w channels), depth 8, 20, 32, 44
    /// and 56 (the three-stage CIFAR form: w, 2w, 4w). 3x3 stem without max-pool; 1x1 projection where the shape changes.
    ///
    /// # Errors
    /// Another depth, a width that is not a positive multiple of 8, or no classes.
    pub fn resnet(depth: usize, width: usize, classes: usize, size: usize) -> Result<Net> {
        let Some((_, stages)) = DEPTHS.iter().find(|(known, _)| *known == depth) else {
            return Err(Error::config(format!("network.depth is {depth}, expected {}", depths_in_words()))
                .hint("depth 18 is the paper's network, depth 8 the small one of the demo"));
        };
        if width == 0 || !width.is_multiple_of(8) {
            return Err(Error::config(format!("network.width is {width}, expected a positive multiple of 8"))
                .hint("64 is the usual width of ResNet-18, 16 a small one"));
        }
        if classes == 0 {
            return Err(Error::config("network.classes is 0, expected 1 or more")
                .hint("leave the key out to take the data set's"));
        }
        let mut b = Builder { layers: Vec::new() };
        let input = b.push(Layer::Input(Input { shape: Shape { h: size, w: size, c: 4 } }));
        let stem = b.conv("conv1", "bn1", input, width, 3, 1);
        let mut x = b.activation("stem", stem, Shortcut::None);
        for (stage, &blocks) in stages.iter().enumerate() {
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                x = b.basic_block(&format!("layer{}.{block}", stage + 1), x, width << stage, stride);
            }
        }
        let from = b.shape(x);
        let pool = b.push(Layer::Pool(Pool { input: x, from }));
        b.push(Layer::Linear(Linear { name: "fc".into(), input: pool, features: from.c, classes }));
        Ok(Net { layers: b.layers, classes, size })
    }

    /// The convolutions in forward order.
    pub fn convs(&self) -> impl Iterator<Item = (LayerId, &Conv)> {
        self.layers.iter().enumerate().filter_map(|(id, l)| match l {
            Layer::Conv(c) => Some((id, c)),
            _ => None,
        })
    }

    /// The activations in forward order.
    pub fn activations(&self) -> impl Iterator<Item = (LayerId, &Activation)> {
        self.layers.iter().enumerate().filter_map(|(id, l)| match l {
            Layer::Activation(a) => Some((id, a)),
            _ => None,
        })
    }

    /// The convolution `id`.
    pub fn conv(&self, id: LayerId) -> &Conv {
        match &self.layers[id] {
            Layer::Conv(c) => c,
            other => unreachable!("layer {id} is {}, not a convolution", other.name()),
        }
    }

    /// The fully connected layer.
    pub fn linear(&self) -> (LayerId, &Linear) {
        match self.layers.last() {
            Some(Layer::Linear(l)) => (self.layers.len() - 1, l),
            _ => unreachable!("a network ends in a linear layer"),
        }
    }

    /// The activation that a convolution's branch ends in.
    pub fn activation_behind(&self, conv: LayerId) -> (LayerId, &Activation) {
        let ends = |a: &Activation| a.main == conv || matches!(a.shortcut, Shortcut::Projection(p) if p == conv);
        self.activations().find(|(_, a)| ends(a)).expect("branches end in activations")
    }

    /// The first layer that reads what layer `id` writes.
    pub fn first_reader(&self, id: LayerId) -> Option<LayerId> {
        self.layers.iter().position(|layer| match layer {
            Layer::Input(_) => false,
            Layer::Conv(c) => c.input == id,
            Layer::Activation(a) => {
                a.main == id || matches!(a.shortcut, Shortcut::Identity(x) | Shortcut::Projection(x) if x == id)
            }
            Layer::Pool(p) => p.input == id,
            Layer::Linear(l) => l.input == id,
        })
    }

    /// The activation that feeds the pool.
    pub fn last_activation(&self) -> LayerId {
        self.layers.iter().rposition(|l| matches!(l, Layer::Activation(_))).expect("a network has activations")
    }

    /// Whether the pool reads an activation, so that this makes the pool's values too.
    pub fn is_pooled(&self, activation: LayerId) -> bool {
        activation == self.last_activation()
    }

    /// Multiply-accumulates of the forward pass of one picture, without padding channels.
    pub fn macs(&self) -> u64 {
        let convs: usize = self.convs().map(|(_, c)| c.to.len() * c.kernel * c.kernel * c.real_in).sum();
        let (_, l) = self.linear();
        (convs + l.features * l.classes) as u64
    }

    /// Trainable parameters, without padding.
    pub fn parameters(&self) -> u64 {
        let convs: usize = self.convs().map(|(_, c)| c.kernel * c.kernel * c.real_in * c.to.c + 2 * c.to.c).sum();
        let (_, l) = self.linear();
        (convs + (l.features + 1) * l.classes) as u64
    }
}

struct Builder {
    layers: Vec<Layer>,
}

impl Builder {
    fn push(&mut self, layer: Layer) -> LayerId {
        self.layers.push(layer);
        self.layers.len() - 1
    }

    fn shape(&self, id: LayerId) -> Shape {
        match &self.layers[id] {
            Layer::Input(i) => i.shape,
            Layer::Conv(c) => c.to,
            Layer::Activation(a) => a.shape,
            Layer::Pool(p) => Shape { h: 1, w: 1, c: p.from.c },
            Layer::Linear(l) => Shape { h: 1, w: 1, c: l.padded() },
        }
    }

    fn conv(&mut self, name: &str, norm: &str, input: LayerId, out: usize, kernel: usize, stride: usize) -> LayerId {
        let from = self.shape(input);
        let to = Shape { h: from.h.div_ceil(stride), w: from.w.div_ceil(stride), c: out };
        let real_in = if matches!(self.layers[input], Layer::Input(_)) { 3 } else { from.c };
        let (name, norm) = (name.to_string(), norm.to_string());
        self.push(Layer::Conv(Conv { name, norm, input, kernel, stride, from, to, real_in }))
    }

    fn activation(&mut self, name: &str, main: LayerId, shortcut: Shortcut) -> LayerId {
        let shape = self.shape(main);
        self.push(Layer::Activation(Activation { name: name.to_string(), main, shortcut, shape }))
    }

    fn basic_block(&mut self, name: &str, x: LayerId, out: usize, stride: usize) -> LayerId {
        let part = |s: &str| format!("{name}.{s}");
        let c1 = self.conv(&part("conv1"), &part("bn1"), x, out, 3, stride);
        let a1 = self.activation(&part("relu1"), c1, Shortcut::None);
        let c2 = self.conv(&part("conv2"), &part("bn2"), a1, out, 3, 1);
        let shortcut = if stride != 1 || self.shape(x).c != out {
            Shortcut::Projection(self.conv(&part("downsample.0"), &part("downsample.1"), x, out, 1, stride))
        } else {
            Shortcut::Identity(x)
        };
        self.activation(&part("relu2"), c2, shortcut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resnet18_has_the_published_size() {
        let net = Net::resnet(18, 64, 100, 32).unwrap();
        assert_eq!(net.macs(), 555_468_800);
        assert_eq!(net.parameters(), 11_220_132);
        assert_eq!(net.convs().count(), 20);
    }

    #[test]
    fn the_cifar_form_has_three_stages() {
        let net = Net::resnet(20, 16, 10, 32).unwrap();
        assert_eq!(net.linear().1.features, 64);
        assert_eq!(net.convs().count(), 1 + 18 + 2);
    }

    #[test]
    fn every_depth_counts_its_layers() {
        for (depth, stages) in DEPTHS {
            let net = Net::resnet(depth, 8, 10, 32).unwrap();
            // Projections are beside the longest path.
            let on_path = net.convs().filter(|(_, c)| c.kernel == 3).count() + 1;
            assert_eq!(on_path, depth, "{stages:?}");
        }
        // He et al. (2015), table 6: 0.27, 0.46, 0.66 and 0.85 million; the 1x1 projections of this form add 2,560 weights.
        let published = [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)];
        for (depth, millions) in published {
            let count = Net::resnet(depth, 16, 10, 32).unwrap().parameters() as f64 / 1e6;
            assert!((count - millions).abs() < 0.011, "depth {depth}: {count}");
        }
        // torchvision's ResNet-34 has 21,797,672 with a 7x7 stem and 1,000 classes.
        let stem = 3 * 64 * (49 - 9);
        assert_eq!(Net::resnet(34, 64, 1000, 32).unwrap().parameters(), 21_797_672 - stem);
    }

    #[test]
    fn odd_widths_and_depths_are_refused() {
        assert!(Net::resnet(18, 12, 10, 32).is_err());
        assert!(Net::resnet(19, 16, 10, 32).is_err());
    }
}
