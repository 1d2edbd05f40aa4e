use proptest::prelude::*;

use super::*;
use crate::buf::Input;

impl Outbox {
    /// Recomputes what the counters claim.
    fn check(&self) {
        let len: usize = self.segments.iter().map(|segment| segment.unread().len()).sum();
        assert_eq!(self.len, len);
        assert!(self.segments.iter().all(|segment| !segment.unread().is_empty()));
        let pinned: usize = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Owned { bytes, .. } => bytes.capacity(),
                Segment::Ref { slice, counted: true, .. } => slice.pinned(),
                Segment::Ref { counted: false, .. } => 0,
            })
            .sum();
        assert_eq!(self.pinned, pinned);
        assert!(self.pinned >= self.least_pinned(), "a block is held and not counted");
        if self.is_empty() {
            assert_eq!((self.segments.capacity(), self.pinned), (0, 0));
        }
    }

    /// Memory held when every block is counted once.
    fn least_pinned(&self) -> usize {
        let mut blocks: Vec<&Slice> = Vec::new();
        let mut sum = 0;
        for segment in &self.segments {
            match segment {
                Segment::Owned { bytes, .. } => sum += bytes.capacity(),
                Segment::Ref { slice, .. } if blocks.iter().any(|known| known.same_block(slice)) => {}
                Segment::Ref { slice, .. } => {
                    sum += slice.pinned();
                    blocks.push(slice);
                }
            }
        }
        sum
    }
}

fn input(pool: &Pool, bytes: &[u8]) -> Input {
    let mut input = Input::new(pool);
    input.extend(bytes);
    input
}

#[test]
fn it_is_small() {
    assert!(size_of::<Outbox>() <= 64);
}

#[test]
fn copies_share_a_tail_and_it_is_used_again() {
    let pool = Pool::new();
    let mut outbox = Outbox::new(&pool);
    for _ in 0..10 {
        outbox.push_copy(b"abc");
    }
    outbox.write_with(|tail| tail.push(b'd'));
    assert_eq!((outbox.segments.len(), outbox.len(), outbox.first().len()), (1, 31, 31));
    let held = outbox.pinned();
    outbox.advance(31);
    outbox.check();
    assert_eq!(pool.idle(), held);
    outbox.push_copy(b"again");
    assert_eq!((outbox.pinned(), pool.idle()), (held, 0));
}

#[test]
fn a_tail_ends_at_the_size_of_a_block() {
    let pool = Pool::new();
    let mut outbox = Outbox::new(&pool);
    for _ in 0..3 * BLOCK_SIZE / 1000 {
        outbox.push_copy(&[7; 1000]);
        outbox.check();
    }
    assert!(outbox.segments.iter().all(|segment| match segment {
        Segment::Owned { bytes, .. } => bytes.capacity() <= BLOCK_SIZE,
        Segment::Ref { .. } => false,
    }));
    assert_eq!(outbox.segments.len(), 4);
    assert_eq!(outbox.take_bytes(), vec![7; 3 * BLOCK_SIZE / 1000 * 1000]);
    outbox.check();
}

#[test]
fn a_tail_does_not_grow_with_every_push() {
    let mut outbox = Outbox::new(&Pool::new());
    let mut growths = 0;
    for _ in 0..BLOCK_SIZE / 10 {
        let pinned = outbox.pinned();
        outbox.push_copy(&[7; 10]);
        growths += usize::from(outbox.pinned() != pinned);
    }
    assert!(growths <= 16, "{growths} growths");
}

#[test]
fn a_copy_larger_than_a_block_is_one_segment_of_its_size() {
    let pool = Pool::new();
    let mut outbox = Outbox::new(&pool);
    outbox.push_copy(b"before");
    outbox.push_copy(&[1; 3 * BLOCK_SIZE]);
    outbox.push_copy(b"after");
    outbox.check();
    assert_eq!(outbox.segments.len(), 3);
    outbox.advance(6);
    assert_eq!(outbox.first().len(), 3 * BLOCK_SIZE);
    outbox.clear();
    outbox.check();
    assert!(pool.idle() <= 2 * BLOCK_SIZE);
}

