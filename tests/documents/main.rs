//! Documents that repeat what the code knows say the same. `REGENERATE=1 cargo test -p cluster-tests
//! --test documents` writes them anew.

#![allow(clippy::unwrap_used)] // A test that can't go on says so and stops.

use std::fmt::Write;
use std::path::Path;

use sessionmesh::{Config, ConfigError, OPTIONS};

#[test]
fn the_table_of_options_is_that_of_the_code() {
    let mut expected = String::from(
        "# Options\n\n\
         The same in a TOML file (top-level keys), in the environment (`SESSIONMESH_` and the name in capitals), \
         in code (`Config::set`, and methods for the common ones) and as `--set NAME=VALUE` of `session-node`; later \
         wins in that order. Unknown names and unusable values are errors that say what would do.\n\n\
         Durations have a unit (`500ms`, `3s`, `30m`); sizes are bytes, or have `KiB`, `MiB`, `GiB`.\n\n\
         | option | default | meaning |\n|---|---|---|\n",
    );
    for option in OPTIONS {
        writeln!(expected, "| `{}` | {} | {} |", option.key, option.default, option.meaning).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap();
    assert!(present == expected, "run `REGENERATE=1 cargo test -p cluster-tests --test documents`");
}

#[test]
fn the_readme_names_the_commands_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for command in ["cargo run --release -p demo", "cargo test --workspace"] {
        assert!(readme.contains(command), "{command}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut links = 0;
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/deploy.md",
        "docs/guarantees.md",
        "docs/modes.md",
        "docs/tomcat.md",
    ] {
        let path = root.join(document);
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            if file.starts_with("http") {
                continue;
            }
            links += 1;
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{document}: {link} leads nowhere");
            let heads = std::fs::read_to_string(&target).unwrap_or_default();
            let is_there = heads
                .lines()
                .filter(|line| line.starts_with('#'))
                .any(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == section);
            assert!(section.is_empty() || is_there, "{document}: {link} names no section");
        }
    }
    assert!(links > 20, "{links}");
}

#[test]
fn the_tests_that_documents_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |document: &str| std::fs::read_to_string(root.join(document)).unwrap();
    let mut sources = String::new();
    for dir in ["tests", "crates"] {
        read_sources(&root.join(dir), &mut sources);
    }
    let mut named = 0;
    let tables = [read("docs/tomcat.md"), read("docs/guarantees.md")];
    // Names of tests are the longer ones in lower case; the others are Tomcat's classes and our modes.
    let names = tables.iter().flat_map(|table| table.split('`').skip(1).step_by(2));
    let is_option = |name: &str| OPTIONS.iter().any(|option| name.starts_with(option.key));
    for name in names.filter(|name| name.contains('_') && !name.contains([' ', ':', '/']) && !is_option(name))
    {
        named += 1;
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
    }
    assert!(named > 40, "{named}");
}

fn read_sources(dir: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn the_sample_configuration_only_wants_a_secret() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/sessionmesh.toml");
    let mut config = Config::new();
    config.load_file(path).unwrap();
    assert_eq!(config.validate(), Err(ConfigError::NoSecret));
    // What is commented out is right too, but for the file that is not there.
    config.set("interface", "eth1").unwrap().set("seeds", "10.0.0.11:4000, 10.0.0.12:4000").unwrap();
    config.set("absolute", "12h").unwrap().set("secret", "0123456789abcdef").unwrap();
    config.validate().unwrap();
}
