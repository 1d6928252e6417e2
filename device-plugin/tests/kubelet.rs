//! The plugin beside a kubelet and a pf-control that are ours: it registers, tells of VFs and of what
//! changes, allocates, and comes back when either of them has started anew.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use npa_device_plugin::resource::Resource;
use npa_device_plugin::service::Plugin;
use npa_device_plugin::v1beta1::device_plugin_client::DevicePluginClient;
use npa_device_plugin::v1beta1::registration_server::{Registration, RegistrationServer};
use npa_device_plugin::v1beta1::{
    AllocateRequest, ContainerAllocateRequest, Device, Empty, ListAndWatchResponse, RegisterRequest,
};
use npa_device_plugin::{follow, serve};
use pf_control::client::Client;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

const LIMIT: Duration = Duration::from_secs(30);

/// A kubelet's socket.
struct Kubelet {
    registered: mpsc::UnboundedReceiver<RegisterRequest>,
    server: JoinHandle<()>,
}

struct Registrar(mpsc::UnboundedSender<RegisterRequest>);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("over"))?;
        Ok(Response::new(Empty::default()))
    }
}

impl Kubelet {
    /// Starts, as the real one does: with its folder emptied.
    fn start(folder: &Path) -> Self {
        for entry in std::fs::read_dir(folder).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let listener = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
        let (sender, registered) = mpsc::unbounded_channel();
        let server = Server::builder()
            .add_service(RegistrationServer::new(Registrar(sender)))
            .serve_with_incoming(UnixListenerStream::new(listener));
        Self { registered, server: tokio::spawn(async { server.await.unwrap() }) }
    }

    async fn next(&mut self) -> RegisterRequest {
        timeout(LIMIT, self.registered.recv()).await.expect("nobody registers").unwrap()
    }
}

/// What of pf-control the plugin reads.
#[derive(Clone)]
struct Daemon {
    vfs: Arc<Mutex<Vec<Value>>>,
    news: broadcast::Sender<Value>,
}

impl Daemon {
    fn new() -> Self {
        let vfs = Arc::new(Mutex::new(vec![vf(0, &["fast"]), vf(1, &["fast"]), vf(2, &[])]));
        Self { vfs, news: broadcast::Sender::new(16) }
    }

    fn start(&self, socket: &Path) -> JoinHandle<()> {
        // A former one's.
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let list = |State(daemon): State<Self>| async move {
            axum::Json(daemon.vfs.lock().unwrap().clone())
        };
        let events = |State(daemon): State<Self>| async move {
            let lines = BroadcastStream::new(daemon.news.subscribe())
                .map(|entry| entry.map(|entry| format!("{entry}\n")));
            axum::body::Body::from_stream(lines).into_response()
        };
        let routes = Router::new()
            .route("/v1/vfs", get(list))
            .route("/v1/adapters", get(|| async { axum::Json(json!([adapter()])) }))
            .route("/v1/events", get(events))
            .with_state(self.clone());
        tokio::spawn(async { axum::serve(listener, routes).await.unwrap() })
    }

    /// Changes a VF, and tells as soon as somebody listens.
    async fn change(&self, index: usize, field: &str, value: Value) {
        let entry = {
            let mut vfs = self.vfs.lock().unwrap();
            vfs[index][field] = value;
            vfs[index].clone()
        };
        let told = async {
            while self.news.send(entry.clone()).is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, told).await.expect("nobody follows");
    }
}

fn vf(index: u32, profiles: &[&str]) -> Value {
    json!({
        "vf": format!("0000:01:10.{}", 2 * index), "pf": "eth0", "index": index, "class": "net",
        "plugin": "igbvf", "iommu_group": 20 + index, "state": "free", "mac": "02:4e:00:00:00:01",
        "owner_pid": null, "vm": null, "device": null, "fault": null, "maintenance": false,
        "link_up": true, "profiles": profiles,
    })
}

fn adapter() -> Value {
    json!({
        "address": "0000:01:00.0", "interface": "eth0", "module": "igb", "driver": "igb",
        "pci_ids": { "vendor": 0x8086, "device": 0x10c9, "subsystem_vendor": 0, "subsystem": 0 },
        "numa_node": 1, "switch": null, "mac": null, "mtu": 1500, "link_up": true,
        "speed_mbit": 1000, "class": "net", "plugin": "igbvf", "vfs": 3, "free": 3,
        "health": "enabled", "fault": null,
    })
}

/// The kubelet's end of a plugin's socket.
async fn call(path: PathBuf) -> DevicePluginClient<Channel> {
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let channel = Endpoint::from_static("http://plugin").connect_with_connector(connect).await;
    DevicePluginClient::new(channel.unwrap())
}

