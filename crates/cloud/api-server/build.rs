//! The web UI is embedded from `ui/dist`; the folder must be there even if the UI was not built.

fn main() {
    println!("cargo:rerun-if-changed=../../../ui/dist");
    if let Err(error) = std::fs::create_dir_all("../../../ui/dist") {
        println!("cargo:warning=ui/dist cannot be made: {error}");
    }
}
