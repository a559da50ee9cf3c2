//! What pairs of measurements say: ratios, their lower bound, percentiles.

use anyhow::{Context, Result, ensure};

use crate::bench::float;

/// Student's t, two-sided 95 %, by degrees of freedom from 1 on.
const T_95: [f64; 9] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/// The lower end of the 95 % interval of the geometric mean of these ratios.
pub(super) fn lower_bound(ratios: &[f64]) -> Result<f64> {
    let (mean, logs) = logs(ratios)?;
    let freedom = logs.len().checked_sub(2).and_then(|index| T_95.get(index));
    let t = freedom.with_context(|| format!("{} pairs: 2 to {} are needed", logs.len(), T_95.len() + 1))?;
    let count = float(u64::try_from(logs.len())?)?;
    let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    Ok((mean - t * (squares / (count - 1.0) / count).sqrt()).exp())
}

/// The geometric mean.
pub(super) fn mean(ratios: &[f64]) -> Result<f64> {
    Ok(logs(ratios)?.0.exp())
}

fn logs(ratios: &[f64]) -> Result<(f64, Vec<f64>)> {
    ensure!(!ratios.is_empty(), "no pairs");
    ensure!(ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0), "no ratios: {ratios:?}");
    let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    Ok((logs.iter().sum::<f64>() / float(u64::try_from(logs.len())?)?, logs))
}

/// The value that `percent` of the values don't exceed.
pub(super) fn percentile(values: &[f64], percent: usize) -> Result<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = sorted.len().saturating_mul(percent).div_ceil(100).max(1);
    sorted.get(rank.saturating_sub(1)).copied().context("no values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_students() {
        // ln: mean 0, standard deviation 0.1, five pairs: exp(-2.776 * 0.1 / sqrt(5)).
        let spread = 0.1 * (4.0_f64 / 5.0).sqrt() * (5.0_f64 / 4.0).sqrt();
        let ratios = [spread, -spread, spread, -spread, 0.0].map(f64::exp);
        assert!((lower_bound(&ratios).unwrap() - (-2.776 * 0.1 / 5.0_f64.sqrt()).exp()).abs() < 1e-9);
        assert!((lower_bound(&[1.1; 5]).unwrap() - 1.1).abs() < 1e-9);
        assert!((mean(&[2.0, 0.5]).unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_pair_or_a_zero_bounds_nothing() {
        assert!(lower_bound(&[1.0]).is_err());
        assert!(lower_bound(&[]).is_err());
        assert!(lower_bound(&[1.0, 0.0]).is_err());
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 99).unwrap(), 99.0);
        assert_eq!(percentile(&hundred, 50).unwrap(), 50.0);
        assert_eq!(percentile(&[3.0], 99).unwrap(), 3.0);
        assert!(percentile(&[], 99).is_err());
    }
}