async fn watch(plugin: &mut DevicePluginClient<Channel>) -> Streaming<ListAndWatchResponse> {
    plugin.list_and_watch(Empty::default()).await.unwrap().into_inner()
}

/// Waits for a list for which `condition` holds.
async fn until(
    lists: &mut Streaming<ListAndWatchResponse>,
    condition: impl Fn(&[Device]) -> bool,
) -> Vec<Device> {
    loop {
        let list = timeout(LIMIT, lists.message()).await.expect("nothing more is told");
        let devices = list.unwrap().expect("the list has ended").devices;
        if condition(&devices) {
            return devices;
        }
    }
}

fn healthy(devices: &[Device]) -> Vec<&str> {
    let healthy = devices.iter().filter(|device| device.health == "Healthy");
    healthy.map(|device| device.id.as_str()).collect()
}

#[tokio::test]
async fn a_kubelet_is_told_of_vfs_allocates_them_and_may_start_anew() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("device-plugins");
    std::fs::create_dir(&plugins).unwrap();
    let socket = folder.path().join("pf-control.sock");
    let daemon = Daemon::new();
    let first_daemon = daemon.start(&socket);
    let resource: Resource = "npa-kvm.io/fast=fast".parse().unwrap();
    let inventory = follow(Client::new(&socket)).unwrap();
    let plugin = Plugin { resource, inventory, socket: socket.clone() };
    let served = plugins.clone();
    // Before there is a kubelet at all.
    tokio::spawn(async move { serve(&served, plugin).await });
    let mut kubelet = Kubelet::start(&plugins);

    let request = kubelet.next().await;
    assert_eq!(request.version, "v1beta1");
    assert_eq!(request.resource_name, "npa-kvm.io/fast");
    let mut client = call(plugins.join(&request.endpoint)).await;
    let options = client.get_device_plugin_options(Empty::default()).await.unwrap().into_inner();
    assert!(!options.pre_start_required && !options.get_preferred_allocation_available);
    let mut lists = watch(&mut client).await;
    let devices = until(&mut lists, |devices| healthy(devices).len() == 2).await;
    assert_eq!(healthy(&devices), ["0000:01:10.0", "0000:01:10.2"], "the third does not fit");
    assert_eq!(devices[0].topology.as_ref().unwrap().nodes[0].id, 1);

    // An operator drains, the link goes, and comes.
    daemon.change(1, "maintenance", json!(true)).await;
    until(&mut lists, |devices| healthy(devices) == ["0000:01:10.0"]).await;
    daemon.change(0, "link_up", json!(false)).await;
    until(&mut lists, |devices| healthy(devices).is_empty()).await;
    daemon.change(0, "link_up", json!(true)).await;
    until(&mut lists, |devices| healthy(devices) == ["0000:01:10.0"]).await;

    // Allocation: the daemon's socket and the profile for each container.
    let ask = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_i_ds: ids }] }
    };
    let answer = client.allocate(ask(&["0000:01:10.0"])).await.unwrap().into_inner();
    let [container] = answer.container_responses.as_slice() else { panic!("one container") };
    assert_eq!(container.envs["NPA_PF_CONTROL"], socket.display().to_string());
    assert_eq!(container.envs["NPA_PROFILE"], "fast");
    assert_eq!(container.mounts[0].host_path, socket.display().to_string());
    let refused = client.allocate(ask(&["0000:01:10.4"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    let preferred =
        client.get_preferred_allocation(
            npa_device_plugin::v1beta1::PreferredAllocationRequest::default(),
        );
    assert_eq!(preferred.await.unwrap_err().code(), Code::Unimplemented);

    // The daemon dies: nothing can be given until it is back.
    first_daemon.abort();
    let _ = first_daemon.await;
    drop(std::mem::replace(&mut daemon.clone().news, broadcast::Sender::new(1)));
    let second = Daemon { news: broadcast::Sender::new(16), ..daemon.clone() };
    std::fs::remove_file(&socket).unwrap();
    drop(daemon);
    until(&mut lists, |devices| devices.len() == 2 && healthy(devices).is_empty()).await;
    second.start(&socket);
    until(&mut lists, |devices| healthy(devices) == ["0000:01:10.0"]).await;

    // The kubelet starts anew, and has forgotten everything.
    kubelet.server.abort();
    let _ = kubelet.server.await;
    let mut kubelet = Kubelet::start(&plugins);
    let request = kubelet.next().await;
    let mut client = call(plugins.join(&request.endpoint)).await;
    let mut lists = watch(&mut client).await;
    until(&mut lists, |devices| healthy(devices) == ["0000:01:10.0"]).await;
}
