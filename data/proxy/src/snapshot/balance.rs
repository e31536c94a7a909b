//! Tables for choosing an endpoint in constant or logarithmic time, whatever the number of endpoints.

use std::collections::BTreeMap;

use weir_config::{Balance, Cluster, Endpoint};

/// Weighted rounds up to this length are laid out beforehand; longer ones are chosen at random by weight.
const MAX_ROUND: u64 = 4_096;
/// Points on a hash ring for each endpoint of average weight, and bounds for the whole.
const RING_POINTS_EACH: usize = 64;
const RING_POINTS: std::ops::RangeInclusive<usize> = 1_024..=65_536;

/// The endpoints of one priority and how to choose among them. Indices are those of the cluster's endpoints.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) members: Vec<u32>,
    /// Weights up to and including each member; empty if all are equal.
    cumulated: Vec<u64>,
    /// A smooth round by weight; empty if weights are equal or the round would be too long.
    round: Vec<u32>,
    /// Points in order of their hash; empty unless the cluster hashes.
    ring: Vec<(u64, u32)>,
}

impl Group {
    /// One group for each priority that has endpoints, the most preferred (0) first. Endpoints of weight 0 are left out,
    /// unless a priority has no others.
    pub(super) fn all(cluster: &Cluster) -> Vec<Group> {
        let mut by_priority: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (index, endpoint) in (0..).zip(&cluster.endpoints) {
            by_priority.entry(endpoint.priority).or_default().push(index);
        }
        by_priority.into_values().map(|members| Group::new(members, cluster)).collect()
    }

    fn new(members: Vec<u32>, cluster: &Cluster) -> Group {
        let weight_of = |member: &u32| u64::from(cluster.endpoints[*member as usize].weight);
        let weighted: Vec<u32> = members.iter().copied().filter(|member| weight_of(member) > 0).collect();
        let members = if weighted.is_empty() { members } else { weighted };
        let weights: Vec<u64> = members.iter().map(|member| weight_of(member).max(1)).collect();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let hashes = cluster.balance == Balance::RingHash;
        Group {
            cumulated: if equal { Vec::new() } else { cumulate(&weights) },
            round: if equal || cluster.balance != Balance::RoundRobin { Vec::new() } else { smooth_round(&weights) },
            ring: if hashes { ring(&members, &weights, &cluster.endpoints) } else { Vec::new() },
            members,
        }
    }

    /// In turn: the `turn`-th choice.
    pub(crate) fn in_turn(&self, turn: usize) -> u32 {
        match (self.cumulated.is_empty(), self.round.is_empty()) {
            (true, _) => self.members[turn % self.members.len()],
            (false, false) => self.members[self.round[turn % self.round.len()] as usize],
            (false, true) => self.at_random(),
        }
    }

    /// At random by weight.
    pub(crate) fn at_random(&self) -> u32 {
        let place = match self.cumulated.last() {
            None => fastrand::usize(..self.members.len()),
            Some(&total) => {
                let point = fastrand::u64(..total);
                self.cumulated.partition_point(|upto| *upto <= point)
            }
        };
        self.members[place]
    }

    /// The owner of a hash: the next point on the ring.
    pub(crate) fn by_hash(&self, hash: u64) -> u32 {
        let place = self.ring.partition_point(|(point, _)| *point < hash);
        self.ring.get(place).or_else(|| self.ring.first()).map_or_else(|| self.at_random(), |(_, member)| *member)
    }
}

fn cumulate(weights: &[u64]) -> Vec<u64> {
    let sum = |total: &mut u64, weight: &u64| {
        *total += weight;
        Some(*total)
    };
    weights.iter().scan(0, sum).collect()
}

