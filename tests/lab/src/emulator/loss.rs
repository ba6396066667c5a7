//! Which packets a link loses on the wire.

use super::rng::Rng;

/// How a link loses packets on the wire (after they took their share of the rate).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each packet alone, with this probability (0 to 1).
    Random(f64),
    /// Bursts: a chain of a good and a bad state, one step a packet (Gilbert 1960, Elliott 1963).
    GilbertElliott(GilbertElliott),
}

/// The four probabilities (0 to 1, per packet) of the two-state chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GilbertElliott {
    /// From the good state to the bad one.
    pub to_bad: f64,
    /// From the bad state to the good one; its inverse is the mean length of a burst in packets.
    pub to_good: f64,
    /// A packet is lost in the good state.
    pub lost_in_good: f64,
    /// A packet is lost in the bad state.
    pub lost_in_bad: f64,
}

impl GilbertElliott {
    /// Bursts of `burst` packets on average (at least 1), `mean` of all packets lost in the long run.
    pub fn bursts(mean: f64, burst: f64) -> Self {
        let to_good = 1.0 / burst.max(1.0);
        let mean = mean.clamp(0.0, 0.99);
        Self {
            to_bad: (to_good * mean / (1.0 - mean)).min(1.0),
            to_good,
            lost_in_good: 0.0,
            lost_in_bad: 1.0,
        }
    }
}

/// The memory of the chain.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LossState {
    bad: bool,
}

impl LossState {
    /// Whether the next packet is lost.
    pub(super) fn loses(&mut self, loss: Loss, rng: &mut Rng) -> bool {
        match loss {
            Loss::None => false,
            Loss::Random(probability) => rng.happens(probability),
            Loss::GilbertElliott(p) => {
                if rng.happens(if self.bad { p.to_good } else { p.to_bad }) {
                    self.bad = !self.bad;
                }
                rng.happens(if self.bad {
                    p.lost_in_bad
                } else {
                    p.lost_in_good
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(loss: Loss, n: usize) -> Vec<bool> {
        let (mut state, mut rng) = (LossState::default(), Rng::new(3));
        (0..n).map(|_| state.loses(loss, &mut rng)).collect()
    }

    fn share(pattern: &[bool]) -> f64 {
        pattern.iter().filter(|lost| **lost).count() as f64 / pattern.len() as f64
    }

    #[test]
    fn random_loss_has_its_mean() {
        assert_eq!(share(&pattern(Loss::None, 1000)), 0.0);
        assert_eq!(share(&pattern(Loss::Random(1.0), 1000)), 1.0);
        let lost = share(&pattern(Loss::Random(0.02), 200_000));
        assert!((lost - 0.02).abs() < 0.002, "{lost}");
    }

    #[test]
    fn bursts_have_their_mean_and_length() {
        let pattern = pattern(
            Loss::GilbertElliott(GilbertElliott::bursts(0.05, 8.0)),
            400_000,
        );
        let lost = share(&pattern);
        assert!((lost - 0.05).abs() < 0.005, "{lost}");
        let bursts = pattern.windows(2).filter(|w| !w[0] && w[1]).count();
        let length = lost * pattern.len() as f64 / bursts as f64;
        assert!((length - 8.0).abs() < 0.5, "mean burst {length}");
    }
}
