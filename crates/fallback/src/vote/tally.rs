//! Who gave which answer.

/// The votes of one call.
#[derive(Debug)]
pub(super) struct Tally<A> {
    need: usize,
    /// How many have not ended.
    left: usize,
    /// Each answer, and the versions that gave it.
    answers: Vec<(A, Vec<usize>)>,
    /// Those that gave none.
    without: Vec<usize>,
}

/// What the votes so far decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// This answer has it.
    Elected(usize),
    /// None can have it any more.
    Hung,
}

impl<A> Tally<A> {
    pub(super) fn new(need: usize, versions: usize) -> Self {
        Self { need, left: versions, answers: Vec::new(), without: Vec::new() }
    }

    /// A version ended, with an answer or without one.
    pub(super) fn cast(
        &mut self,
        version: usize,
        answer: Option<A>,
        same: impl Fn(&A, &A) -> bool,
    ) -> Option<Decision> {
        self.left -= 1;
        match answer {
            None => self.without.push(version),
            Some(answer) => {
                let place = self.answers.iter().position(|(known, _)| same(known, &answer)).unwrap_or_else(|| {
                    self.answers.push((answer, Vec::new()));
                    self.answers.len() - 1
                });
                let voters = &mut self.answers[place].1;
                voters.push(version);
                if voters.len() >= self.need {
                    return Some(Decision::Elected(place));
                }
            }
        }
        let most = self.answers.iter().map(|(_, voters)| voters.len()).max().unwrap_or(0);
        (most + self.left < self.need).then_some(Decision::Hung)
    }

    /// The versions that gave the answer at `place`.
    pub(super) fn voters(&self, place: usize) -> &[usize] {
        &self.answers[place].1
    }

    /// The versions that gave another answer than the one at `place`.
    pub(super) fn answered_otherwise(&self, place: Option<usize>) -> impl Iterator<Item = usize> {
        let others = self.answers.iter().enumerate().filter(move |(other, _)| Some(*other) != place);
        others.flat_map(|(_, (_, voters))| voters).copied()
    }

    /// The versions that ended, and not with the answer at `place`.
    pub(super) fn dissenters(&self, place: Option<usize>) -> impl Iterator<Item = usize> {
        self.answered_otherwise(place).chain(self.without.iter().copied())
    }

    /// The answer at `place`.
    pub(super) fn take(mut self, place: usize) -> A {
        self.answers.swap_remove(place).0
    }

    /// The answer of the first version that gave one, in the order of the versions.
    pub(super) fn first(self) -> Option<A> {
        self.answers.into_iter().min_by_key(|(_, voters)| voters.iter().min().copied()).map(|(answer, _)| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Random answers in a random order of arrival, against one that counts all of them anew each time.
        #[test]
        fn it_is_the_naive_count(
            (answers, order) in (2usize..=9).prop_flat_map(|n| (
                prop::collection::vec(prop::option::weighted(0.8, 0u8..3), n),
                Just((0..n).collect::<Vec<_>>()).prop_shuffle(),
            )),
            need in 1usize..=9,
        ) {
            let need = need.min(answers.len());
            let mut tally = Tally::new(need, answers.len());
            let mut decided = None;
            let mut ended: Vec<usize> = Vec::new();
            for version in order {
                ended.push(version);
                decided = tally.cast(version, answers[version], |one, other| one == other);
                let mut votes = BTreeMap::<u8, usize>::new();
                ended.iter().filter_map(|ended| answers[*ended]).for_each(|answer| *votes.entry(answer).or_default() += 1);
                let elected = votes.iter().find(|(_, votes)| **votes >= need).map(|(answer, _)| *answer);
                // Whatever those that are left say.
                let left = answers.len() - ended.len();
                let hung = (0u8..4).all(|answer| votes.get(&answer).unwrap_or(&0) + left < need);
                match decided {
                    None => prop_assert!(elected.is_none() && !hung),
                    Some(Decision::Hung) => prop_assert!(elected.is_none() && hung),
                    Some(Decision::Elected(place)) => {
                        let voters: Vec<_> = ended.iter().copied().filter(|ended| answers[*ended] == elected).collect();
                        let mut dissenters: Vec<_> = tally.dissenters(Some(place)).collect();
                        dissenters.sort_unstable();
                        let mut others: Vec<_> = ended.iter().copied().filter(|ended| answers[*ended] != elected).collect();
                        others.sort_unstable();
                        prop_assert_eq!(tally.voters(place), voters);
                        prop_assert_eq!(dissenters, others);
                    }
                }
                if let Some(decision) = decided {
                    if let Decision::Elected(place) = decision {
                        prop_assert_eq!(Some(tally.take(place)), elected);
                    } else {
                        let first = (0..answers.len()).filter(|version| ended.contains(version)).find_map(|version| answers[version]);
                        prop_assert_eq!(tally.first(), first);
                    }
                    break;
                }
            }
            prop_assert!(decided.is_some(), "all have ended");
        }
    }
}