/// A round in which each member comes as often as its weight says, as evenly spread as can be (nginx's smooth weighted
/// round robin, laid out once).
fn smooth_round(weights: &[u64]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd);
    let total: u64 = weights.iter().map(|weight| weight / divisor).sum();
    if total > MAX_ROUND {
        return Vec::new();
    }
    let mut credit = vec![0i64; weights.len()];
    let turn = |_| {
        credit.iter_mut().zip(weights).for_each(|(credit, weight)| *credit += (weight / divisor) as i64);
        let winner = (0..credit.len()).rev().max_by_key(|&index| credit[index]).unwrap_or(0);
        credit[winner] -= total as i64;
        winner as u32
    };
    (0..total).map(turn).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Consistent hashing (Karger et al., 1997): an endpoint that comes or goes moves only its own share of the keys.
fn ring(members: &[u32], weights: &[u64], endpoints: &[Endpoint]) -> Vec<(u64, u32)> {
    let size = (members.len() * RING_POINTS_EACH).clamp(*RING_POINTS.start(), *RING_POINTS.end()) as u64;
    let total: u64 = weights.iter().sum();
    let mut ring = Vec::new();
    for (&member, &weight) in members.iter().zip(weights) {
        let name = endpoints[member as usize].address.to_string();
        let points = (size * weight / total).max(1);
        ring.extend((0..points).map(|point| (hash(format!("{name}/{point}").as_bytes()), member)));
    }
    ring.sort_unstable();
    ring
}

/// FNV-1a with MurmurHash3's finaliser: the same in every process, so that all proxies agree on an owner.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_config::UpstreamProtocol;

    fn cluster(balance: Balance, weights: &[u32]) -> Cluster {
        let endpoint = |(index, &weight): (usize, &u32)| Endpoint {
            address: ([127, 0, 0, 1], index as u16 + 1).into(),
            weight,
            priority: 0,
            labels: BTreeMap::new(),
            tls: false,
        };
        Cluster {
            name: "c".into(),
            protocol: UpstreamProtocol::Http1,
            balance,
            endpoints: weights.iter().enumerate().map(endpoint).collect(),
            original_destination: false,
            returning: false,
            connect_timeout_ms: 1_000,
            limits: Default::default(),
            health_check: None,
            tls: None,
        }
    }

    fn count(choices: impl Iterator<Item = u32>, members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        choices.for_each(|member| counts[member as usize] += 1);
        counts
    }

    #[test]
    fn a_weighted_round_is_exact_and_smooth() {
        let groups = Group::all(&cluster(Balance::RoundRobin, &[50, 10, 10]));
        let choices: Vec<u32> = (0..7).map(|turn| groups[0].in_turn(turn)).collect();
        assert_eq!(choices, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_take_turns() {
        let groups = Group::all(&cluster(Balance::RoundRobin, &[3, 3, 3]));
        assert_eq!(count((0..300).map(|turn| groups[0].in_turn(turn)), 3), [100, 100, 100]);
    }

    #[test]
    fn weight_zero_is_left_out_unless_all_are() {
        let choose = |weights: &[u32]| {
            let groups = Group::all(&cluster(Balance::RoundRobin, weights));
            count((0..10).map(|turn| groups[0].in_turn(turn)), weights.len())
        };
        assert_eq!(choose(&[1, 0]), [10, 0]);
        assert_eq!(choose(&[0, 0]), [5, 5]);
    }

    #[test]
    fn random_choice_follows_weights() {
        fastrand::seed(7);
        let groups = Group::all(&cluster(Balance::Random, &[9_000, 1_000]));
        let counts = count((0..10_000).map(|_| groups[0].at_random()), 2);
        assert!((8_800..9_200).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn a_ring_moves_only_the_share_of_who_left() {
        let before = Group::all(&cluster(Balance::RingHash, &[1; 10]));
        let after = Group::all(&cluster(Balance::RingHash, &[1; 9]));
        let keys = (0..10_000u64).map(|key| hash(&key.to_be_bytes()));
        let moved = keys.clone().filter(|&key| before[0].by_hash(key) != after[0].by_hash(key)).count();
        let of_last = keys.filter(|&key| before[0].by_hash(key) == 9).count();
        // The ring of nine has the same points for those who stay, unless its least size gives each some more.
        assert!(moved < of_last + 1_500, "{moved} of 10000 moved, {of_last} had to");
    }
}
