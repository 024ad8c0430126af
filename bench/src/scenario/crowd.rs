//! How a crowd behaves: when its viewers come, which room they choose, what they ask for.
//!
//! Pure. In: a viewer's number. Out: its time and its room.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How viewers come during the ramp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Even,
    /// Nine of ten within the middle tenth.
    Spike,
    /// As over a day: slowly, then many, then slowly.
    Diurnal,
}

impl Arrivals {
    /// When viewer `index` of `count` comes, as a share of the ramp.
    #[must_use]
    pub fn share(self, index: u32, count: u32) -> f64 {
        let x = (f64::from(index) + 0.5) / f64::from(count.max(1));
        match self {
            Self::Even => x,
            Self::Spike if (0.05..0.95).contains(&x) => 0.45 + (x - 0.05) / 9.0,
            Self::Spike if x < 0.05 => x * 9.0,
            Self::Spike => 1.0 - (1.0 - x) * 9.0,
            // The inverse of the share that has come by a time, (1 - cos πt) / 2.
            Self::Diurnal => (1.0 - 2.0 * x).acos() / std::f64::consts::PI,
        }
    }
}

/// Which room viewers choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Popularity {
    /// All rooms alike.
    #[default]
    Even,
    /// Room n in proportion to 1/n.
    Zipf,
}

impl Popularity {
    /// The room of viewer `index` of `count`, of `rooms`.
    #[must_use]
    pub fn room(self, index: u32, count: u32, rooms: usize) -> usize {
        match self {
            Self::Even => index as usize % rooms.max(1),
            Self::Zipf => {
                // Evenly spread points, in an order that does not follow arrival.
                let scattered = u64::from(index) * 2_654_435_761 % u64::from(count.max(1));
                let total: f64 = (1..=rooms).map(|n| 1.0 / n as f64).sum();
                let mut left = (scattered as f64 + 0.5) / f64::from(count.max(1)) * total;
                (0..rooms)
                    .find(|n| {
                        left -= 1.0 / (*n as f64 + 1.0);
                        left <= 0.0
                    })
                    .unwrap_or_default()
            }
        }
    }
}

/// What LL-HLS viewers do about parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Parts {
    /// Ask for the hinted part while the playlist is held, on a second connection.
    #[default]
    Hint,
    /// Ask for a part once the playlist lists it, on the same connection.
    Listed,
    /// Timed viewers ask for the hinted part, the others for playlists alone.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_order_and_fill_the_ramp() {
        for arrivals in [Arrivals::Even, Arrivals::Spike, Arrivals::Diurnal] {
            let times: Vec<f64> = (0..1000).map(|i| arrivals.share(i, 1000)).collect();
            assert!(times.windows(2).all(|w| w[0] <= w[1]), "{arrivals:?}");
            assert!(times[0] >= 0.0 && times[0] < 0.05 && times[999] > 0.95 && times[999] <= 1.0);
        }
        let middle =
            (0..1000).filter(|i| (0.44..0.56).contains(&Arrivals::Spike.share(*i, 1000))).count();
        assert!(middle >= 900, "{middle}");
    }

    #[test]
    fn heavy_tailed_rooms_differ_as_one_to_n() {
        let mut counts = [0_u32; 10];
        for viewer in 0..10_000 {
            counts[Popularity::Zipf.room(viewer, 10_000, 10)] += 1;
        }
        assert!(counts.windows(2).all(|w| w[0] >= w[1]), "{counts:?}");
        assert!(counts[0] > 9 * counts[9] && counts[9] > 0, "{counts:?}");
    }
}