#[test]
fn an_encoder_that_writes_nothing_leaves_nothing() {
    let mut outbox = Outbox::new(&Pool::new());
    assert_eq!(outbox.write_with(|_| 5), 5);
    outbox.push_copy(b"");
    outbox.push_ref(Slice::from_vec(Vec::new()));
    outbox.check();
    assert!(outbox.is_empty() && outbox.first().is_empty());
    outbox.push_copy(b"x");
    outbox.write_with(|_| ());
    outbox.check();
    assert_eq!(outbox.first(), b"x");
}

#[test]
fn references_pin_their_block_once() {
    let pool = Pool::new();
    let mut outbox = Outbox::new(&pool);
    let source = input(&pool, &[1; 1000]);
    outbox.push_ref(source.slice(0..100));
    outbox.push_ref(source.slice(100..200));
    assert_eq!((outbox.segments.len(), outbox.pinned()), (1, BLOCK_SIZE));
    outbox.push_copy(b"between");
    let copied = outbox.pinned() - BLOCK_SIZE;
    outbox.push_ref(source.slice(300..400));
    outbox.push_ref(source.slice(600..700));
    outbox.check();
    assert_eq!(outbox.pinned(), BLOCK_SIZE + copied);
    drop(source);
    outbox.advance(200);
    assert_eq!(outbox.pinned(), BLOCK_SIZE + copied);
    outbox.advance(7 + 50);
    assert_eq!(outbox.pinned(), BLOCK_SIZE);
    outbox.check();
    outbox.advance(149);
    assert_eq!((outbox.pinned(), pool.in_use()), (BLOCK_SIZE, BLOCK_SIZE));
    outbox.advance(1);
    assert_eq!((outbox.pinned(), pool.in_use()), (0, 0));
    outbox.check();
}

#[test]
fn io_slices_follow_the_segments() {
    let pool = Pool::new();
    let mut outbox = Outbox::new(&pool);
    outbox.push_copy(b"one");
    outbox.push_ref(Slice::from_vec(b"two".to_vec()));
    outbox.push_copy(b"three");
    outbox.advance(1);
    let mut out = [IoSlice::new(&[]); 8];
    assert_eq!(outbox.io_slices(&mut out), 3);
    assert_eq!([&*out[0], &*out[1], &*out[2]], [&b"ne"[..], b"two", b"three"]);
    let mut out = [IoSlice::new(&[]); 2];
    assert_eq!(outbox.io_slices(&mut out), 2);
    assert_eq!(outbox.io_slices(&mut []), 0);
}

#[test]
fn moving_keeps_large_segments_and_copies_small_ones() {
    let pool = Pool::new();
    let (mut from, mut to) = (Outbox::new(&pool), Outbox::new(&pool));
    to.push_copy(b"head");
    from.push_copy(&[1; 100]);
    from.push_ref(Slice::from_vec(vec![2; 100]));
    from.push_copy(&[3; MOVE_BY_COPY + 1]);
    let large = from.segments[2].unread().as_ptr();
    from.move_into(&mut to);
    from.check();
    to.check();
    assert_eq!(to.segments.len(), 3);
    assert_eq!(to.segments[2].unread().as_ptr(), large);
    let expected = [&b"head"[..], &[1; 100], &[2; 100], &[3; MOVE_BY_COPY + 1]].concat();
    assert_eq!(to.take_bytes(), expected);
}

