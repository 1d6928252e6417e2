// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Loading and unloading: takes the devices that carry our capability from the stock driver, and
 * gives them back at the end.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include "device.h"

struct workqueue_struct *npa_workqueue;

/* A device that goes back to the stock driver. */
struct npa_returning {
	struct list_head list;
	struct pci_dev *pdev;
};

/* The stock driver of a virtio device; any other driver was chosen by the owner and stays. */
static bool may_take(struct pci_dev *pdev)
{
	return !pdev->dev.driver || !strcmp(pdev->dev.driver->name, "virtio-pci");
}

static void take_devices(void)
{
	struct pci_dev *pdev = NULL;

	while ((pdev = pci_get_device(PCI_VENDOR_ID_REDHAT_QUMRANET, PCI_ANY_ID, pdev))) {
		if (pdev->dev.driver == &npa_driver.driver || !npa_is_ours(pdev))
			continue;
		if (!may_take(pdev)) {
			pci_info(pdev, "left to driver %s\n", pdev->dev.driver->name);
			continue;
		}
		device_release_driver(&pdev->dev);
		if (device_driver_attach(&npa_driver.driver, &pdev->dev) &&
		    device_attach(&pdev->dev) < 0)
			pci_err(pdev, "neither driven nor given back\n");
	}
}

static int __init npa_init(void)
{
	int err;

	npa_workqueue = alloc_workqueue("npa_shell", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!npa_workqueue)
		return -ENOMEM;
	err = pci_register_driver(&npa_driver);
	if (err) {
		destroy_workqueue(npa_workqueue);
		return err;
	}
	take_devices();
	return 0;
}

static void __exit npa_exit(void)
{
	struct npa_returning *entry, *next;
	struct pci_dev *pdev = NULL;
	LIST_HEAD(returning);

	while ((pdev = pci_get_device(PCI_VENDOR_ID_REDHAT_QUMRANET, PCI_ANY_ID, pdev))) {
		if (pdev->dev.driver != &npa_driver.driver)
			continue;
		entry = kmalloc(sizeof(*entry), GFP_KERNEL | __GFP_NOFAIL);
		entry->pdev = pci_dev_get(pdev);
		list_add_tail(&entry->list, &returning);
	}
	pci_unregister_driver(&npa_driver);
	list_for_each_entry_safe(entry, next, &returning, list) {
		if (device_attach(&entry->pdev->dev) < 0)
			pci_err(entry->pdev, "the stock driver did not take the device back\n");
		pci_dev_put(entry->pdev);
		kfree(entry);
	}
	destroy_workqueue(npa_workqueue);
}

module_init(npa_init);
module_exit(npa_exit);

MODULE_DESCRIPTION("Network driver shell with a data path that can be replaced while it runs");
MODULE_LICENSE("Dual MIT/GPL");
