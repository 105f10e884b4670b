//! Every violation by itself, round trips, and a slow, obvious reference for what may stand beside what.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

fn entry(text: &str) -> CollectionEntry {
    let size = Size::new(text.len() as u64).unwrap();
    CollectionEntry { path: path(text), size, root: Root::of(text.as_bytes()) }
}

fn folder(paths: &[&str]) -> Result<Collection, CollectionError> {
    Collection::new(paths.iter().map(|path| entry(path)).collect())
}

/// A manifest by hand, in whatever order and with whatever paths.
fn manifest(paths: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [MAGIC.as_slice(), &(paths.len() as u32).to_be_bytes()].concat();
    for path in paths {
        bytes.extend((path.len() as u16).to_be_bytes());
        bytes.extend_from_slice(path);
        bytes.extend((path.len() as u64).to_be_bytes());
        bytes.extend(Root::of(path).as_bytes());
    }
    bytes
}

#[test]
fn paths_say_what_is_wrong_with_them() {
    let wrong = |text: &str| EntryPath::new(text).unwrap_err();
    assert_eq!(wrong(""), PathError::Empty);
    assert_eq!(["/etc/passwd", "a//b", "a/", "/"].map(wrong), [PathError::EmptyPart; 4]);
    assert_eq!(["..", "../a", "a/../b", ".", "a/.", "./a"].map(wrong), [PathError::Dots; 6]);
    assert_eq!(wrong("a\0b"), PathError::Nul);
    assert_eq!(wrong("a\\b"), PathError::Backslash);
    assert_eq!(wrong(&"x".repeat(256)), PathError::PartTooLong(256));
    assert_eq!(wrong(&"x/".repeat(513)), PathError::TooLong(1026));
    assert_eq!(EntryPath::from_bytes(b"\xff"), Err(PathError::Encoding));
    for fine in ["...", ".hidden", "a..b", "ä/日本 1.txt", "c:d", &"x".repeat(255), &"xyz/".repeat(256)[..1023]] {
        assert_eq!(EntryPath::new(fine).map(|path| path.as_str().to_owned()).as_deref(), Ok(fine));
    }
    assert_eq!(path("a/b/c.txt").split(), (vec!["a", "b"], "c.txt"));
    assert_eq!(path("c.txt").split(), (vec![], "c.txt"));
    assert_eq!(path("a\u{1b}[2J").to_string(), "a\\u{1b}[2J");
}

#[test]
fn manifests_say_what_is_wrong_with_them() {
    let good = folder(&["a/b", "c"]).unwrap().encode();
    let wrong = |bytes: &[u8]| Collection::decode(bytes).unwrap_err();
    assert_eq!(wrong(&vec![0; MAX_MANIFEST_LEN + 1]), CollectionError::TooLong(MAX_MANIFEST_LEN as u64 + 1));
    assert_eq!(wrong(b"pedlar folder\0\0\x02\0\0\0\0"), CollectionError::Magic);
    for len in MAGIC.len()..good.len() {
        assert_eq!(wrong(&good[..len]), CollectionError::Truncated, "{len}");
    }
    assert_eq!(wrong(&[&good, b"xyz".as_slice()].concat()), CollectionError::Surplus(3));
    assert_eq!(wrong(&manifest(&[])), CollectionError::Empty);
    let many = [MAGIC.as_slice(), &65_537_u32.to_be_bytes()].concat();
    assert_eq!(wrong(&many), CollectionError::TooManyEntries(65_537));
    let escape = CollectionError::Path { index: 1, error: PathError::Dots };
    assert_eq!(wrong(&manifest(&[b"a", b"../../.ssh/authorized_keys"])), escape);
    assert_eq!(wrong(&manifest(&[b"\xff"])), CollectionError::Path { index: 0, error: PathError::Encoding });
    assert_eq!(wrong(&manifest(&[b"b", b"a"])), CollectionError::Order { before: path("b"), after: path("a") });
    assert_eq!(wrong(&manifest(&[b"a", b"a"])), CollectionError::Twice(path("a")));
    let mut huge = manifest(&[b"a"]);
    let at = MAGIC.len() + 4 + 2 + 1;
    huge[at..at + 8].copy_from_slice(&(MAX_SIZE + 1).to_be_bytes());
    assert_eq!(wrong(&huge), CollectionError::Size { path: path("a"), bytes: MAX_SIZE + 1 });
    huge[at..at + 8].copy_from_slice(&0_u64.to_be_bytes());
    assert_eq!(wrong(&huge), CollectionError::Contradiction(path("a")));
}

