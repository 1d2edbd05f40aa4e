use proptest::prelude::*;

use super::*;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn an_idle_input_holds_no_block() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    assert_eq!((input.held(), pool.in_use()), (0, 0));
    input.space(1);
    assert_eq!((input.held(), pool.in_use()), (BLOCK_SIZE, BLOCK_SIZE));
    input.release_if_empty();
    assert_eq!((input.held(), pool.in_use(), pool.idle()), (0, 0, BLOCK_SIZE));
    input.extend(b"x");
    input.release_if_empty();
    assert_eq!((input.bytes(), pool.in_use(), pool.idle()), (&b"x"[..], BLOCK_SIZE, 0));
}

#[test]
fn a_slice_outlives_its_input_and_returns_the_block() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    input.extend(b"hello world");
    let slice = input.slice(6..11);
    input.consume(11);
    input.release_if_empty();
    drop(input);
    assert_eq!((&*slice, slice.pinned(), pool.in_use()), (&b"world"[..], BLOCK_SIZE, BLOCK_SIZE));
    let copy = slice.clone();
    drop(slice);
    assert_eq!(pool.in_use(), BLOCK_SIZE);
    drop(copy);
    assert_eq!((pool.in_use(), pool.idle()), (0, BLOCK_SIZE));
}

#[test]
fn a_shared_block_is_left_alone() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    input.extend(b"abcdef");
    let slice = input.slice(0..4);
    input.consume(4);
    input.extend(b"gh");
    assert_eq!(pool.in_use(), 2 * BLOCK_SIZE);
    assert_eq!((input.bytes(), &*slice), (&b"efgh"[..], &b"abcd"[..]));
    // Rewriting does not show through a slice either.
    let whole = input.slice(0..4);
    input.bytes_mut()[0] = b'E';
    assert_eq!((input.bytes(), &*whole), (&b"Efgh"[..], &b"efgh"[..]));
}

#[test]
fn an_unshared_block_is_used_on() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    for _ in 0..1000 {
        input.extend(&pattern(1000));
        drop(input.slice(0..1000));
        input.consume(990);
        input.consume(10);
    }
    assert_eq!(input.space(1).len(), BLOCK_SIZE);
    assert_eq!(pool.in_use() + pool.idle(), BLOCK_SIZE);
}

#[test]
fn the_tail_moves_to_the_front_before_anything_grows() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    input.extend(&pattern(BLOCK_SIZE));
    input.consume(BLOCK_SIZE - 10);
    assert_eq!(input.space(BLOCK_SIZE - 10).len(), BLOCK_SIZE - 10);
    assert_eq!(input.bytes(), &pattern(BLOCK_SIZE)[BLOCK_SIZE - 10..]);
    assert_eq!(input.held(), BLOCK_SIZE);
    assert!(input.space(BLOCK_SIZE - 9).len() >= BLOCK_SIZE - 9);
    assert_eq!(input.held(), LARGE_BLOCK_SIZE);
    assert_eq!(input.bytes(), &pattern(BLOCK_SIZE)[BLOCK_SIZE - 10..]);
}

#[test]
fn a_frame_of_any_size_fits() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    let big = pattern(1 << 20);
    // The size is known: one block of about that size.
    input.extend(&big[..7]);
    input.space((1 << 20) - 7);
    assert_eq!(input.held(), 1 << 20);
    input.extend(&big[7..]);
    assert_eq!(input.bytes(), big);
    input.consume(1 << 20);
    input.release_if_empty();
    // Too large to be kept; the block that held the beginning is.
    assert_eq!((pool.in_use(), pool.idle()), (0, BLOCK_SIZE));
}

#[test]
fn growing_little_by_little_is_amortised() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    let mut moves = 0;
    for octet in pattern(1 << 20) {
        let held = input.held();
        input.space(1)[0] = octet;
        input.filled(1);
        moves += usize::from(input.held() != held);
    }
    assert_eq!(input.bytes(), pattern(1 << 20));
    assert!(moves < 10, "{moves} moves");
}

#[test]
fn large_blocks_are_pooled_apart() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    input.extend(&pattern(BLOCK_SIZE + 1));
    assert_eq!((input.held(), pool.in_use()), (LARGE_BLOCK_SIZE, LARGE_BLOCK_SIZE));
    drop(input);
    let mut input = Input::new(&pool);
    input.extend(b"small");
    assert_eq!((pool.in_use(), pool.idle()), (BLOCK_SIZE, LARGE_BLOCK_SIZE));
    input.extend(&pattern(BLOCK_SIZE));
    assert_eq!((pool.in_use(), pool.idle()), (LARGE_BLOCK_SIZE, BLOCK_SIZE));
}

#[test]
fn what_lies_ready_is_bounded() {
    let pool = Pool::new();
    let inputs: Vec<Input> = (0..2 * MAX_FREE)
        .map(|_| {
            let mut input = Input::new(&pool);
            input.extend(b"x");
            input
        })
        .collect();
    assert_eq!(pool.in_use(), 2 * MAX_FREE * BLOCK_SIZE);
    drop(inputs);
    assert_eq!((pool.in_use(), pool.idle()), (0, MAX_FREE * BLOCK_SIZE));
    pool.trim();
    assert_eq!(pool.idle(), 0);
}

#[test]
fn spare_vectors_are_bounded_in_number_and_size() {
    let pool = Pool::new();
    assert_eq!(pool.take_vec().capacity(), 0);
    pool.give_vec(Vec::with_capacity(BLOCK_SIZE + 1));
    pool.give_vec(Vec::new());
    assert_eq!(pool.idle(), 0);
    pool.give_vec(pattern(100));
    let vec = pool.take_vec();
    assert!(vec.is_empty() && vec.capacity() >= 100);
    for _ in 0..2 * MAX_SPARE {
        pool.give_vec(Vec::with_capacity(BLOCK_SIZE));
    }
    assert_eq!(pool.idle(), MAX_SPARE * BLOCK_SIZE);
}

