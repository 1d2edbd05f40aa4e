//! Frames for a client's channel that came while a content was under way there. A channel with several bindings hears one
//! at a time, and all that waits goes in the order in which it came, whoever sent it: delivery tags were given in that
//! order, and answers count on it.

use std::collections::VecDeque;

use crate::ids::UpChannelId;

/// Neighbouring frames of one sender.
#[derive(Debug)]
pub(crate) struct Turn {
    /// The binding; `None` for what is Warren's own.
    pub(crate) from: Option<UpChannelId>,
    pub(crate) frames: Vec<u8>,
    /// They end in a content that is not complete yet.
    pub(crate) unfinished: bool,
}

/// What waits on one channel, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    list: VecDeque<Turn>,
    octets: usize,
}

impl Turns {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Octets that wait.
    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    /// Whether anything of this binding waits.
    pub(crate) fn has(&self, up: UpChannelId) -> bool {
        self.list.iter().any(|turn| turn.from == Some(up))
    }

    /// Adds whole frames.
    pub(crate) fn push(&mut self, from: Option<UpChannelId>, write: impl FnOnce(&mut Vec<u8>)) {
        let joins = self.list.back().is_some_and(|last| last.from == from && !last.unfinished);
        if !joins {
            self.list.push_back(Turn { from, frames: Vec::new(), unfinished: false });
        }
        if let Some(last) = self.list.back_mut() {
            self.octets += grow(&mut last.frames, write);
        }
    }

    /// The frame that was added last begins a content.
    pub(crate) fn begin_content(&mut self) {
        if let Some(last) = self.list.back_mut() {
            last.unfinished = true;
        }
    }

    /// Goes on with the content of a binding.
    pub(crate) fn go_on(&mut self, up: UpChannelId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(turn) = unfinished(&mut self.list, up) {
            self.octets += grow(&mut turn.frames, write);
        }
    }

    /// The content of a binding is complete.
    pub(crate) fn end_content(&mut self, up: UpChannelId) {
        if let Some(turn) = unfinished(&mut self.list, up) {
            turn.unfinished = false;
        }
    }

    /// A binding is gone: what it said is told, but for a content that will not be complete.
    pub(crate) fn forget_unfinished(&mut self, up: UpChannelId) {
        self.list.retain(|turn| turn.from != Some(up) || !turn.unfinished);
        self.octets = self.list.iter().map(|turn| turn.frames.len()).sum();
    }

    /// Takes the oldest.
    pub(crate) fn next(&mut self) -> Option<Turn> {
        let turn = self.list.pop_front()?;
        self.octets -= turn.frames.len();
        Some(turn)
    }
}

/// A binding can have one content under way.
fn unfinished(list: &mut VecDeque<Turn>, up: UpChannelId) -> Option<&mut Turn> {
    list.iter_mut().rev().find(|turn| turn.from == Some(up) && turn.unfinished)
}

fn grow(frames: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let before = frames.len();
    write(frames);
    frames.len() - before
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    fn say(turns: &mut Turns, from: Option<UpChannelId>, text: &str) {
        turns.push(from, |out| out.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn all_that_waits_keeps_the_order_in_which_it_came() {
        let mut map: SlotMap<UpChannelId, ()> = SlotMap::with_key();
        let (a, b) = (map.insert(()), map.insert(()));
        let mut turns = Turns::default();
        say(&mut turns, Some(a), "a1");
        turns.begin_content();
        say(&mut turns, Some(b), "b1");
        say(&mut turns, None, "w1");
        turns.go_on(a, |out| out.extend_from_slice(b"a2"));
        turns.end_content(a);
        say(&mut turns, Some(a), "a3");
        say(&mut turns, Some(a), "a4");
        assert_eq!(turns.octets(), 12);
        let mut told = Vec::new();
        while let Some(turn) = turns.next() {
            assert!(!turn.unfinished);
            told.push(String::from_utf8(turn.frames).unwrap());
        }
        assert_eq!(told, ["a1a2", "b1", "w1", "a3a4"]);
        assert_eq!(turns.octets(), 0);
    }

    #[test]
    fn of_a_binding_that_is_gone_only_whole_contents_are_told() {
        let mut map: SlotMap<UpChannelId, ()> = SlotMap::with_key();
        let (a, b) = (map.insert(()), map.insert(()));
        let mut turns = Turns::default();
        say(&mut turns, Some(a), "whole");
        say(&mut turns, Some(b), "b");
        say(&mut turns, Some(a), "part");
        turns.begin_content();
        turns.forget_unfinished(a);
        assert_eq!(turns.octets(), 6);
        assert!(turns.has(a));
        assert_eq!(turns.next().map(|turn| turn.frames), Some(b"whole".to_vec()));
        assert!(!turns.has(a) && turns.has(b));
    }
}
