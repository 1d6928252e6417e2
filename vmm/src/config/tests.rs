use super::*;

fn parse(text: &str) -> Result<Settings, toml::de::Error> {
    toml::from_str(text)
}

const COMPLETE: &str = r#"
kernel = "vmlinuz"
initrd = "/boot/initrd"
cmdline = "quiet"
cpus = 2
memory = "1G"
disk = ["path=a.img,readonly", {path = "b.img"}]
net = [
    "id=net0,tap=tap0",
    {id = "net1", tap = "tap1", mac = "52:54:00:00:00:01", accel = "off"},
]
serial = "socket:console"
api-socket = "api"
plugins = "plugins"
pf-control = "/run/pf"
allow-unsigned-plugins = true
"#;

#[test]
fn a_file_sets_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.toml");
    std::fs::write(&path, COMPLETE).unwrap();
    let config = Settings::read(&path).unwrap().resolve().unwrap();
    assert_eq!(config.kernel, directory.path().join("vmlinuz"));
    assert_eq!(config.initrd, Some("/boot/initrd".into()));
    assert_eq!((config.cpus, config.memory.mib()), (2, 1024));
    assert!(config.disks[0].read_only && !config.disks[1].read_only);
    assert_eq!(config.disks[1].path, directory.path().join("b.img"));
    assert_eq!(config.nets[0].acceleration, Acceleration::Auto);
    assert_eq!(config.nets[1].acceleration, Acceleration::Off);
    assert_eq!(config.nets[1].mac, Some("52:54:00:00:00:01".parse().unwrap()));
    assert_eq!(config.serial, SerialTarget::Socket(directory.path().join("console")));
    assert_eq!(config.pf_control, Some("/run/pf".into()));
    assert!(config.allow_unsigned_plugins);
}

#[test]
fn the_command_line_wins() {
    let file = parse(COMPLETE).unwrap();
    let flags = Settings {
        cpus: Some(4),
        nets: vec!["id=x,tap=y".parse().unwrap()],
        allow_unsigned_plugins: Some(false),
        ..Settings::default()
    };
    let config = flags.over(file).resolve().unwrap();
    assert_eq!((config.cpus, config.memory.mib()), (4, 1024));
    assert_eq!(config.nets.len(), 1);
    assert_eq!(config.disks.len(), 2);
    assert!(!config.allow_unsigned_plugins);
}

#[test]
fn defaults() {
    let settings = Settings { kernel: Some("k".into()), ..Settings::default() };
    let config = settings.resolve().unwrap();
    assert_eq!((config.cpus, config.memory.mib()), (1, 512));
    assert_eq!(config.cmdline, "console=ttyS0");
    assert_eq!(config.serial, SerialTarget::Stdio);
    assert!(config.api_socket.is_none() && !config.allow_unsigned_plugins);
}

#[test]
fn sizes() {
    for (text, mib) in [("512M", 512), ("2G", 2048), ("64", 64), ("1g", 1024)] {
        assert_eq!(text.parse::<MemorySize>().unwrap().mib(), mib);
    }
    for text in ["", "M", "-1M", "1T", "1.5G", "+1", "99999999999999999999G", "9999999999G"] {
        let error = text.parse::<MemorySize>().unwrap_err().to_string();
        assert!(error.contains("512M"), "{error}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let net = |text: &str| text.parse::<NetConfig>().unwrap_err().to_string();
    assert!(net("tap=tap0").contains("lacks `id=`"));
    assert!(net("id=net0").contains("tap=tap0"));
    assert!(
        net("id=net0,tap=t,speed=9").contains("it knows id, tap, mac, accel, offloads and profile")
    );
    assert!(net("id=net0,tap=t,accel=on").contains("use auto, when-free or off"));
    assert!(net("id=net0,tap=t,offloads=0").contains("use on or off"));
    assert!(!"id=n,tap=t,offloads=off".parse::<NetConfig>().unwrap().offloads);
    let card: NetConfig = "id=n,tap=t,profile=fast".parse().unwrap();
    assert_eq!(card.profile.as_deref(), Some("fast"));
    let card: NetConfig = "id=n,tap=t,accel=when-free".parse().unwrap();
    assert_eq!(card.acceleration, Acceleration::WhenFree);
    assert!(net("id=net/0,tap=t").contains("letters"));
    assert!(net("id=net0,id=net1,tap=t").contains("twice"));
    assert!(net("id=net0,tap=t,mac=52").contains("52:54:00:12:34:56"));
    let disk = |text: &str| text.parse::<DiskConfig>().unwrap_err().to_string();
    assert!(disk("readonly").contains("path=disk.img"));
    assert!(disk("path=a,readonly=maybe").contains("readonly=off"));
    let resolve = |text: &str| parse(text).unwrap().resolve().unwrap_err().to_string();
    assert!(resolve("").contains("--kernel"));
    assert!(resolve("kernel = 'k'\ncpus = 0").contains("1 to 254"));
    assert!(resolve("kernel = 'k'\nnet = ['id=a,tap=t', 'id=a,tap=u']").contains("called `a`"));
    assert!(resolve("kernel = 'k'\nnet = ['id=a,tap=t', 'id=b,tap=t']").contains("tap `t`"));
    let mac = "mac=52:54:00:00:00:01";
    let same = format!("kernel = 'k'\nnet = ['id=a,tap=t,{mac}', 'id=b,tap=u,{mac}']");
    assert!(resolve(&same).contains("52:54:00:00:00:01"));
}

#[test]
fn files_are_checked() {
    for (text, word) in [
        ("kernal = 'k'", "kernal"),
        ("memory = 'lots'", "512M"),
        ("serial = 'tcp:1'", "socket:PATH"),
        ("net = ['id=net0']", "lacks `tap=`"),
        ("disk = [{file = 'x'}]", "expected a disk"),
        ("cpus = 'two'", "cpus"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
    let error = Settings::read(std::path::Path::new("/no/such.toml")).unwrap_err();
    assert!(error.to_string().contains("/no/such.toml"));
}

#[test]
fn the_environment_is_heard_last() {
    let nets = "id=a,tap=a id=b,tap=b,profile=own id=c,tap=c,accel=off".split(' ');
    let nets: Vec<NetConfig> = nets.map(|net| net.parse().unwrap()).collect();
    let environment = |name: &str| match name {
        "NPA_PF_CONTROL" => Some("/env".to_owned()),
        "NPA_PROFILE" => Some("fast".to_owned()),
        _ => None,
    };
    let settings = Settings { nets, ..Settings::default() }.or_environment(environment);
    assert_eq!(settings.pf_control.as_deref(), Some(std::path::Path::new("/env")));
    let profiles: Vec<_> = settings.nets.iter().map(|net| net.profile.as_deref()).collect();
    assert_eq!(profiles, [Some("fast"), Some("own"), None]);
    let told = Settings { pf_control: Some("/told".into()), ..Settings::default() };
    let told = told.or_environment(environment);
    assert_eq!(told.pf_control.as_deref(), Some(std::path::Path::new("/told")));
}

#[test]
fn the_example_that_is_packaged_is_understood() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/etc/example.toml");
    let example = Settings::read(std::path::Path::new(path)).unwrap().resolve().unwrap();
    assert_eq!((example.nets.len(), example.cpus), (1, 2));
}
