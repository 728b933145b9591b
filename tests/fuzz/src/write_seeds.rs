//! Writes the seeds of every decoder into a folder, one file each: `ostiary-fuzz-seeds <folder>`. Prints the decoders' names.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use ostiary_fuzz::{decoders, seeds};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("a folder is named"));
    let seeds = seeds::of_fixtures();
    for (name, _) in decoders::DECODERS {
        let own = folder.join(name);
        std::fs::create_dir_all(&own)?;
        for (_, bytes) in seeds.iter().filter(|(decoder, _)| decoder == name) {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            std::fs::write(own.join(format!("seed-{:016x}", hasher.finish())), bytes)?;
        }
        println!("{name}");
    }
    Ok(())
}
