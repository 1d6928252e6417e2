// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The PCI side of a device: finding, mapping, giving up; suspend and shutdown. It knows nothing of
 * frames.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include "device.h"

bool npa_is_ours(struct pci_dev *pdev)
{
	u32 words[NPA_CAPABILITY_WORDS];
	unsigned int i;
	u8 pos;

	for (pos = pci_find_capability(pdev, PCI_CAP_ID_VNDR); pos;
	     pos = pci_find_next_capability(pdev, pos, PCI_CAP_ID_VNDR)) {
		for (i = 0; i < ARRAY_SIZE(words); i++)
			pci_read_config_dword(pdev, pos + 4 * i, &words[i]);
		if (npa_core_is_ours(words))
			return true;
	}
	return false;
}

static void event_work(struct work_struct *work)
{
	struct npa_dev *dev = container_of(work, struct npa_dev, event);
	bool again = false;

	mutex_lock(&dev->control);
	if (dev->core)
		again = npa_core_event(dev->core);
	mutex_unlock(&dev->control);
	if (again) {
		/* A delayed work would wait for whole jiffies, which are several milliseconds. */
		usleep_range(800, 1200);
		queue_work(npa_workqueue, &dev->event);
	}
}

/* Hands the device to the core. */
static int start_core(struct npa_dev *dev)
{
	mutex_lock(&dev->control);
	dev->core = npa_core_probe(dev, &dev->info);
	mutex_unlock(&dev->control);
	return dev->core ? 0 : -EIO;
}

/*
 * Takes the device back from the core: no VF, reset, no buffer left. The interface is down, so
 * only events may still want the core.
 */
static void stop_core(struct npa_dev *dev)
{
	struct npa_core *core;

	mutex_lock(&dev->control);
	core = dev->core;
	dev->core = NULL;
	if (core)
		npa_core_remove(core);
	mutex_unlock(&dev->control);
	cancel_work_sync(&dev->event);
}

/* Drops BAR mappings and what pci_enable_device() and friends did. */
static void unmap(struct npa_dev *dev)
{
	int bar;

	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++)
		if (dev->bars[bar])
			pci_iounmap(dev->pdev, dev->bars[bar]);
	pci_release_regions(dev->pdev);
	pci_disable_device(dev->pdev);
}

static int map(struct npa_dev *dev)
{
	struct pci_dev *pdev = dev->pdev;
	int bar, err;

	err = pci_enable_device(pdev);
	if (err)
		return err;
	err = pci_request_regions(pdev, KBUILD_MODNAME);
	if (err) {
		pci_disable_device(pdev);
		return err;
	}
	err = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	for (bar = 0; !err && bar < PCI_STD_NUM_BARS; bar++) {
		if (!(pci_resource_flags(pdev, bar) & IORESOURCE_MEM) ||
		    !pci_resource_len(pdev, bar))
			continue;
		dev->bars[bar] = pci_iomap(pdev, bar, 0);
		if (!dev->bars[bar])
			err = -ENOMEM;
	}
	if (err) {
		unmap(dev);
		return err;
	}
	pci_set_master(pdev);
	return 0;
}

static int npa_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct net_device *netdev;
	struct npa_dev *dev;
	int err;

	if (!npa_is_ours(pdev))
		return -ENODEV;

	netdev = alloc_etherdev(sizeof(*dev));
	if (!netdev)
		return -ENOMEM;
	SET_NETDEV_DEV(netdev, &pdev->dev);
	dev = netdev_priv(netdev);
	dev->netdev = netdev;
	dev->pdev = pdev;
	pci_set_drvdata(pdev, dev);
	mutex_init(&dev->control);
	INIT_WORK(&dev->event, event_work);
	INIT_WORK(&dev->announce, npa_announce_work);
	spin_lock_init(&dev->path);

	err = map(dev);
	if (err)
		goto free;
	npa_rx_setup(dev);
	err = npa_vectors_setup(dev);
	if (err)
		goto unmap;
	dev->landing = npa_landing_take();
	err = start_core(dev);
	if (err)
		goto vectors;
	err = npa_tx_setup(dev);
	if (err)
		goto core;
	err = npa_netdev_setup(dev);
	if (err)
		goto tx;
	npa_os_schedule_event(dev);
	return 0;

tx:
	npa_tx_teardown(dev);
core:
	stop_core(dev);
vectors:
	npa_vectors_teardown(dev);
	npa_landing_give(dev->landing);
unmap:
	cancel_work_sync(&dev->event);
	cancel_work_sync(&dev->announce);
	npa_rx_teardown(dev);
	unmap(dev);
free:
	free_netdev(netdev);
	return err;
}

static void npa_remove(struct pci_dev *pdev)
{
	struct npa_dev *dev = pci_get_drvdata(pdev);

	unregister_netdev(dev->netdev);
	stop_core(dev);
	npa_vectors_teardown(dev);
	cancel_work_sync(&dev->event);
	cancel_work_sync(&dev->announce);
	npa_tx_teardown(dev);
	npa_rx_teardown(dev);
	npa_landing_give(dev->landing);
	unmap(dev);
	free_netdev(dev->netdev);
}

/* Leaves the device quiet and reset, whatever ran on it: for suspend and for the next kernel. */
static void quieten(struct npa_dev *dev)
{
	rtnl_lock();
	netif_device_detach(dev->netdev);
	if (netif_running(dev->netdev))
		npa_down(dev);
	stop_core(dev);
	rtnl_unlock();
}

static void npa_shutdown(struct pci_dev *pdev)
{
	struct npa_dev *dev = pci_get_drvdata(pdev);

	quieten(dev);
	pci_clear_master(pdev);
}

static int __maybe_unused npa_suspend(struct device *device)
{
	quieten(dev_get_drvdata(device));
	return 0;
}

static int __maybe_unused npa_resume(struct device *device)
{
	struct npa_dev *dev = dev_get_drvdata(device);
	int err;

	rtnl_lock();
	err = start_core(dev);
	if (!err) {
		if (netif_running(dev->netdev))
			npa_up(dev);
		netif_device_attach(dev->netdev);
		npa_os_link_changed(dev, dev->info.flags & NPA_INFO_LINK_UP);
	}
	rtnl_unlock();
	return err;
}

static SIMPLE_DEV_PM_OPS(npa_pm_ops, npa_suspend, npa_resume);

static const struct pci_device_id npa_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1041) },	/* virtio-net, virtio 1.x */
	{ }
};
MODULE_DEVICE_TABLE(pci, npa_ids);

struct pci_driver npa_driver = {
	.name = KBUILD_MODNAME,
	.id_table = npa_ids,
	.probe = npa_probe,
	.remove = npa_remove,
	.shutdown = npa_shutdown,
	.driver.pm = &npa_pm_ops,
};
