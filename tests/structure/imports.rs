//! Which file takes something from which other, as the sources say it. Tests are left out: they may look across.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// A path of names, such as `llm::dialect::Closing`, from the crate's root on.
type Names = Vec<String>;

/// The files of one crate, and from which others each takes something.
pub struct Imports {
    /// Each file's, with what is taken, for whoever has to mend it.
    pub arrows: BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>,
}

/// One file, read.
struct Module {
    file: PathBuf,
    /// The names that its code takes by `use`, with what each stands for.
    used: HashMap<String, Names>,
    /// What it hands on by `pub use`.
    handed_on: HashMap<String, Names>,
    /// The other paths that stand in its code.
    paths: BTreeSet<Names>,
    /// Modules below that are tests.
    tests: Vec<String>,
}

impl Imports {
    /// Reads the crate whose root is `root/lib.rs`.
    pub fn of(root: &Path, files: &[PathBuf]) -> Self {
        let mut modules: BTreeMap<Names, Module> = BTreeMap::new();
        for file in files {
            let inside = file.strip_prefix(root).unwrap().with_extension("");
            let mut names: Names = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if names.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
                names.pop();
            }
            let text = fs::read_to_string(file).unwrap();
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let mut reader = Reader::new(names.clone(), file.clone());
            reader.visit_file(&parsed);
            modules.entry(names).or_insert(reader.module);
        }
        let tests: Vec<Names> = modules
            .iter()
            .flat_map(|(at, module)| module.tests.iter().map(|name| below(at, name)).collect::<Vec<_>>())
            .collect();
        modules.retain(|at, _| !tests.iter().any(|test| at.starts_with(test)) && !is_of_tests(at));
        let mut arrows = BTreeMap::new();
        for (at, module) in &modules {
            let of_file: &mut BTreeMap<PathBuf, BTreeSet<String>> = arrows.entry(module.file.clone()).or_default();
            let mut take = |path: &Names| {
                if let Some((file, what)) = whose(&modules, at, path, 0).filter(|(file, _)| **file != module.file) {
                    of_file.entry(file.clone()).or_default().insert(what);
                }
            };
            module.used.values().for_each(&mut take);
            for path in &module.paths {
                let through = path.first().and_then(|first| module.used.get(first));
                match through {
                    Some(base) => take(&base.iter().chain(path.iter().skip(1)).cloned().collect()),
                    None => take(path),
                }
            }
        }
        Self { arrows }
    }

    /// The groups of files in which each leads back to itself, the largest first.
    pub fn circles(&self) -> Vec<Vec<&PathBuf>> {
        let reached = |from: &PathBuf| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&PathBuf> = self.arrows.get(from).into_iter().flat_map(BTreeMap::keys).collect();
            while let Some(file) = next.pop() {
                if seen.insert(file) {
                    next.extend(self.arrows.get(file).into_iter().flat_map(BTreeMap::keys));
                }
            }
            seen
        };
        let from: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
            self.arrows.keys().map(|file| (file, reached(file))).collect();
        let mut circles: Vec<Vec<&PathBuf>> = Vec::new();
        for (file, reach) in &from {
            if reach.contains(file) && !circles.iter().any(|circle| circle.contains(file)) {
                let back = |other: &&&PathBuf| from.get(**other).is_some_and(|reach| reach.contains(file));
                circles.push(reach.iter().filter(back).copied().collect());
            }
        }
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        circles
    }
}

fn below(at: &[String], name: &str) -> Names {
    at.iter().cloned().chain([name.to_owned()]).collect()
}

fn is_of_tests(at: &[String]) -> bool {
    at.last().is_some_and(|name| name == "tests" || name.ends_with("_tests"))
}

/// The file that has what `path` names, through what others hand on, and its name there.
fn whose<'m>(
    modules: &'m BTreeMap<Names, Module>,
    at: &[String],
    path: &[String],
    depth: usize,
) -> Option<(&'m PathBuf, String)> {
    let path = absolute(modules, at, path)?;
    for length in (1..=path.len()).rev() {
        let (module_at, rest) = path.split_at(length);
        let Some(module) = modules.get(module_at) else { continue };
        let Some(first) = rest.first() else { return Some((&module.file, "itself".to_owned())) };
        return match module.handed_on.get(first).filter(|_| depth < 8) {
            Some(on) => {
                whose(modules, module_at, &on.iter().chain(rest.iter().skip(1)).cloned().collect::<Names>(), depth + 1)
            }
            None => Some((&module.file, first.clone())),
        };
    }
    None
}

/// A path as the crate's root has it; `None`: it is another crate's, or a name of the file itself.
fn absolute(modules: &BTreeMap<Names, Module>, at: &[String], path: &[String]) -> Option<Names> {
    let mut base = at.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = rest.get(1..)?;
        }
        "self" => rest = rest.get(1..)?,
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                base.pop()?;
                rest = rest.get(1..)?;
            }
        }
        first => {
            modules.get(&below(at, first))?;
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

struct Reader {
    at: Names,
    module: Module,
}

impl Reader {
    fn new(at: Names, file: PathBuf) -> Self {
        let (used, handed_on) = (HashMap::new(), HashMap::new());
        Self { at, module: Module { file, used, handed_on, paths: BTreeSet::new(), tests: Vec::new() } }
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree, hands_on: bool) {
        let (name, path) = match tree {
            syn::UseTree::Path(path) => {
                return self.tree(&below(before, &path.ident.to_string()), &path.tree, hands_on);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.tree(before, tree, hands_on));
                return;
            }
            syn::UseTree::Glob(_) => ("*".to_owned(), before.to_vec()),
            syn::UseTree::Rename(rename) => (rename.rename.to_string(), below(before, &rename.ident.to_string())),
            syn::UseTree::Name(name) if name.ident == "self" => {
                (before.last().cloned().unwrap_or_default(), before.to_vec())
            }
            syn::UseTree::Name(name) => (name.ident.to_string(), below(before, &name.ident.to_string())),
        };
        let names = if hands_on { &mut self.module.handed_on } else { &mut self.module.used };
        names.insert(name, path);
    }
}

fn is_of_a_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = |list: &syn::MetaList| list.tokens.to_string().contains("test");
        attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_of_a_test(&item.attrs) {
            self.module.tests.push(item.ident.to_string());
        } else if let Some((_, items)) = &item.content {
            // What stands in a module of the same file is the file's own.
            items.iter().for_each(|item| self.visit_item(item));
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_of_a_test(&item.attrs) {
            self.tree(&[], &item.tree, !matches!(item.vis, syn::Visibility::Inherited));
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_of_a_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.module.paths.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, makro: &'ast syn::Macro) {
        // Most macros here take expressions between commas; what does not parse so is passed over.
        let parse = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(parts) = makro.parse_body_with(parse) {
            // The parts live no longer than this call: their paths are taken by a reader of their own.
            let mut inner = Reader::new(self.at.clone(), self.module.file.clone());
            for part in &parts {
                inner.visit_expr(part);
            }
            self.module.paths.append(&mut inner.module.paths);
        }
    }
}
