//! A module uses only what stands below it, in the order of the `mod` lines of main.rs and of each room.

use std::collections::BTreeSet;
use std::fs;

fn source_of(module: &str) -> String {
    let path = format!("{}/src/{}.rs", env!("CARGO_MANIFEST_DIR"), module.replace("::", "/"));
    fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}

/// The modules in a file, in order, each room before the modules in it.
fn modules(source: &str, room: &str) -> Vec<String> {
    let declared =
        source.lines().filter_map(|line| line.trim_start_matches("pub(crate) ").strip_prefix("mod "));
    let names = declared.filter_map(|line| line.strip_suffix(';')).filter(|name| *name != "tests");
    let with_inner = |name| {
        let module = format!("{room}{name}");
        let inner = modules(&source_of(&module), &format!("{module}::"));
        [vec![module], inner].concat()
    };
    names.flat_map(with_inner).collect()
}

/// The places in `order` of the modules that a module's production code names.
fn used_by(module: &str, order: &[String]) -> BTreeSet<usize> {
    let source = source_of(module).replace("self::", &format!("crate::{module}::"));
    let code = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    assert!(!code.contains("super::"), "{module}: a path begins with crate or self");
    let mut used = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let (prefix, rest) = path.split_at(path.find(|c: char| !is_of_path(c)).unwrap_or(path.len()));
        let group = rest.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap_or_default());
        for item in group.split(',') {
            let item: String = item.trim().chars().take_while(|c| is_of_path(*c)).collect();
            let path = format!("{prefix}{item}::");
            used.extend(order.iter().rposition(|known| path.starts_with(&format!("{known}::"))));
        }
    }
    used
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

#[test]
fn a_module_uses_only_what_stands_below_it() {
    let order = modules(&source_of("main"), "");
    assert!(order.len() > 40, "{order:?}");
    let uses: Vec<BTreeSet<usize>> = order.iter().map(|module| used_by(module, &order)).collect();
    let is_in = |room: usize, module: usize| order[module].starts_with(&format!("{}::", order[room]));
    for (user, used) in uses.iter().enumerate() {
        for &used in used.range(..user) {
            // What the modules of a room share stands in the room's own file, which then uses none of them.
            let is_shared = is_in(used, user) && !uses[used].iter().any(|&module| is_in(used, module));
            assert!(is_shared, "{} stands below {} and uses it", order[user], order[used]);
        }
    }
}
