//! Least squares with coefficients that can't be negative: a step never gets quicker by more work.

/// One measured step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<const N: usize> {
    /// What was computed, one figure a coefficient.
    pub x: [f64; N],
    /// Seconds it took.
    pub seconds: f64,
}

/// The coefficients `c ≥ 0` with the least sum of ((c·x − seconds) / seconds)²: relative, so that short steps count as
/// much as long ones. Those that would be negative are 0, and the others are fitted again without them.
#[must_use]
pub fn fit<const N: usize>(samples: &[Sample<N>]) -> [f64; N] {
    let mut kept = [true; N];
    loop {
        let solved = solve(samples, kept);
        let worst = (0..N).filter(|at| kept[*at]).min_by(|a, b| solved[*a].total_cmp(&solved[*b]));
        match worst {
            Some(at) if solved[at] < 0.0 => kept[at] = false,
            _ => return solved,
        }
    }
}

/// The normal equations of the kept coefficients, by Gauss-Jordan elimination with the largest pivot.
fn solve<const N: usize>(samples: &[Sample<N>], kept: [bool; N]) -> [f64; N] {
    let mut a = [[0.0_f64; N]; N];
    let mut b = [0.0_f64; N];
    for sample in samples.iter().filter(|sample| sample.seconds > 0.0) {
        let weight = sample.seconds.powi(-2);
        for row in (0..N).filter(|row| kept[*row]) {
            b[row] += weight * sample.x[row] * sample.seconds;
            for column in (0..N).filter(|column| kept[*column]) {
                a[row][column] += weight * sample.x[row] * sample.x[column];
            }
        }
    }
    let mut done = [false; N];
    let mut pivots = [None; N];
    for column in (0..N).filter(|column| kept[*column]) {
        let candidates = (0..N).filter(|row| !done[*row]);
        let Some(row) = candidates.max_by(|p, q| a[*p][column].abs().total_cmp(&a[*q][column].abs())) else { break };
        if a[row][column].abs() < f64::EPSILON {
            continue;
        }
        done[row] = true;
        pivots[column] = Some(row);
        for other in (0..N).filter(|other| *other != row) {
            let factor = a[other][column] / a[row][column];
            let pivot = a[row];
            a[other].iter_mut().zip(pivot).for_each(|(at, of_pivot)| *at -= factor * of_pivot);
            b[other] -= factor * b[row];
        }
    }
    let mut out = [0.0; N];
    for (column, row) in pivots.iter().enumerate().filter_map(|(column, row)| row.map(|row| (column, row))) {
        out[column] = b[row] / a[row][column];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(batch: f64, context: f64, c: [f64; 3]) -> Sample<3> {
        let x = [1.0, batch, context];
        Sample { x, seconds: c.iter().zip(x).map(|(c, x)| c * x).sum() }
    }

    fn grid(c: [f64; 3]) -> Vec<Sample<3>> {
        let points = [(1.0, 32.0), (4.0, 128.0), (8.0, 256.0), (8.0, 2048.0), (1.0, 512.0)];
        points.into_iter().map(|(batch, context)| sample(batch, context, c)).collect()
    }

    proptest! {
        #[test]
        fn what_made_the_samples_is_found(a in 1e-4..1e-1, b in 1e-4..1e-1, g in 1e-7..1e-4) {
            let found = fit(&grid([a, b, g]));
            for (found, made) in found.into_iter().zip([a, b, g]) {
                prop_assert!((found - made).abs() < 1e-6 * (a + b), "{found} {made}");
            }
        }
    }

    #[test]
    fn no_coefficient_is_negative() {
        let mut samples = grid([0.01, 0.002, 0.0]);
        samples[3].seconds *= 0.8;
        let found = fit(&samples);
        assert!(found.iter().all(|c| *c >= 0.0) && found[2] == 0.0, "{found:?}");
        assert!(found[1] > 0.001);
        assert_eq!(fit::<3>(&[]), [0.0; 3]);
    }
}
