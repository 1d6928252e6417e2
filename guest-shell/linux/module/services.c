// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The kernel services that the core needs for any class of device. No decisions are made here. */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/ratelimit.h>
#include <linux/slab.h>
#include "device.h"

u32 npa_os_config_read(struct npa_dev *dev, u16 offset)
{
	u32 value = ~0u;

	pci_read_config_dword(dev->pdev, offset, &value);
	return value;
}

/* Where a register is, or NULL when there is none. */
static void __iomem *reg(struct npa_dev *dev, u8 bar, u64 offset, u64 length)
{
	u64 size;

	if (bar >= PCI_STD_NUM_BARS || !dev->bars[bar])
		return NULL;
	size = pci_resource_len(dev->pdev, bar);
	if (offset > size || length > size - offset)
		return NULL;
	return dev->bars[bar] + offset;
}

u32 npa_os_mmio_read(struct npa_dev *dev, u8 bar, u64 offset, u8 width)
{
	void __iomem *address = reg(dev, bar, offset, width);

	if (!address)
		return ~0u >> (32 - 8 * width);
	switch (width) {
	case 1:
		return readb(address);
	case 2:
		return readw(address);
	default:
		return readl(address);
	}
}

void npa_os_mmio_write(struct npa_dev *dev, u8 bar, u64 offset, u8 width, u32 value)
{
	void __iomem *address = reg(dev, bar, offset, width);

	if (!address)
		return;
	switch (width) {
	case 1:
		writeb(value, address);
		break;
	case 2:
		writew(value, address);
		break;
	default:
		writel(value, address);
		break;
	}
}

void *npa_os_bar_memory(struct npa_dev *dev, u8 bar, u64 offset, u64 length)
{
	return (void __force *)reg(dev, bar, offset, length);
}

struct npa_dma_memory npa_os_dma_alloc(struct npa_dev *dev, size_t length)
{
	struct npa_dma_memory memory = { };
	dma_addr_t address;

	/* Whole pages, so that it is page-aligned; coherent memory comes zeroed. */
	memory.base = dma_alloc_coherent(&dev->pdev->dev, PAGE_ALIGN(length), &address, GFP_KERNEL);
	if (memory.base)
		memory.address = address;
	return memory;
}

void npa_os_dma_free(struct npa_dev *dev, void *base, u64 address, size_t length)
{
	dma_free_coherent(&dev->pdev->dev, PAGE_ALIGN(length), base, address);
}

void *npa_os_memory_alloc(size_t length)
{
	/* Sizes of a whole number of cache lines are aligned to one. */
	return kvzalloc(ALIGN(length, SMP_CACHE_BYTES), GFP_KERNEL);
}

void npa_os_memory_free(void *memory)
{
	kvfree(memory);
}

struct npa_landing_range npa_os_landing(struct npa_dev *dev)
{
	struct npa_landing_range range = { };

	if (dev->landing) {
		range.base = dev->landing->base;
		range.length = NPA_LANDING_BYTES;
		range.pages = dev->landing->pages;
	}
	return range;
}

void npa_os_schedule_event(struct npa_dev *dev)
{
	queue_work(npa_workqueue, &dev->event);
}

void npa_os_schedule_poll(struct npa_dev *dev)
{
	npa_schedule_poll(dev);
}

void npa_os_log(struct npa_dev *dev, u32 level, const u8 *text, size_t length)
{
	static DEFINE_RATELIMIT_STATE(often, 5 * HZ, 200);
	int shown = min_t(size_t, length, 256);

	if (!__ratelimit(&often))
		return;
	if (level)
		pci_info(dev->pdev, "%.*s\n", shown, text);
	else
		pci_err(dev->pdev, "%.*s\n", shown, text);
}

u64 npa_os_now_ns(void)
{
	return ktime_get_ns();
}

void npa_os_sleep_ms(u32 milliseconds)
{
	usleep_range(milliseconds * 1000, milliseconds * 1100 + 100);
}

void npa_os_path_lock(struct npa_dev *dev)
{
	spin_lock_bh(&dev->path);
}

void npa_os_path_unlock(struct npa_dev *dev)
{
	spin_unlock_bh(&dev->path);
}
