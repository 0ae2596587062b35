//! The optimizer, and the kernels that measure a device.

use super::{Case, only, reals, step, unset};
use crate::kernels::ceiling::{COPY, CopyParams, MULTIPLY_ADD, MultiplyAddParams};
use crate::kernels::maxima::{CLEAR, ClearParams};
use crate::kernels::optimizer::{
    AVERAGE, AverageParams, GRAD_CLIP, GRAD_NORM, GradClipParams, GradNormParams, SGD, SgdParams,
};
use crate::kernels::{Step, flat_grid};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    optimizer_cases(&mut cases);
    ceiling_cases(&mut cases);
    for (first, count) in [(0, 70), (3, 64), (99, 1)] {
        let p = ClearParams { first, count, pad: [0; 2] };
        let (name, grid) = (format!("{count} from {first}"), flat_grid(count as usize));
        cases.push(Case::new(&CLEAR, only(&CLEAR), name, &p, grid, vec![reals(100, 9, -1.0, 1.0)]).exact());
    }
    cases
}

fn optimizer_cases(cases: &mut Vec<Case>) {
    for (decayed4, nesterov) in [(0, 0), (60, 1), (133, 1)] {
        let p = SgdParams { words4: 133, decayed4, nesterov, momentum: 0.9, weight_decay: 0.01, pad: [0; 3] };
        let data = vec![
            reals(532, 1, -1.0, 1.0),
            step(Step { lr: 0.1, ..Step::default() }),
            reals(4, 4, 0.25, 0.75),
            reals(532, 2, -1.0, 1.0),
            reals(532, 3, -1.0, 1.0),
        ];
        let name = format!("decayed {decayed4} nesterov {nesterov}");
        cases.push(Case::new(&SGD, only(&SGD), name, &p, flat_grid(133), data));
    }
    for (words4, gradients, decay) in [(1, 0, 0.9), (133, 0, 0.0), (133, 0, 1.0), (133, 1, 0.75)] {
        let p = AverageParams { words4, gradients, pad: [0; 2] };
        let decays = match gradients {
            1 => Step { gradient_decay: decay, ema_decay: 0.5, ..Step::default() },
            _ => Step { ema_decay: decay, gradient_decay: 0.5, ..Step::default() },
        };
        let [values, averages] = [7, 8].map(|seed| reals(4 * words4 as usize, seed, -1.0, 1.0));
        let data = vec![values, step(decays), averages];
        let name = format!("{words4} decay {decay} gradients {gradients}");
        cases.push(Case::new(&AVERAGE, only(&AVERAGE), name, &p, flat_grid(words4 as usize), data));
    }
    for (words4, groups) in [(1, 1), (133, 3), (1000, 5), (1000, 256)] {
        let p = GradNormParams { words4, groups, pad: [0; 2] };
        let data = vec![reals(4 * words4 as usize, 5, -1.0, 1.0), unset(groups as usize)];
        let name = format!("{words4} in {groups}");
        cases.push(Case::new(&GRAD_NORM, only(&GRAD_NORM), name, &p, [groups, 1, 1], data));
        for most in [0.5, 1e6] {
            let p = GradClipParams { groups, most, pad: [0; 2] };
            let data = vec![reals(groups as usize, 6, 0.5, 2.0), vec![0; 4]];
            cases.push(Case::new(&GRAD_CLIP, only(&GRAD_CLIP), format!("{groups} to {most}"), &p, [1, 1, 1], data));
        }
    }
}

fn ceiling_cases(cases: &mut Vec<Case>) {
    for words4 in [1, 133] {
        let p = CopyParams { words4, pad: [0; 3] };
        let data = vec![reals(4 * words4 as usize, 1, -1.0, 1.0), unset(4 * words4 as usize)];
        cases.push(Case::new(&COPY, only(&COPY), format!("{words4}"), &p, flat_grid(words4 as usize), data).exact());
        for turns in [0, 7] {
            let p = MultiplyAddParams { words4, turns, factor: 0.5, pad: 0 };
            let (name, data) = (format!("{words4} x {turns}"), vec![unset(4 * words4 as usize)]);
            let grid = flat_grid(words4 as usize);
            cases.push(Case::new(&MULTIPLY_ADD, only(&MULTIPLY_ADD), name, &p, grid, data));
        }
    }
}