#[test]
fn slices_join_where_they_adjoin() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    input.extend(b"abcdef");
    let (mut first, second, other) = (input.slice(0..2), input.slice(2..5), input.slice(1..2));
    assert!(first.same_block(&other) && !first.join(&other));
    assert!(first.join(&second));
    assert_eq!(&*first, b"abcde");
    first.advance(2);
    assert_eq!((&*first, &*first.slice(1..2)), (&b"cde"[..], &b"d"[..]));
    assert!(!first.same_block(&Slice::from_vec(vec![1])));
    // Places that adjoin in different blocks do not.
    let (mut here, there) = (Slice::from_vec(b"ab".to_vec()), Slice::from_vec(b"abcd".to_vec()));
    assert!(!here.join(&there.slice(2..4)));
    let empty = Input::new(&pool).slice(0..0);
    assert!(empty.is_empty());
}

#[test]
fn a_slice_of_a_vector_pins_its_capacity() {
    let mut vec = Vec::with_capacity(1000);
    vec.extend_from_slice(b"content");
    let slice = Slice::from_vec(vec);
    assert_eq!((&*slice, slice.pinned()), (&b"content"[..], 1000));
}

#[test]
#[should_panic(expected = "not there")]
fn a_slice_past_the_unread_octets_is_refused() {
    let mut input = Input::new(&Pool::new());
    input.extend(b"abc");
    input.consume(2);
    input.slice(0..2);
}

#[derive(Clone, Debug)]
enum Step {
    Read { min: usize, fill: usize },
    Extend(usize),
    Consume(usize),
    Slice(usize, usize),
    DropSlice(usize),
    Rewrite(usize),
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![0usize..100, 0usize..5000, 0usize..3 * BLOCK_SIZE];
    let step = prop_oneof![
        3 => (size.clone(), size.clone()).prop_map(|(min, fill)| Step::Read { min, fill }),
        2 => size.clone().prop_map(Step::Extend),
        4 => size.clone().prop_map(Step::Consume),
        2 => (size.clone(), size.clone()).prop_map(|(from, len)| Step::Slice(from, len)),
        2 => any::<usize>().prop_map(Step::DropSlice),
        1 => size.prop_map(Step::Rewrite),
        1 => Just(Step::Release),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// An input is a queue of octets, slices never change, and no block is lost or counted twice.
    #[test]
    fn input_and_slices_against_a_model(steps in steps()) {
        let pool = Pool::new();
        let mut input = Input::new(&pool);
        let mut model: Vec<u8> = Vec::new();
        let mut slices: Vec<(Slice, Vec<u8>)> = Vec::new();
        let mut octet = 0u8;
        for step in steps {
            octet = octet.wrapping_add(1);
            match step {
                Step::Read { min, fill } => {
                    let space = input.space(min);
                    prop_assert!(space.len() >= min.max(1));
                    let fill = fill.min(space.len());
                    space[..fill].fill(octet);
                    input.filled(fill);
                    model.resize(model.len() + fill, octet);
                }
                Step::Extend(n) => {
                    input.extend(&vec![octet; n]);
                    model.resize(model.len() + n, octet);
                }
                Step::Consume(n) => {
                    let n = n.min(model.len());
                    input.consume(n);
                    model.drain(..n);
                }
                Step::Slice(from, len) => {
                    let from = from.min(model.len());
                    let to = (from + len).min(model.len());
                    slices.push((input.slice(from..to), model[from..to].to_vec()));
                }
                Step::DropSlice(which) if !slices.is_empty() => {
                    slices.swap_remove(which % slices.len());
                }
                Step::DropSlice(_) => {}
                Step::Rewrite(at) => {
                    if let Some(place) = model.get_mut(at) {
                        *place = !octet;
                        input.bytes_mut()[at] = !octet;
                    }
                }
                Step::Release => {
                    input.release_if_empty();
                    prop_assert!(!model.is_empty() || input.held() == 0);
                }
            }
            prop_assert!(input.bytes() == model);
            prop_assert_eq!((input.len(), input.is_empty()), (model.len(), model.is_empty()));
            for (slice, expected) in &slices {
                prop_assert!(**slice == *expected);
            }
            prop_assert_eq!(pool.in_use(), live(&input, &slices));
        }
        drop(input);
        slices.clear();
        prop_assert_eq!(pool.in_use(), 0);
    }
}

/// Octets of the pool's blocks that are held, each block counted once.
fn live(input: &Input, slices: &[(Slice, Vec<u8>)]) -> usize {
    let held = input.block.iter().chain(slices.iter().map(|(slice, _)| &slice.block));
    let mut blocks: Vec<(*const Block, usize)> = held
        .filter(|block| block.home.is_some())
        .map(|block| (Rc::as_ptr(block), block.bytes.len()))
        .collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks.iter().map(|(_, size)| size).sum()
}

#[test]
fn a_shrunk_input_holds_what_is_unread_and_goes_on() {
    let pool = Pool::new();
    let mut input = Input::new(&pool);
    input.extend(b"xxhalf a ");
    input.consume(2);
    input.shrink();
    assert_eq!((input.bytes(), input.held(), pool.in_use()), (&b"half a "[..], 7, 0));
    input.shrink();
    input.extend(b"frame");
    assert_eq!((input.bytes(), pool.in_use()), (&b"half a frame"[..], BLOCK_SIZE));
    input.consume(12);
    input.shrink();
    assert_eq!((input.len(), input.held(), pool.in_use()), (0, 0, 0));
}
