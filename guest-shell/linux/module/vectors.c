// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* MSI-X: vector 0 wakes the control side, every other one the data path. */
#include <linux/interrupt.h>
#include <linux/slab.h>
#include "device.h"

static irqreturn_t event_interrupt(int irq, void *data)
{
	npa_os_schedule_event(data);
	return IRQ_HANDLED;
}

static irqreturn_t data_interrupt(int irq, void *data)
{
	struct npa_dev *dev = data;

	napi_schedule_irqoff(&dev->napi);
	return IRQ_HANDLED;
}

static int wire(struct npa_dev *dev, u32 index, irq_handler_t handler, const char *kind)
{
	struct npa_vector *vector = &dev->vectors[index];
	int err;

	snprintf(vector->name, sizeof(vector->name), "npa-%s-%u@%s", kind, index,
		 pci_name(dev->pdev));
	err = request_irq(pci_irq_vector(dev->pdev, index), handler, 0, vector->name, dev);
	if (!err)
		vector->wired = true;
	return err;
}

static void unwire(struct npa_dev *dev, u32 index)
{
	if (!dev->vectors[index].wired)
		return;
	free_irq(pci_irq_vector(dev->pdev, index), dev);
	dev->vectors[index].wired = false;
}

int npa_os_wire_vectors(struct npa_dev *dev, u32 first, u32 count)
{
	u32 index;
	int err;

	if (!first || first > dev->vector_count || count > dev->vector_count - first)
		return -ENOSPC;
	for (index = first; index < first + count; index++) {
		if (dev->vectors[index].wired)
			err = -EBUSY;
		else
			err = wire(dev, index, data_interrupt, "data");
		if (!err)
			continue;
		while (index-- > first)
			unwire(dev, index);
		return err;
	}
	return 0;
}

void npa_os_unwire_vectors(struct npa_dev *dev, u32 first, u32 count)
{
	u32 index;

	for (index = first; index < dev->vector_count && index - first < count; index++)
		unwire(dev, index);
}

int npa_vectors_setup(struct npa_dev *dev)
{
	int count = pci_msix_vec_count(dev->pdev);

	if (count < 0) {
		pci_err(dev->pdev, "device has no MSI-X\n");
		return count;
	}
	count = pci_alloc_irq_vectors(dev->pdev, 1, count, PCI_IRQ_MSIX);
	if (count < 0)
		return count;
	dev->vectors = kcalloc(count, sizeof(*dev->vectors), GFP_KERNEL);
	if (!dev->vectors) {
		pci_free_irq_vectors(dev->pdev);
		return -ENOMEM;
	}
	dev->vector_count = count;
	if (!wire(dev, 0, event_interrupt, "event"))
		return 0;
	npa_vectors_teardown(dev);
	return -EBUSY;
}

void npa_vectors_teardown(struct npa_dev *dev)
{
	u32 index;

	for (index = 0; index < dev->vector_count; index++)
		unwire(dev, index);
	pci_free_irq_vectors(dev->pdev);
	kfree(dev->vectors);
	dev->vectors = NULL;
	dev->vector_count = 0;
}
