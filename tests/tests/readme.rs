//! The README shows the programs in `deploy/examples`: who copies one from the page must have the one that is tested.

use std::fs;
use std::path::Path;

#[test]
fn the_readme_quotes_every_example_verbatim() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
    let readme = fs::read_to_string(root.join("README.md")).expect("a README");
    let quoted: Vec<&str> =
        readme.split("```python\n").skip(1).map(|rest| rest.split_once("```").expect("the end of a block").0).collect();
    let mut examples = 0;
    for file in fs::read_dir(root.join("deploy/examples")).expect("a folder") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|end| end == "py") {
            let program = fs::read_to_string(&path).expect("a program");
            assert!(quoted.contains(&program.as_str()), "README.md does not quote {} as it is", path.display());
            examples += 1;
        }
    }
    assert_eq!(quoted.len(), examples, "README.md quotes what is not in deploy/examples");
}