#[derive(Clone, Debug)]
enum Step {
    Copy(usize),
    Encode { want: usize, write: usize },
    Ref { from: usize, len: usize },
    Refill,
    Advance(usize),
    Stage(usize),
    MoveStaged,
    Clear,
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0usize..20, 0usize..3000, 0usize..2 * BLOCK_SIZE];
    let step = prop_oneof![
        4 => size.clone().prop_map(Step::Copy),
        2 => (0usize..1000, 0usize..6000).prop_map(|(want, write)| Step::Encode { want, write }),
        4 => (size.clone(), size.clone()).prop_map(|(from, len)| Step::Ref { from, len }),
        1 => Just(Step::Refill),
        5 => size.clone().prop_map(Step::Advance),
        2 => size.prop_map(Step::Stage),
        1 => Just(Step::MoveStaged),
        1 => Just(Step::Clear),
        1 => Just(Step::Take),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// An outbox is a queue of octets, however they were pushed; its counters are true; nothing is kept at
    /// the end.
    #[test]
    fn against_a_model(steps in steps()) {
        let pool = Pool::new();
        let (mut outbox, mut staged) = (Outbox::new(&pool), Outbox::new(&pool));
        let (mut model, mut staged_model): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        let block: Vec<u8> = (0..BLOCK_SIZE).map(|i| (i % 241) as u8).collect();
        let mut source = input(&pool, &block);
        let mut octet = 0u8;
        for step in steps {
            octet = octet.wrapping_add(1);
            match step {
                Step::Copy(n) => {
                    outbox.push_copy(&vec![octet; n]);
                    model.resize(model.len() + n, octet);
                }
                Step::Encode { want, write } => {
                    outbox.write_sized(want, |tail| tail.resize(tail.len() + write, octet));
                    model.resize(model.len() + write, octet);
                }
                Step::Ref { from, len } => {
                    let from = from.min(block.len());
                    let to = (from + len).min(block.len());
                    // Half of them by way of the other outbox, so that references move too.
                    let (outbox, model) =
                        if len % 2 == 0 { (&mut outbox, &mut model) } else { (&mut staged, &mut staged_model) };
                    outbox.push_ref(source.slice(from..to));
                    model.extend_from_slice(&block[from..to]);
                }
                Step::Refill => source = input(&pool, &block),
                Step::Advance(n) => {
                    let n = n.min(model.len());
                    outbox.advance(n);
                    model.drain(..n);
                }
                Step::Stage(n) => {
                    staged.push_copy(&vec![octet; n]);
                    staged_model.resize(staged_model.len() + n, octet);
                }
                Step::MoveStaged => {
                    staged.move_into(&mut outbox);
                    model.append(&mut staged_model);
                }
                Step::Clear => {
                    outbox.clear();
                    model.clear();
                }
                Step::Take => prop_assert!(outbox.take_bytes() == std::mem::take(&mut model)),
            }
            for (outbox, model) in [(&outbox, &model), (&staged, &staged_model)] {
                outbox.check();
                prop_assert_eq!((outbox.len(), outbox.is_empty()), (model.len(), model.is_empty()));
                let mut out = [IoSlice::new(&[]); 200];
                let count = outbox.io_slices(&mut out);
                let written: Vec<u8> = out[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert!(written == *model);
                prop_assert_eq!(outbox.first(), out.first().filter(|_| count > 0).map_or(&[][..], |s| &**s));
            }
        }
        outbox.clear();
        staged.clear();
        outbox.check();
        staged.check();
        drop(source);
        prop_assert_eq!(pool.in_use(), 0);
    }
}

/// A frame of a body: so many octets of payload, all alike.
fn frame(fill: u8, payload: usize) -> Vec<u8> {
    let mut frame = vec![3, 0, 1];
    frame.extend(u32::try_from(payload).expect("small").to_be_bytes());
    frame.extend(std::iter::repeat_n(fill, payload));
    frame.push(0xCE);
    frame
}

#[test]
fn frames_that_were_not_begun_can_be_taken_back() {
    let frames: Vec<Vec<u8>> = (0..8).map(|n| frame(n, usize::from(n) * 5)).collect();
    let all: Vec<u8> = frames.concat();
    for split in 0..=3 {
        for written in 0..all.len() {
            let pool = Pool::new();
            let mut outbox = Outbox::new(&pool);
            for (n, frame) in frames.iter().enumerate() {
                match n % 4 < split {
                    true => outbox.push_copy(frame),
                    false => outbox.push_ref(Slice::from_vec(frame.clone())),
                }
            }
            outbox.advance(written);
            let taken = outbox.take_unbegun();
            let rest = outbox.take_bytes();
            let boundary = all.len() - taken.len();
            assert!(all.ends_with(&taken) && boundary >= written, "{written} written");
            assert_eq!(rest, all[written..boundary], "what a begun frame lacks stays");
            let ends: Vec<usize> = frames
                .iter()
                .scan(0, |at, f| {
                    *at += f.len();
                    Some(*at)
                })
                .collect();
            let next =
                if written == 0 { 0 } else { *ends.iter().find(|end| **end >= written).expect("an end") };
            assert_eq!(boundary, next, "{written} written");
        }
    }
}
