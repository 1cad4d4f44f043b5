//! How the program reaches a database, and that no text shows a password.

use std::fs;

use crate::fixture::{Done, ESCAPED_SECRET, Fixture, SECRET, bare};

tests! {
    a_password_on_the_command_line_is_refused,
    flags_come_before_the_environment_and_that_before_the_profile,
    mistakes_of_settings_are_named,
    the_profiles_of_the_readme_are_valid,
    a_database_that_is_away_is_told_from_a_mistake,
    credentials_that_are_refused_have_a_code_of_their_own,
}

fn run(args: &[&str]) -> Done {
    Done::of(&mut bare(args))
}

async fn a_password_on_the_command_line_is_refused() {
    let uri = format!("mongodb://ada:{ESCAPED_SECRET}@localhost");
    let places = [
        "--password-file",
        "QUEUECTL_PASSWORD_FILE",
        "profile",
        "QUEUECTL_URI",
    ];
    run(&["--uri", &uri, "queues"]).fails(2, &places);
    run(&["queues", &format!("--uri={uri}")]).fails(2, &places);
    // Mistyped, so that clap quotes it.
    run(&["queues", &uri]).fails(2, &["unexpected argument", "ada:***@localhost"]);
    run(&["--ury", &uri, "queues"]).fails(2, &[]);
    run(&[&uri]).fails(2, &[]);
    run(&["peek", &uri]).fails(2, &[]);
    let unescaped = format!("mongodb://ada:{SECRET}@localhost");
    run(&["--uri", &unescaped, "queues"]).fails(2, &places);
    run(&["queues", &unescaped]).fails(2, &[]);
}

async fn flags_come_before_the_environment_and_that_before_the_profile() {
    let fixture = Fixture::new().await;
    fixture.store("mail", &["a"]).await;
    let folder = &fixture.folder;
    let config = folder.path().join("config.toml");
    let database = fixture.database.name();
    let text = format!(
        "default = \"here\"\n\
         [profiles.here]\nuri = \"{uri}\"\ndatabase = \"{database}\"\n\
         password_file = \"password\"\n\
         [profiles.elsewhere]\nuri = \"{with_password}\"\ndatabase = \"elsewhere\"\n\
         prefix = \"q.\"\n",
        uri = fixture.uri,
        with_password = fixture
            .uri
            .replace("ada@", &format!("ada:{ESCAPED_SECRET}@")),
    );
    fs::write(&config, text).expect("a file");
    let of_file = |args: &[&str]| {
        let mut command = bare(args);
        command.env("QUEUECTL_CONFIG", &config);
        command
    };
    let found = |done: Done| done.succeeds().out.contains("mail");
    let queues = ["queues", "--interval=0s"];
    assert!(found(Done::of(&mut of_file(&queues))));
    assert!(!found(Done::of(
        of_file(&queues).env("QUEUECTL_PROFILE", "elsewhere")
    )));
    let flag = ["queues", "--interval=0s", "--profile", "here"];
    assert!(found(Done::of(
        of_file(&flag).env("QUEUECTL_PROFILE", "elsewhere")
    )));
    // The password of a profile in the environment is not for the server of the flag.
    let uri = [
        "queues",
        "--uri",
        fixture.uri.as_str(),
        "--database",
        database,
    ];
    Done::of(of_file(&uri).env("QUEUECTL_PROFILE", "here")).fails(2, &["no password for user ada"]);
    let database = [
        "queues",
        "--interval=0s",
        "--database",
        database,
        "--prefix=queue.",
    ];
    let mut elsewhere = of_file(&database);
    elsewhere
        .env("QUEUECTL_PROFILE", "elsewhere")
        .env("QUEUECTL_DATABASE", "other");
    assert!(found(Done::of(&mut elsewhere)));

    let home = folder.path().join("queuectl");
    fs::create_dir(&home).expect("a folder");
    fs::rename(&config, home.join("config.toml")).expect("moved");
    fs::rename(folder.path().join("password"), home.join("password")).expect("moved");
    assert!(found(Done::of(
        bare(&queues).env("XDG_CONFIG_HOME", folder.path())
    )));
    let unknown =
        Done::of(bare(&["--profile", "her", "queues"]).env("XDG_CONFIG_HOME", folder.path()));
    unknown.fails(2, &["no profile \"her\"", "elsewhere, here"]);
}

