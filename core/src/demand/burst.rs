//! What a rate hides: arrivals come in bursts, and until somebody has reacted to one it must be borne.

/// The rate to be ready for: `λ + z·√(λ·IDC/W)`. Within `window` seconds `λ·W` arrivals come in the mean, with a variance of
/// `IDC` times that; `z` says how many standard deviations are borne.
#[must_use]
pub fn effective_rate(rate: f64, dispersion: f64, window: f64, z: f64) -> f64 {
    if rate <= 0.0 || window <= 0.0 {
        return rate.max(0.0);
    }
    rate + z.max(0.0) * (rate * dispersion.max(0.0) / window).sqrt()
}

/// The index of dispersion of counts in windows of equal length: variance over mean. One for a Poisson process; none where
/// nothing came, or in fewer than two windows.
#[must_use]
pub fn dispersion(counts: &[f64]) -> Option<f64> {
    let length = f64::from(u32::try_from(counts.len()).ok().filter(|length| *length > 1)?);
    let mean = counts.iter().sum::<f64>() / length;
    let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / (length - 1.0);
    (mean > 0.0).then_some(variance / mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_borne_for_as_long_as_a_reaction_takes() {
        assert_eq!(effective_rate(4.0, 1.0, 100.0, 2.0), 4.4);
        assert!(effective_rate(4.0, 20.0, 100.0, 2.0) > effective_rate(4.0, 1.0, 100.0, 2.0));
        assert!(
            effective_rate(4.0, 1.0, 10.0, 2.0) > effective_rate(4.0, 1.0, 100.0, 2.0),
            "less time, less averaging"
        );
        assert_eq!(effective_rate(0.0, 5.0, 10.0, 2.0), 0.0);
        assert_eq!(effective_rate(3.0, 5.0, 0.0, 2.0), 3.0);
    }

    #[test]
    fn even_counts_have_no_dispersion_and_lumps_have_much() {
        assert_eq!(dispersion(&[5.0; 8]), Some(0.0));
        assert_eq!(dispersion(&[0.0, 0.0, 0.0, 20.0]), Some(20.0));
        assert_eq!((dispersion(&[0.0; 4]), dispersion(&[3.0]), dispersion(&[])), (None, None, None));
    }
}
