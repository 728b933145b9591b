//! The decoders of hostile bytes, fed with the bodies of the corpus and with all that fuzzing (script/fuzz) has ever found.

#[expect(unreachable_pub, reason = "to the fuzzers it is a library")]
#[path = "../fuzz/src/decoders.rs"]
mod decoders;
#[expect(unreachable_pub, reason = "to the fuzzers it is a library")]
#[path = "../fuzz/src/seeds.rs"]
mod seeds;

#[test]
fn no_decoder_breaks_on_the_corpus_nor_on_what_fuzzing_has_found() {
    let inputs = [seeds::of_fixtures(), seeds::found()].concat();
    for (name, _) in decoders::DECODERS {
        assert!(
            *name == "fingerprints" || inputs.iter().any(|(decoder, _)| decoder == name),
            "{name} has no seed"
        );
    }
    for (decoder, bytes) in &inputs {
        let decode =
            decoders::find(decoder).unwrap_or_else(|| panic!("there is no decoder {decoder}"));
        // Cut and spoiled a little, as a poor line would.
        for end in [bytes.len(), bytes.len() / 2, bytes.len().saturating_sub(1)] {
            decode(&bytes[..end]);
        }
        let mut spoiled = bytes.clone();
        for at in (0..bytes.len()).step_by(bytes.len().div_ceil(20).max(1)) {
            spoiled[at] ^= 0x80;
            decode(&spoiled);
        }
    }
}