async fn mistakes_of_settings_are_named() {
    run(&["queues"]).fails(2, &["there is no URI", "QUEUECTL_URI"]);
    run(&["--profile=x", "queues"]).fails(2, &["\"x\"", "no profile file"]);
    run(&["--config=/no/such.toml", "queues"]).fails(2, &["/no/such.toml", "No such file"]);
    run(&["--uri=http://x", "queues"]).fails(2, &["mongodb://"]);
    run(&["--uri=mongodb://x", "queues"]).fails(2, &["no database is named", "QUEUECTL_DATABASE"]);
    let local = ["--uri=mongodb://ada@localhost", "--database=d", "queues"];
    run(&local).fails(2, &["no password for user ada", "no terminal"]);

    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let with_file = |path: &str| run(&[&local[..], &["--password-file", path]].concat());
    with_file("/no/such").fails(2, &["cannot read the password file /no/such"]);
    with_file(&file("empty", b"\n")).fails(2, &["is empty"]);
    with_file(&file("bytes", b"\xff\n")).fails(2, &["not UTF-8"]);
    // A locked file would be readable for root.
    let unreadable = folder.path().to_str().expect("UTF-8");
    with_file(unreadable).fails(2, &["cannot read the password file", "directory"]);
    let good = file("good", SECRET.as_bytes());
    let no_user = [
        "--uri=mongodb://localhost",
        "--database=d",
        "queues",
        "--password-file",
        &good,
    ];
    run(&no_user).fails(2, &["names no user"]);

    let profile = |text: String| {
        let path = file("config.toml", text.as_bytes());
        run(&["--config", &path, "queues"])
    };
    profile(format!(
        "default = \"a\"\n[profiles.a]\nuri = \"mongodb://ada:{ESCAPED_SECRET}@h\n"
    ))
    .fails(2, &["config.toml, line 3"]);
    profile(format!(
        "default = \"a\"\n[profiles.a]\npassword = \"{SECRET}\"\n"
    ))
    .fails(2, &["line 3", "unknown field `password`"]);
    profile("default = \"a\"\n[profiles.a]\nuri = \"mongodb://h\"\ntimeout = \"9\"\n".to_owned())
        .fails(2, &["\"9\" is not a duration"]);
    profile(format!(
        "default = \"a\"\n[profiles.a]\nuri = \"mongodb://ada:{ESCAPED_SECRET}@h/d\"\npassword_file = \"good\"\n"
    ))
    .fails(2, &["two passwords"]);
}

async fn the_profiles_of_the_readme_are_valid() {
    let readme = include_str!("../../README.md");
    let (_, file) = readme.split_once("```toml\n").expect("an example");
    let (file, _) = file.split_once("```").expect("its end");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.toml");
    fs::write(&path, file).expect("a file");
    let path = path.to_str().expect("UTF-8");
    run(&["--config", path, "--profile=other", "queues"]).fails(2, &["there are production, test"]);
    let production = run(&["--config", path, "--profile=production", "queues"]);
    let password = folder.path().join("production.password");
    production.fails(
        2,
        &[
            "cannot read the password file",
            password.to_str().expect("UTF-8"),
        ],
    );
}

async fn a_database_that_is_away_is_told_from_a_mistake() {
    // A port that is free: nothing listens once it is dropped.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let uri = format!("mongodb://ada:{ESCAPED_SECRET}@127.0.0.1:{port}/shop");
    let mut command = bare(&["queues", "--timeout=500ms"]);
    Done::of(command.env("QUEUECTL_URI", uri)).fails(4, &["127.0.0.1"]);
}

async fn credentials_that_are_refused_have_a_code_of_their_own() {
    let fixture = Fixture::new().await;
    fs::write(fixture.folder.path().join("wrong"), "not the password").expect("a file");
    let done = fixture
        .run(&["queues", "--password-file=wrong"])
        .fails(5, &["refuses this user"]);
    assert!(!done.err.contains("not the password"), "{}", done.err);
}