#[test]
fn files_that_are_one_on_some_disks_are_named() {
    let collision = |one: &str, other: &str| CollectionError::CaseCollision { one: path(one), other: path(other) };
    assert_eq!(folder(&["Photo.JPG", "photo.jpg"]), Err(collision("Photo.JPG", "photo.jpg")));
    assert_eq!(folder(&["x/STRASSE", "X/straße"]), Err(collision("X/straße", "x/STRASSE")));
    assert_eq!(folder(&["ΣΑΣ", "σας"]), Err(collision("ΣΑΣ", "σας")));
    let inside = |file: &str, within: &str| CollectionError::FileIsFolder { file: path(file), within: path(within) };
    // What sorts between a file and what lies under it hides nothing.
    assert_eq!(folder(&["a", "a!", "a.txt", "a/b"]), Err(inside("a", "a/b")));
    assert_eq!(folder(&["A", "a/b/c"]), Err(inside("A", "a/b/c")));
    folder(&["a", "ab/c", "a.b/c", "A b"]).unwrap();
}

#[test]
fn equal_files_are_one_object_and_empty_ones_none() {
    let file = |text: &str, bytes: &[u8]| CollectionEntry {
        path: path(text),
        size: Size::new(bytes.len() as u64).unwrap(),
        root: Root::of(bytes),
    };
    let entries = vec![file("z", b"same"), file("a", b"same"), file("m", b""), file("b", b"other")];
    let collection = Collection::new(entries.clone()).unwrap();
    let objects: Vec<&str> = collection.objects().iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(objects, ["a", "b"]);
    assert_eq!(collection.size().bytes(), 4 + 4 + 5);
    let manifest = collection.encode().len() as u64;
    assert_eq!(collection.whole(), Whole { bytes: manifest + 4 + 5, objects: 3 });
    assert_eq!(collection.size_of(&Root::of(b"same")), Size::new(4));
    assert_eq!(collection.size_of(&Root::of(b"")), None);

    let lie = CollectionEntry { size: Size::new(5).unwrap(), ..file("y", b"same") };
    let lies = Collection::new([entries, vec![lie]].concat());
    assert_eq!(lies, Err(CollectionError::Contradiction(path("y"))));
    let large = |text: &str| CollectionEntry { size: Size::new(MAX_SIZE).unwrap(), ..file(text, text.as_bytes()) };
    assert_eq!(Collection::new(vec![large("a"), large("b")]), Err(CollectionError::TooLarge));
}

#[test]
fn the_bounds_are_those_that_are_named() {
    let names: Vec<String> = (0..=MAX_ENTRIES).map(|n| format!("{n:05}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(folder(&names), Err(CollectionError::TooManyEntries(MAX_ENTRIES + 1)));
    let largest = folder(&names[1..]).unwrap();
    assert_eq!(Collection::decode(&largest.encode()), Ok(largest));

    let long: Vec<String> = (0..20_000).map(|n| format!("{n:05}{}", "/xyzxyz".repeat(140))).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    assert!(matches!(folder(&long), Err(CollectionError::TooLong(len)) if len > MAX_MANIFEST_LEN as u64));
}

/// Few characters, so that paths meet: parts that differ in case, dots, separators at any place.
fn any_path() -> impl Strategy<Value = String> {
    "[aAbB./\\\\!ßſs]{0,6}"
}

/// Whether paths may stand together, as one would say it: pair by pair.
fn may_stand(paths: &BTreeSet<&str>) -> bool {
    let fold = |text: &str| text.to_uppercase().to_lowercase();
    let clashes = |one: &str, other: &str| {
        let (one, other) = (fold(one), fold(other));
        one == other || other.starts_with(&format!("{one}/"))
    };
    let apart = |one: &str| paths.iter().all(|other| *other == one || !clashes(one, other));
    !paths.is_empty() && paths.iter().all(|path| EntryPath::new(*path).is_ok() && apart(path))
}

proptest! {
    #[test]
    fn what_may_stand_together_is_a_collection_and_nothing_else(
        paths in proptest::collection::btree_set(any_path(), 0..6),
    ) {
        let sorted: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
        let bytes: Vec<&[u8]> = sorted.iter().map(|path| path.as_bytes()).collect();
        let decoded = Collection::decode(&manifest(&bytes));
        prop_assert_eq!(decoded.is_ok(), may_stand(&sorted), "{:?}", decoded);
        if let Ok(collection) = decoded {
            prop_assert_eq!(collection.encode(), manifest(&bytes));
        }
    }

    #[test]
    fn collections_survive_being_written_in_one_form_only(
        files in proptest::collection::btree_map("[a-z]{1,3}(/[a-z]{1,3}){0,2}\\.x", 1..100_u64, 1..20),
        flip in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let entries: Vec<_> = files.iter().map(|(text, size)| {
            CollectionEntry { size: Size::new(*size).unwrap(), ..entry(text) }
        }).collect();
        let collection = Collection::new(entries.into_iter().rev().collect()).unwrap();
        let mut bytes = collection.encode();
        prop_assert_eq!(&Collection::decode(&bytes).unwrap(), &collection);
        prop_assert!(collection.whole().bytes >= bytes.len() as u64);
        // Whatever else is understood is written as it came.
        let at = flip.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Collection::decode(&bytes) {
            prop_assert!(other != collection);
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_a_manifest_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Collection::decode(&bytes);
        let _ = Collection::decode(&[MAGIC.as_slice(), &[0, 0, 0], &bytes].concat());
    }
}
