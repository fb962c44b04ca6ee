//! What lies in files: made, found again, refused with a cure.

use super::super::files::{Secrecy, folder_of, write};
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_found_again_as_it_was_made_and_only_its_owner_can_read_it() {
    let (folder, hands) = (Folder::new("authority"), Hands::new());
    let made = Authority::create(folder.path(), hands.clock()).unwrap();
    let path = Authority::path(folder.path());
    assert_eq!(
        (mode(&path), mode(&folder.path().join("ca.pem"))),
        (0o600, 0o644)
    );
    let found = Authority::open(folder.path(), hands.clock()).unwrap();
    assert_eq!(found.root().fingerprint(), made.root().fingerprint());
    let again = Authority::create(folder.path(), hands.clock()).unwrap_err();
    assert!(again.to_string().contains("is not overwritten"), "{again}");
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 2, "nothing else stays: {names:?}");
}

#[test]
fn an_authority_that_is_not_there_or_not_secret_or_damaged_is_refused_with_what_to_do() {
    let (folder, hands) = (Folder::new("refused"), Hands::new());
    let open = || {
        Authority::open(folder.path(), hands.clock())
            .unwrap_err()
            .to_string()
    };
    assert!(open().contains("sarsen cluster init"), "{}", open());
    Authority::create(folder.path(), hands.clock()).unwrap();
    let path = Authority::path(folder.path());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(
        open().contains("mode 0640") && open().contains("chmod 600"),
        "{}",
        open()
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    for (damaged, what) in [
        (String::new(), "it holds no key"),
        (whole[..whole.len() / 2].to_owned(), "certificate"),
        (whole.replacen("MI", "MJ", 1), "key"),
        (whole.repeat(2), "2 certificates"),
        ("x".repeat(70_000), "70000 bytes"),
    ] {
        fs::write(&path, &damaged).unwrap();
        let error = open();
        assert!(
            error.contains(what) && error.contains("restore it from a backup"),
            "{error}"
        );
    }
    let other = Authority::new(crate::base::ClusterId([1; 16]), hands.clock());
    let key = whole
        .split_inclusive("-----END PRIVATE KEY-----\n")
        .next()
        .unwrap();
    fs::write(&path, format!("{key}{}", other.root().certificate_pem())).unwrap();
    assert!(open().contains("do not belong together"), "{}", open());
}

#[test]
fn a_member_takes_over_the_authority_of_its_cluster_and_no_other() {
    let (site, folder) = (Site::new(), Folder::new("import"));
    let (root, clock) = (site.authority.root(), site.hands.clock());
    let import = |bytes: &[u8]| Authority::import(folder.path(), root, bytes, clock.clone());
    let foreign = import(&Site::new().authority.export_for_member()).unwrap_err();
    assert!(
        foreign
            .to_string()
            .contains("it is the authority of cluster"),
        "{foreign}"
    );
    assert!(import(b"nonsense").is_err());
    assert!(
        !Authority::is_in(folder.path()),
        "nothing is kept of what is refused"
    );
    let bytes = site.authority.export_for_member();
    import(&bytes).unwrap();
    let again = import(&bytes).unwrap();
    assert_eq!(again.root().fingerprint(), root.fingerprint());
    // What it issues counts.
    let request = CertificateRequest::new(&[]).unwrap();
    let identity = Identity::Node(NodeId(4));
    let issued = again.issue(request.der(), &identity, NODE_LIFE).unwrap();
    Credential::of(root.clone(), request, issued, &clock).unwrap();
}

#[test]
fn a_renewal_is_durable_before_it_is_shown_and_nothing_else_is_taken_over() {
    let (site, folder) = (Site::new(), Folder::new("renewal"));
    let clock = site.hands.clock();
    let identity = Identity::Node(NodeId(7));
    site.credential(&identity).save(folder.path()).unwrap();
    assert_eq!(mode(&Credential::path(folder.path())), 0o600);
    let keeper = Keeper::open(folder.path(), &["node7".into()], clock.clone()).unwrap();
    assert_eq!(
        (keeper.node(), keeper.renewal_in()),
        (Some(NodeId(7)), {
            // The certificate begins five minutes ago, so its two thirds end that much before twenty days.
            let life = NODE_LIFE.as_secs() + SKEW.as_secs();
            Duration::from_secs(life / 3 * 2 - SKEW.as_secs())
        })
    );
    site.hands.move_on(21 * DAY);
    assert_eq!(keeper.renewal_in(), Duration::ZERO);
    let issue = |request: &CertificateRequest, identity: &Identity| {
        site.authority
            .issue(request.der(), identity, NODE_LIFE)
            .unwrap()
            .to_vec()
    };
    let (request, other) = (keeper.request().unwrap(), keeper.request().unwrap());
    let for_other_key = issue(&other, &identity);
    let refused = keeper.install(request, for_other_key).unwrap_err();
    assert!(
        refused.to_string().contains("do not belong together"),
        "{refused}"
    );
    let request = keeper.request().unwrap();
    let for_other_node = issue(&request, &Identity::Node(NodeId(8)));
    let refused = keeper.install(request, for_other_node).unwrap_err();
    assert!(
        refused.to_string().contains("it is for node 8"),
        "{refused}"
    );
    let request = keeper.request().unwrap();
    let foreign = Site::of(&site.hands)
        .authority
        .issue(request.der(), &identity, NODE_LIFE);
    assert!(keeper.install(request, foreign.unwrap().to_vec()).is_err());
    let request = keeper.request().unwrap();
    let short = site
        .authority
        .issue(request.der(), &identity, DAY)
        .unwrap()
        .to_vec();
    let refused = keeper.install(request, short).unwrap_err();
    assert!(matches!(refused, RenewError::NotNewer { .. }), "{refused}");
    let request = keeper.request().unwrap();
    let answer = issue(&request, &identity);
    keeper.install(request, answer).unwrap();
    assert_eq!(keeper.current().ends(), site.hands.now().plus(NODE_LIFE));
    let found = Credential::open(folder.path()).unwrap();
    assert_eq!(found.ends(), keeper.current().ends());
}

#[test]
fn a_renewal_that_cannot_be_kept_is_not_shown() {
    let (site, folder) = (Site::new(), Folder::new("unkept"));
    let clock = site.hands.clock();
    let identity = Identity::Node(NodeId(7));
    // A file where the folder should be: no user, root neither, can write below it.
    let place = folder.path().join("trust");
    fs::write(&place, "").unwrap();
    let credential = site.credential(&identity);
    let keeper = Keeper::new(credential, Some(&place), &[], clock);
    let before = keeper.current().ends();
    site.hands.move_on(21 * DAY);
    let request = keeper.request().unwrap();
    let answer = site
        .authority
        .issue(request.der(), &identity, NODE_LIFE)
        .unwrap();
    let refused = keeper.install(request, answer.to_vec()).unwrap_err();
    assert!(matches!(refused, RenewError::File(_)), "{refused}");
    assert_eq!(keeper.current().ends(), before);
}

#[test]
fn who_asks_again_after_an_interruption_asks_with_the_same_key() {
    let folder = Folder::new("request");
    let path = folder.path().join("joining.pem");
    let first = CertificateRequest::kept_at(&path, &[])
        .unwrap()
        .key_fingerprint();
    let second = CertificateRequest::kept_at(&path, &["a.b".into()]).unwrap();
    assert_eq!((first, mode(&path)), (second.key_fingerprint(), 0o600));
}

#[test]
fn a_file_is_written_into_folders_that_are_not_there_yet_and_a_bare_name_has_a_folder() {
    let folder = Folder::new("nested");
    let path = folder.path().join("a/b/c/ca.pem");
    write(&path, b"first", Secrecy::Public).unwrap();
    write(&path, b"second", Secrecy::Public).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(mode(&folder.path().join("a")), 0o700);
    let in_the_way = path.join("key.pem");
    let refused = write(&in_the_way, b"x", Secrecy::Secret).unwrap_err();
    assert!(refused.to_string().contains("ca.pem"), "{refused}");
    assert_eq!(folder_of(Path::new("ca.pem")), Path::new("."));
    assert_eq!(folder_of(Path::new("x/ca.pem")), Path::new("x"));
}

#[test]
fn a_clients_three_files_are_read_back_and_those_of_two_clients_do_not_mix() {
    let site = Site::new();
    let user = |name: &str| Identity::User {
        name: UserName::new(name).unwrap(),
        role: Role::Reader,
    };
    let (one, two) = (site.credential(&user("one")), site.credential(&user("two")));
    let files = one.client_files();
    let read = Credential::of_client_files(&files).unwrap();
    assert_eq!(read.identity(), one.identity());
    assert!(!format!("{files:?}").contains("PRIVATE"));
    let mixed = ClientFiles {
        key: two.client_files().key,
        ..files.clone()
    };
    let why = Credential::of_client_files(&mixed).unwrap_err();
    assert!(why.contains("do not belong together"), "{why}");
    let foreign = ClientFiles {
        authority: Site::new()
            .credential(&user("one"))
            .client_files()
            .authority,
        ..files
    };
    assert!(Credential::of_client_files(&foreign).is_err());
}
