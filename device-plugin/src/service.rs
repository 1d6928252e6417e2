//! The interface that the kubelet calls.

use std::path::PathBuf;
use std::pin::Pin;

use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::Inventory;
use crate::resource::Resource;
use crate::v1beta1::device_plugin_server::DevicePlugin;
use crate::v1beta1::{
    AllocateRequest, AllocateResponse, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse,
};

/// One resource's device plugin.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// What it counts.
    pub resource: Resource,
    /// The host's VFs.
    pub inventory: watch::Receiver<Inventory>,
    /// pf-control's socket, on the host and in containers.
    pub socket: PathBuf,
}

#[tonic::async_trait]
impl DevicePlugin for Plugin {
    type ListAndWatchStream =
        Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    /// All VFs of the resource now, and again whenever something about one has changed.
    async fn list_and_watch(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let resource = self.resource.clone();
        let mut last = None;
        let lists = WatchStream::new(self.inventory.clone()).filter_map(move |inventory| {
            let Inventory { vfs, adapters, there } = inventory;
            let devices = resource.devices(&vfs, &adapters, there);
            // The kubelet is not bothered with who holds what.
            let news = last.as_ref() != Some(&devices);
            last = Some(devices.clone());
            std::future::ready(news.then_some(Ok(ListAndWatchResponse { devices })))
        });
        Ok(Response::new(Box::pin(lists)))
    }

    /// Any VF is as good as any other: pf-control chooses.
    async fn get_preferred_allocation(
        &self,
        _: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("no allocation is preferred"))
    }

    /// The daemon's socket for each container; refuses what is not there.
    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let Inventory { vfs, adapters, there } = self.inventory.borrow().clone();
        let devices = self.resource.devices(&vfs, &adapters, there);
        let requests = request.into_inner().container_requests;
        for id in requests.iter().flat_map(|request| &request.devices_i_ds) {
            if !devices.iter().any(|device| device.id == *id) {
                let name = &self.resource.name;
                return Err(Status::not_found(format!("there is no {name} with the id {id}")));
            }
        }
        let container = self.resource.container(&self.socket);
        let container_responses = requests.iter().map(|_| container.clone()).collect();
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse::default()))
    }
}
