use super::*;

fn sample() -> Image {
    Image {
        name: "quartermaster.dev/sample:dev".to_owned(),
        entrypoint: vec!["/bin/run".to_owned(), "--now".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        user: Some("65532:65532".to_owned()),
        working_dir: None,
        files: vec![
            ImageFile::directory("/tmp", 0o1777),
            ImageFile::bytes("/bin/run", 0o755, b"#!run".as_slice()),
            ImageFile::symlink("/bin/again", "run"),
        ],
    }
}

fn write(image: &Image) -> (String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let digest = image.write_tar(&path).unwrap();
    (digest, std::fs::read(path).unwrap())
}

#[test]
fn bytes_are_the_same_whatever_the_order_of_files() {
    let mut reversed = sample();
    reversed.files.reverse();
    assert_eq!(write(&sample()), write(&reversed));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn manifest_digest_is_the_golden_one() {
    let golden = "sha256:d8f590332675e62d71d142662481cc56d9b432622a10218364b0159e418efd4f";
    assert_eq!(write(&sample()).0, golden);
}

#[test]
fn layer_holds_parents_before_children() {
    let (_, bytes) = write(&sample());
    let mut layers = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if content.windows(5).any(|part| part == b"ustar") {
            layers.push(content);
        }
    }
    assert_eq!(layers.len(), 1);
    let mut archive = tar::Archive::new(layers[0].as_slice());
    let listing: Vec<(String, u32)> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap()))
        .collect();
    let expected = [("bin/", 0o755), ("bin/again", 0o777), ("bin/run", 0o755), ("tmp/", 0o1777)];
    assert_eq!(listing, expected.map(|(path, mode)| (path.to_owned(), mode)));
}

#[test]
fn names_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let digest = sample().write_tar(&path).unwrap();
    let expected = NamedImage { name: "quartermaster.dev/sample:dev".to_owned(), digest };
    assert_eq!(names_in_tar(&path).unwrap(), [expected]);
}

#[test]
fn a_tar_without_an_index_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.tar");
    std::fs::write(&path, [0; 1024]).unwrap();
    assert!(names_in_tar(&path).unwrap_err().to_string().contains("index.json"));
}

#[test]
fn host_files_are_copied_and_named_when_missing() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::write(&source, b"content").unwrap();
    let mut image = sample();
    image.files.push(ImageFile::host("/opt/copied", 0o644, &source));
    let mut inline = sample();
    inline.files.push(ImageFile::bytes("/opt/copied", 0o644, b"content".as_slice()));
    assert_eq!(write(&image), write(&inline));

    image.files.push(ImageFile::host("/opt/missing", 0o644, folder.path().join("missing")));
    let error = format!("{:#}", image.write_tar(&folder.path().join("x.tar")).unwrap_err());
    assert!(error.contains("/opt/missing") && error.contains("quartermaster.dev/sample:dev"), "{error}");
}

#[test]
fn bad_paths_and_doubles_are_refused() {
    for path in ["relative", "/", "/a/../b", "/a//b"] {
        let image = Image { files: vec![ImageFile::directory(path, 0o755)], ..sample() };
        assert!(image.write_tar(Path::new("unused.tar")).is_err(), "{path}");
    }
    let twice =
        Image { files: vec![ImageFile::directory("/a", 0o755), ImageFile::bytes("/a/", 0o644, b"")], ..sample() };
    assert!(format!("{:#}", twice.write_tar(Path::new("unused.tar")).unwrap_err()).contains("two entries"));
}
