//! Answers of the auth service that stand for the same question for a while.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use warren_engine::Verdict;
use zeroize::Zeroize;

/// Answers that are kept. When there are more, those whose time is over are dropped, and then all.
const MOST: usize = 4096;

/// Answers by question. A question has a secret in it, and so may an answer: both are wiped.
pub(super) struct Cache {
    time: Duration,
    answers: HashMap<Question, (Instant, Verdict)>,
}

/// The body of a question, with a secret in it.
#[derive(PartialEq, Eq, Hash)]
struct Question(Vec<u8>);

impl Borrow<[u8]> for Question {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Cache {
    /// Answers stand for this time; zero: not at all.
    pub(super) fn new(time: Duration) -> Cache {
        Cache { time, answers: HashMap::new() }
    }

    /// What was answered to this question not long ago.
    pub(super) fn get(&self, question: &[u8], now: Instant) -> Option<Verdict> {
        let (until, verdict) = self.answers.get(question)?;
        (now < *until).then(|| verdict.clone())
    }

    /// Remembers an answer. That the service failed is none.
    pub(super) fn put(&mut self, question: &[u8], verdict: &Verdict, now: Instant) {
        if self.time.is_zero() || matches!(verdict, Verdict::Failed(_)) {
            return;
        }
        if self.answers.len() >= MOST {
            self.answers.retain(|_, (until, _)| now < *until);
        }
        if self.answers.len() >= MOST {
            self.answers.clear();
        }
        let until = now + self.time;
        self.answers.insert(Question(question.to_vec()), (until, verdict.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_for_its_time_and_a_failure_for_none() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut cache = Cache::new(second);
        cache.put(b"a", &Verdict::Allow(None), start);
        cache.put(b"b", &Verdict::Failed("x".into()), start);
        assert!(matches!(cache.get(b"a", start), Some(Verdict::Allow(None))));
        assert!(cache.get(b"b", start).is_none() && cache.get(b"c", start).is_none());
        assert!(cache.get(b"a", start + second).is_none());
        let mut none = Cache::new(Duration::ZERO);
        none.put(b"a", &Verdict::Allow(None), start);
        assert!(none.get(b"a", start).is_none());
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let start = Instant::now();
        let mut cache = Cache::new(Duration::from_secs(9));
        for n in 0..3 * MOST {
            cache.put(&n.to_be_bytes(), &Verdict::Allow(None), start);
        }
        assert!(cache.answers.len() <= MOST);
    }
}
