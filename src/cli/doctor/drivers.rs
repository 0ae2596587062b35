//! Vulkan's drivers on Linux: which are installed, and whether they can be loaded.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

/// Where their manifests are kept.
const FOLDERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
/// Variables that name manifests, or folders of them, and hide all others.
pub(super) const HIDING: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];
/// One that names more.
pub(super) const ADDING: &str = "VK_ADD_DRIVER_FILES";
/// What offers the drivers to programs.
const LOADER: &str = "libvulkan.so.1";

/// A driver, by its manifest.
#[derive(Debug, Serialize)]
pub(super) struct Driver {
    #[serde(serialize_with = "as_text")]
    pub(super) manifest: PathBuf,
    /// Why it cannot be loaded.
    pub(super) error: Option<String>,
}

/// Those that the loader looks at: installed, or named in the environment; in the order of their manifests.
pub(super) fn drivers() -> Vec<Driver> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let named = |variables: &[&str]| -> Vec<PathBuf> {
        let values = variables.iter().filter_map(std::env::var_os);
        values.flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>()).collect()
    };
    let mut places = named(&HIDING);
    if places.is_empty() {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share/vulkan/icd.d"));
        places = FOLDERS.iter().map(PathBuf::from).chain(home).chain(named(&[ADDING])).collect();
    }
    let mut manifests: Vec<PathBuf> = places.into_iter().flat_map(manifests).collect();
    manifests.sort();
    manifests.dedup();
    manifests.into_iter().map(|manifest| Driver { error: load(&manifest).err(), manifest }).collect()
}

/// Why there can be no driver at all.
pub(super) fn loader_error() -> Option<String> {
    if cfg!(target_os = "linux") { open(Path::new(LOADER)).err() } else { None }
}

fn as_text<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// The manifests in a folder, or a manifest itself.
fn manifests(place: PathBuf) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(&place) else { return if place.is_file() { vec![place] } else { Vec::new() } };
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|e| e == "json");
    entries.flatten().map(|entry| entry.path()).filter(is_manifest).collect()
}

fn load(manifest: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(manifest).map_err(|e| e.to_string())?;
    let content: Value = serde_json::from_str(&text).map_err(|e| format!("the manifest is damaged: {e}"))?;
    let library = content["ICD"]["library_path"].as_str().ok_or("the manifest names no library")?;
    // A name without folders is looked for where the system keeps libraries; a path may be relative to the manifest's.
    match (library.contains('/'), manifest.parent()) {
        (true, Some(folder)) => open(&folder.join(library)),
        _ => open(Path::new(library)),
    }
}

fn open(library: &Path) -> Result<(), String> {
    // SAFETY: this is a library of Vulkan, whose initialisers any program that uses Vulkan runs.
    unsafe { libloading::Library::new(library) }.map(drop).map_err(|e| {
        let cause = std::error::Error::source(&e).map(ToString::to_string);
        cause.unwrap_or_else(|| e.to_string())
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_cannot_be_loaded_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("a.json");
        let why = |text: &str| {
            std::fs::write(&manifest, text).unwrap();
            load(&manifest).unwrap_err()
        };
        assert!(why("{").starts_with("the manifest is damaged: "));
        assert_eq!(why("{}"), "the manifest names no library");
        let missing = why(r#"{"ICD": {"library_path": "./libnone.so"}}"#);
        assert!(missing.contains("libnone.so: cannot open shared object file"), "{missing}");
        std::fs::write(folder.path().join("libnone.so"), "text").unwrap();
        assert!(load(&manifest).unwrap_err().contains("file too short"));
        assert_eq!(manifests(folder.path().into()), vec![manifest.clone()]);
        assert_eq!(manifests(manifest.clone()), vec![manifest]);
    }
}
