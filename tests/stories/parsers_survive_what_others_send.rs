//! Every parser of what others send, over the corpus that the fuzzer keeps and over thousands of changes to it:
//! bits, lengths, pieces of one file in another. The same ones each time. The long run is `cargo fuzz`, as
//! `docs/security.md` says.

use std::{fs, panic};

use countersign_shared::digest::hex;
use countersign_tests::{dice::Dice, parsers::TARGETS, tools};

/// Changes to each file of the corpus.
const CHANGES: usize = 400;

#[test]
fn whatever_it_is() {
    for (name, target) in TARGETS {
        let folder = tools::project().join("tests/fuzz/corpus").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let mut seeds: Vec<_> = files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{name} has no corpus");
        let mut dice = Dice::new(20_261_127);
        let check = |input: &[u8]| {
            let done = panic::catch_unwind(|| target(input));
            assert!(done.is_ok(), "{name} does not take {}", hex(input));
        };
        check(b"");
        for seed in &seeds {
            check(seed);
            for _ in 0..CHANGES {
                check(&changed(&mut dice, seed, &seeds));
            }
        }
    }
}

/// A seed with one to four changes.
fn changed(dice: &mut Dice, seed: &[u8], seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..dice.below(4) + 1 {
        let at = dice.below(input.len() + 1);
        match dice.below(7) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = *dice.of(&[0, 1, 0x7f, 0x80, 0xff, b'-', b'/']),
            2 => input.truncate(at),
            3 => drop(input.drain(..at)),
            4 => input.insert(at, *dice.of(&[0, 0xff, b'%', b'\n', 0xc3, b'9'])),
            5 => {
                let other = dice.of(seeds);
                let from = dice.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let piece = input[..at.min(64)].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
    input
}
