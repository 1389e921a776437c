//! Keeps the schema in the library: pgrx puts it into a section of its own, from which `cargo xtask` writes the SQL
//! file. No code refers to that section, so some linkers would drop it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-cdylib=-Wl,--no-gc-sections");
}
