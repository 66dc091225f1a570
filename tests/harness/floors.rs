//! The house's one rule, checked in the sources: imports point down only, between crates and between
//! the modules inside one.
//!
//! Each crate's root file tells its floors in its opening story: a numbered list of modules, lowest
//! first, after a line with the word "Floors". Modules on one floor do not import each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::sources::{is_test_only, references, test_modules};

/// The floors that a root file's opening story lists, lowest first.
///
/// # Errors
/// What is wrong with the list.
pub fn declared(root: &str) -> Result<Vec<Vec<String>>, String> {
    let story = root.lines().map_while(|line| line.strip_prefix("//!"));
    let mut lines = story.skip_while(|line| !line.contains("Floors"));
    lines.next().ok_or("its story lists no floors")?;
    let mut floors: Vec<Vec<String>> = Vec::new();
    for line in lines {
        let start = format!("{}. ", floors.len() + 1);
        if let Some(list) = line.trim_start().strip_prefix(&start) {
            floors.push(names(list));
        } else if let Some(floor) = floors.last_mut()
            && line.starts_with("    ")
        {
            // The list goes on in the next line.
            floor.extend(names(line.trim_start()));
        } else if !line.trim().is_empty() && !line.trim().starts_with("```") {
            break;
        }
    }
    if floors.is_empty() || floors.iter().any(Vec::is_empty) {
        return Err("its story lists no floors: expected '1. `a`, `b`', lowest first".to_owned());
    }
    Ok(floors)
}

/// The names at the start of a line, each between backticks, with commas between.
fn names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list;
    while let Some((name, after)) = rest.strip_prefix('`').and_then(|text| text.split_once('`')) {
        names.push(name.trim_end_matches('/').to_owned());
        rest = after.strip_prefix(", ").unwrap_or_default();
    }
    names
}

/// What breaks the rule, given the floors and which module refers to which.
pub fn violations(
    floors: &[Vec<String>],
    modules: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut level = BTreeMap::new();
    for (number, floor) in (1..).zip(floors) {
        for name in floor {
            if !modules.contains_key(name) {
                wrong.push(format!(
                    "floor {number} lists '{name}', which does not exist"
                ));
            }
            if level.insert(name.as_str(), number).is_some() {
                wrong.push(format!("'{name}' is listed twice"));
            }
        }
    }
    for (module, uses) in modules {
        let Some(from) = level.get(module.as_str()) else {
            wrong.push(format!("'{module}' is on no floor"));
            continue;
        };
        for used in uses.iter().filter(|used| *used != module) {
            // What is not a module is defined in the root, such as a constant.
            if let Some(to) = level.get(used.as_str()).filter(|to| *to >= from) {
                wrong.push(format!(
                    "'{module}' (floor {from}) imports '{used}' (floor {to})"
                ));
            }
        }
    }
    wrong
}

/// The modules of the crate whose root file is `root`, at the top, with what each refers to in its
/// own crate. Test modules and the roots of programs are left out.
///
/// # Panics
/// When a source can't be read.
pub fn modules(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let folder = root.parent().expect("a root file is in a folder");
    let mut modules = BTreeMap::new();
    let mut files = Vec::new();
    collect(folder, &mut Vec::new(), &mut files);
    for (path, source) in files {
        let is_root = matches!(path.as_slice(), [only] if only == "lib" || only == "main");
        if is_root || is_test_only(&source) {
            continue;
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let uses: &mut BTreeSet<String> = modules.entry(path[0].to_owned()).or_default();
        uses.extend(references(&source, &path));
    }
    modules
}

/// Sources below `folder`, with their module paths.
fn collect(folder: &Path, path: &mut Vec<String>, files: &mut Vec<(Vec<String>, String)>) {
    let entries: Vec<_> = fs::read_dir(folder)
        .expect("a folder of sources")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let read = |file: &Path| fs::read_to_string(file).expect("a source");
    let is_source = |file: &&std::path::PathBuf| file.extension().is_some_and(|e| e == "rs");
    let for_tests: BTreeSet<String> = entries
        .iter()
        .filter(is_source)
        .flat_map(|file| test_modules(&read(file)))
        .collect();
    for entry in &entries {
        let stem = entry.file_stem().unwrap_or_default().to_string_lossy();
        if for_tests.contains(stem.as_ref()) || stem == "bin" {
            continue;
        }
        path.push(stem.into_owned());
        if entry.is_dir() {
            collect(entry, path, files);
        } else if is_source(&entry) {
            let mut own = path.clone();
            if own.last().is_some_and(|last| last == "mod") {
                own.pop();
            }
            files.push((own, read(entry)));
        }
        path.pop();
    }
}

/// What breaks the rule between crates: `floors` are the crates' names, lowest first, and
/// `manifests` their names and Cargo.toml texts.
///
/// # Panics
/// When a manifest is not TOML.
pub fn crate_violations(floors: &[&[&str]], manifests: &[(&str, String)]) -> Vec<String> {
    let level = |name: &str| floors.iter().position(|floor| floor.contains(&name));
    let mut wrong = Vec::new();
    for (name, manifest) in manifests {
        let Some(from) = level(name) else {
            wrong.push(format!("'{name}' is on no floor"));
            continue;
        };
        let table: toml::Table = manifest.parse().expect("a manifest is TOML");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = table.get(section).and_then(toml::Value::as_table);
            for dependency in dependencies.into_iter().flat_map(toml::Table::keys) {
                if level(dependency).is_some_and(|to| to >= from) {
                    wrong.push(format!("'{name}' has '{dependency}' in [{section}]"));
                }
            }
        }
    }
    wrong
}
