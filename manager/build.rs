//! Pages and styles are embedded in release builds: a changed one must lead to a new build. Styles may be missing (they are built by
//! `web/build.mjs`, and pages work without), but the folder must be there to be embedded.
fn main() {
    println!("cargo:rerun-if-changed=../templates");
    println!("cargo:rerun-if-changed=../web/dist");
    if let Err(error) = std::fs::create_dir_all("../web/dist") {
        println!("cargo:warning=web/dist cannot be made: {error}");
    }
}
